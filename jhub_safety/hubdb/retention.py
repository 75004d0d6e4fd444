"""Which snapshots may go. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Kept:
    """One snapshot, as its manifest has it."""

    name: str
    made: datetime
    verified: bool
    #: None: its manifest cannot be read, or is not there (yet).
    users: int | None
    #: Which database it is of (:mod:`jhub_safety.hubdb.identity`). "": one without a mark; None:
    #: not noted, as in early releases.
    identity: str | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """A snapshot goes when it is older than *age* and not among the newest *count*."""

    count: int
    age: timedelta


def superfluous(
    kept: Iterable[Kept], policy: Policy, now: datetime, identity: str | None = None
) -> tuple[str, ...]:
    """Names of those that may go, oldest first. *identity*: of the database for which it is asked.

    What stays whatever the policy says: the newest verified one, and the newest verified one that
    holds users (the newest of a database that was emptied holds none, and would push out the one
    that is needed).

    Each database's are counted by themselves, and another's never go: a stranger's that stood in
    the place of ours pushed ours out, and of two clusters with one bucket each removed the other's.
    """
    groups: defaultdict[str | None, list[Kept]] = defaultdict(list)
    for one in kept:
        # One that was cut off is nobody's.
        whose = identity if one.users is None else one.identity
        if whose in (None, identity):
            groups[whose].append(one)
    gone = [one for group in groups.values() for one in _superfluous(group, policy, now)]
    return tuple(one.name for one in sorted(gone, key=lambda one: (one.made, one.name)))


def _superfluous(kept: Sequence[Kept], policy: Policy, now: datetime) -> list[Kept]:
    """Of one database."""
    newest_first = sorted(kept, key=lambda one: (one.made, one.name), reverse=True)
    verified = [one for one in newest_first if one.verified]
    with_users = [one for one in verified if one.users]
    # Counted among their like: a series of unverified ones, or of an emptied database, does not
    # push out the last good ones.
    safe = {one.name for one in (*verified[:1], *with_users[: max(1, policy.count)])}
    safe |= {one.name for one in newest_first[: policy.count]}
    return [one for one in newest_first if one.name not in safe and now - one.made > policy.age]
