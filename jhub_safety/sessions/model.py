"""What is known of each server: three records, what they say together, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

from jhub_safety.plan import Plan


class Server(NamedTuple):
    """One server of one user; the default server has an empty name."""

    user: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.user}/{self.name}" if self.name else self.user


class LabState(StrEnum):
    """What a lab is, by the cluster's own word."""

    PENDING = "pending"
    RUNNING = "running"
    #: Its node does not report. It may come back with all that is in its memory.
    LOST = "lost"
    TERMINATING = "terminating"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Session:
    """The hub's record that a server runs."""

    server: Server
    #: How the inventory calls its lab: a pod's name; a user's name with Nublado.
    lab: str
    namespace: str = ""
    #: Host and port that the hub believes in, as ``10.88.0.7:8888``.
    address: str = ""
    #: uid of the hub's mark in the namespace where it began; None: from before this library.
    place: str | None = None
    claim: str | None = None
    started: datetime | None = None

    @property
    def since(self) -> str:
        """As an action about it has it."""
        return self.started.isoformat() if self.started else ""


@dataclass(frozen=True, slots=True)
class Lab:
    """One lab of an inventory."""

    name: str
    state: LabState
    #: As kubectl prints it: Running, Evicted, OOMKilled, CrashLoopBackOff.
    words: str
    ready: bool = True
    #: Empty where the inventory does not say.
    namespace: str = ""
    ip: str = ""
    node: str = ""

    @property
    def alive(self) -> bool:
        """Somebody may be working in it, now or in a moment."""
        return self.state in (LabState.PENDING, LabState.RUNNING, LabState.LOST)


@dataclass(frozen=True, slots=True)
class LabIdentity:
    """Whose a lab is, read for those that no session names."""

    uid: str
    namespace: str
    #: None: the lab does not say.
    server: Server | None
    #: Value of the hub label; None: from before this library, or not a hub's.
    hub: str | None = None
    created: datetime | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """Every lab that exists, when the question was asked, or an error instead (Doubt).

    *labs*: by name; more than one lab of a name in different namespaces.
    """

    labs: Mapping[str, tuple[Lab, ...]]


@dataclass(frozen=True, slots=True)
class Live:
    """What the running hub has in memory of a server."""

    #: "spawn", "stop", "check", "rename", or "".
    pending: str = ""
    ready: bool = False


class Verdict(StrEnum):
    """What the records of one server say together (docs: Sessions)."""

    IN_STEP = "in step"
    #: Something is under way within its limits.
    BUSY = "busy"
    STALE = "stale"
    ENDED = "ended"
    TERMINATING = "terminating"
    NODE_LOST = "node lost"
    PENDING_TOO_LONG = "pending too long"
    UNREACHABLE = "unreachable"
    ORPHAN = "orphan"
    TWO_LABS = "two labs"
    FOREIGN = "foreign"
    ROUTE_MISSING = "route missing"
    ROUTE_DEAD = "route dead"
    #: The records do not say enough; never acted upon.
    DOUBT = "doubt"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the table: three records side by side, a verdict, why."""

    verdict: Verdict
    server: Server | None
    why: str
    session: Session | None = None
    lab: Lab | None = None
    identity: LabIdentity | None = None
    live: Live | None = None
    #: The proxy's target; None: no route, or the routes are not known.
    route: str | None = None

    def record(self) -> dict[str, Any]:
        """JSON-ready; holds no secret."""
        return {
            "user": self.server.user if self.server else None,
            "server": self.server.name if self.server else None,
            "verdict": str(self.verdict),
            "why": self.why,
            "session": None
            if self.session is None
            else {
                "lab": self.session.lab,
                "namespace": self.session.namespace,
                "address": self.session.address,
                "started": self.session.since or None,
                "pending": (self.live.pending or None) if self.live else None,
                "ready": self.live.ready if self.live else None,
            },
            "lab": None
            if self.lab is None
            else {
                "name": self.lab.name,
                "state": str(self.lab.state),
                "words": self.lab.words,
                "ready": self.lab.ready,
                "ip": self.lab.ip,
                "node": self.lab.node,
            },
            "route": self.route,
        }


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything one pass has read."""

    sessions: tuple[Session, ...]
    listing: Listing
    #: None: no hub runs, so nothing is pending and nothing has a route.
    live: Mapping[Server, Live] | None = None
    #: Target by server; None: the proxy did not answer, and nothing is said of routes.
    routes: Mapping[Server, str] | None = None
    #: Of labs that no session names.
    identities: Mapping[tuple[str, str], LabIdentity] = field(
        default_factory=lambda: MappingProxyType({})
    )
    #: Users, among those whom labs name, whom the hub knows; None: not asked.
    users: frozenset[str] | None = None
    #: Stale sessions that may be acted upon: seen missing often and long enough.
    due: frozenset[Server] = frozenset()
    #: More are missing than is plausible; none of them is due before its third sighting.
    over_cap: bool = False
    #: Seconds for which a server, or its lab, has been seen pending.
    pending_for: Mapping[Server, float] = field(default_factory=lambda: MappingProxyType({}))
    #: Seconds for which a lab (namespace, name, uid) has been seen without a session.
    orphan_for: Mapping[tuple[str, str, str], float] = field(
        default_factory=lambda: MappingProxyType({})
    )


@dataclass(frozen=True, slots=True)
class Rules:
    """What an operator decides; see :class:`~jhub_safety.sessions.reconciler.SessionReconciler`.

    *orphan_age*, *pending_limit*, *settled*: seconds; 0 switches a limit off. *settled*: for how
    long something must have been so before anything but a report follows. *deletions*: labs
    that may still be deleted within this hour.
    """

    orphans: str = "report"
    orphan_age: float = 86400.0
    pending_limit: float = 3600.0
    settled: float = 60.0
    deletions: int = 2


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a pass found: everything that is not in step, and the plan that follows from it."""

    counts: Mapping[Verdict, int]
    findings: tuple[Finding, ...]
    plan: Plan
