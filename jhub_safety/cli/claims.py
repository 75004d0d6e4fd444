"""``jhub-safety claims``: whose homes are where, and an operator's word on it."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click
from rich.progress import Progress
from rich.table import Table

from jhub_safety import owner as marks
from jhub_safety.cli.asking import ask_about, decide_as_a_spawn, who_is_known
from jhub_safety.cli.connection import (
    Connection,
    command_line_journal,
    console,
    notes,
    shown,
    with_connection,
)
from jhub_safety.cluster import forgotten
from jhub_safety.cluster.claims import Claim
from jhub_safety.errors import SafetyError
from jhub_safety.plan import Action, Plan
from jhub_safety.volumes.adopt import Adoption, Outcome, execute, plan_adoptions
from jhub_safety.volumes.model import Decision, Observation, Question, Verdict
from jhub_safety.volumes.relation import owner_of

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


@click.group()
def claims() -> None:
    """The claims that hold users' homes."""


@claims.command("list")
@json_option
@with_connection
async def list_claims(connection: Connection, as_json: bool) -> None:
    """One line per claim of the namespace."""
    found = sorted((await connection.claims.list()).values(), key=lambda claim: claim.name)
    if as_json:
        _print_json([_claim_record(claim) for claim in found])
        return
    table = Table(box=None, pad_edge=False)
    for title in ("CLAIM", "OWNER", "BY", "PHASE", "SIZE", "CLASS", "VOLUME", "CREATED"):
        table.add_column(title, overflow="fold")
    for claim in found:
        table.add_row(
            *map(
                shown,
                (
                    claim.name,
                    owner_of(claim),
                    _by(claim),
                    _phase(claim),
                    claim.capacity,
                    claim.storage_class,
                    claim.volume,
                    f"{claim.created:%Y-%m-%d}" if claim.created else "",
                ),
            )
        )
    console.print(table)
    notes.print(f"{len(found)} claims; {shown(connection.header())}")


def _claim_record(claim: Claim) -> dict[str, Any]:
    return {**claim.record(), "owner": owner_of(claim), "by": _by(claim)}


def _by(claim: Claim) -> str:
    if marks.RELEASED in claim.annotations:
        return "released"
    if marks.USER in claim.annotations:
        return claim.annotations.get(marks.GENERATION, "jhub-safety")
    return "kubespawner" if marks.KUBESPAWNER_USER in claim.annotations else ""


def _phase(claim: Claim) -> str:
    return "Terminating" if claim.deleting else claim.phase


@claims.command()
@click.argument("user", required=False)
@click.argument("server", default="")
@click.option("--all", "everybody", is_flag=True, help="Every user of the hub, with a summary.")
@click.option("--identity", help="The login provider's stable id of USER.")
@json_option
@with_connection
async def explain(
    connection: Connection,
    user: str | None,
    server: str,
    everybody: bool,
    identity: str | None,
    as_json: bool,
) -> None:
    """Which claim USER would get at the next start, and by which rule.

    Reads only. With --all: how many would be mounted, adopted, created and refused; run it
    before installing.
    """
    if (user is None) != everybody:
        raise click.UsageError("Give a USER, or --all.")
    seen = Observation(MappingProxyType(await connection.claims.list()), complete=True)
    records = connection.records()
    if user is not None:
        question = ask_about(connection, records, user, server, identity)
        decision = await decide_as_a_spawn(connection, question, seen, records, with_volumes=True)
        if as_json:
            _print_json(_decision_record(question, decision))
        else:
            _print_decision(connection, question, decision)
        return
    questions = [
        ask_about(connection, records, record.user, record.server, None)
        for record in sorted(who_is_known(records, seen.claims.values()), key=str)
    ]
    answers = [
        (question, await decide_as_a_spawn(connection, question, seen, records))
        for question in questions
    ]
    if as_json:
        _print_json([_decision_record(*answer) for answer in answers])
    else:
        _print_summary(connection, answers)


def _decision_record(question: Question, decision: Decision) -> dict[str, Any]:
    return {
        "user": question.owner.user,
        "server": question.owner.server,
        "verdict": decision.verdict,
        "row": decision.row,
        "claim": decision.name,
        "why": decision.why,
        "saved": question.saved,
        "candidates": [_claim_record(claim) for claim in decision.claims],
        "command": f"jhub-safety {decision.command}" if decision.command else None,
        "retryable": decision.retryable,
    }


_COLOURS = {
    Verdict.MOUNT: "green",
    Verdict.ADOPT: "green",
    Verdict.CREATE: "yellow",
    Verdict.REFUSE: "red",
}


def _print_decision(connection: Connection, question: Question, decision: Decision) -> None:
    verdict = f"[{_COLOURS[decision.verdict]}]{decision.verdict}[/]"
    console.print(f"{shown(question.owner)}: {verdict} {shown(decision.name)}")
    console.print(f"  row      {decision.row}: {shown(decision.why)}", soft_wrap=True)
    console.print(f"  record   {shown(question.saved or 'names no claim')}")
    for claim in decision.claims:
        console.print(
            shown(
                f"  claim    {claim.name}: {_phase(claim)}, {claim.capacity}, {owner_of(claim)}, "
                f"volume {claim.volume or 'none'}, created {claim.created}"
            ),
            soft_wrap=True,
        )
    if connection.hub.settings.identity_key and question.owner.identity is None:
        notes.print("The hub goes by a stable id; give it with --identity for a sure answer.")
    if decision.command and not decision.command.startswith("claims explain"):
        console.print(f"  next     {shown('jhub-safety ' + decision.command)}")


def _print_summary(connection: Connection, answers: list[tuple[Question, Decision]]) -> None:
    counts = Counter(decision.verdict for _, decision in answers)
    table = Table(box=None, pad_edge=False)
    for title in ("USER", "VERDICT", "ROW", "CLAIM", "NEXT"):
        table.add_column(title, overflow="fold")
    for question, decision in answers:
        if decision.verdict is not Verdict.MOUNT:
            table.add_row(
                shown(question.owner),
                f"[{_COLOURS[decision.verdict]}]{decision.verdict}[/]",
                decision.row,
                shown(decision.name),
                shown(f"jhub-safety {decision.command}") if decision.command else "",
            )
    if table.row_count:
        console.print(table)
    console.print(
        f"{len(answers)} servers: "
        + ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict)
    )
    notes.print(shown(connection.header()))


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


@claims.command()
@click.argument("claim")
@click.option("--user", required=True, help="Whose record names it.")
@click.option("--server", default="", help="For which of their named servers.")
@click.option("--identity", help="The login provider's stable id of USER.")
@yes_option
@with_connection
async def forget(
    connection: Connection, claim: str, user: str, server: str, identity: str | None, yes: bool
) -> None:
    """Give up a CLAIM that no longer exists; its user gets a new home at the next start."""
    if await connection.claims.read(claim) is not None:
        raise SafetyError(
            f"claim {claim} exists; nothing was changed. To give {user} another one run: "
            f"jhub-safety claims adopt OTHER {connection.hub.owner(user, server).options}"
        )
    owner = connection.hub.owner(user, server, identity)
    records = connection.records()
    if records is not None and (saved := records.claim_of(user, server)) != claim:
        raise SafetyError(
            f"the hub's record of {owner} names {saved or 'no claim'}, not {claim}; nothing was "
            f"changed. See: jhub-safety claims explain {owner.arguments}"
        )
    action = Action(
        "forget-claim",
        connection.claims.namespace,
        claim,
        f"gone for good; {owner} starts with a new home",
    )
    _show(connection, Plan(f"forget claim {claim}", (action,)))
    if not yes:
        click.confirm("Go on?", abort=True, err=True)
    await forgotten.write(connection.cluster.api, connection.claims.namespace, owner, claim)
    command_line_journal().write(action, "done")
    console.print(f"Recorded. {shown(owner)} gets a new home at the next start.")


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
