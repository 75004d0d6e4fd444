"""What a start would decide, asked from the command line; nothing is changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from types import MappingProxyType

from jhub_safety import owner as marks
from jhub_safety.cli.connection import Connection
from jhub_safety.cluster import forgotten, volumes
from jhub_safety.cluster.claims import Claim
from jhub_safety.errors import Doubt
from jhub_safety.hubdb.records import HubRecords, Record, former_users
from jhub_safety.volumes.home import beats_records, decide, recorded_for_another
from jhub_safety.volumes.model import Decision, Observation, Question, Row


def ask_about(
    connection: Connection,
    records: HubRecords | None,
    user: str,
    server: str,
    identity: str | None,
) -> Question:
    owner = connection.hub.owner(user, server, identity)
    if records is None:
        return connection.hub.question(owner, None)
    state = records.states.get(Record(user, server))
    return connection.hub.question(
        owner, records.claim_of(user, server), former_users(dict(state) if state else None)
    )


async def decide_as_a_spawn(
    connection: Connection,
    question: Question,
    seen: Observation,
    records: HubRecords | None,
    *,
    with_volumes: bool = False,
) -> Decision:
    """As a spawn does, what operators gave up and the hub's records of others included."""
    owner = question.owner
    decision = decide(question, seen)
    if decision.row is Row.GONE:
        given_up = await forgotten.read(connection.cluster.api, question.place.namespace, owner)
        if given_up == question.saved:
            decision = decide(replace(question, forgotten=True), seen)
    if with_volumes:
        decision = await _with_volumes(connection, question, seen, decision)
    if records is None or decision.claim is None or decision.name == question.saved:
        return decision
    if beats_records(question, decision.claim):
        return decision
    other = records.others_naming(
        decision.name, owner.user, owner.server, per_server=question.per_server
    )
    return recorded_for_another(question, decision, other) if other else decision


async def _with_volumes(
    connection: Connection, question: Question, seen: Observation, decision: Decision
) -> Decision:
    """Decide again with the phases of the volumes concerned, where they may be read.

    A hub has no right to volumes and goes by the claims alone.
    """
    changed = {}
    for claim in decision.claims:
        if claim.volume:
            try:
                phase = await volumes.phase(connection.cluster.api, claim.volume)
            except Doubt as doubt:
                if doubt.status == 403:
                    return decision
                phase = ""
            changed[claim.name] = replace(claim, volume_phase=phase)
    if not any(claim.volume_phase in ("Released", "Failed") for claim in changed.values()):
        return decision
    claims = MappingProxyType({**seen.claims, **changed})
    return decide(question, replace(seen, claims=claims))


def who_is_known(records: HubRecords | None, found: Iterable[Claim]) -> set[Record]:
    """Every server that is on record, every user's default one, and whom claims name."""
    servers: set[Record] = set()
    if records is not None:
        servers |= set(records.states) | {Record(user, "") for user in records.users}
    for claim in found:
        user = claim.annotations.get(marks.USER, claim.annotations.get(marks.KUBESPAWNER_USER))
        if user is not None:
            server = claim.annotations.get(
                marks.SERVER, claim.annotations.get(marks.KUBESPAWNER_SERVER, "")
            )
            servers.add(Record(user, server))
    return servers
