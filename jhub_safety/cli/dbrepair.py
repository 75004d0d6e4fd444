"""``jhub-safety db check | repair | logout``: what is wrong in the rows, and mended there."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click
from rich.table import Table
from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from jhub_safety.cli.connection import console, notes, shown
from jhub_safety.cli.dbjournal import written_down
from jhub_safety.cli.holding import (
    back_up_first,
    be_sure_that_nobody_serves,
    no_snapshot_option,
    nobody_else,
)
from jhub_safety.cli.hubaccess import Site, access, with_site
from jhub_safety.cli.hubalive import HUB_POD, hub_pods
from jhub_safety.errors import Doubt, SafetyError
from jhub_safety.finding import Finding, Severity
from jhub_safety.hub.dbchecking import around, in_rows
from jhub_safety.hubdb import condition, constraints
from jhub_safety.hubdb.alone import Lock
from jhub_safety.hubdb.checks import REPAIR
from jhub_safety.hubdb.condition import State, sqlite_path
from jhub_safety.hubdb.engines import name_of
from jhub_safety.hubdb.repair import Repair, execute, plan
from jhub_safety.plan import Action

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
_Result = TypeVar("_Result")


def on_database(
    url: str,
    work: Callable[[Connection], _Result],
    connect_args: Mapping[str, Any] | None = None,
) -> _Result:
    """One transaction, in which *work* is done. Blocking.

    Raises:
        Doubt: the database cannot be used; nothing was changed.
    """
    found = condition.look(url, connect_args=connect_args)
    if found.state is not State.USABLE:
        raise Doubt(f"the hub's database: {found.why}. Nothing was changed")
    try:
        engine = condition.open_engine(url, connect_args)
        try:
            with engine.begin() as connection:
                return work(connection)
        finally:
            engine.dispose()
    except (SQLAlchemyError, ImportError) as error:
        name = name_of(url)
        raise Doubt(
            f"{name} cannot be used: {type(error).__name__}. Nothing was changed"
        ) from error


@click.command()
@json_option
@with_site
async def check(site: Site, as_json: bool) -> None:
    """Look for what is wrong in the hub's database. Changes nothing.

    Exit code 1 when there is an error.
    """
    url = site.db_url
    found = await asyncio.to_thread(on_database, url, in_rows, site.hub.connect_args)
    found += await asyncio.to_thread(around, url, site.hub.everything)
    if sqlite_path(url) is not None:
        found += await _pods(site)
    if as_json:
        click.echo(json.dumps([one.record() for one in found], indent=2))
    else:
        _print(found)
    if any(one.severity is Severity.ERROR for one in found):
        sys.exit(1)


async def _pods(site: Site) -> list[Finding]:
    """Whether several hubs may mount the volume of a SQLite file; this machine sees its own only.

    A database on a server takes many connections, and says whose they are.
    """
    subject = f"namespace {site.namespace}"
    try:
        ours, others = await hub_pods(site.cluster.api, site.namespace)
    except Doubt as doubt:
        story = f"whether several hubs are there is not known: {doubt}"
        return [Finding(Severity.UNKNOWN, "db-holders-unseen", subject, story)]
    if len(others) + ours < 2:
        return []
    story = f"{len(others) + ours} pods of hubs are there ({', '.join(one.pod for one in others)}"
    story += ", and this one)" if ours else ")"
    return [
        Finding(
            Severity.WARNING,
            "db-opened-twice",
            subject,
            f"{story}: where they have one database, each undoes what the other does",
            f"kubectl -n {site.namespace} get pods -l {HUB_POD}",
        )
    ]


def _print(found: list[Finding]) -> None:
    if not found:
        console.print("nothing is wrong")
        return
    table = Table(box=None, pad_edge=False)
    for title in ("SEVERITY", "CODE", "SUBJECT", "WHAT", "NEXT"):
        table.add_column(title, overflow="fold")
    for one in found:
        table.add_row(*map(shown, (one.severity, one.code, one.subject, one.story, one.command)))
    console.print(table)


@click.command()
@click.option(
    "--constraints",
    "apart",
    is_flag=True,
    help="Also add the constraints that the table of users lacks; SQLite makes it anew for that.",
)
@no_snapshot_option
@yes_option
@json_option
@with_site
async def repair(site: Site, apart: bool, no_snapshot: bool, yes: bool, as_json: bool) -> None:
    """Mend what can be mended safely; the rest is for db check to tell.

    A snapshot is made before. Only while no hub serves on the database; one that holds does not.
    """
    with nobody_else(site.db_url, site.hub.connect_args) as lock:
        done = await _repair(site, lock, yes=yes, snapshot=not no_snapshot, apart=apart)
    if as_json:
        click.echo(json.dumps(done, indent=2))
    elif done:
        console.print(f"mended: {', '.join(f'{rows} {code}' for code, rows in done.items())}")


async def _repair(
    site: Site, lock: Lock, *, yes: bool, snapshot: bool, apart: bool
) -> dict[str, int]:
    """Plan, question, and the mending; rows by finding."""
    await be_sure_that_nobody_serves(site, REPAIR)

    def look(connection: Connection) -> list[Repair]:
        found = plan(connection)
        if apart and (lacks := constraints.lacking(connection)):
            users = connection.execute(select(func.count()).select_from(text("users"))).scalar()
            what = f"add {', '.join(lacks)} to the table of users"
            found.append(Repair("db-constraints", what, users or 0))
        return found

    wanted = await asyncio.to_thread(on_database, site.db_url, look, site.hub.connect_args)
    notes.print(shown(site.header()))
    if not wanted:
        notes.print("There is nothing that can be mended here; nothing was changed.")
        return {}
    for one in wanted:
        notes.print(shown(f"{one.rows} rows: {one.what} ({one.code})"))
    if not yes:
        click.confirm("Go on?", abort=True, err=True)
    if snapshot:
        await back_up_first(site, REPAIR)
    # Somebody may have started one meanwhile: without the guard it does not mind the lock.
    await be_sure_that_nobody_serves(site, REPAIR)
    lock.require()

    def run(connection: Connection) -> dict[str, int]:
        if (now := look(connection)) != wanted:
            raise SafetyError(f"the database has changed: {now}. Nothing was mended; run it again")
        rows = [one for one in wanted if one.code != "db-constraints"]
        done = {one.code: execute(connection, one) for one in rows}
        if len(rows) < len(wanted):
            # What two rows share is mended by now.
            constraints.add(connection)
            done["db-constraints"] = wanted[-1].rows
        return done

    why = "; ".join(f"{one.code}: {one.what}" for one in wanted)
    action = Action("repair-database", site.namespace, name_of(site.db_url), why)
    with written_down(action) as line:
        done = await asyncio.to_thread(on_database, site.db_url, run, site.hub.connect_args)
        line["rows"] = done
    return done


@click.command()
@click.argument("user", required=False)
@click.option("--all", "everybody", is_flag=True, help="Everybody.")
@yes_option
@json_option
@with_site
async def logout(site: Site, user: str | None, everybody: bool, yes: bool, as_json: bool) -> None:
    """End every browser session of USER, or of --all. Labs go on running.

    The hub asks for a new login at once; a lab that a browser has open asks within five minutes.
    """
    if (user is None) is not everybody:
        raise click.UsageError("name a user, or say --all")
    notes.print(shown(site.header()))
    if not yes:
        click.confirm(f"End the browser sessions of {user or 'everybody'}?", abort=True, err=True)
    action = Action("log-out", site.namespace, name_of(site.db_url), "as asked", user=user or "")
    async with access(site) as hub:
        with written_down(action) as line:
            done = await hub.logout(user)
            line.update({**done, "all": everybody})
    if as_json:
        click.echo(json.dumps(done, indent=2))
    else:
        console.print(f"{done['users']} users log in anew; {done['tokens']} tokens ended")
