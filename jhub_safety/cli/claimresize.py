"""``jhub-safety claims resize``: many claims grow at once, never shrink."""

from __future__ import annotations

import json
import sys
from typing import Any

import click
from rich.progress import Progress

from jhub_safety import quantity
from jhub_safety.cli.claimfilter import filter_options, look
from jhub_safety.cli.connection import (
    Connection,
    command_line_journal,
    console,
    notes,
    shown,
    with_connection,
)
from jhub_safety.plan import Plan
from jhub_safety.volumes.adopt import Outcome
from jhub_safety.volumes.resizing import execute, growth_of, plan_resizes
from jhub_safety.volumes.selection import Filter, Row, in_words


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
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_connection
async def resize(
    connection: Connection,
    names: tuple[str, ...],
    chosen: Filter,
    to: str,
    over_limit: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Enlarge claims, by name or by filter. It cannot be taken back."""
    if bool(names) == bool(chosen):
        raise click.UsageError("Give CLAIMs or a filter (--component, --owner, ...), not both.")
    limit = 0.0 if over_limit else connection.hub.settings.max_growth
    with notes.status("Looking"):
        seen = await look(connection, pods=chosen.mounted is not None)
    rows = tuple(
        row for row in seen.rows if (row.name in names if names else chosen.takes(row, seen.now))
    )
    plan = plan_resizes(rows, names, hub=connection.hub.hub_name, to=to, limit=limit)
    _show(connection, plan, rows)
    outcomes: tuple[Outcome, ...] = ()
    if plan and not dry_run:
        if not yes:
            click.confirm("Go on?", abort=True, err=True)
        with Progress(console=notes, transient=True) as progress:
            task = progress.add_task("Enlarging", total=len(plan.actions))
            outcomes = await execute(
                plan,
                connection.claims,
                command_line_journal(),
                limit=limit,
                progress=lambda _: progress.advance(task),
            )
    failed = [one for one in outcomes if one.failed]
    if as_json:
        results = [{"name": one.action.name, "result": one.result} for one in outcomes]
        click.echo(json.dumps({**plan.record(), "outcomes": results}, indent=2))
    else:
        for one in failed:
            console.print(shown(f"{one.action.name}: {one.result}"))
        if outcomes:
            console.print(f"{len(outcomes) - len(failed)} of {len(outcomes)} done")
    if failed or plan.refusals:
        sys.exit(1)


def _show(connection: Connection, plan: Plan, rows: tuple[Row, ...]) -> None:
    notes.print(shown(connection.header()))
    for action in plan.actions:
        notes.print(shown(f"  {action.kind} {action.name}: {action.reason}"))
    for refusal in plan.refusals:
        notes.print(f"  [red]refused[/] {shown(refusal.who)}: {shown(refusal.reason)}")
    if plan:
        notes.print(
            f"{plan.title}: {in_words(growth_of(plan, rows))} more. No claim shrinks again."
        )
    else:
        notes.print("There is nothing to enlarge.")
