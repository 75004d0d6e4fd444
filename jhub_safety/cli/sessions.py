"""``jhub-safety sessions``: what is believed of each server, and an operator's word on it."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from jhub_safety.cli.connection import console, notes, records_of, shown
from jhub_safety.cli.holding import back_up_first, no_snapshot_option
from jhub_safety.cli.hubaccess import Access, Site, access, with_site
from jhub_safety.cli.pausing import pause, resume
from jhub_safety.cli.sessiontable import (
    Record,
    aside,
    describe,
    in_order,
    print_plan,
    summary,
    table_of,
)
from jhub_safety.errors import SafetyError
from jhub_safety.hubdb.records import HubRecords
from jhub_safety.sessions.absence import APART
from jhub_safety.sessions.model import Verdict

#: Seconds between two looks of --watch.
REPAINT = 5.0

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
server_option = click.option(
    "--server", help='One of their servers, "" for the default one (default: all of them).'
)


def _verdicts(_context: Any, _option: Any, values: tuple[str, ...]) -> tuple[Verdict, ...]:
    """As they are printed, or with hyphens."""
    try:
        return tuple(Verdict(value.replace("-", " ")) for value in values)
    except ValueError as error:
        known = ", ".join(str(one).replace(" ", "-") for one in Verdict)
        raise click.BadParameter(f"{error}; known are {known}") from error


@click.group()
def sessions() -> None:
    """Which servers run, by the hub's, the proxy's and the cluster's word."""


sessions.add_command(pause)
sessions.add_command(resume)


# -- look


@sessions.command("list")
@click.argument("user", required=False)
@click.option("--server", help='One of their servers, "" for the default one.')
@click.option(
    "--verdict",
    "verdicts",
    callback=_verdicts,
    multiple=True,
    help="Only servers with this verdict; may be repeated.",
)
@click.option("--watch", is_flag=True, help="Look again every few seconds, until Ctrl-C.")
@json_option
@with_site
async def list_sessions(
    site: Site,
    user: str | None,
    server: str | None,
    verdicts: tuple[Verdict, ...],
    watch: bool,
    as_json: bool,
) -> None:
    """One line a server of USER, or of everybody: session, route, lab, and what follows."""
    if server is not None and user is None:
        raise click.UsageError("--server needs a USER.")
    if watch:
        if as_json or not console.is_terminal:
            raise click.UsageError("--watch repaints a terminal; it goes with nothing else.")
        await _watch(site, user, server, verdicts)
        return
    async with access(site) as hub:
        proposal = await _look(hub, user, server, verdicts)
    _tell_dry(proposal)
    _tell_down(proposal)
    if as_json:
        _print_json(proposal)
        return
    findings = proposal["findings"]
    if findings:
        console.print(table_of(findings, hub_runs=proposal["hub_runs"]))
    notes.print(f"{summary(findings)}; {shown(site.header())}")


async def _look(
    hub: Access, user: str | None, server: str | None, verdicts: Collection[Verdict]
) -> dict[str, Any]:
    asked = {} if user is None else {"user": user, "server": server}
    with notes.status("Looking"):
        proposal = await hub.propose("survey", **asked)
    findings = [
        one for one in proposal["findings"] if not verdicts or Verdict(one["verdict"]) in verdicts
    ]
    return {**_without_id(proposal), "findings": in_order(findings)}


async def _watch(
    site: Site, user: str | None, server: str | None, verdicts: Collection[Verdict]
) -> None:
    # As wide as the terminal: what is broken by the terminal itself cannot be painted over.
    screen = Console(highlight=False, emoji=False)
    with Live(Text("Looking"), console=screen, screen=True, auto_refresh=False) as live:
        try:
            while True:
                live.update(await _picture(site, user, server, verdicts), refresh=True)
                await asyncio.sleep(REPAINT)
        except asyncio.CancelledError:
            # Ctrl-C is how it ends.
            return


async def _picture(
    site: Site, user: str | None, server: str | None, verdicts: Collection[Verdict]
) -> Any:
    try:
        # Anew each time: the hub may have been restarted.
        async with access(site) as hub:
            proposal = await _look(hub, user, server, verdicts)
    except SafetyError as error:
        return Text.from_markup(shown(f"jhub-safety: {error}"), emoji=False)
    findings = proposal["findings"]
    table = table_of(findings, hub_runs=proposal["hub_runs"])
    table.caption = shown("; ".join(filter(None, (summary(findings), proposal["dry"]))))
    table.caption_justify = "left"
    return table


# -- change


@sessions.command()
@click.argument("user")
@server_option
@click.option("--forget-user", "forget", is_flag=True, help="Also remove the user from the hub.")
@no_snapshot_option
@yes_option
@json_option
@with_site
async def delete(
    site: Site,
    user: str,
    server: str | None,
    forget: bool,
    no_snapshot: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """End USER's sessions: their labs, routes and session rows. Never their claims.

    It can be run again; what is gone already is left alone. Before a user is forgotten, a
    snapshot of the database is made.
    """
    if forget and server is not None:
        raise click.UsageError("--forget-user is about the whole user; leave out --server.")
    async with access(site) as hub:
        with notes.status("Looking"):
            proposal = await hub.propose("delete", user=user, server=server, forget=forget)
        records = records_of(site.db_url, site.hub.connect_args) if forget else None
        known = records is None or user in records.users
        if forget and not known and not proposal["findings"]:
            proposal = _with_nothing_to_do(proposal)
        _show(site, proposal)
        if forget and proposal["plan"]["actions"]:
            _spell_out(user, records)
        nothing = "no session, no route, no lab" + (", no user" if forget else "")
        command = f"delete {shlex.quote(user)} --forget-user"
        before = None if no_snapshot or not forget else _snapshot_of(site, command)
        await _carry_out(hub, proposal, yes, as_json, f"{user} has {nothing}", before)


def _with_nothing_to_do(proposal: dict[str, Any]) -> dict[str, Any]:
    return {**proposal, "plan": {**proposal["plan"], "actions": []}}


def _spell_out(user: str, records: HubRecords | None) -> None:
    notes.print(
        shown(
            f"The hub forgets {user}: the user's row, tokens, groups, and what was shared with "
            "and by them."
        )
    )
    claims = () if records is None else _claims_of(user, records)
    homes = ", ".join(f"claim {name}" for name in claims) or "as: jhub-safety claims list"
    notes.print(
        shown(f"The home stays, with every file ({homes}).")
        if claims or records is None
        else "The hub's records name no claim of theirs; none is deleted."
    )
    if claims or records is None:
        notes.print(shown(f"Whoever logs in as {user} later gets that home again."))


def _claims_of(user: str, records: HubRecords) -> tuple[str, ...]:
    named = (
        records.claim_of(record.user, record.server)
        for record in sorted(records.states, key=str)
        if record.user == user
    )
    return tuple(dict.fromkeys(name for name in named if name))


@sessions.command()
@click.argument("user")
@server_option
@yes_option
@json_option
@with_site
async def unstick(site: Site, user: str, server: str | None, yes: bool, as_json: bool) -> None:
    """Give up whatever the hub is doing about USER's servers; they can be started then.

    For a server that hangs in pending spawn, stop or check. A lab that runs is left alone; the
    next start takes it up.
    """
    async with access(site) as hub:
        with notes.status("Looking"):
            proposal = await hub.propose("unstick", user=user, server=server)
        _show(site, proposal)
        why = "the hub is not busy with any of them" if proposal["hub_runs"] else "no hub runs"
        await _carry_out(hub, proposal, yes, as_json, f"nothing of {user} is pending, {why}")


@sessions.command()
@click.option("--dry-run", is_flag=True, help="Print the plan and do nothing.")
@click.option("--wait", is_flag=True, help="Look twice, a minute apart, for what is missing.")
@click.option("--over-cap", is_flag=True, help="Yes, so many labs are gone: believe it.")
@no_snapshot_option
@yes_option
@json_option
@with_site
async def reconcile(
    site: Site,
    dry_run: bool,
    wait: bool,
    over_cap: bool,
    no_snapshot: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Compare all sessions with all labs now, as the hub does every few minutes.

    With --over-cap a snapshot of the database is made before anything is cleared.
    """
    async with access(site) as hub:
        with notes.status("Looking"):
            proposal = await hub.propose("reconcile", over_cap=over_cap)
        if wait and _unsettled(site, proposal):
            await _wait()
            with notes.status("Looking again"):
                proposal = await hub.propose("reconcile", over_cap=over_cap)
        _show(site, proposal)
        _advise(proposal["plan"]["refusals"], wait)
        if dry_run or (proposal["dry"] and proposal["plan"]["actions"]):
            _tell_dry(proposal)
        if dry_run:
            _print_result(proposal, None, as_json)
            return
        if proposal["dry"] and proposal["plan"]["actions"]:
            if yes:
                _print_result(proposal, None, as_json)
                raise SafetyError(f"nothing was done. {_how_to_go_on(proposal['dry'])}")
            notes.print(f"[yellow]This would be done all the same.[/] {_way_back(proposal['dry'])}")
        before = None if no_snapshot or not over_cap else _snapshot_of(site, "reconcile --over-cap")
        nothing = "what was found asks for no change"
        await _carry_out(hub, proposal, yes, as_json, nothing, before)


def _unsettled(site: Site, proposal: Record) -> bool:
    """Whether a second look can change anything."""
    waited_for = {Verdict.STALE}
    if site.hub.reconciler.orphans != "report":
        waited_for.add(Verdict.ORPHAN)
    return any(Verdict(one["verdict"]) in waited_for for one in proposal["findings"])


async def _wait() -> None:
    if not notes.is_terminal:
        notes.print(f"Looking again in {APART:.0f} s.")
    columns = (TextColumn("Looking again in"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=notes, transient=True) as progress:
        task = progress.add_task("wait", total=APART)
        loop = asyncio.get_running_loop()
        # The hub counts from its own look, which was before its answer.
        end = loop.time() + APART + 0.5
        while (left := end - loop.time()) > 0:
            await asyncio.sleep(min(1.0, left))
            progress.update(task, completed=APART - max(0.0, left))


def _advise(refusals: Collection[Record], waited: bool) -> None:
    codes = {one["code"] for one in refusals}
    if "sightings" in codes and not waited:
        notes.print("To look twice, a minute apart, and act then: add --wait")
    if "cap" in codes:
        notes.print("If so many labs are really gone, say so: add --over-cap")


def _how_to_go_on(dry: str) -> str:
    if dry.startswith("paused"):
        return "To let passes act again: jhub-safety sessions resume"
    return "To do it all the same, run it without --yes"


def _way_back(dry: str) -> str:
    resume = "To end the pause: jhub-safety sessions resume"
    return resume if dry.startswith("paused") else ""


# -- plan, question, outcome


def _show(site: Site, proposal: Record) -> None:
    notes.print(shown(site.header()))
    _tell_down(proposal)
    findings = in_order(proposal["findings"])
    if findings:
        aside.print(table_of(findings, hub_runs=proposal["hub_runs"]))
    print_plan(proposal["plan"])


def _snapshot_of(site: Site, command: str) -> Callable[[], Awaitable[None]]:
    return partial(back_up_first, site, f"jhub-safety sessions {command}")


async def _carry_out(
    hub: Access,
    proposal: dict[str, Any],
    yes: bool,
    as_json: bool,
    nothing: str,
    before: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Ask, execute the very plan that was shown, say what came of each action."""
    outcomes: list[dict[str, Any]] = []
    if not proposal["plan"]["actions"]:
        notes.print(shown(f"There is nothing to do: {nothing}."))
    else:
        if not yes:
            click.confirm("Go on?", abort=True, err=True)
        if before is not None:
            await before()
        with notes.status("At work; a lab may take a minute to end"):
            outcomes = await hub.execute(proposal)
    _print_result(proposal, outcomes, as_json)
    # What only needs its time is no failure; what is too much to be believed is for a person.
    refused = any(one["code"] == "cap" for one in proposal["plan"]["refusals"])
    if refused or any(one["outcome"].startswith("failed") for one in outcomes):
        sys.exit(1)


def _print_result(
    proposal: dict[str, Any], outcomes: list[dict[str, Any]] | None, as_json: bool
) -> None:
    if as_json:
        _print_json({**_without_id(proposal), "outcomes": outcomes})
        return
    for one in outcomes or ():
        console.print(shown(f"{describe(one)}: {one['outcome']}"))


def _tell_dry(proposal: Record) -> None:
    if proposal["dry"]:
        notes.print(f"[yellow]Passes change nothing just now[/]: {shown(proposal['dry'])}")


def _tell_down(proposal: Record) -> None:
    if not proposal["hub_runs"]:
        notes.print("No hub runs: what is pending and the proxy's routes are not known.")


def _without_id(proposal: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in proposal.items() if key != "id"}


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))
