"""``jhub-safety db status | accept | rebuild``: what the guard sees, and an operator's word."""

from __future__ import annotations

import asyncio
import json
import sys
from functools import partial
from typing import TextIO

import click
from rich.progress import Progress
from rich.table import Table
from sqlalchemy import make_url

from jhub_safety.cli.connection import console, notes, shown
from jhub_safety.cli.holding import (
    back_up_first,
    be_sure_that_nobody_serves,
    no_snapshot_option,
    nobody_else,
)
from jhub_safety.cli.hubaccess import Site, with_site
from jhub_safety.cli.hubalive import row_of_hold
from jhub_safety.cluster.claims import ClaimsApi
from jhub_safety.cluster.notes import Note
from jhub_safety.errors import SafetyError
from jhub_safety.hub.recovering import (
    Gathered,
    configured_admins,
    former_identity,
    gather,
    rebuild,
    set_aside,
)
from jhub_safety.hubdb.condition import State
from jhub_safety.hubdb.guard import DatabaseGuard
from jhub_safety.hubdb.guarding import (
    WAITING,
    Case,
    Decision,
    Fingerprint,
    Row,
    Verdict,
)
from jhub_safety.hubdb.known import had_homes, known_of
from jhub_safety.recovery.rebuild import from_csv, to_csv
from jhub_safety.sessions.kubernetes import KubernetesInventory

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")

#: What to do about each row that is not in order.
NEXT = {
    Row.UNREACHABLE: "mend the way to the database server; the hub goes on by itself",
    Row.READ_ONLY: "make the database writable; the hub goes on by itself",
    Row.NO_ROOM: "make room on the database's volume; the hub goes on by itself",
    Row.WRONG_VOLUME: "mount the database's volume; the hub goes on by itself",
    Row.MISSING: "jhub-safety db rebuild",
    Row.ZERO_BYTES: "jhub-safety db rebuild",
    Row.NO_TABLES: "jhub-safety db rebuild",
    Row.CORRUPT: "jhub-safety db rebuild",
    Row.NO_USERS: "jhub-safety db rebuild",
    Row.EMPTY_BESIDE_HOMES: "jhub-safety db rebuild",
    Row.ANOTHER_ADDRESS: "set the right db_url, or: jhub-safety db accept",
    Row.ANOTHER: "put the right database back, or: jhub-safety db accept",
    Row.OLDER: "put the newer database back, or: jhub-safety db accept",
    Row.FEWER_USERS: "put the former database back, or: jhub-safety db accept",
    Row.UNSAFE: "jhub-safety db check",
    Row.UNKNOWN_BEFORE: "see why Secrets cannot be read; the hub goes on by itself",
}


def guard_of(site: Site) -> DatabaseGuard:
    """The configured guard, with the operator's own connection."""
    guard = DatabaseGuard(config=site.hub.everything)
    place = (site.cluster.api, site.namespace, site.hub.hub_name)
    known = known_of(guard.fingerprint_file, partial(Note, *place))
    kwargs = site.hub.everything.JupyterHub.get("db_kwargs") or {}
    guard.attach(
        site.db_url, known, partial(had_homes, *place), connect_args=kwargs.get("connect_args")
    )
    return guard


@click.command()
@json_option
@with_site
async def status(site: Site, as_json: bool) -> None:
    """Compare the hub's database with what is known of it. Changes nothing.

    Exit code 1 when the hub would not serve on it, or raises an alarm.
    """
    guard = guard_of(site)
    case, decision = await guard.look()
    holds = await row_of_hold(site.hub)
    if as_json:
        click.echo(json.dumps({**guard.record(case, decision), "holds": holds}, indent=2))
    else:
        _print(site, case, decision, holds)
    if decision.verdict is not Verdict.SERVE:
        sys.exit(1)


def _print(site: Site, case: Case, decision: Decision, holds: str | None) -> None:
    now, before = case.condition, case.before
    table = Table(box=None, pad_edge=False)
    for title in ("", "NOW", "KNOWN"):
        table.add_column(title)
    known = before if isinstance(before, Fingerprint) else None
    rows = (
        ("state", now.state, ""),
        ("users", now.users, known.users if known else ""),
        ("highest id", now.highest_id, known.highest_id if known else ""),
        ("revision", now.revision, known.revision if known else ""),
        ("identity", (now.identity or "none")[:12], known.identity[:12] if known else ""),
        ("epoch", now.epoch, known.epoch if known else ""),
        ("taken", "", known.taken if known else "never" if before is None else "not readable"),
    )
    for row in rows:
        table.add_row(*map(shown, row))
    notes.print(f"{shown(site.header())}, database {_shown_url(site)}")
    console.print(table)
    console.print(f"{decision.verdict}: {shown(decision.why)} ({decision.row})")
    if holds is not None:
        console.print(f"The hub holds ({shown(holds)}); it looks again every few seconds")
    if decision.row in NEXT:
        console.print(f"Next: {NEXT[decision.row]}")


def _shown_url(site: Site) -> str:
    return shown(make_url(site.db_url).render_as_string(hide_password=True))


@click.command()
@yes_option
@with_site
async def accept(site: Site, yes: bool) -> None:
    """Say that the database, as it is, is the right one.

    What was known of it is replaced. A hub that holds goes on within seconds.
    """
    guard = guard_of(site)
    case, decision = await guard.look()
    _print(site, case, decision, await row_of_hold(site.hub))
    if decision.verdict is Verdict.SERVE:
        raise SafetyError("the hub serves on this database; there is nothing to accept")
    if decision.row in WAITING | {Row.UNKNOWN_BEFORE, Row.UNSAFE}:
        raise SafetyError(
            f"there is nothing that could be accepted ({decision.row}); nothing was changed. "
            f"Next: {NEXT[decision.row]}"
        )
    usable = case.condition.state is State.USABLE and case.condition.users > 0
    what = (
        f"From now on {case.condition.users} users are what is expected."
        if usable
        else "What was known is forgotten: the hub starts with an empty database, and adopts "
        "each user's home when they log in."
    )
    notes.print(what)
    if not yes:
        click.confirm("Go on?", abort=True, err=True)
    again = await guard.look()
    if again[1] != decision:
        raise SafetyError("the database has changed meanwhile. Nothing was accepted; run it again")
    if usable:
        taken = await guard.take()
        console.print(f"accepted: {taken.users} users, epoch {taken.epoch}")
    else:
        await guard.known.forget()
        console.print("accepted: nothing is known of this database any more")


@click.command("rebuild")
@click.option(
    "--unclear",
    "unclear_file",
    type=click.File("w", lazy=True),
    help="Write claims that do not say whose they are to this CSV file.",
)
@click.option(
    "--names",
    "names_file",
    type=click.File("r"),
    help="That CSV file, with the columns 'user' and 'server' filled in.",
)
@no_snapshot_option
@yes_option
@json_option
@with_site
async def rebuild_command(
    site: Site,
    unclear_file: TextIO | None,
    names_file: TextIO | None,
    no_snapshot: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Put every user whom a claim or a running lab names into the database.

    What is in it already stays as it is, and a snapshot of it is made before. Only while no hub
    serves on it; one that holds does not.
    """
    await be_sure_that_nobody_serves(site, "jhub-safety db rebuild")
    told = from_csv(names_file.read()) if names_file else {}
    with notes.status("Reading claims and labs"):
        gathered = await gather(
            KubernetesInventory(
                site.cluster.api,
                site.hub.hub_name,
                site.namespace,
                component=site.hub.component_label,
                everywhere=site.hub.user_namespaces,
            ),
            ClaimsApi(site.cluster.api, site.namespace, timeout=30, patience=30),
            site.hub.hub_name,
            told=told,
        )
    people = gathered.people
    guard = guard_of(site)
    case, decision = await guard.look()
    if decision.row in WAITING | {Row.WRONG_VOLUME, Row.ANOTHER_ADDRESS}:
        raise SafetyError(f"{decision.why}. Nothing was changed. Next: {NEXT[decision.row]}")
    if unclear_file is not None:
        unclear_file.write(to_csv(people.unclear))
    if not as_json:
        _print_plan(site, gathered, decision, unclear_file)
    if not people.users:
        raise SafetyError("no claim and no lab names a user; nothing was changed")
    if not yes:
        click.confirm("Go on?", abort=True, err=True)
    await be_sure_that_nobody_serves(site, "jhub-safety db rebuild")
    everything = site.hub.everything
    kwargs = everything.JupyterHub.get("db_kwargs") or {}
    with nobody_else(site.db_url, kwargs.get("connect_args")):
        if (await guard.look())[1] != decision:
            raise SafetyError(
                "the database has changed meanwhile. Nothing was changed; run it again"
            )
        if not no_snapshot and case.condition.state is State.USABLE:
            await back_up_first(site, "jhub-safety db rebuild")
        aside = set_aside(site.db_url) if case.condition.state is State.CORRUPT else None
        with Progress(console=notes, transient=True) as progress:
            task = progress.add_task("Writing users", total=len(people.users))
            written = await asyncio.to_thread(
                rebuild,
                site.db_url,
                people,
                admins=configured_admins(everything),
                db_kwargs=kwargs,
                former=former_identity(case),
                advance=lambda count: progress.advance(task, count),
            )
        await guard.take()
    if as_json:
        record = {
            "users": written.users,
            "servers": written.servers,
            "labs": len(gathered.labs),
            "unclear": [one.claim for one in people.unclear],
            "aside": str(aside) if aside else None,
        }
        click.echo(json.dumps(record, indent=2))
    else:
        console.print(
            f"{written.users} users and {written.servers} of their servers were added; "
            "running labs become sessions again when the hub runs: jhub-safety sessions list"
        )
        if aside:
            console.print(shown(f"what was left of the damaged file is {aside}"))


def _print_plan(
    site: Site, gathered: Gathered, decision: Decision, unclear_file: TextIO | None
) -> None:
    people = gathered.people
    notes.print(f"{shown(site.header())}, database {_shown_url(site)}")
    console.print(f"the database: {shown(decision.why)} ({decision.row})")
    if decision.row is Row.CORRUPT:
        console.print("its damaged file is moved aside, and a new one is made")
    elif decision.row in (Row.ANOTHER, Row.OLDER, Row.FEWER_USERS):
        console.print("from now on it counts as the right one, as with: jhub-safety db accept")
    console.print(
        f"{len(people.users)} users, {len(people.homes)} homes that are theirs, "
        f"{len(gathered.labs)} labs that run"
    )
    if people.unclear:
        where = f"; see {unclear_file.name}" if unclear_file else "; list them with --unclear FILE"
        console.print(f"{len(people.unclear)} claims do not say whose they are{shown(where)}")
