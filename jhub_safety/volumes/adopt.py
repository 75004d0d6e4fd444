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
    adoptions = tuple(adoptions)
    given = {adoption.claim for adoption in adoptions}
    actions: list[Action] = []
    refusals: list[Refusal] = []
    taken: dict[str, Owner] = {}
    served: set[tuple[str, str]] = set()
    for adoption in adoptions:
        owner = adoption.owner
        claim = claims.get(adoption.claim)
        problem = _problem(claim, adoption, taken, served)
        if problem is not None or claim is None:
            refusals.append(Refusal("adopt", str(owner), problem or "", "claims list"))
            continue
        taken[claim.name] = owner
        served.add((owner.user, owner.server))
        former = _former_homes(adoption, claims, given)
        # The new home first: at no moment has the owner none, and of two that are annotated
        # for them the one that supersedes the other counts.
        actions.append(
            _give(adoption, claim, _superseded(adoption, claim, claims), namespace, today)
        )
        actions.extend(_release(other, owner, claim.name, namespace, today) for other in former)
    return Plan(f"adopt {len(taken)} claim(s)", tuple(actions), tuple(refusals))


def _former_homes(
    adoption: Adoption, claims: Mapping[str, Claim], given: set[str]
) -> tuple[Claim, ...]:
    """What the owner has now, unless the same plan gives it to somebody (two people swap)."""
    owner = adoption.owner
    return tuple(
        other
        for other in claims.values()
        if other.name not in given
        and (relation(owner, other) is Relation.OURS or other.name == adoption.saved)
        and is_home_of(owner, other)
    )


def _superseded(adoption: Adoption, claim: Claim, claims: Mapping[str, Claim]) -> str | None:
    """The claim that a record of the owner may still name: their starts then take the new one."""
    owner = adoption.owner
    if adoption.saved is not None and adoption.saved != claim.name:
        return adoption.saved
    others = [other for other in claims.values() if other.name != claim.name]
    for other in others:
        if relation(owner, other) is Relation.OURS:
            return other.name
    if relation(owner, claim) is Relation.OURS:
        return claim.annotations.get(marks.SUPERSEDES)  # said again, perhaps without the records
    released = [
        other
        for other in others
        if marks.RELEASED in other.annotations
        and other.annotations.get(marks.USER) == owner.user
        and other.annotations.get(marks.SERVER, "") == owner.server
    ]
    latest = max(released, key=lambda other: other.annotations[marks.RELEASED], default=None)
    return latest.name if latest is not None else None


def _give(
    adoption: Adoption, claim: Claim, supersedes: str | None, namespace: str, today: str
) -> Action:
    owner = adoption.owner
    return Action(
        "annotate-claim",
        namespace,
        claim.name,
        f"an operator gives it to {owner} (so far: {owner_of(claim)})",
        uid=claim.uid,
        annotations=MappingProxyType(
            {
                **owner.annotations(claim.annotations.get(marks.GENERATION, "operator")),
                # None removes what an earlier decision left there.
                marks.IDENTITY: owner.identity_digest,
                marks.SUPERSEDES: supersedes,
                marks.RELEASED: None,
                marks.DECIDED: today,
            }
        ),
        labels=MappingProxyType(owner.labels()),
    )


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
    if claim.labels.get("component") == "extra-pvc" or marks.VOLUME in claim.annotations:
        return f"claim {claim.name} is an extra volume, and no home"
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
    except (Conflict, Doubt) as error:
        return f"failed: {error}"
    try:
        await claims.annotate(claim, action.annotations, action.labels)
    except (Conflict, Doubt) as error:
        return f"failed: {error}{_hint(error, action.namespace)}"
    return "done"


def _hint(error: Conflict | Doubt, namespace: str) -> str:
    """The chart's own Role does not let the hub patch claims, and ``adopt`` is mostly run as it."""
    if isinstance(error, Doubt) and error.status == 403:
        return (
            ". Nothing was changed. To let the hub do it: "
            f"kubectl apply -n {namespace} -f examples/helm/rbac.yaml"
        )
    return ""
