"""``jhub-safety db status | accept | rebuild``: what the guard sees, and an operator's word."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from typing import Any, TextIO

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from jhub_safety.cli.connection import console, notes, shown
from jhub_safety.cli.dbfingerprint import guard_of
from jhub_safety.cli.dbjournal import written_down
from jhub_safety.cli.holding import (
    back_up_first,
    be_sure_that_nobody_serves,
    newest_of,
    no_snapshot_option,
    nobody_else,
)
from jhub_safety.cli.hubaccess import Site, with_site
from jhub_safety.cli.hubalive import row_of_hold
from jhub_safety.cluster.claims import ClaimsApi
from jhub_safety.errors import SafetyError
from jhub_safety.hub.recovering import (
    Gathered,
    configured_admins,
    former_identity,
    gather,
    rebuild,
    set_aside,
)
from jhub_safety.hubdb.alone import Lock, lock_state
from jhub_safety.hubdb.condition import State
from jhub_safety.hubdb.engines import name_of
from jhub_safety.hubdb.guarding import (
    WAITING,
    Case,
    Decision,
    Fingerprint,
    Row,
    Verdict,
)
from jhub_safety.plan import Action
from jhub_safety.recovery.rebuild import from_csv, to_csv
from jhub_safety.sessions.kubernetes import KubernetesInventory

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")

RESTORE, REBUILD = "jhub-safety db restore newest", "jhub-safety db rebuild"

#: What to do about each row that is not in order.
NEXT = {
    Row.UNREACHABLE: "mend the way to the database server; the hub goes on by itself",
    Row.READ_ONLY: "make the database writable; the hub goes on by itself",
    Row.NO_ROOM: "make room on the database's volume; the hub goes on by itself",
    Row.WRONG_VOLUME: "mount the database's volume; the hub goes on by itself",
    Row.MISSING: REBUILD,
    Row.ZERO_BYTES: REBUILD,
    Row.NO_TABLES: REBUILD,
    Row.CORRUPT: REBUILD,
    Row.NO_USERS: REBUILD,
    Row.EMPTY_BESIDE_HOMES: REBUILD,
    Row.ANOTHER_ADDRESS: "set the right db_url, or: jhub-safety db accept",
    Row.ANOTHER: "put the right database back, or: jhub-safety db accept",
    Row.OLDER: "put the newer database back, or: jhub-safety db accept",
    Row.FEWER_USERS: "put the former database back, or: jhub-safety db accept",
    Row.UNSAFE: "jhub-safety db check",
    Row.UNKNOWN_BEFORE: "see why Secrets cannot be read; the hub goes on by itself",
}
#: Those of a database that is lost, or may be: what is kept of it comes first.
LOST = frozenset(row for row, step in NEXT.items() if step == REBUILD)


async def next_step(site: Site, row: Row) -> str:
    """What to run next; "" when the hub serves.

    A database made again from the cluster alone lacks groups, tokens, and users without a claim: it
    is no answer while a snapshot is kept.
    """
    if row not in LOST:
        return NEXT.get(row, "")
    try:
        newest = await newest_of(site)
    except SafetyError as error:
        return f"{RESTORE}. Whether one is kept is not known ({error}). If none is: {REBUILD}"
    if not newest:
        return REBUILD
    return (
        f"{RESTORE} ({newest}). Who is newer than that comes back at their login, or before, with "
        f"the hub stopped, by: {REBUILD}"
    )


@click.command()
@json_option
@with_site
async def status(site: Site, as_json: bool) -> None:
    """Compare the hub's database with what is known of it. Changes nothing.

    Exit code 1 when the hub would not serve on it, or raises an alarm; and while another process
    makes it again, or that cannot be found out.
    """
    guard = guard_of(site)
    case, decision = await guard.look()
    holds = await row_of_hold(site.hub)
    step = await next_step(site, decision.row)
    lock, why = await asyncio.to_thread(lock_state, site.db_url, site.hub.connect_args)
    if as_json:
        found = {**guard.record(case, decision), "holds": holds, "next": step, "lock": lock}
        click.echo(json.dumps(found, indent=2))
    else:
        _print(site, case, decision, holds, step)
        if case.condition.unfinished:
            console.print("A recovery of it is not over: the hub does the rest when it starts")
        console.print(shown(f"Lock: {why or lock}"))
    if decision.verdict is not Verdict.SERVE or lock != "free":
        sys.exit(1)


def _print(
    site: Site,
    case: Case,
    decision: Decision,
    holds: str | None,
    step: str,
    *,
    out: Console = console,
) -> None:
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
    out.print(table)
    out.print(f"{decision.verdict}: {shown(decision.why)} ({decision.row})")
    if holds is not None:
        out.print(f"The hub holds ({shown(holds)}); it looks again every few seconds")
    if step:
        out.print(shown(f"Next: {step}"))


def _shown_url(site: Site) -> str:
    return shown(name_of(site.db_url))


@click.command()
@yes_option
@json_option
@with_site
async def accept(site: Site, yes: bool, as_json: bool) -> None:
    """Say that the database, as it is, is the right one.

    What was known of it is replaced. A hub that holds goes on within seconds.
    """
    guard = guard_of(site)
    case, decision = await guard.look()
    step = await next_step(site, decision.row)
    _print(site, case, decision, await row_of_hold(site.hub), step, out=notes)
    if decision.verdict is Verdict.SERVE:
        notes.print("The hub serves on this database; there is nothing to accept.")
        if as_json:
            click.echo(json.dumps({"accepted": False, "row": decision.row}))
        return
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
    action = Action(
        "accept-database", site.namespace, name_of(site.db_url), f"{decision.row}: {decision.why}"
    )
    found: dict[str, Any] = {"accepted": True, "row": decision.row, "users": 0, "epoch": None}
    with written_down(action) as line:
        before = case.before if isinstance(case.before, Fingerprint) else None
        line.update({"row": decision.row, "overridden": before.record() if before else None})
        if usable:
            taken = await guard.take()
            found |= {"users": taken.users, "epoch": taken.epoch}
            told = f"accepted: {taken.users} users, epoch {taken.epoch}"
        else:
            await guard.known.forget()
            told = "accepted: nothing is known of this database any more"
        line.update(found)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        console.print(told)


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
    told = from_csv(names_file.read()) if names_file else {}
    with nobody_else(site.db_url, site.hub.connect_args) as lock:
        await be_sure_that_nobody_serves(site, REBUILD)
        record = await _rebuild(site, lock, told, unclear_file, yes=yes, snapshot=not no_snapshot)
    if as_json:
        click.echo(json.dumps(record, indent=2))
        return
    console.print(
        f"{record['users']} users and {record['servers']} of their servers were added; "
        "running labs become sessions again when the hub runs: jhub-safety sessions list"
    )
    if record["aside"]:
        console.print(shown(f"what was left of the damaged file is {record['aside']}"))


async def _rebuild(
    site: Site,
    lock: Lock,
    told: Mapping[str, tuple[str, str]],
    unclear_file: TextIO | None,
    *,
    yes: bool,
    snapshot: bool,
) -> dict[str, Any]:
    """Plan, question, and the writing; nobody else makes the database again meanwhile."""
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
    _print_plan(site, gathered, decision, unclear_file)
    if decision.row in LOST and (step := await next_step(site, decision.row)) != REBUILD:
        lacking = "Groups, tokens, and users without a claim are in no cluster. First:"
        notes.print(f"[yellow]{lacking}[/] {shown(step)}")
    if not people.users:
        raise SafetyError("no claim and no lab names a user; nothing was changed")
    if not yes:
        click.confirm("Go on?", abort=True, err=True)
    if (await guard.look())[1] != decision:
        raise SafetyError("the database has changed meanwhile. Nothing was changed; run it again")
    if snapshot and case.condition.state is State.USABLE:
        await back_up_first(site, REBUILD)
    # Somebody may have started one meanwhile: without the guard it does not mind the lock.
    await be_sure_that_nobody_serves(site, REBUILD)
    lock.require()
    everything = site.hub.everything
    action = Action(
        "rebuild-database", site.namespace, name_of(site.db_url), f"{decision.row}: {decision.why}"
    )
    with written_down(action) as line, Progress(console=notes, transient=True) as progress:
        aside = set_aside(site.db_url) if case.condition.state is State.CORRUPT else None
        line["aside"] = str(aside) if aside else None
        task = progress.add_task("Writing users", total=len(people.users))
        written = await asyncio.to_thread(
            rebuild,
            site.db_url,
            people,
            admins=configured_admins(everything),
            db_kwargs=everything.JupyterHub.get("db_kwargs") or {},
            former=former_identity(case),
            advance=lambda count: progress.advance(task, count),
        )
        line.update(
            {"users": written.users, "servers": written.servers, "labs": len(gathered.labs)}
        )
        await guard.take()
    unclear = [one.claim for one in people.unclear]
    return {**line, "unclear": unclear}


def _print_plan(
    site: Site, gathered: Gathered, decision: Decision, unclear_file: TextIO | None
) -> None:
    people = gathered.people
    notes.print(f"{shown(site.header())}, database {_shown_url(site)}")
    notes.print(f"the database: {shown(decision.why)} ({decision.row})")
    if decision.row is Row.CORRUPT:
        notes.print("its damaged file is moved aside, and a new one is made")
    elif decision.row in (Row.ANOTHER, Row.OLDER, Row.FEWER_USERS):
        notes.print("from now on it counts as the right one, as with: jhub-safety db accept")
    notes.print(
        f"{len(people.users)} users, {len(people.homes)} homes that are theirs, "
        f"{len(gathered.labs)} labs that run"
    )
    if people.unclear:
        where = f"; see {unclear_file.name}" if unclear_file else "; list them with --unclear FILE"
        notes.print(f"{len(people.unclear)} claims do not say whose they are{shown(where)}")
