"""A hub's sessions and the labs that they name; one in twenty is not in step.

What is wrong is given by :class:`Kind`; everything else follows from its number, so that two runs
have the same population.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

from tools.cluster.kwok import FakeLab

SESSIONS = 10_000
USERS = 100_000
#: Of each kind but the first: together 5 % of the sessions.
ODD = 36
NAMESPACE = "bench-sessions"
#: The hub's label, and what a lab of another one says.
HUB = "bench"
OTHER_HUB = "another"
#: uid of the mark that the sessions were started under.
PLACE = "6a1c2f0e-93f3-4b0e-9d5c-8f2d1f6f7a10"


class Kind(StrEnum):
    """What is to be seen of one server."""

    IN_STEP = "in step"
    #: A session whose lab does not exist.
    NO_LAB = "no lab"
    EVICTED = "evicted"
    OOM_KILLED = "notebook killed for memory"
    #: A finalizer keeps it.
    TERMINATING = "terminating"
    NODE_LOST = "node lost"
    #: No node has room for it.
    PENDING = "pending"
    UNREADY = "not ready"
    #: The hub's record has another address than the lab.
    MOVED = "moved"
    #: A lab that no session names.
    NO_SESSION = "no session"
    #: A second lab of the same server, beside the one that the session names.
    SECOND_LAB = "second lab"
    OTHER_HUB = "another hub's lab"
    NO_ROUTE = "no route"
    DEAD_ROUTE = "dead route"


#: What a pass should say of each kind. A lab that is pending counts as busy within its limit.
VERDICTS = {
    Kind.IN_STEP: "in step",
    Kind.NO_LAB: "stale",
    Kind.EVICTED: "ended",
    Kind.OOM_KILLED: "ended",
    Kind.TERMINATING: "terminating",
    Kind.NODE_LOST: "node lost",
    Kind.PENDING: "busy",
    Kind.UNREADY: "unreachable",
    Kind.MOVED: "unreachable",
    Kind.NO_SESSION: "orphan",
    Kind.SECOND_LAB: "two labs",
    Kind.OTHER_HUB: "foreign",
    Kind.NO_ROUTE: "route missing",
    Kind.DEAD_ROUTE: "route dead",
}
#: From one user with a session to the next; less than 10, as some labs have none.
_APART = 9
_WITHOUT_SESSION = (Kind.NO_SESSION, Kind.OTHER_HUB)


def _ended(exit_code: int, reason: str) -> dict[str, Any]:
    return {"terminated": {"exitCode": exit_code, "reason": reason}}


def _containers(state: dict[str, Any], *, ready: bool) -> list[dict[str, Any]]:
    common = {"restartCount": 0, "image": "jhub-safety/lab:1", "imageID": ""}
    beside = {"running": {"startedAt": "2025-01-01T00:00:00Z"}}
    return [
        common | {"name": "notebook", "ready": ready, "state": state},
        common | {"name": "sidecar", "ready": True, "state": beside},
    ]


#: Merged into the status of a lab that runs.
_STATUSES: dict[Kind, dict[str, Any]] = {
    Kind.EVICTED: {"phase": "Failed", "reason": "Evicted"},
    Kind.OOM_KILLED: {"containerStatuses": _containers(_ended(137, "OOMKilled"), ready=False)},
    Kind.NODE_LOST: {"phase": "Unknown"},
    Kind.UNREADY: {
        "containerStatuses": _containers(
            {"running": {"startedAt": "2025-01-01T00:00:00Z"}}, ready=False
        )
    },
}


@dataclass(frozen=True)
class Subject:
    """One server of one user, and its lab."""

    number: int
    kind: Kind

    @cached_property
    def user(self) -> str:
        """A third have names that no object of Kubernetes can have."""
        return user_name(self.user_number)

    @property
    def user_number(self) -> int:
        """Which of all users: those with a session are spread among the others."""
        return self.number * _APART

    @property
    def server(self) -> str:
        """One in twenty is a named server."""
        return "gpu" if self.number % 20 == 7 else ""

    @cached_property
    def lab(self) -> FakeLab:
        """The lab that the session names, or the one that has none."""
        return FakeLab(
            self.user,
            self.server,
            hub=OTHER_HUB if self.kind is Kind.OTHER_HUB else HUB,
            node=None if self.kind is Kind.PENDING else self.number,
            stays=self.kind is Kind.TERMINATING,
        )

    @property
    def labs(self) -> list[FakeLab]:
        """Those that exist."""
        if self.kind is Kind.NO_LAB:
            return []
        if self.kind is Kind.SECOND_LAB:
            second = FakeLab(self.user, self.server, hub=HUB, suffix="-old", node=self.number)
            return [self.lab, second]
        return [self.lab]

    @property
    def has_session(self) -> bool:
        """Whether the hub's database says that it runs."""
        return self.kind not in _WITHOUT_SESSION

    @property
    def status(self) -> dict[str, Any] | None:
        """What its lab's status is made to be, once it runs."""
        return _STATUSES.get(self.kind)

    def address(self, lab_ip: str) -> str:
        """The IP address in the hub's record; *lab_ip*: that of the lab."""
        return "10.255.255.1" if self.kind is Kind.MOVED else lab_ip

    def route(self, lab_ip: str) -> str | None:
        """The proxy's target."""
        if self.kind is Kind.NO_ROUTE or not self.has_session:
            return None
        target = "10.255.255.2" if self.kind is Kind.DEAD_ROUTE else self.address(lab_ip)
        return f"http://{target}:8888"


def user_name(number: int) -> str:
    """Of all users, with and without sessions."""
    return f"user.{number}@school.edu" if number % 3 == 0 else f"user{number}"


def population() -> list[Subject]:
    """So many that :data:`SESSIONS` of them have a session."""
    odd = [kind for kind in Kind if kind is not Kind.IN_STEP for _ in range(ODD)]
    total = SESSIONS + sum(kind in _WITHOUT_SESSION for kind in odd)
    # Spread over all, so that a page or step of any size meets some.
    step = total // len(odd)
    kinds = [
        odd[number // step] if number % step == 0 and number // step < len(odd) else Kind.IN_STEP
        for number in range(total)
    ]
    return [Subject(number, kind) for number, kind in enumerate(kinds)]


def expected(subjects: list[Subject]) -> Counter[str]:
    """How often a pass should give each verdict."""
    counts = Counter(VERDICTS[subject.kind] for subject in subjects)
    # The lab that the session names is in step all the same.
    counts[VERDICTS[Kind.IN_STEP]] += ODD
    return counts
