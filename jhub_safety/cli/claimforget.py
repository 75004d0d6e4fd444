"""``jhub-safety claims forget``: an operator's word that a missing claim is gone for good."""

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
from jhub_safety.cli.volumeasking import owner_of_volume, volume_on_record
from jhub_safety.cluster import forgotten
from jhub_safety.errors import SafetyError
from jhub_safety.hubdb.records import HubRecords
from jhub_safety.owner import Owner
from jhub_safety.plan import Action


@click.command()
@click.argument("claim")
@click.option("--user", required=True, help="Whose record names it.")
@click.option("--server", default="", help="For which of their named servers.")
@click.option("--identity", help="The login provider's stable id of USER.")
@click.option("--volume", help="The name of its entry in extra_pvcs, for an extra volume.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_connection
async def forget(
    connection: Connection,
    claim: str,
    user: str,
    server: str,
    identity: str | None,
    volume: str | None,
    yes: bool,
) -> None:
    """Give up a CLAIM that no longer exists; its user gets a new one at the next start."""
    records = connection.records()
    if volume is None:
        volume = volume_on_record(records, user, claim)
    owner = (
        owner_of_volume(connection, Owner(connection.hub.hub_name, user, server, identity), volume)
        if volume
        else connection.hub.owner(user, server, identity)
    )
    if await connection.claims.read(claim) is not None:
        other = "claims list" if volume else f"claims adopt OTHER {owner.options}"
        raise SafetyError(
            f"claim {claim} exists; nothing was changed. "
            + ("See what is there" if volume else f"To give {user} another one")
            + f" run: jhub-safety {other}"
        )
    shared = not connection.hub.per_server
    _check_record(records, owner, server, claim, volume, shared=shared)
    what = f"volume {volume}" if volume else "home"
    action = Action(
        "forget-claim",
        connection.claims.namespace,
        claim,
        f"gone for good; {owner} starts with a new {what}",
        user=owner.user,
        server=owner.server,
    )
    notes.print(shown(connection.header()))
    notes.print(shown(f"  {action.kind} {action.name}: {action.reason}"))
    if not yes:
        click.confirm("Go on?", abort=True, err=True)
    await forgotten.write(connection.cluster.api, connection.claims.namespace, owner, claim, volume)
    command_line_journal().write(action, "done")
    console.print(f"Recorded. {shown(owner)} gets a new {shown(what)} at the next start.")


def _check_record(
    records: HubRecords | None, owner: Owner, server: str, claim: str, volume: str, *, shared: bool
) -> None:
    """Only what the hub's record of this owner names can be given up."""
    if records is None:
        return
    if volume:
        if volume_on_record(records, owner.user, claim) == volume:
            return
        raise SafetyError(
            f"no record of {owner.user} names {claim} for volume {volume}; nothing was changed. "
            f"See: jhub-safety claims explain {owner.arguments}"
        )
    saved = records.claim_of(owner.user, server)
    if shared and any(
        records.claim_of(one.user, one.server) == claim
        for one in records.states
        if one.user == owner.user
    ):
        return  # Which of the user's servers has it on record is no matter.
    if saved != claim:
        raise SafetyError(
            f"the hub's record of {owner} names {saved or 'no claim'}, not {claim}; nothing was "
            f"changed. See: jhub-safety claims explain {owner.arguments}"
        )
