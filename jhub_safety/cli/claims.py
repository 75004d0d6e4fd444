"""``jhub-safety claims``: its commands, and ``adopt``, an operator's word on whose a claim is."""

from __future__ import annotations

import csv
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.progress import Progress

from jhub_safety.cli.claimdelete import delete
from jhub_safety.cli.claimexplain import explain
from jhub_safety.cli.claimforget import forget
from jhub_safety.cli.claimlist import list_claims
from jhub_safety.cli.claimresize import resize
from jhub_safety.cli.connection import (
    Connection,
    command_line_journal,
    console,
    notes,
    shown,
    with_connection,
)
from jhub_safety.errors import SafetyError
from jhub_safety.plan import Plan
from jhub_safety.volumes.adopt import Adoption, Outcome, execute, plan_adoptions

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


@click.group()
def claims() -> None:
    """The claims that hold users' homes and extra volumes."""


claims.add_command(list_claims)
claims.add_command(explain)
claims.add_command(forget)
claims.add_command(resize)
claims.add_command(delete)


@claims.command()
@click.argument("claim", required=False)
@click.option("--user", help="Who gets it.")
@click.option("--server", default="", help="For which of their named servers.")
@click.option("--identity", help="The login provider's stable id of USER.")
@click.option(
    "--from-csv",
    "table",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Many at once: a CSV file with the columns claim,user and perhaps server,identity.",
)
@yes_option
@json_option
@with_connection
async def adopt(
    connection: Connection,
    claim: str | None,
    user: str | None,
    server: str,
    identity: str | None,
    table: Path | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Make CLAIM the home of a user. Nothing is deleted; a former home is kept, unmounted."""
    if table is not None and claim is None and user is None:
        rows = _read_csv(table)
    elif table is None and claim is not None and user is not None:
        rows = [(claim, user, server, identity)]
    else:
        raise click.UsageError("Give CLAIM and --user, or --from-csv.")
    records = connection.records()
    adoptions = [
        Adoption(
            name,
            connection.hub.owner(who, where, stable_id),
            records.claim_of(who, where) if records else None,
        )
        for name, who, where, stable_id in rows
    ]
    plan = plan_adoptions(
        adoptions,
        await connection.claims.list(),
        namespace=connection.claims.namespace,
        today=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    await _carry_out(connection, plan, yes, as_json)


def _read_csv(path: Path) -> list[tuple[str, str, str, str | None]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle, skipinitialspace=True)
            reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
            missing = {"claim", "user"} - set(reader.fieldnames)
            if missing:
                raise SafetyError(f"{path}: the first line must name the columns {sorted(missing)}")
            return [_row(path, reader.line_num, row) for row in reader]
    except UnicodeDecodeError as error:
        raise SafetyError(f"{path} is no UTF-8 text; save it as CSV UTF-8") from error


def _row(path: Path, line: int, row: dict[str, str | None]) -> tuple[str, str, str, str | None]:
    claim, user, server, identity = (
        (row.get(column) or "").strip() for column in ("claim", "user", "server", "identity")
    )
    if not claim or not user:
        raise SafetyError(f"{path}, line {line}: claim or user is missing; nothing was changed")
    return claim, user, server, identity or None


def _show(connection: Connection, plan: Plan) -> None:
    notes.print(shown(connection.header()))
    for action in plan.actions:
        notes.print(shown(f"  {action.kind} {action.name}: {action.reason}"))
    for refusal in plan.refusals:
        notes.print(f"  [red]refused[/] {shown(refusal.who)}: {shown(refusal.reason)}")


async def _carry_out(connection: Connection, plan: Plan, yes: bool, as_json: bool) -> None:
    """Print the plan, ask, execute that very plan, sum up."""
    _show(connection, plan)
    if not plan:
        raise SafetyError("there is nothing to do; nothing was changed")
    if not yes:
        click.confirm("Go on?", abort=True, err=True)
    with Progress(console=notes, transient=True) as progress:
        task = progress.add_task(plan.title, total=len(plan.actions))

        def advance(_: Outcome) -> None:
            progress.advance(task)

        outcomes = await execute(plan, connection.claims, command_line_journal(), advance)
    failed = [outcome for outcome in outcomes if outcome.failed]
    if as_json:
        _print_json(
            {
                **plan.record(),
                "outcomes": [
                    {"name": outcome.action.name, "result": outcome.result} for outcome in outcomes
                ],
            }
        )
    else:
        for outcome in failed:
            console.print(shown(f"{outcome.action.name}: {outcome.result}"))
        console.print(f"{len(outcomes) - len(failed)} of {len(outcomes)} done")
    if failed or plan.refusals:
        sys.exit(1)


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))
