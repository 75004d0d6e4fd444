"""``jhub-safety homes``: homes that are folders of one shared claim."""

from __future__ import annotations

import click

from jhub_safety.cli.connection import (
    Connection,
    command_line_journal,
    console,
    notes,
    shown,
    with_connection,
)
from jhub_safety.cluster.notes import folder_note
from jhub_safety.errors import SafetyError
from jhub_safety.hubdb.records import FOLDER, HubRecords, Record, same_home
from jhub_safety.owner import Owner
from jhub_safety.plan import Action, Plan
from jhub_safety.volumes.folders import valid_folder
from jhub_safety.volumes.names import Generation


@click.group()
def homes() -> None:
    """Homes that are folders of one claim (home_sub_path)."""


@homes.command()
@click.argument("folder")
@click.option("--user", required=True, help="Whose home it is to be.")
@click.option("--server", default="", help="For which of their named servers.")
@click.option("--new", is_flag=True, help="It may be made when it does not exist.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_connection
async def choose(
    connection: Connection, folder: str, user: str, server: str, new: bool, yes: bool
) -> None:
    """Make FOLDER the home of a user, from their next start on. No folder is made or deleted."""
    template = connection.hub.settings.home_sub_path
    if not template:
        raise SafetyError(
            "SafeKubeSpawner.home_sub_path is not set: homes are no folders here, and nothing was "
            "recorded. For claims run: jhub-safety claims adopt CLAIM --user=USER"
        )
    if not valid_folder(folder):
        raise SafetyError(f"{folder!r} is no path below the root of a claim; nothing was recorded")
    per_server = Generation("today", template, "safe").per_server
    owner = Owner(connection.hub.hub_name, user, server if per_server else "")
    namespace = connection.claims.namespace
    note = folder_note(connection.cluster.api, namespace, owner, timeout=30)
    reason = f"{owner} starts with folder {folder!r}{', new if it is not there' if new else ''}"
    action = Action("choose-folder", namespace, note.name, reason, user=user, server=owner.server)
    plan = Plan(f"choose a folder for {owner}", (action,))
    notes.print(shown(connection.header()))
    for one in plan.actions:
        notes.print(shown(f"  {one.kind} {one.name}: {one.reason}"))
    for other in _whose_record_names(connection.records(), folder, owner):
        notes.print(
            f"  [yellow]But[/] the hub's record of {shown(other)} names this folder as theirs: "
            f"{shown(owner)} is refused while it does. If it is theirs no more, delete that user "
            "or named server in the hub first; no folder goes with it"
        )
    if not yes:
        click.confirm("Go on?", abort=True, err=True)
    for one in plan.actions:
        await note.write(
            {"folder": folder, "new": "yes" if new else "no", "user": user, "server": owner.server}
        )
        command_line_journal().write(one, "done")
    console.print(f"Recorded. It counts from the next start of {shown(owner)} on.")


def _whose_record_names(records: HubRecords | None, folder: str, owner: Owner) -> list[Record]:
    """Servers of others that have the folder on record; none where the database is not read."""
    per_server = bool(owner.server)
    return [
        record
        for record, state in (records.states.items() if records is not None else ())
        if state.get(FOLDER) == folder
        and not same_home(record, owner.user, owner.server, per_server=per_server)
    ]
