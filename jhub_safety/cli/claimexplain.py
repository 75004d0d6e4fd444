"""``jhub-safety claims explain``: what a start would decide, and by which rule."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import click
from rich.table import Table

from jhub_safety import owner as marks
from jhub_safety.cli.asking import ask_about, decide_as_a_spawn, who_is_known
from jhub_safety.cli.claimfilter import people_of
from jhub_safety.cli.connection import Connection, console, notes, shown, with_connection
from jhub_safety.cli.volumeasking import Answer, answers
from jhub_safety.cluster.claims import Claim
from jhub_safety.owner import Owner
from jhub_safety.volumes.extra import Listed
from jhub_safety.volumes.model import Decision, Observation, Question, Verdict
from jhub_safety.volumes.relation import owner_of


@dataclass(frozen=True, slots=True)
class Explained:
    """What one server gets."""

    question: Question
    decision: Decision
    volumes: tuple[Answer, ...]


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


@click.command()
@click.argument("user", required=False)
@click.argument("server", default="")
@click.option("--all", "everybody", is_flag=True, help="Every user of the hub, with a summary.")
@click.option("--identity", help="The login provider's stable id of USER.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_connection
async def explain(
    connection: Connection,
    user: str | None,
    server: str,
    everybody: bool,
    identity: str | None,
    as_json: bool,
) -> None:
    """Which claims USER would get at the next start, and by which rule.

    Reads only. With --all: how many would be mounted, adopted, created and refused; run it
    before installing.
    """
    if (user is None) != everybody:
        raise click.UsageError("Give a USER, or --all.")
    seen = Observation(MappingProxyType(await connection.claims.list()), complete=True)
    records = connection.records()
    people = None if records is None else people_of(connection)
    listed = Listed.of(seen.claims)

    async def ask(user: str, server: str, identity: str | None, closely: bool) -> Explained:
        question = ask_about(connection, records, user, server, identity)
        decision = await decide_as_a_spawn(
            connection, question, seen, records, with_volumes=closely
        )
        owner = Owner(connection.hub.hub_name, user, server, identity)
        found = await answers(connection, records, people, owner, listed, decision.claim)
        return Explained(question, decision, found)

    if user is not None:
        told = await ask(user, server, identity, closely=True)
        if as_json:
            _print_json(_record(told))
        else:
            _print_one(connection, told)
        return
    everyone = [
        await ask(record.user, record.server, None, closely=False)
        for record in sorted(who_is_known(records, seen.claims.values()), key=str)
    ]
    if as_json:
        _print_json([_record(told) for told in everyone])
    else:
        _print_summary(connection, everyone)


def _record(told: Explained) -> dict[str, Any]:
    question, decision = told.question, told.decision
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
        "volumes": [one.record() for one in told.volumes],
    }


_COLOURS = {
    Verdict.MOUNT: "green",
    Verdict.ADOPT: "green",
    Verdict.CREATE: "yellow",
    Verdict.REFUSE: "red",
}


def _print_one(connection: Connection, told: Explained) -> None:
    saved = told.question.saved
    _print_decision(told.question.owner, told.decision, saved)
    if connection.hub.settings.identity_key and told.question.owner.identity is None:
        notes.print("The hub goes by a stable id; give it with --identity for a sure answer.")
    for one in told.volumes:
        what = f"{one.wanted.owner}, volume {one.wanted.volume.name}"
        _print_decision(what, one.decision, one.wanted.saved)


def _print_decision(whose: object, decision: Decision, saved: str | None) -> None:
    verdict = f"[{_COLOURS[decision.verdict]}]{decision.verdict}[/]"
    console.print(f"{shown(whose)}: {verdict} {shown(decision.name)}")
    console.print(f"  row      {decision.row}: {shown(decision.why)}", soft_wrap=True)
    console.print(f"  record   {shown(saved or 'names no claim')}")
    for claim in decision.claims:
        console.print(
            shown(
                f"  claim    {claim.name}: {_phase(claim)}, {claim.capacity}, {owner_of(claim)}, "
                f"volume {claim.volume or 'none'}, created {claim.created}"
            ),
            soft_wrap=True,
        )
    if decision.command and not decision.command.startswith("claims explain"):
        console.print(f"  next     {shown('jhub-safety ' + decision.command)}")


def _print_summary(connection: Connection, everyone: list[Explained]) -> None:
    counts = Counter(told.decision.verdict for told in everyone)
    extras = Counter(one.decision.verdict for told in everyone for one in told.volumes)
    table = Table(box=None, pad_edge=False)
    for title in ("USER", "VERDICT", "ROW", "CLAIM", "NEXT"):
        table.add_column(title, overflow="fold")
    for told in everyone:
        for whose, decision in _decisions(told):
            if decision.verdict is not Verdict.MOUNT:
                table.add_row(
                    shown(whose),
                    f"[{_COLOURS[decision.verdict]}]{decision.verdict}[/]",
                    decision.row,
                    shown(decision.name),
                    shown(f"jhub-safety {decision.command}") if decision.command else "",
                )
    if table.row_count:
        console.print(table)
    if extras:
        console.print(f"{extras.total()} extra volumes: {_summed(extras)}")
    console.print(f"{len(everyone)} servers: {_summed(counts)}")
    notes.print(shown(connection.header()))


def _decisions(told: Explained) -> Iterator[tuple[str, Decision]]:
    yield str(told.question.owner), told.decision
    for one in told.volumes:
        yield f"{one.wanted.owner}, volume {one.wanted.volume.name}", one.decision


def _summed(counts: Counter[Verdict]) -> str:
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict)


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))
