"""Which claims are deleted, and which never are: decided purely, then done one by one.

From top to bottom, for a claim that a filter has chosen:

- another hub's: never
- a home, or what may be one: only by its name
- without this hub's label: only by its name
- protected by its annotation: never
- being deleted already: nothing is left to do
- orphaned is asked for, and a pod uses it: only by its name, since a lab of somebody whom the hub
  does not know says that the hub's database is not whole
- orphaned is asked for, and a login's stable id is written on it: only by its name, since the
  account may have been renamed
- orphaned is asked for, and it is older than the first user whom the database knows: only by its
  name, since a database that was begun anew does not know who has not come back yet
- else it is deleted

A claim that was named goes by the same rows, without those that say "only by its name". One that
is no user's (the hub's own database) is refused.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

from jhub_safety import owner as marks
from jhub_safety.cluster.claims import Claim, ClaimsApi
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.journal import Journal
from jhub_safety.plan import Action, Plan, Refusal
from jhub_safety.volumes.selection import (
    EXTRA,
    HOME,
    Filter,
    Known,
    Row,
    is_of,
    is_of_another,
    is_protected,
)

#: Orphaned claims that are deleted at once without being asked for in so many words: this many,
#: or this part of the hub's claims.
FEW, PART = 10, 5
#: What the journal says before a claim is deleted, and after.
BEGUN, DONE = "begun", "done"
#: Seconds in which Kubernetes lets go of a claim that no pod uses.
PATIENCE = 15.0
_PAUSE = 0.5
#: A claim is made some time after its user has asked for a server; and clocks differ.
_SLACK = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Deletion:
    """A plan, the claims as they were seen for it, and what the filter chose in vain."""

    plan: Plan
    rows: tuple[Row, ...]
    #: Names, by the reason why a filter does not take them.
    left_out: Mapping[str, tuple[str, ...]]


# -- by filter


def by_filter(
    rows: Iterable[Row],
    asked: Filter,
    *,
    hub: str,
    homes: Collection[str],
    oldest: datetime | None,
    now: datetime,
) -> Deletion:
    """Extra volumes of this hub that *asked* chooses.

    *homes*: claims on record as somebody's. *oldest*: when the first user was made whom the
    database knows; None: that is not known, and nobody is an orphan.
    """
    taken: list[Row] = []
    left: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows:
        if not asked.takes(row, now):
            continue
        why = _not_by_filter(row, asked, hub, homes, oldest)
        if why:
            left[why].append(row.name)
        else:
            taken.append(row)
    return _deletion(taken, (), left)


def _not_by_filter(
    row: Row, asked: Filter, hub: str, homes: Collection[str], oldest: datetime | None
) -> str:
    claim = row.claim
    if is_of_another(claim, hub):
        return "another hub's: never"
    if row.component == HOME or row.name in homes:
        return "a home: only by its name"
    if row.component != EXTRA:
        return "no user's: never"
    if not is_of(claim, hub):
        return "without this hub's label: only by its name"
    if is_protected(claim):
        return f"protected by {marks.PROTECT}: never"
    if claim.deleting:
        return "being deleted already"
    if asked.orphaned and row.mounted_by:
        # A lab of somebody whom the database does not know: the database is to be doubted.
        return "in use, though the hub knows no such user: only by its name"
    if asked.orphaned and marks.IDENTITY in claim.annotations:
        return "of an account with a stable id, which may have been renamed: only by its name"
    if asked.orphaned and is_older(claim, oldest):
        return "older than the hub's database: only by its name"
    return ""


def is_older(claim: Claim, oldest: datetime | None) -> bool:
    """Whether it may be from before the first user whom the database knows.

    Seen to delete volumes of users who had not come back yet: of a database that was begun anew
    60 days ago, in which 30 new users' claims outnumber 20 older ones.
    """
    return claim.created is None or oldest is None or claim.created < oldest


# -- by name


def by_name(
    rows: Iterable[Row], names: Collection[str], *, hub: str, deleted: Mapping[str, str]
) -> Deletion:
    """Exactly the claims that were named. *deleted*: when, by the journal, one was."""
    found = {row.name: row for row in rows}
    taken: list[Row] = []
    refusals: list[Refusal] = []
    left: defaultdict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(names):
        row = found.get(name)
        if row is None and name in deleted:
            left["gone: by the journal it was deleted before"].append(name)
        elif row is not None and row.claim.deleting and not is_of_another(row.claim, hub):
            left["being deleted already"].append(name)
        elif row is None:
            refusals.append(_refusal("missing", name, "there is no such claim"))
        elif refusal := _not_by_name(row, hub):
            refusals.append(refusal)
        else:
            taken.append(row)
    return _deletion(taken, tuple(refusals), left)


def _not_by_name(row: Row, hub: str) -> Refusal | None:
    if is_of_another(row.claim, hub):
        return _refusal("other-hub", row.name, f"it is of hub {row.hub}, this is hub {hub}")
    if row.component not in (HOME, EXTRA):
        return _refusal("no-users", row.name, f"it is no user's: its component is {row.component}")
    if is_protected(row.claim):
        return _refusal("protected", row.name, f"its annotation {marks.PROTECT} protects it")
    return None


def _refusal(code: str, name: str, why: str) -> Refusal:
    return Refusal(code, name, why, "claims list")


def _deletion(
    taken: list[Row], refusals: tuple[Refusal, ...], left: Mapping[str, list[str]]
) -> Deletion:
    actions = tuple(
        Action(
            "delete-claim",
            row.claim.namespace,
            row.name,
            f"{row.component} of {row.owner}, {row.claim.capacity or 'unknown size'}, "
            f"volume {row.claim.volume or 'none'}",
            uid=row.claim.uid,
            user=row.user or "",
            server=row.server,
        )
        for row in taken
    )
    count = f"{len(actions)} claim" + ("" if len(actions) == 1 else "s")
    return Deletion(
        Plan(f"delete {count}", actions, refusals),
        tuple(taken),
        MappingProxyType({why: tuple(names) for why, names in left.items()}),
    )


# -- what a database must be to say who is unknown


def doubt_of(known: Known | None, rows: Iterable[Row], hub: str) -> str:
    """Why the database cannot tell who is an orphan, or "": a lost one knows nobody.

    Pure; every sentence is a reason to refuse.
    """
    if known is None:
        return "the hub's database cannot be read"
    if not known.users:
        return "the hub's database has no user at all: it may have been lost"
    ours = [row for row in rows if is_of(row.claim, hub) and row.user is not None]
    if not ours:
        return ""
    if not any(row.orphaned is False for row in ours):
        return "the hub's database knows no owner of any claim: it may be new, or another hub's"
    made = sorted(row.claim.created for row in ours if row.claim.created is not None)
    if len(made) < len(ours) or known.oldest is None or known.newest is None:
        return "it is not known since when the claims or the database's users are there"
    # Half of the claims, not the oldest one: the first users of a hub leave it in time.
    if made[len(made) // 2] < known.oldest:
        return (
            f"most claims are older than the hub's database (its first user is of "
            f"{known.oldest:%Y-%m-%d %H:%M}): it may have been lost and begun anew"
        )
    if made[-1] - known.newest > _SLACK:
        return (
            f"the hub's database knows of nothing after {known.newest:%Y-%m-%d %H:%M}, and there "
            f"are claims made later: it may be an older copy"
        )
    return ""


def cap(rows: Iterable[Row], hub: str) -> int:
    """How many orphaned claims are deleted at once without being asked for in so many words."""
    return max(FEW, sum(is_of(row.claim, hub) for row in rows) // PART)


# -- acting


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one deletion ended: ``done``, ``skipped: why`` or ``failed: why``."""

    action: Action
    result: str

    @property
    def done(self) -> bool:
        return self.result == DONE

    @property
    def failed(self) -> bool:
        return self.result.startswith("failed")


async def _nothing() -> None:
    """Nothing is looked at again."""


async def execute(
    deletion: Deletion,
    claims: ClaimsApi,
    journal: Journal,
    *,
    before: Callable[[Claim], Awaitable[None]] | None = None,
    fresh: Callable[[], Awaitable[None]] = _nothing,
    still: Callable[[Row], str] = lambda _: "",
    progress: Callable[[Outcome], None] = lambda _: None,
    where: str = "",
) -> tuple[Outcome, ...]:
    """Carry out the very plan that was shown; go on after one item's error.

    Each claim is read again just before it is deleted, skipped when anything about it has
    changed since the plan, and deleted only as it was read. The journal has a line when a
    deletion begins and one when it has been accepted: whatever ends this half-way, nothing is
    deleted that is not in it.

    Args:
        before: what must have worked before a claim is deleted; raises Conflict or Doubt.
        fresh: looks again at what *still* goes by, where that is due; what it raises ends this.
        still: why a claim is not to be deleted after all, or "".
        where: the cluster, for the journal.

    Raises:
        NotWritten: the journal could not take a line. It may be run again.
    """
    outcomes = []
    for action, row in zip(deletion.plan.actions, deletion.rows, strict=True):

        def note(result: str, action: Action = action, row: Row = row) -> None:
            journal.keep(action, result, volume=row.claim.volume, cluster=where)

        outcome = Outcome(action, await _delete(row, claims, note, before, fresh, still))
        note(outcome.result)
        outcomes.append(outcome)
        progress(outcome)
    return tuple(outcomes)


async def _delete(
    row: Row,
    claims: ClaimsApi,
    note: Callable[[str], None],
    before: Callable[[Claim], Awaitable[None]] | None,
    fresh: Callable[[], Awaitable[None]],
    still: Callable[[Row], str],
) -> str:
    try:
        now = await claims.read(row.name)
    except (Conflict, Doubt) as error:
        return f"failed: {error}"
    if now is None:
        return "skipped: it is gone"
    # What it raises is about all claims, and no failure of this one.
    await fresh()
    if why := changed(row.claim, now) or still(row):
        return f"skipped: {why}"
    note(BEGUN)
    try:
        if before is not None:
            await before(now)
        await claims.delete(now, unchanged=True)
    except (Conflict, Doubt) as error:
        return f"failed: {error}"
    return DONE


def changed(then: Claim, now: Claim) -> str:
    """What of a claim is no longer as it was when the plan was made, or ""."""
    if now.uid != then.uid:
        return "it is another claim of that name"
    if now.deleting:
        return "it is being deleted already"
    for what in ("annotations", "labels", "volume", "capacity", "phase"):
        if getattr(now, what) != getattr(then, what):
            return f"its {what} changed since the plan was made"
    return ""


async def leaving(
    deletion: Deletion,
    outcomes: Iterable[Outcome],
    claims: ClaimsApi,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> tuple[str, ...]:
    """Those that were deleted and are still there: Kubernetes keeps a claim while a pod uses it.

    Waits a moment for those that nobody used.

    Raises:
        Doubt: the claims could not be listed.
    """
    mounted = {row.name for row in deletion.rows if row.mounted_by}
    wanted = {one.action.name: one.action.uid for one in outcomes if one.done}
    waited = 0.0
    while True:
        there = await claims.list() if wanted else {}
        left = tuple(
            name for name, uid in wanted.items() if name in there and there[name].uid == uid
        )
        if waited >= PATIENCE or set(left) <= mounted:
            return left
        await sleep(_PAUSE)
        waited += _PAUSE
