"""Which snapshots may go. Pure."""

from __future__ import annotations

from collections.abc import Iterable
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


@dataclass(frozen=True, slots=True)
class Policy:
    """A snapshot goes when it is older than *age* and not among the newest *count*."""

    count: int
    age: timedelta


def superfluous(kept: Iterable[Kept], policy: Policy, now: datetime) -> tuple[str, ...]:
    """Names of those that may go, oldest first.

    What stays whatever the policy says: the newest verified one, and the newest verified one that
    holds users (the newest of a database that was emptied holds none, and would push out the one
    that is needed).
    """
    newest_first = sorted(kept, key=lambda one: (one.made, one.name), reverse=True)
    verified = [one for one in newest_first if one.verified]
    with_users = [one for one in verified if one.users]
    # Counted among their like: a series of unverified ones, or of an emptied database, does not
    # push out the last good ones.
    safe = {one.name for one in (*verified[:1], *with_users[: max(1, policy.count)])}
    safe |= {one.name for one in newest_first[: policy.count]}
    return tuple(
        one.name
        for one in reversed(newest_first)
        if one.name not in safe and now - one.made > policy.age
    )
