"""From which snapshots a lost database may be made again without a person: decided purely.

The newest good one is not always ours. Where another database stood in the place of ours, for as
long as it took to notice, there is a snapshot of that; and two clusters may share one bucket.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jhub_safety.hubdb.guarding import Fingerprint, is_fewer
from jhub_safety.hubdb.snapshot import BEFORE_RESTORE

#: Snapshots that are told one by one; of the others there is a number.
TOLD = 5


@dataclass(frozen=True, slots=True)
class Candidate:
    """A snapshot that may be ours. *identity*: None where it is only known once it is opened."""

    name: str
    made: datetime
    users: int
    identity: str | None
    #: How many an earlier one of ours has, or are known if that is less. One of them goes without
    #: them only when somebody took them away; users who came since a snapshot are missing in any.
    earlier: int = 0


@dataclass(frozen=True, slots=True)
class Passed:
    """One that is passed over."""

    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.name} {self.why}"


@dataclass(frozen=True, slots=True)
class Choice:
    """*candidates*: the one to take first comes first."""

    candidates: tuple[Candidate, ...]
    passed: tuple[Passed, ...]


def choose(listed: Sequence[Mapping[str, Any]], before: Fingerprint) -> Choice:
    """*listed*: as :meth:`~jhub_safety.hubdb.snapshot.Listed.record` has it, oldest first.

    Those without users, and those that were never whole, count for nothing: nothing is passed over
    with them.
    """
    ranked: list[tuple[bool, int, Candidate]] = []
    passed: list[Passed] = []
    marked, most = False, 0
    for place, one in enumerate(listed):
        about = one["manifest"]
        if one["damaged"]:
            passed.append(Passed(one["name"], "is damaged"))
            continue
        if not one["verified"] or about is None or not about["users"]:
            continue
        found = Candidate(
            one["name"],
            datetime.fromisoformat(one["made"]),
            about["users"],
            about.get("identity"),
            min(most, before.users),
        )
        marked = marked or found.identity == before.identity
        if why := why_not(found, before, marked=marked):
            passed.append(Passed(found.name, why))
        else:
            most = max(most, found.users)
            # What a restore replaced comes last: it was replaced for a reason.
            ranked.append((about.get("purpose") != BEFORE_RESTORE, place, found))
    ranked.sort(key=lambda each: each[:2], reverse=True)
    return Choice(tuple(found for _, _, found in ranked), tuple(reversed(passed)))


def why_not(one: Candidate, before: Fingerprint, *, marked: bool) -> str:
    """Why *one* is passed over; "" when it is not.

    *marked*: there is one of ours with its mark that is no younger. A database keeps its mark: one
    without it that came later is another one.
    """
    if one.identity and one.identity != before.identity:
        return "is of another database"
    if one.identity == "" and marked:
        return "is of a database without this one's mark"
    if is_fewer(one.users, one.earlier):
        return f"has {one.users} users, and {one.earlier} were known before"
    return ""


def told(passed: Iterable[Passed]) -> str:
    """In one sentence."""
    every = list(passed)
    more = f"; and {len(every) - TOLD} more" if len(every) > TOLD else ""
    return "; ".join(map(str, every[:TOLD])) + more
