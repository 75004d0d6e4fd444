"""Which claim is a user's home: the decision table of docs/homes.md as a pure function.

Nothing here reads or writes. An :class:`Observation` says what was seen and whether it was
all; :func:`decide` turns it into a :class:`Decision` that names the row that applied.
"""

from __future__ import annotations

from dataclasses import replace

from jhub_safety import owner as marks
from jhub_safety.cluster.claims import Claim
from jhub_safety.volumes.model import Decision, Observation, Question, Row, Verdict
from jhub_safety.volumes.names import candidates, other_owner
from jhub_safety.volumes.relation import (
    Relation,
    describe,
    handed_over,
    owner_of,
    relation,
    same_user_other_server,
)


def decide(question: Question, seen: Observation) -> Decision:
    """The first row of the table that applies."""
    if question.saved is not None and not question.forgotten:
        decision = _decide_saved(question, question.saved, seen)
    else:
        decision = _decide_unknown(question, seen)
    return _check_health(question, decision)


def _decide_saved(question: Question, saved: str, seen: Observation) -> Decision:
    claim = seen.claims.get(saved)
    if claim is None and saved not in seen.absent and not seen.complete:
        return _incomplete(question, seen)
    if claim is not None and (settled := _settled_by_record(question, claim, seen)) is not None:
        return settled
    if not seen.complete:
        return _incomplete(question, seen)
    ours = tuple(
        other
        for other in seen.claims.values()
        if other.name != saved and relation(question.owner, other) is Relation.OURS
    )
    if ours:
        return _decide_replaced(question, saved, claim, ours)
    return _decide_only_record(question, saved, claim)


def _settled_by_record(question: Question, claim: Claim, seen: Observation) -> Decision | None:
    """The claim on record, when it says itself whose it is."""
    owner = question.owner
    how = relation(owner, claim)
    if how is Relation.OTHER and same_user_other_server(owner, claim):
        # A server that was renamed before this library was installed keeps the claim's old
        # annotation; the record of the server is the evidence.
        how = Relation.KUBESPAWNER
    if how is Relation.OTHER and any(
        relation(replace(owner, user=name), claim) in (Relation.OURS, Relation.KUBESPAWNER)
        for name in question.former_users
    ):
        return _adopt(Row.RENAMED, claim, "saved-state", "its annotations name this user as before")
    if how is Relation.OURS:
        return _take(Row.KNOWN, claim, "the hub's record and the claim's annotations agree")
    if how is Relation.KUBESPAWNER and not seen.complete:
        # Two witnesses are enough; a LIST for each spawn would not be.
        return _adopt_known(claim)
    if how is Relation.OTHER and not _successors(question, claim.name, seen):
        return _refuse(
            Row.TAKEN,
            claim.name,
            f"the hub's record of {owner} names claim {claim.name}, but that belongs to "
            f"{owner_of(claim)}",
            (claim,),
            f"claims adopt CLAIM {owner.options}",
        )
    return None


def _successors(question: Question, saved: str, seen: Observation) -> list[Claim]:
    """Claims that an operator has given this owner in the place of *saved*."""
    return [
        other
        for other in seen.claims.values()
        if other.annotations.get(marks.SUPERSEDES) == saved
        and relation(question.owner, other) is Relation.OURS
    ]


def _decide_replaced(
    question: Question, saved: str, claim: Claim | None, ours: tuple[Claim, ...]
) -> Decision:
    """The record names one claim, annotations name others."""
    successors = [other for other in ours if other.annotations.get(marks.SUPERSEDES) == saved]
    if len(successors) == 1:
        return _take(
            Row.SUPERSEDED, successors[0], f"an operator has put it in the place of {saved}"
        )
    owner = question.owner
    return _refuse(
        Row.CONFLICT,
        saved,
        f"the hub's record of {owner} names claim {saved}, while {_names(ours)} is annotated as "
        "theirs (was an older hub database put back?)",
        (claim, *ours) if claim else ours,
        f"claims adopt CLAIM {owner.options}",
    )


def _decide_only_record(question: Question, saved: str, claim: Claim | None) -> Decision:
    """The record names a claim that says nothing, and no other claim says anything."""
    owner = question.owner
    if claim is None:
        return gone(question, saved)
    if relation(owner, claim) is Relation.RELEASED:
        return _refuse(
            Row.RELEASED,
            saved,
            f"claim {saved} was taken away from {owner} by an operator, and no other claim "
            "was given to them",
            (claim,),
            f"claims adopt CLAIM {owner.options}",
        )
    if relation(owner, claim) is Relation.UNMARKED:
        return _adopt(
            Row.SAVED_UNMARKED,
            claim,
            "saved-state",
            "the hub's record names it, and nobody else's annotations are on it",
        )
    return _adopt_known(claim)


def _decide_unknown(question: Question, seen: Observation) -> Decision:
    owner, own_name = question.owner, question.own_name
    if not seen.complete:
        return _incomplete(question, seen)
    by_relation: dict[Relation, list[Claim]] = {how: [] for how in Relation}
    for claim in seen.claims.values():
        by_relation[relation(owner, claim)].append(claim)

    ours = by_relation[Relation.OURS]
    if len(ours) > 1:
        replaced = {claim.annotations.get(marks.SUPERSEDES) for claim in ours}
        ours = [claim for claim in ours if claim.name not in replaced] or ours
    if len(ours) == 1:
        return _take(Row.KNOWN, ours[0], "its annotations name this owner")
    if ours:
        return _several(question, tuple(ours))

    unmarked = {claim.name: claim for claim in by_relation[Relation.UNMARKED]}
    named = {
        found.name: found.generations
        for found in candidates(owner, question.known, unmarked, place=question.place)
    }
    found = tuple(by_relation[Relation.KUBESPAWNER]) + tuple(unmarked[name] for name in named)
    for claim in _made_by_another_server(question, by_relation[Relation.OTHER]):
        if question.per_server:
            return _refuse(
                Row.UNPROVEN,
                claim.name,
                f"claim {claim.name} is annotated for {owner_of(claim)}, but by its name it may be "
                f"{owner}'s (did the servers of a user share one home here?)",
                (claim, *found),
                f"claims adopt {claim.name} {owner.options}",
            )
        found = (*found, claim)
    if len(found) > 1:
        return _several(question, found)
    if len(found) == 1:
        claim = found[0]
        if claim.name not in named:
            return _adopt(
                Row.SINGLE, claim, "kubespawner", "KubeSpawner annotated it for this user"
            )
        return _decide_unmarked(question, claim, named[claim.name])

    own_name = _first_free(question, seen)
    if (taken := seen.claims.get(own_name)) is not None:
        what = (
            "is annotated for " + owner_of(taken)
            if relation(owner, taken) is not Relation.RELEASED
            else f"was taken away from {owner_of(taken)} by an operator"
        )
        return _refuse(
            Row.TAKEN,
            own_name,
            f"the claim that {owner} would get is called {own_name}, and that {what}",
            (taken,),
            f"claims adopt CLAIM {owner.options}",
        )
    return Decision(
        Row.NEW,
        Verdict.CREATE,
        own_name,
        "the listing was complete and no claim of this owner is in it",
        generation="jhub-safety",
    )


def _first_free(question: Question, seen: Observation) -> str:
    """The owner's own name, or the next when that one's claim has moved on with a rename."""
    for name in (question.own_name, *question.spare_names):
        claim = seen.claims.get(name)
        if claim is None or not handed_over(question.owner, claim):
            return name
    return question.own_name


def _made_by_another_server(question: Question, others: list[Claim]) -> list[Claim]:
    """Claims of this user under a name of the owner's, annotated for another of their servers.

    On a hub whose template has no server field, the first server to start made the one home
    of all of them, and KubeSpawner wrote that server's name on it.
    """
    mine = {claim.name: claim for claim in others if same_user_other_server(question.owner, claim)}
    named = candidates(question.owner, question.known, mine, place=question.place)
    return [mine[found.name] for found in named]


def _decide_unmarked(question: Question, claim: Claim, by: tuple[str, ...]) -> Decision:
    owner = question.owner
    declared = tuple(g for g in question.declared if g.key in by)
    if not declared:
        return _refuse(
            Row.UNPROVEN,
            claim.name,
            f"claim {claim.name} carries no owner's annotations; by its name it may be {owner}'s "
            f"({', '.join(by)}), but this hub has not declared that it named claims so",
            (claim,),
            f"claims adopt {claim.name} {owner.options}",
        )
    other = other_owner(claim.name, owner, question.declared, place=question.place)
    if other is not None:
        return _refuse(
            Row.UNPROVEN,
            claim.name,
            f"claim {claim.name} carries no owner's annotations; by its name it may be {owner}'s, "
            f"but also that of {other}",
            (claim,),
            f"claims adopt {claim.name} {owner.options}",
        )
    return _adopt(
        Row.SINGLE,
        claim,
        declared[0].key,
        f"only {owner} can have had this name in the generations that this hub declared",
    )


def beats_records(question: Question, claim: Claim) -> bool:
    """True when what is written on *claim* counts more than another user's record of it.

    An operator's word (``claims adopt``), or a stable id: the account was renamed.
    """
    digest = question.owner.identity_digest
    return marks.DECIDED in claim.annotations or (
        digest is not None and claim.annotations.get(marks.IDENTITY) == digest
    )


def gone(question: Question, saved: str) -> Decision:
    """The record of this server, or of another of its user's that has the same home, names it."""
    owner = question.owner
    return _refuse(
        Row.GONE,
        saved,
        f"the hub's record of {owner} names claim {saved}, which no longer exists: "
        "a home was here and is missing",
        (),
        f"claims forget {saved} {owner.options}",
    )


def recorded_for_another(question: Question, decision: Decision, other: str) -> Decision:
    """Refuse a claim, found by annotation or name, that the hub's record of *other* names.

    A user or server was renamed and the claim could not be annotated; whoever has the old name
    now must not get it.
    """
    return _refuse(
        Row.TAKEN,
        decision.name,
        f"claim {decision.name} looks like the home of {question.owner}, but the hub's record of "
        f"{other} names it (was a user or server renamed?)",
        decision.claims,
        f"claims adopt {decision.name} {question.owner.options}",
    )


def name_on_record(question: Question, name: str, other: str) -> Decision:
    """Refuse to make a claim whose name the hub's record of *other* has, who has lost theirs."""
    return _refuse(
        Row.TAKEN,
        name,
        f"the claim that {question.owner} would get is called {name}, and the hub's record of "
        f"{other} names it (was a user or server renamed?)",
        (),
        f"claims explain {question.owner.arguments}",
    )


def _check_health(question: Question, decision: Decision) -> Decision:
    """Row one of the table: a claim that would be taken must be there to stay."""
    claim = decision.claim
    if claim is None:
        return decision
    if claim.deleting:
        return _refuse(
            Row.TERMINATING,
            claim.name,
            f"claim {claim.name} of {question.owner} is being deleted; it goes away when the last "
            "pod that mounts it ends. Keep its volume first (reclaim policy Retain), then bring "
            "the data back on a new claim",
            (claim,),
            f"claims explain {question.owner.arguments}",
        )
    if claim.phase == "Lost" or claim.volume_phase in ("Released", "Failed"):
        state = "Lost" if claim.phase == "Lost" else f"on a {claim.volume_phase} volume"
        return _refuse(
            Row.LOST,
            claim.name,
            f"claim {claim.name} of {question.owner} is {state} (volume "
            f"{claim.volume or 'unknown'}). Restore the volume or bind the claim to it again",
            (claim,),
            f"claims explain {question.owner.arguments}",
        )
    return decision


def _adopt_known(claim: Claim) -> Decision:
    return _adopt(
        Row.KNOWN,
        claim,
        "saved-state",
        "the hub's record and KubeSpawner's annotations agree",
    )


def _take(row: Row, claim: Claim, why: str) -> Decision:
    return Decision(row, Verdict.MOUNT, claim.name, why, claim, claims=(claim,))


def _adopt(row: Row, claim: Claim, generation: str, why: str) -> Decision:
    return Decision(row, Verdict.ADOPT, claim.name, why, claim, generation, (claim,))


def _refuse(row: Row, name: str, why: str, claims: tuple[Claim, ...], command: str) -> Decision:
    return Decision(row, Verdict.REFUSE, name, why, claims=claims, command=command)


def _several(question: Question, claims: tuple[Claim, ...]) -> Decision:
    owner = question.owner
    claims = tuple(sorted(claims, key=lambda claim: claim.name))
    return _refuse(
        Row.SEVERAL,
        claims[0].name,
        f"{len(claims)} claims may be the home of {owner} and nothing says which is in use: "
        + "; ".join(describe(claim) for claim in claims),
        claims,
        f"claims adopt CLAIM {owner.options}",
    )


def _incomplete(question: Question, seen: Observation) -> Decision:
    return Decision(
        Row.INCOMPLETE,
        Verdict.REFUSE,
        question.saved or question.own_name,
        f"the home of {question.owner} could not be looked up: "
        f"{seen.fault or 'the claims were not listed completely'}",
        command=f"claims explain {question.owner.arguments}",
        retryable=True,
    )


def _names(claims: tuple[Claim, ...]) -> str:
    return ", ".join(sorted(claim.name for claim in claims))
