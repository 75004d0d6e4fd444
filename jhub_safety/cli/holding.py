"""Commands that write a hub's database: only while no hub serves on it; one that holds does not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import click

from jhub_safety.checked import check_section
from jhub_safety.cli.connection import command_line_journal, notes, shown
from jhub_safety.cli.hubaccess import Site
from jhub_safety.cli.hubalive import sign_of_serving
from jhub_safety.errors import Doubt, SafetyError
from jhub_safety.hubdb.alone import Lock, alone
from jhub_safety.hubdb.backup import FOLDER, Backups, DatabaseBackup
from jhub_safety.hubdb.engines import address

#: Seconds for a list of the snapshots, where it is only to say what to run next.
LISTING = 20.0

no_snapshot_option = click.option(
    "--no-snapshot", is_flag=True, help="Make no snapshot of the database before it is changed."
)


async def be_sure_that_nobody_serves(site: Site, command: str) -> None:
    """Raises SafetyError when a hub serves on this database, Doubt when that is not known."""
    try:
        sign = await sign_of_serving(site.hub, site.cluster.api, site.namespace, site.db_url)
    except Doubt as doubt:
        raise Doubt(
            f"whether a hub serves on this database is not known: {doubt}. Nothing was changed. "
            f"Run it where the hub runs: kubectl exec -it deploy/hub -- {command}",
            status=doubt.status,
        ) from doubt
    if sign is not None:
        raise SafetyError(
            f"a hub is alive: {sign.what}. Its database is not written behind its back. Nothing "
            "was changed. Stop it first, labs go on running: kubectl -n "
            f"{site.namespace} scale deploy/hub --replicas=0. From where to run this then: docs, "
            'Snapshots, "With the hub stopped"'
        )


@contextmanager
def nobody_else(url: str, connect_args: Mapping[str, Any] | None = None) -> Iterator[Lock]:
    """From before a command looks whether a hub is alive until it is done: a hub that is started
    meanwhile holds until then.

    Raises Conflict when another process makes the database again, or Doubt.
    """
    with ExitStack() as stack:
        try:
            lock = stack.enter_context(alone(url, connect_args))
        except SafetyError as error:
            raise type(error)(
                f"{error}. Nothing was changed. How it stands shows: jhub-safety db status"
            ) from error
        yield lock


def backups_of(site: Site) -> Backups:
    """Of this hub's database. Raises ConfigError."""
    everything = site.hub.everything
    check_section(DatabaseBackup, everything)
    settings = DatabaseBackup(config=everything)
    return Backups(
        settings,
        site.db_url,
        site.hub.hub_name,
        connect_args=site.hub.connect_args,
        journal=command_line_journal(),
    )


async def newest_of(site: Site) -> str:
    """The newest verified snapshot that holds users, in words; "" when there is none.

    Raises:
        SafetyError: that could not be found out, at least not quickly.
    """
    backups = backups_of(site)
    file = address(site.db_url).file
    if not backups.settings.where(site.db_url) or (
        not backups.settings.destination and file and not (file.parent / FOLDER).exists()
    ):
        return ""
    try:
        async with asyncio.timeout(LISTING):
            newest = await backups.newest_verified()
    except TimeoutError as error:
        raise Doubt(f"the snapshots were not listed within {LISTING:.0f} s") from error
    if newest is None:
        return ""
    return f"{newest['manifest']['users']} users, {newest['made'][:16].replace('T', ' ')} UTC"


async def back_up_first(site: Site, command: str) -> None:
    """As :func:`snapshot_before`, of this hub's database."""
    await snapshot_before(backups_of(site), command)


async def snapshot_before(backups: Backups, command: str) -> None:
    """A snapshot of a database that is about to be changed, where there is a place for one.

    Raises:
        SafetyError: it could not be made.
    """
    if not backups.request("")["destination"]:
        notes.print("Without a snapshot before: DatabaseBackup.destination names no place.")
        return
    try:
        with notes.status("Making a snapshot of the database as it is"):
            made = await backups.run_once(tidy=False)
    except SafetyError as error:
        raise SafetyError(
            f"no snapshot could be made of the database as it is: {error}. Nothing was changed. "
            f"To go on without one: {command} --no-snapshot"
        ) from error
    notes.print(shown(f"As it was before: snapshot {made['snapshot']['name']}"))
