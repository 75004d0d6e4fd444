"""Whether a hub may serve on its database: decided purely, row by row (docs: The hub's database).

Compared with a fingerprint that is kept outside of the database's volume. What is lost beyond
doubt may be recovered without a person; what is merely older, smaller or somebody else's is never
overwritten: it may be the right one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from jhub_safety.hubdb.condition import Condition, State

#: So many users fewer are no accident: the larger of a number and a part of them.
FEWER = (20, 0.10)


class Verdict(StrEnum):
    """What the hub does."""

    SERVE = "serve"
    #: Serve, and say loudly what is wrong: nobody is harmed by serving.
    ALARM = "alarm"
    #: Serve nobody until an operator has spoken, or what is wrong has passed.
    HOLD = "hold"
    RECOVER = "recover"


class Row(StrEnum):
    """Rows of the table. The values are stable: docs, metrics, journal, tests."""

    AS_BEFORE = "as-before"
    FIRST_START = "first-start"
    FIRST_GUARDED = "first-guarded"
    EMPTY_BESIDE_HOMES = "empty-beside-homes"
    UNKNOWN_BEFORE = "fingerprint-unknown"
    UNREACHABLE = "unreachable"
    READ_ONLY = "read-only"
    NO_ROOM = "no-room"
    WRONG_VOLUME = "wrong-volume"
    MISSING = "missing"
    ZERO_BYTES = "zero-bytes"
    NO_TABLES = "no-tables"
    CORRUPT = "corrupt"
    NO_USERS = "no-users"
    ANOTHER_ADDRESS = "another-address"
    ANOTHER = "another-database"
    OLDER = "older-copy"
    FEWER_USERS = "fewer-users"
    UNSAFE = "unsafe"


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What was last known of a hub's database."""

    identity: str
    epoch: int
    revision: str
    users: int
    highest_id: int
    #: ISO 8601, UTC.
    taken: str
    #: Where the database was (:func:`~jhub_safety.hubdb.condition.address`); "" is not known.
    address: str = ""

    def record(self) -> dict[str, str]:
        return {key: str(value) for key, value in asdict(self).items()}

    @classmethod
    def parse(cls, found: Mapping[str, str]) -> Fingerprint:
        """Raises ValueError: it is not whole."""
        try:
            return cls(
                found["identity"],
                int(found["epoch"]),
                found["revision"],
                int(found["users"]),
                int(found["highest_id"]),
                found["taken"],
                found.get("address", ""),
            )
        except KeyError as error:
            raise ValueError(f"a fingerprint without {error}") from error


class Unknown(StrEnum):
    """A question that could not be answered: the cluster or the note cannot be read."""

    UNKNOWN = "unknown"


UNKNOWN = Unknown.UNKNOWN


@dataclass(frozen=True, slots=True)
class Case:
    """Everything that the decision depends on."""

    condition: Condition
    #: None: there has never been one.
    before: Fingerprint | Unknown | None
    #: Whether the cluster has homes of this hub.
    homes: bool | Unknown


@dataclass(frozen=True, slots=True)
class Decision:
    row: Row
    verdict: Verdict
    why: str

    def record(self) -> dict[str, Any]:
        return {"row": self.row, "verdict": self.verdict, "why": self.why}


_LOST = {
    State.MISSING: Row.MISSING,
    State.ZERO_BYTES: Row.ZERO_BYTES,
    State.NO_TABLES: Row.NO_TABLES,
    State.CORRUPT: Row.CORRUPT,
}
_WAITING = {
    State.UNREACHABLE: Row.UNREACHABLE,
    State.READ_ONLY: Row.READ_ONLY,
    State.FULL: Row.NO_ROOM,
}
#: Nothing is lost; it passes when what is in the way is mended.
WAITING = frozenset(_WAITING.values())


def decide(case: Case, on_loss: str = "recover") -> Decision:
    """*on_loss*: ``recover``, ``hold`` or ``ignore``; a first row that fits counts."""
    found = _decide(case)
    if found.verdict in (Verdict.SERVE, Verdict.ALARM):
        return found
    # One login could reach another's account: that is no loss, and serving harms.
    if on_loss == "ignore" and found.row not in WAITING | {Row.UNSAFE}:
        return Decision(found.row, Verdict.ALARM, f"{found.why}; on_loss is ignore")
    if found.verdict is Verdict.RECOVER and on_loss != "recover":
        return Decision(found.row, Verdict.HOLD, found.why)
    return found


def _decide(case: Case) -> Decision:
    now, before = case.condition, case.before
    if now.state in _WAITING:
        return Decision(_WAITING[now.state], Verdict.HOLD, now.why)
    if now.unsafe:
        return Decision(Row.UNSAFE, Verdict.HOLD, now.unsafe)
    empty = now.state is not State.USABLE or now.users == 0
    if before is UNKNOWN:
        if empty:
            why = "it is empty, and what is known of it from before cannot be read"
            return Decision(Row.UNKNOWN_BEFORE, Verdict.HOLD, why)
        why = "what is known of it from before cannot be read"
        return Decision(Row.UNKNOWN_BEFORE, Verdict.ALARM, why)
    if before is None:
        return _for_the_first_time(case, empty=empty)
    assert isinstance(before, Fingerprint)  # noqa: S101 - for the type checker
    if empty and before.users and before.address not in ("", now.address):
        return Decision(
            Row.ANOTHER_ADDRESS,
            Verdict.HOLD,
            f"it is empty, and at another address ({now.address}) than the one that was known "
            f"({before.address}, {before.users} users)",
        )
    if now.state in _LOST:
        return _lost(now, before, _LOST[now.state])
    if now.users == 0:
        if before.users == 0:
            return Decision(Row.AS_BEFORE, Verdict.SERVE, "it has no users, as before")
        return Decision(
            Row.NO_USERS, Verdict.RECOVER, f"it has no users, and had {before.users} before"
        )
    return _compare(now, before)


def _for_the_first_time(case: Case, *, empty: bool) -> Decision:
    now = case.condition
    if now.state is State.CORRUPT:
        return Decision(Row.CORRUPT, Verdict.HOLD, f"{now.why}, and no fingerprint is known")
    if not empty:
        why = f"{now.users} users, looked at for the first time"
        return Decision(Row.FIRST_GUARDED, Verdict.SERVE, why)
    if case.homes is False:
        return Decision(Row.FIRST_START, Verdict.SERVE, "no users, no homes: a first start")
    why = (
        "it is empty, and the cluster has homes of this hub"
        if case.homes is True
        else "it is empty, and whether the cluster has homes could not be found out"
    )
    return Decision(Row.EMPTY_BESIDE_HOMES, Verdict.ALARM, why)


def _lost(now: Condition, before: Fingerprint, row: Row) -> Decision:
    if now.state is State.MISSING and now.volume != before.identity:
        return Decision(
            Row.WRONG_VOLUME,
            Verdict.HOLD,
            f"{now.why}, and nothing shows that its volume is the one that is mounted",
        )
    if before.users == 0:
        return Decision(Row.AS_BEFORE, Verdict.SERVE, f"{now.why}; it had no users before")
    return Decision(row, Verdict.RECOVER, f"{now.why}; it had {before.users} users")


def _compare(now: Condition, before: Fingerprint) -> Decision:
    if now.identity != before.identity:
        name = "has never been this hub's" if now.identity else "has no mark of this hub's"
        return Decision(
            Row.ANOTHER,
            Verdict.HOLD,
            f"it is another database: it {name}, and has {now.users} users; expected were "
            f"{before.users}",
        )
    if now.epoch < before.epoch:
        return Decision(
            Row.OLDER,
            Verdict.HOLD,
            f"it is an older copy: of epoch {now.epoch}, and known is {before.epoch} of "
            f"{before.taken}",
        )
    if now.renewed:
        return Decision(Row.AS_BEFORE, Verdict.SERVE, f"{now.users} users, made again")
    if is_fewer(now.users, before.users):
        return Decision(
            Row.FEWER_USERS,
            Verdict.HOLD,
            f"it has {now.users} users, and had {before.users} on {before.taken}",
        )
    return Decision(Row.AS_BEFORE, Verdict.SERVE, f"{now.users} users, as known")


def is_fewer(now: int, before: int) -> bool:
    """Whether so many users are missing that nobody may have meant it."""
    number, part = FEWER
    return before - now > max(number, before * part)
