"""``jhub-safety db check | repair | logout``: what is wrong in the rows, and mended there."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click
from rich.table import Table
from sqlalchemy import Connection, make_url
from sqlalchemy.exc import SQLAlchemyError

from jhub_safety.cli.connection import console, notes, shown
from jhub_safety.cli.holding import back_up_first, be_sure_that_nobody_serves, no_snapshot_option
from jhub_safety.cli.hubaccess import Site, access, with_site
from jhub_safety.errors import Doubt, SafetyError
from jhub_safety.finding import Finding, Severity
from jhub_safety.hubdb import checks, condition
from jhub_safety.hubdb.condition import State
from jhub_safety.hubdb.files import check_files
from jhub_safety.hubdb.repair import execute, plan

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
        name = make_url(url).render_as_string(hide_password=True)
        raise Doubt(
            f"{name} cannot be used: {type(error).__name__}. Nothing was changed"
        ) from error


def _connect_args(site: Site) -> Mapping[str, Any] | None:
    kwargs = site.hub.everything.JupyterHub.get("db_kwargs") or {}
    found: Mapping[str, Any] | None = kwargs.get("connect_args")
    return found


@click.command()
@json_option
@with_site
async def check(site: Site, as_json: bool) -> None:
    """Look for what is wrong in the hub's database. Changes nothing.

    Exit code 1 when there is an error.
    """
    url = site.db_url
    found = await asyncio.to_thread(on_database, url, checks.run, _connect_args(site))
    found += await asyncio.to_thread(check_files, url, site.hub.everything)
    if as_json:
        click.echo(json.dumps([one.record() for one in found], indent=2))
    else:
        _print(found)
    if any(one.severity is Severity.ERROR for one in found):
        sys.exit(1)


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
@no_snapshot_option
@yes_option
@json_option
@with_site
async def repair(site: Site, no_snapshot: bool, yes: bool, as_json: bool) -> None:
    """Mend what can be mended safely; the rest is for db check to tell.

    A snapshot is made before. Only while no hub serves on the database; one that holds does not.
    """
    await be_sure_that_nobody_serves(site, "jhub-safety db repair")
    wanted = await asyncio.to_thread(on_database, site.db_url, plan, _connect_args(site))
    if not wanted:
        raise SafetyError("there is nothing that can be mended here; nothing was changed")
    notes.print(shown(site.header()))
    for one in wanted:
        console.print(shown(f"{one.rows} rows: {one.what} ({one.code})"))
    if not yes:
        click.confirm("Go on?", abort=True, err=True)
    await be_sure_that_nobody_serves(site, "jhub-safety db repair")
    if not no_snapshot:
        await back_up_first(site, "jhub-safety db repair")

    def run(connection: Connection) -> dict[str, int]:
        if (now := plan(connection)) != wanted:
            raise SafetyError(f"the database has changed: {now}. Nothing was mended; run it again")
        return {one.code: execute(connection, one) for one in wanted}

    done = await asyncio.to_thread(on_database, site.db_url, run, _connect_args(site))
    if as_json:
        click.echo(json.dumps(done, indent=2))
    else:
        console.print(f"mended: {', '.join(f'{rows} {code}' for code, rows in done.items())}")


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
    async with access(site) as hub:
        done = await hub.logout(user)
    if as_json:
        click.echo(json.dumps(done, indent=2))
    else:
        console.print(f"{done['users']} users log in anew; {done['tokens']} tokens ended")
