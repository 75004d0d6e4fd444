"""One case of the decision table, and everything of its outcome that somebody relies on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from jhub_safety.volumes.model import Observation, Question, Row, Verdict
from jhub_safety.volumes.names import Generation
from tests.unit.given import ALICE

MINE = ALICE.claim_name
#: The names of alice's next claims, when those before were handed over with a rename.
NEXT = [replace(ALICE, spare=n).claim_name for n in range(1, 6)]
ADOPT_WHICH = "claims adopt CLAIM --user=alice"
#: Templates without a server: a user's servers share one home.
SHARED = Generation("configured", "claim-{username}", "safe")
SHARED_OWN = Generation("configured", "claim-{user_slug}-{user_hash}", "safe")


class Outcome(NamedTuple):
    row: Row
    verdict: Verdict
    name: str
    command: str = ""
    retryable: bool = False
    #: Names of the claims that a refusal shows.
    shows: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    id: str
    asked: Question
    seen: Observation
    outcome: Outcome


def mount(row: Row, name: str) -> Outcome:
    return Outcome(row, Verdict.MOUNT, name, shows=(name,))


def adopt(row: Row, name: str) -> Outcome:
    return Outcome(row, Verdict.ADOPT, name, shows=(name,))


def create(row: Row, name: str) -> Outcome:
    return Outcome(row, Verdict.CREATE, name)


def refuse(row: Row, name: str, command: str, *shows: str) -> Outcome:
    return Outcome(row, Verdict.REFUSE, name, command, shows=tuple(sorted(shows)))


def later(name: str, command: str = "claims explain alice") -> Outcome:
    """Refused for now."""
    return Outcome(Row.INCOMPLETE, Verdict.REFUSE, name, command, retryable=True)
