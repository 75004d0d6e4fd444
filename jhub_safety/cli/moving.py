"""``jhub-safety claims export`` and ``reattach``: over the loss of a namespace or cluster."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.progress import Progress

from jhub_safety.cli.connection import (
    Connection,
    Options,
    command_line_journal,
    common_options,
    connected,
    console,
    notes,
    shown,
    with_connection,
)
from jhub_safety.cluster import namespaces
from jhub_safety.cluster.volumes import RETAIN, VolumesApi
from jhub_safety.errors import Doubt, SafetyError
from jhub_safety.plan import Plan
from jhub_safety.volumes import export as exporting
from jhub_safety.volumes import rebind
from jhub_safety.volumes.adopt import Outcome
from jhub_safety.volumes.exported import Entry, Export, dump, parse
from jhub_safety.volumes.reattach import Reattachment, Row, Seen, decide_all
from jhub_safety.volumes.remake import Target

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_yes = click.option("--yes", is_flag=True, help="Do not ask.")
_file = click.argument("file", type=click.Path(dir_okay=False, path_type=Path))


@click.command("export")
@_file
@click.option("--retain", is_flag=True, help="First let every volume outlive its claim.")
@click.option("--overwrite", is_flag=True, help="Replace FILE when it exists.")
@_yes
@_json
@with_connection
async def export_claims(
    connection: Connection, file: Path, retain: bool, overwrite: bool, yes: bool, as_json: bool
) -> None:
    """Write to FILE what is needed to put every volume back under its claim.

    Copies no data. Needs your own rights to read PersistentVolumes (with --retain: to patch them).
    """
    if not overwrite:
        exporting.refuse_existing(file)
    volumes = _volumes(connection)
    export, plan = await _observe(connection, volumes)
    outcomes: tuple[Outcome, ...] = ()
    if retain and plan:
        _show_header(connection)
        for action in plan.actions:
            notes.print(shown(f"  {action.kind} {action.name}: {action.reason}"))
        if not yes:
            click.confirm("Go on?", abort=True, err=True)
        with _Steps(plan) as advance:
            outcomes = await exporting.execute(
                plan, export.entries, volumes, command_line_journal(), advance
            )
        # What is written is what is there afterwards.
        export, plan = await _observe(connection, volumes)
    exporting.write(file, dump(export), overwrite=overwrite)
    failed = _failures(outcomes)
    if as_json:
        _print_json(
            {
                "file": str(file),
                "claims": len(export.entries),
                "left_out": [
                    {"name": one.name, "why": one.why, "lost": one.lost} for one in export.left_out
                ],
                "deleted_with_their_claims": [action.name for action in plan.actions],
                "outcomes": _outcome_records(outcomes),
            }
        )
    else:
        _print_export(connection, file, export, plan, retain=retain)
    if failed or any(one.lost for one in export.left_out):
        sys.exit(1)


async def _observe(connection: Connection, volumes: VolumesApi) -> tuple[Export, Plan]:
    """What the file will say, and which volumes would be deleted with their claims."""
    try:
        claims = await connection.claims.list()
        found = await volumes.list()
    except Doubt as doubt:
        raise SafetyError(f"{rebind.told(doubt)}. Nothing was exported") from doubt
    entries, left_out = exporting.pair(claims, found)
    export = Export(
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        cluster=connection.cluster.server,
        namespace=connection.claims.namespace,
        hub=connection.hub.hub_name,
        entries=entries,
        left_out=left_out,
    )
    return export, exporting.plan_retaining(claims, found, entries)


def _print_export(
    connection: Connection, file: Path, export: Export, plan: Plan, *, retain: bool
) -> None:
    for one in export.left_out:
        colour = "red" if one.lost else "yellow"
        notes.print(f"  [{colour}]not exported[/] {shown(one.name)}: {shown(one.why)}")
    if plan:
        notes.print(
            f"[yellow]{len(plan.actions)} of {len(export.entries)} volumes are DELETED with their "
            "claims[/] (reclaim policy not Retain), and with the namespace. To keep them: "
            + shown(f"jhub-safety claims export {file} --retain --overwrite")
        )
    elif retain:
        notes.print(f"Every volume has reclaim policy {RETAIN}.")
    console.print(shown(f"{len(export.entries)} claims with their volumes are in {file}"))
    notes.print(shown(connection.header()))


@click.command("reattach")
@_file
@click.option("--to-namespace", help="Another namespace than the one in FILE.")
@click.option("--hub", help="This hub's name, when FILE is another hub's.")
@click.option(
    "--create-volumes",
    is_flag=True,
    help="Make PersistentVolumes anew that are not in the cluster. No other cluster may use them.",
)
@click.option("--only", multiple=True, metavar="CLAIM", help="Only this claim of FILE; repeatable.")
@click.option(
    "--wait",
    default=60.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Seconds in which a claim must become Bound.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan and do nothing.")
@_yes
@_json
@common_options
def reattach_claims(
    options: Options,
    to_namespace: str | None,
    wait: float,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **what: Any,
) -> None:
    """Make the claims in FILE again, each bound to the volume that it had.

    Nothing is deleted, and no claim that exists is changed. Can be run again after it was
    interrupted. Needs your own rights to PersistentVolumes.
    """
    if to_namespace is not None and options.namespace not in (None, to_namespace):
        raise click.UsageError("Give --namespace or --to-namespace, not two different ones.")
    options = replace(options, namespace=to_namespace or options.namespace)

    async def run() -> None:
        async with connected(options) as connection:
            planned, seen = await _decide(connection, moved=to_namespace is not None, **what)
            _show_plan(connection, planned)
            outcomes: tuple[Outcome, ...] = ()
            if planned.plan and not dry_run:
                if not yes:
                    click.confirm("Go on?", abort=True, err=True)
                outcomes = await _carry_out(connection, planned, seen, wait)
            _sum_up(planned, outcomes, as_json)

    asyncio.run(run())


async def _decide(
    connection: Connection,
    *,
    file: Path,
    moved: bool,
    hub: str | None,
    create_volumes: bool,
    only: Sequence[str],
) -> tuple[Reattachment, Seen]:
    export = _read(file)
    if missing := sorted(set(only) - {entry.claim.name for entry in export.entries}):
        raise SafetyError(f"{file} has no claim {missing[0]}; nothing was changed")
    _check_place(connection, export, file, moved=moved, hub=hub)
    target = Target(connection.claims.namespace, connection.hub.hub_name, create_volumes)
    try:
        await namespaces.must_be_active(connection.cluster.api, target.namespace)
        seen = Seen.of(await connection.claims.list(), await _volumes(connection).list())
    except Doubt as doubt:
        raise SafetyError(f"{rebind.told(doubt)}. Nothing was changed") from doubt
    # All of them are decided about: what two entries have in common is wrong for one of them, too.
    planned = decide_all(export, target, seen)
    if only:
        chosen = tuple(one for one in planned.decisions if one.entry.claim.name in only)
        planned = replace(planned, decisions=chosen)
    return planned, seen


async def _carry_out(
    connection: Connection, planned: Reattachment, seen: Seen, wait: float
) -> tuple[Outcome, ...]:
    with _Steps(planned.plan) as advance:
        return await rebind.execute(
            planned,
            seen,
            connection.claims,
            _volumes(connection),
            command_line_journal(),
            patience=rebind.Patience(limit=wait),
            progress=advance,
        )


def _sum_up(planned: Reattachment, outcomes: tuple[Outcome, ...], as_json: bool) -> None:
    plan = planned.plan
    failed = _failures(outcomes)
    already = sum(one.row is Row.DONE for one in planned.decisions)
    bound = sum(one.action.kind == "bind-claim" and not one.failed for one in outcomes)
    if as_json:
        decided = [_decision_record(one.entry, one.row, one.why) for one in planned.decisions]
        _print_json({**plan.record(), "claims": decided, "outcomes": _outcome_records(outcomes)})
    else:
        console.print(
            f"{bound} reattached, {already} were bound already, {len(plan.refusals)} refused, "
            f"{len(failed)} failed"
        )
    if failed or plan.refusals:
        sys.exit(1)


def _read(file: Path) -> Export:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SafetyError(
            f"{file} is no file of jhub-safety claims export: it is no UTF-8 text"
        ) from error
    except OSError as error:
        raise SafetyError(f"{file} cannot be read: {error.strerror}") from error
    return parse(text, str(file))


def _check_place(
    connection: Connection, export: Export, file: Path, *, moved: bool, hub: str | None
) -> None:
    """Raises SafetyError where the operator has not said that another place is meant."""
    here, name = connection.claims.namespace, connection.hub.hub_name
    says = f"{file} was made in namespace {export.namespace} for hub {export.hub}"
    if hub is not None and hub != name:
        raise SafetyError(f"this is hub {name}, not {hub}; nothing was changed")
    if export.namespace != here and not moved:
        raise SafetyError(
            f"{says}, and this is namespace {here}; nothing was changed. To move its claims here: "
            f"--to-namespace {here}"
        )
    if export.hub != name and hub is None:
        raise SafetyError(
            f"{says}, and this is hub {name}; nothing was changed. To make its claims this hub's: "
            f"--hub {name}"
        )


def _show_plan(connection: Connection, planned: Reattachment) -> None:
    export = planned.export
    _show_header(connection)
    notes.print(
        shown(
            f"from a file of {export.made}: cluster {export.cluster}, namespace "
            f"{export.namespace}, hub {export.hub}"
        )
    )
    for one in planned.decisions:
        name = shown(f"{one.entry.claim.name} ({one.entry.owner})")
        if one.refused:
            command = f". Run: jhub-safety {one.command}" if one.command else ""
            notes.print(f"  [red]refused[/] {name}: {shown(one.why + command)}")
            continue
        steps = ", ".join(action.kind for action in one.actions) or "nothing to do"
        notes.print(f"  {steps} {name}, {one.entry.claim.capacity}: {shown(one.why)}")
    if any(one.row is Row.RECREATE for one in planned.decisions):
        notes.print(
            "[yellow]Volumes are made anew. Two clusters that mount one disk destroy its file "
            f"system[/]: make sure that {shown(export.cluster)} no longer uses them."
        )


# -- what both have


def _volumes(connection: Connection) -> VolumesApi:
    return VolumesApi(connection.cluster.api, timeout=30, patience=30)


def _show_header(connection: Connection) -> None:
    notes.print(shown(connection.header()))


class _Steps:
    """A progress bar, one step for each action of a plan."""

    def __init__(self, plan: Plan) -> None:
        self._progress = Progress(console=notes, transient=True)
        self._task = self._progress.add_task(plan.title, total=len(plan.actions))

    def __enter__(self) -> Callable[[Outcome], None]:
        self._progress.start()
        return lambda _: self._progress.advance(self._task)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def _failures(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that failed, told on standard error."""
    failed = [outcome for outcome in outcomes if outcome.failed]
    for outcome in failed:
        notes.print(shown(f"{outcome.action.kind} {outcome.action.name}: {outcome.result}"))
    return failed


def _outcome_records(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    return [
        {"kind": one.action.kind, "name": one.action.name, "result": one.result} for one in outcomes
    ]


def _decision_record(entry: Entry, row: Row, why: str) -> dict[str, Any]:
    return {
        "claim": entry.claim.name,
        "owner": entry.owner,
        "volume": entry.volume.name,
        "row": row,
        "why": why,
    }


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))
