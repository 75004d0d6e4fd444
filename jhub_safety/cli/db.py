"""``jhub-safety db``: snapshots of the hub database, and moving it to another engine."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import click
from rich.table import Table

from jhub_safety.cli.connection import command_line_journal, console, notes, shown
from jhub_safety.cli.dbknown import known_here
from jhub_safety.cli.dbreview import show_review
from jhub_safety.cli.dbsite import DbSite, progress, with_db
from jhub_safety.cli.holding import no_snapshot_option, snapshot_before
from jhub_safety.errors import SafetyError
from jhub_safety.hub.recovering import configured_admins
from jhub_safety.hubdb.alone import Lock
from jhub_safety.hubdb.engines import address
from jhub_safety.hubdb.migrate import configuration
from jhub_safety.hubdb.restore import NAMES
from jhub_safety.hubdb.review import Review
from jhub_safety.plan import Action

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


@click.group()
def db() -> None:
    """The hub's database: snapshots, restoring one, moving to another engine."""


@db.command()
@json_option
@with_db
async def backup(site: DbSite, as_json: bool) -> None:
    """Make a snapshot and verify it. The hub may be running; nothing is removed."""
    notes.print(shown(site.header()))
    site.warn()
    with progress() as told:
        found = await site.backups.run_once(tidy=False, progress=told)
    if as_json:
        _print_json(found["snapshot"])
        return
    made = found["snapshot"]
    console.print(shown(made["name"]))
    notes.print(f"Verified: {made['users']} users, {_size(made['stored']['size'])}.")


@db.command("list")
@json_option
@with_db
async def list_snapshots(site: DbSite, as_json: bool) -> None:
    """One line a snapshot, oldest first."""
    with notes.status("Looking"):
        found = await site.backups.list()
    if as_json:
        _print_json(found)
        return
    notes.print(shown(site.header()))
    if not found["snapshots"]:
        notes.print("There is none. To make one: jhub-safety db backup")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("SNAPSHOT", "MADE (UTC)", "STATE"):
        table.add_column(heading, no_wrap=True)
    for heading in ("USERS", "SIZE"):
        table.add_column(heading, justify="right")
    table.add_column("FROM", no_wrap=True)
    for one in found["snapshots"]:
        table.add_row(*map(shown, _cells(one)))
    console.print(table)
    newest = found["newest"]
    notes.print(shown(f"A restore takes {newest}." if newest else "None of them is verified."))


def _cells(one: dict[str, Any]) -> tuple[str, ...]:
    about = one["manifest"]
    made = one["made"][:19].replace("T", " ")
    if about is None:
        return one["name"], made, one["problem"], "", "", ""
    state = "verified" if one["verified"] else "not verified"
    if about.get("purpose"):
        state += f", {about['purpose']}"
    size = _size(about["stored"]["size"])
    return one["name"], made, state, str(about["users"]), size, about["engine"]


@db.command()
@click.argument("snapshot", default="newest")
@click.option("--all", "every", is_flag=True, help="Verify all of them.")
@json_option
@with_db
async def verify(site: DbSite, snapshot: str, every: bool, as_json: bool) -> None:
    """Open SNAPSHOT as it is kept, and compare every byte and row with its manifest.

    SNAPSHOT: a part of its name (default: the newest verified one).
    """
    if every:
        names = [one["name"] for one in (await site.backups.list())["snapshots"]]
        if not names:
            notes.print(shown(site.header()))
            notes.print("There is no snapshot to verify. To make one: jhub-safety db backup")
            if as_json:
                _print_json([])
            sys.exit(1)
    else:
        names = [await site.resolve(snapshot)]
    outcomes = [await _verify(site, name) for name in names]
    if as_json:
        _print_json(outcomes)
    else:
        for one in outcomes:
            console.print(shown(f"{one['name']}: {one['outcome']}"))
    if any(one["outcome"] != "verified" for one in outcomes):
        notes.print("Do not use what is not verified. To make a new one: jhub-safety db backup")
        sys.exit(1)


async def _verify(site: DbSite, name: str) -> dict[str, Any]:
    try:
        await site.ask("verify", snapshot=name)
    except SafetyError as error:
        return {"name": name, "outcome": f"failed: {error}"}
    return {"name": name, "outcome": "verified"}


@db.command()
@click.argument("snapshot")
@click.option("--stop-servers", is_flag=True, help="No server counts as running afterwards.")
@click.option("--keep-logins", is_flag=True, help="Browsers stay logged in, as they were then.")
@click.option("--connected", is_flag=True, help="Although others are connected to the database.")
@click.option("--dry-run", is_flag=True, help="Print the plan and do nothing.")
@yes_option
@json_option
@with_db
async def restore(
    site: DbSite,
    snapshot: str,
    stop_servers: bool,
    keep_logins: bool,
    connected: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Put SNAPSHOT (a part of its name, or "newest") in the place of the hub's database.

    The hub must be down. What is there now is kept: a SQLite file under another name, of a server
    a verified snapshot. If anything fails, all is as it was.
    """
    notes.print(shown(site.header()))
    # Whoever has a copy of the snapshot has the logins that are in it.
    afterwards = [
        *(["stop-servers"] if stop_servers else []),
        *([] if keep_logins else ["log-out"]),
    ]
    async with AsyncExitStack() as stack:
        lock = Lock()
        if not dry_run:
            lock = stack.enter_context(site.nobody_else())
            await site.be_sure_that_it_is_down()
        name = await site.resolve(snapshot)
        known = await stack.enter_async_context(known_here(site))
        asked: dict[str, Any] = {"snapshot": name, "afterwards": afterwards}
        proposal = await site.ask("propose-restore", **asked, besides=lock.client)
        review = Review.parse(proposal["review"]).marked(configured_admins(site.hub.everything))
        proposal["review"] = review.record()
        _show_difference(proposal["difference"], stop_servers)
        to_do = dict(proposal["plan"])
        if (accept := known.action()) and to_do["actions"]:
            proposal["plan"] = {**to_do, "actions": [*to_do["actions"], accept.record()]}
        _show_plan(proposal["plan"])
        if dry_run:
            if not as_json:
                show_review(review, name)
            _finish(proposal, None, as_json)
            return
        _require_no_refusal(to_do)
        if proposal["clients"] and not connected:
            raise SafetyError(
                f"others are connected to the database: {', '.join(proposal['clients'][:5])}. "
                "Nothing was changed. If none of them is a hub: add --connected"
            )
        if not yes:
            click.confirm("Go on?", abort=True, err=True)
        # Somebody may have started it meanwhile: one without the guard does not mind the lock.
        await site.be_sure_that_it_is_down()
        outcome = await _carried_out(
            site,
            "restore",
            to_do,
            told={"restore-database": {"review": review.brief()}},
            lock=lock,
            **asked,
            identity=proposal["identity"],
            former=known.former,
        )
        outcome["next"] = ""
        if accept is not None:
            done, outcome["next"] = await known.go_along()
            command_line_journal().write(accept, done, snapshot=name)
    if not as_json:
        console.print(shown(f"Restored: {outcome['users']} users, from {outcome['snapshot']}"))
        if outcome["aside"]:
            console.print(shown(f"What was there before: {outcome['aside']}"))
        show_review(review, name)
    if outcome["next"]:
        notes.print(shown(f"Before the hub serves: {outcome['next']}"))
    else:
        notes.print(
            f"Start the hub: kubectl -n {site.namespace} scale deploy/hub --replicas=1\n"
            "One that holds goes on within seconds, by itself."
        )
    _finish(proposal, outcome, as_json)


@db.command()
@click.option(
    "--to",
    "target",
    envvar="JHUB_SAFETY_MIGRATE_TO",
    required=True,
    help="URL of an empty database: sqlite, postgresql or mysql. [env: JHUB_SAFETY_MIGRATE_TO]",
)
@click.option("--rehearse", is_flag=True, help="Although a hub is running.")
@click.option("--dry-run", is_flag=True, help="Look for what would not fit, and do nothing.")
@no_snapshot_option
@yes_option
@json_option
@with_db
async def migrate(
    site: DbSite,
    target: str,
    rehearse: bool,
    dry_run: bool,
    no_snapshot: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Copy the hub's database to another engine, every table and every value.

    The source stays as it is, and a snapshot of it is made before, but for a rehearsal. What a
    running hub writes meanwhile is not in the copy, so it is refused while one is alive. A password
    on the command line is seen by others on this machine: rather set JHUB_SAFETY_MIGRATE_TO.
    """
    notes.print(shown(site.header()))
    to = address(target)
    alone = not (dry_run or rehearse)
    with ExitStack() as stack:
        lock = Lock()
        if alone:
            lock = stack.enter_context(site.nobody_else())
            await site.be_sure_that_it_is_down()
        proposal = await site.ask("propose-migrate", target=to.plain)
        notes.print(f"{proposal['tables']} tables, {proposal['users']} users.")
        _show_plan(proposal["plan"])
        if dry_run:
            _finish(proposal, None, as_json)
            if proposal["plan"]["refusals"]:
                sys.exit(1)
            return
        _require_no_refusal(proposal["plan"])
        if not yes:
            click.confirm("Go on?", abort=True, err=True)
        if alone and not no_snapshot:
            await snapshot_before(site.backups, "jhub-safety db migrate")
        if alone:
            # What a hub writes from here on would be missing in the copy, and nobody would know.
            await site.be_sure_that_it_is_down()
        plan = proposal["plan"]
        outcome = await _carried_out(site, "migrate", plan, lock=lock, target=to.plain)
    if not as_json:
        console.print(f"Copied and compared: {outcome['tables']} tables, {outcome['rows']} rows.")
        console.print(shown(f"\nNow have the hub use it:\n\n{configuration(to)}"))
    _finish(proposal, outcome, as_json)


# -- plan, question, outcome


async def _carried_out(
    site: DbSite,
    do: str,
    plan: dict[str, Any],
    told: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    lock: Lock,
    **asked: Any,
) -> dict[str, Any]:
    """Have it done, and write down what came of each action; *told*: more of one, by its kind."""
    # It may have been lost while a person read the plan.
    lock.require()
    journal = command_line_journal()
    known = {"kind", "namespace", "name", "reason", "uid"}
    actions = [
        Action(**{key: value for key, value in one.items() if key in known})
        for one in plan["actions"]
    ]
    try:
        outcome = await site.ask(do, lock=lock, **asked)
    except SafetyError as error:
        for action in actions:
            journal.write(action, f"failed: {error}")
        raise
    for action in actions:
        journal.write(action, "done", **outcome, **(told or {}).get(action.kind, {}))
    return outcome


def _show_plan(plan: dict[str, Any]) -> None:
    notes.print(shown(plan["title"]))
    for one in plan["actions"]:
        notes.print(shown(f"  {one['kind']} {one['name']}: {one['reason']}"))
    for one in plan["refusals"]:
        notes.print(f"  [red]refused[/] {shown(one['who'])}: {shown(one['reason'])}")


def _require_no_refusal(plan: dict[str, Any]) -> None:
    if plan["refusals"]:
        raise SafetyError("nothing was changed: see what is refused above")


def _show_difference(difference: dict[str, Any], stop_servers: bool) -> None:
    if difference["current"] == "damaged":
        notes.print(f"[red]The database is damaged[/]: {shown(difference['problem'])}")
    elif difference["current"] != "hub":
        notes.print(f"The database is {shown(difference['current'])}.")
    table = Table(box=None, pad_edge=False)
    for heading in ("", "NOW", "AFTERWARDS"):
        table.add_column(heading, justify="left" if not heading else "right")
    for what in ("users", "admins", "tokens", "servers"):
        table.add_row(what, *map(str, difference[what]))
    notes.print(table)
    _names("Users who are lost", difference["users_lost"])
    _names("Users who come back", difference["users_back"])
    if difference["servers"][1] and not stop_servers:
        notes.print(
            f"[yellow]{difference['servers'][1]} servers will count as running.[/] Unless their "
            "labs really are the same ones: add --stop-servers"
        )


def _names(what: str, names: Collection[str]) -> None:
    if names:
        some = ", ".join(list(names)[:NAMES])
        more = f", and {len(names) - NAMES} more (--json has all)" if len(names) > NAMES else ""
        notes.print(shown(f"{what} ({len(names)}): {some}{more}"))


def _finish(proposal: dict[str, Any], outcome: dict[str, Any] | None, as_json: bool) -> None:
    if as_json:
        _print_json({**proposal, "outcome": outcome})


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))
