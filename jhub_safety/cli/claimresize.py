"""``jhub-safety claims resize``: many claims grow at once, never shrink."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from jhub_safety import quantity
from jhub_safety.cli.claimchange import (
    Word,
    ask,
    check,
    going_through,
    tell_left_out,
    word_options,
)
from jhub_safety.cli.claimfilter import filter_options, look
from jhub_safety.cli.connection import (
    Connection,
    command_line_journal,
    console,
    kept_journal,
    notes,
    shown,
    with_connection,
)
from jhub_safety.plan import Plan
from jhub_safety.volumes.adopt import Outcome
from jhub_safety.volumes.resizing import execute, growth_of, homes_left_out, plan_resizes
from jhub_safety.volumes.selection import Filter, Row, in_words

_HOMES = "a home: only by its name"


def _size(_context: Any, _option: Any, text: str | None) -> str:
    try:
        return text if text and quantity.storage(text) else ""
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@click.argument("names", metavar="[CLAIM]...", nargs=-1)
@filter_options
@click.option("--to", callback=_size, help="10Gi, ...; without: each to its configured size.")
@click.option("--over-limit", is_flag=True, help="Also beyond SafeKubeSpawner.max_growth.")
@click.option("--dry-run", is_flag=True, help="Print the plan and do nothing.")
@word_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_connection
async def resize(
    connection: Connection,
    names: tuple[str, ...],
    chosen: Filter,
    to: str,
    over_limit: bool,
    dry_run: bool,
    word: Word,
    as_json: bool,
) -> None:
    """Enlarge extra volumes by filter, or CLAIMs by name. It cannot be taken back.

    Homes grow only by name.
    """
    if bool(names) == bool(chosen):
        raise click.UsageError("Give CLAIMs or a filter (--component, --owner, ...), not both.")
    check(connection, word, "enlarged")
    journal = command_line_journal() if dry_run else kept_journal()
    limit = 0.0 if over_limit else connection.hub.settings.max_growth
    with notes.status("Looking"):
        seen = await look(connection, pods=True)
    rows = tuple(
        row for row in seen.rows if (row.name in names if names else chosen.takes(row, seen.now))
    )
    hub, homes = connection.hub.hub_name, seen.known.homes if seen.known else frozenset()
    plan = plan_resizes(rows, names, hub=hub, to=to, limit=limit, homes=homes)
    left_out = homes_left_out(rows, names, hub=hub, homes=homes)
    _show(connection, plan, rows, left_out)
    outcomes: tuple[Outcome, ...] = ()
    if plan and not dry_run:
        if not word.yes:
            ask(connection, plan, "enlarged")
        with going_through("Enlarging", len(plan.actions), journal) as advance:
            outcomes = await execute(
                plan,
                connection.claims,
                journal,
                limit=limit,
                progress=advance,
                where=connection.cluster.server,
            )
    failed = [one for one in outcomes if one.failed]
    if as_json:
        results = [{"name": one.action.name, "result": one.result} for one in outcomes]
        record = {**plan.record(), "left_out": {_HOMES: list(left_out)} if left_out else {}}
        click.echo(json.dumps({**record, "outcomes": results}, indent=2))
    else:
        for one in failed:
            console.print(shown(f"{one.action.name}: {one.result}"))
        if outcomes:
            console.print(f"{len(outcomes) - len(failed)} of {len(outcomes)} done")
    if failed or plan.refusals:
        sys.exit(1)


def _show(
    connection: Connection, plan: Plan, rows: tuple[Row, ...], left_out: tuple[str, ...]
) -> None:
    notes.print(shown(connection.header()))
    using = {row.name: ", ".join(row.mounted_by or ()) for row in rows}
    for action in plan.actions:
        pods = using[action.name]
        by = f" (mounted by {pods})" if pods else ""
        notes.print(shown(f"  {action.kind} {action.name}: {action.reason}{by}"))
    tell_left_out({_HOMES: left_out} if left_out else {})
    for refusal in plan.refusals:
        notes.print(f"  [red]refused[/] {shown(refusal.who)}: {shown(refusal.reason)}")
    if plan:
        mounted = sum(bool(using[action.name]) for action in plan.actions)
        if mounted:
            notes.print(
                f"{mounted} of {len(plan.actions)} are mounted now: where the storage cannot "
                "enlarge them so, they grow when their pod has ended."
            )
        notes.print(
            f"{plan.title}: {in_words(growth_of(plan, rows))} more. No claim shrinks again."
        )
    else:
        notes.print("There is nothing to enlarge.")
