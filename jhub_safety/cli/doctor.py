"""``jhub-safety doctor``: every check of a hub, as one table."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import click
from rich.table import Table

from jhub_safety.cli.claimfilter import configured
from jhub_safety.cli.connection import Connection, console, notes, shown, with_connection
from jhub_safety.cli.databases import CODES as DATABASE_CODES
from jhub_safety.cli.databases import servers_of_users
from jhub_safety.cli.dbrepair import on_database
from jhub_safety.cluster import storageclasses
from jhub_safety.errors import Doubt
from jhub_safety.finding import Finding, Severity
from jhub_safety.hub.dbchecking import around, in_rows
from jhub_safety.hubdb import checks, files
from jhub_safety.sidecars import handwritten
from jhub_safety.volumes import classes, mounts

Check = Callable[[Connection], Awaitable[list[Finding]]]


async def storage_classes(connection: Connection) -> list[Finding]:
    """Whether the cluster's storage classes can do what is configured."""
    wanted = connection.hub.needs
    if not wanted:
        return []
    try:
        found = await storageclasses.read_all(connection.cluster.api, timeout=30)
    except Doubt as doubt:
        return [classes.not_seen(doubt)]
    claims = await connection.claims.list()
    place = configured(connection).place
    return classes.check(found, wanted, claims.values(), place)


async def volumes(connection: Connection) -> list[Finding]:
    """Claims that are not as configured, and cannot be changed."""
    asked = configured(connection)
    if not asked.volumes:
        return []
    # All of them: those that a hub without the right to patch has adopted carry no label of ours.
    claims = await connection.claims.list()
    return classes.unlike(claims.values(), asked.volumes, asked.hub, asked.place)


async def folders(connection: Connection) -> list[Finding]:
    """Whether homes on one shared claim are looked for."""
    settings = connection.hub.settings
    return mounts.check_sub_paths(
        settings.home_sub_path, settings.homes, connection.hub.volume_mounts
    )


async def containers(connection: Connection) -> list[Finding]:
    """Database servers that the hub has written by hand into its containers."""
    return handwritten.check(connection.hub.containers)


async def database(connection: Connection) -> list[Finding]:
    """The rows of the hub's database, its file, and the cookie secret."""
    url = connection.options.db_url or connection.hub.db_url
    found = await asyncio.to_thread(around, url, connection.hub.everything)
    return [
        *found,
        *await asyncio.to_thread(on_database, url, in_rows, connection.hub.connect_args),
    ]


#: What is asked, in this order. A capability adds its check here and its codes below.
CHECKS: list[Check] = [
    storage_classes,
    volumes,
    folders,
    containers,
    servers_of_users,
    database,
]
#: Every code that a finding may have, and what it means; docs/doctor.md has a line for each.
CODES = {
    **classes.CODES,
    **mounts.CODES,
    **handwritten.CODES,
    **DATABASE_CODES,
    **checks.CODES,
    **files.CODES,
    "check-failed": "a check itself failed; what it is about is not known",
}

_COLOURS = {
    Severity.ERROR: "red",
    Severity.WARNING: "yellow",
    Severity.UNKNOWN: "magenta",
    Severity.OK: "green",
}


async def run_checks(connection: Connection, asked: Sequence[Check]) -> list[Finding]:
    """All findings, worst first; a check that raises is a finding itself."""
    findings: list[Finding] = []
    for check in asked:
        try:
            findings.extend(await check(connection))
        except Exception as error:  # noqa: BLE001 - one check must not hide the others
            findings.append(_failed(check, error))
    return sorted(findings, key=lambda one: list(Severity).index(one.severity))


def _failed(check: Check, error: Exception) -> Finding:
    # Our own errors are made to be read; of others the text may hold anything.
    words = str(error) if isinstance(error, Doubt) else type(error).__name__
    name = check.__name__.replace("_", " ")
    return Finding(
        Severity.UNKNOWN,
        "check-failed",
        name,
        f"it could not be looked at: {words}. Nothing was changed",
        "jhub-safety doctor",
    )


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_connection
async def doctor(connection: Connection, as_json: bool) -> None:
    """Check configuration and cluster, and say what will not work. Reads only.

    Exit code 1 when there is an error.
    """
    findings = await run_checks(connection, CHECKS)
    if as_json:
        click.echo(json.dumps([one.record() for one in findings], indent=2))
    else:
        _print(connection, findings)
    if any(one.severity is Severity.ERROR for one in findings):
        sys.exit(1)


def _print(connection: Connection, findings: Sequence[Finding]) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("SEVERITY", "CODE", "SUBJECT", "WHAT", "NEXT"):
        table.add_column(title, overflow="fold")
    for one in findings:
        table.add_row(
            f"[{_COLOURS[one.severity]}]{one.severity}[/]",
            *map(shown, (one.code, one.subject, one.story, one.command)),
        )
    if findings:
        console.print(table)
    counts = Counter(one.severity for one in findings)
    notes.print(
        ", ".join(f"{counts[severity]} {severity}" for severity in Severity)
        + f"; {shown(connection.header())}"
    )
