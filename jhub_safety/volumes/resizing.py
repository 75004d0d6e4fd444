"""Enlarging many claims at an operator's word, by the rules of a start (growing.py)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from fractions import Fraction

from jhub_safety import owner as marks
from jhub_safety import quantity
from jhub_safety.cluster.claims import ClaimsApi
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.journal import Journal
from jhub_safety.plan import Action, Plan, Refusal
from jhub_safety.volumes import growing
from jhub_safety.volumes.adopt import Outcome
from jhub_safety.volumes.growing import Size
from jhub_safety.volumes.selection import EXTRA, HOME, Row, is_of, is_of_another, is_protected

#: What the journal says before a claim is enlarged, and after.
BEGUN, DONE = "begun", "done"


def plan_resizes(
    rows: Iterable[Row],
    names: Collection[str],
    *,
    hub: str,
    to: str,
    limit: float,
    homes: Collection[str] = (),
) -> Plan:
    """Enlarge *rows* to the size *to*, or with "" each to what it is configured to have.

    *rows*: what a filter or *names* chose. *limit*: see :func:`growing.compare`. *homes*: claims
    on record as somebody's. A home grows only by its name.
    """
    actions: list[Action] = []
    refusals: list[Refusal] = []
    rows = tuple(rows)
    there = {row.name for row in rows}
    by_name_only = set(homes_left_out(rows, names, hub=hub, homes=homes))
    refusals.extend(
        Refusal("missing", name, "there is no such claim", "claims list")
        for name in dict.fromkeys(names)
        if name not in there
    )
    for row in rows:
        if row.name in by_name_only:
            continue
        found = _decide(row, named=row.name in names, hub=hub, to=to, limit=limit)
        if isinstance(found, Action):
            actions.append(found)
        elif found is not None:
            refusals.append(found)
    count = f"{len(actions)} claim" + ("" if len(actions) == 1 else "s")
    return Plan(f"enlarge {count}", tuple(actions), tuple(refusals))


def homes_left_out(
    rows: Iterable[Row], names: Collection[str], *, hub: str, homes: Collection[str] = ()
) -> tuple[str, ...]:
    """Homes, or what may be one, that a filter has chosen: they are told, and left alone."""
    return tuple(
        row.name
        for row in rows
        if row.name not in names
        and not is_of_another(row.claim, hub)
        and (row.component == HOME or row.name in homes)
    )


def _decide(row: Row, *, named: bool, hub: str, to: str, limit: float) -> Action | Refusal | None:
    claim = row.claim
    if is_of_another(claim, hub):
        return _refusal(row, "other-hub", f"it is of hub {row.hub}, this is hub {hub}")
    if not named and (not is_of(claim, hub) or row.component != EXTRA):
        return _refusal(row, "unlabelled", "without this hub's label; only by its name")
    if is_protected(claim):
        return _refusal(row, "protected", f"its annotation {marks.PROTECT} protects it")
    if claim.deleting:
        return _refusal(row, "terminating", "it is being deleted")
    wanted = to or row.wanted
    if wanted is None:
        return _refusal(
            row, "no-size", "its size depends on its owner's groups, and the database was not read"
        )
    if not wanted:
        # Nothing is configured for it: a filter may choose it in passing.
        return _refusal(row, "no-size", "no size is configured for it; add --to") if named else None
    growth = growing.compare(claim, wanted, limit=limit)
    match growth.size:
        case Size.AS_WANTED:
            return None
        case Size.GROW:
            return Action(
                "resize-claim",
                claim.namespace,
                claim.name,
                f"{row.component} of {row.owner}: from {claim.capacity} to {wanted}",
                uid=claim.uid,
                user=row.user or "",
                server=row.server,
                capacity=wanted,
            )
        case Size.TOO_MUCH:
            return _refusal(
                row,
                "too-much",
                f"from {claim.capacity} to {wanted} is more than {limit:g} times as much, and "
                "that cannot be taken back; if it is meant, add --over-limit",
            )
        case _:
            return _refusal(row, str(growth.size), growth.why)


def _refusal(row: Row, code: str, why: str) -> Refusal:
    return Refusal(code, row.name, why, "claims list")


def growth_of(plan: Plan, rows: Iterable[Row]) -> Fraction:
    """Bytes that all of it asks for beyond what is there."""
    now = {row.name: row.claim.capacity for row in rows}
    return sum(
        (
            quantity.storage(action.capacity) - quantity.storage(now[action.name])
            for action in plan.actions
        ),
        Fraction(0),
    )


async def execute(
    plan: Plan,
    claims: ClaimsApi,
    journal: Journal,
    *,
    limit: float,
    progress: Callable[[Outcome], None] = lambda _: None,
    where: str = "",
) -> tuple[Outcome, ...]:
    """Carry out the very plan that was shown; go on after one item's error.

    Each claim is read again and compared again. The journal has a line before one is enlarged
    and one after. May be run again. *where*: the cluster, for the journal.

    Raises:
        NotWritten: the journal could not take a line.
    """
    outcomes = []
    for action in plan.actions:

        def note(result: str, action: Action = action) -> None:
            journal.keep(action, result, cluster=where)

        outcome = Outcome(action, await _resize(action, claims, limit, note))
        note(outcome.result)
        outcomes.append(outcome)
        progress(outcome)
    return tuple(outcomes)


async def _resize(
    action: Action, claims: ClaimsApi, limit: float, note: Callable[[str], None]
) -> str:
    try:
        claim = await claims.read(action.name)
        if claim is None or claim.uid != action.uid or claim.deleting:
            return f"failed: claim {action.name} is not the one that was planned for"
        if is_protected(claim):
            return f"failed: claim {action.name} was protected meanwhile"
        growth = growing.compare(claim, action.capacity, limit=limit)
        if growth.size is Size.AS_WANTED:
            return DONE
        if growth.size is not Size.GROW:
            return f"failed: {growth.why}"
        note(BEGUN)
        await claims.resize(claim, action.capacity)
    except (Conflict, Doubt) as error:
        return f"failed: {error}"
    return DONE
