"""An operator's word on whose a claim is: plans for ``claims adopt`` and ``claims forget``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from jhub_safety import owner as marks
from jhub_safety.cluster.claims import Claim, ClaimsApi
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.journal import Journal
from jhub_safety.owner import Owner
from jhub_safety.plan import Action, Plan, Refusal
from jhub_safety.volumes.lifecycle import is_home_of
from jhub_safety.volumes.relation import Relation, owner_of, relation


@dataclass(frozen=True, slots=True)
class Adoption:
    """Claim *claim* shall be the home of *owner*, whose record in the hub names *saved*."""

    claim: str
    owner: Owner
    saved: str | None = None


def plan_adoptions(
    adoptions: Iterable[Adoption],
    claims: Mapping[str, Claim],
    *,
    namespace: str,
    today: str,
) -> Plan:
    """What to write on which claims so that each owner gets exactly the claim named for them.

    A claim that was the owner's so far is released: it keeps its files and is mounted by
    nobody until it is adopted again. Nothing is deleted.
    """
    actions: list[Action] = []
    refusals: list[Refusal] = []
    taken: dict[str, Owner] = {}
    served: set[tuple[str, str]] = set()
    for adoption in adoptions:
        owner, who = adoption.owner, str(adoption.owner)
        claim = claims.get(adoption.claim)
        problem = _problem(claim, adoption, taken, served)
        if problem is not None or claim is None:
            refusals.append(Refusal("adopt", who, problem or "", "claims list"))
            continue
        taken[claim.name] = owner
        served.add((owner.user, owner.server))
        former = [
            other
            for other in claims.values()
            if other.name != claim.name
            and (relation(owner, other) is Relation.OURS or other.name == adoption.saved)
            and is_home_of(owner, other)
        ]
        supersedes = adoption.saved if adoption.saved != claim.name else None
        if supersedes is None and former:
            supersedes = former[0].name
        actions.extend(_release(other, owner, claim.name, namespace, today) for other in former)
        actions.append(
            Action(
                "annotate-claim",
                namespace,
                claim.name,
                f"an operator gives it to {who} (so far: {owner_of(claim)})",
                uid=claim.uid,
                annotations=MappingProxyType(
                    {
                        **owner.annotations(claim.annotations.get(marks.GENERATION, "operator")),
                        # None removes what an earlier decision left there.
                        marks.IDENTITY: owner.identity_digest,
                        marks.SUPERSEDES: supersedes,
                        marks.RELEASED: None,
                    }
                ),
                labels=MappingProxyType(owner.labels()),
            )
        )
    return Plan(f"adopt {len(taken)} claim(s)", tuple(actions), tuple(refusals))


def _problem(
    claim: Claim | None,
    adoption: Adoption,
    taken: Mapping[str, Owner],
    served: set[tuple[str, str]],
) -> str | None:
    if claim is None:
        return f"there is no claim {adoption.claim}"
    if claim.deleting:
        return f"claim {claim.name} is being deleted"
    if claim.name in taken:
        return f"claim {claim.name} is given to {taken[claim.name]} in the same plan"
    if (adoption.owner.user, adoption.owner.server) in served:
        return f"{adoption.owner} gets another claim in the same plan"
    return None


def _release(claim: Claim, owner: Owner, successor: str, namespace: str, today: str) -> Action:
    return Action(
        "release-claim",
        namespace,
        claim.name,
        f"{owner} gets {successor} in its place; its files stay",
        uid=claim.uid,
        annotations=MappingProxyType({marks.RELEASED: today, marks.USER: owner.user}),
        labels=MappingProxyType({marks.OWNER_LABEL: None}),
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one action ended: ``done`` or ``failed: why``."""

    action: Action
    result: str

    @property
    def failed(self) -> bool:
        return self.result != "done"


async def execute(
    plan: Plan,
    claims: ClaimsApi,
    journal: Journal,
    progress: Callable[[Outcome], None] = lambda _: None,
) -> tuple[Outcome, ...]:
    """Carry out the very plan that was shown; go on after one item's error.

    Each claim is read again just before it is touched, and left alone when it is no longer
    the object that was planned for. May be run again: what is done already changes nothing.
    """
    outcomes = []
    for action in plan.actions:
        outcome = Outcome(action, await _execute_one(action, claims))
        journal.write(action, outcome.result)
        outcomes.append(outcome)
        progress(outcome)
    return tuple(outcomes)


async def _execute_one(action: Action, claims: ClaimsApi) -> str:
    try:
        claim = await claims.read(action.name)
        if claim is None or claim.uid != action.uid:
            return f"failed: claim {action.name} is not the one that was planned for"
        await claims.annotate(claim, action.annotations, action.labels)
    except (Conflict, Doubt) as error:
        return f"failed: {error}"
    return "done"
