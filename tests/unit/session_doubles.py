"""A hub and an inventory in memory, as the protocols of sessions/hub.py and inventory.py say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from jhub_safety.cluster.labs import Lab as Pod
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.sessions.absence import Absences
from jhub_safety.sessions.inventory import Inventory
from jhub_safety.sessions.model import (
    Lab,
    LabIdentity,
    Listing,
    Live,
    Server,
    Session,
)
from jhub_safety.sessions.presence import Presence, Sighting, classify
from tests.unit.given import NAMESPACE
from tests.unit.session_given import READY, Clock, lab, lab_name, listing, session


def pod(server: Server, **fields: Any) -> Pod:
    """A lab as a live read gives it."""
    given = {"uid": f"uid-of-{lab_name(server)}", "phase": "Running"} | fields
    return Pod(lab_name(server), NAMESPACE, **given)


@dataclass
class HubDouble:
    """What a hub believes; *did* is every change that was asked of it."""

    rows: dict[Server, Session] = field(default_factory=dict)
    memory: dict[Server, Live] | None = field(default_factory=dict)
    targets: dict[Server, str] | None = field(default_factory=dict)
    users: set[str] = field(default_factory=set)
    did: list[tuple[str, ...]] = field(default_factory=list)
    #: Raised by the next call about a server of this user, or by reading all ("").
    faults: dict[str, BaseException] = field(default_factory=dict)
    #: Somebody else's doings, before each reading of one session.
    meanwhile: Callable[[Server], None] = lambda server: None

    def has(self, *servers: Server) -> HubDouble:
        for server in servers:
            self.rows[server] = session(server)
            self.users.add(server.user)
            if self.memory is not None:
                self.memory[server] = READY
            if self.targets is not None:
                self.targets[server] = f"http://{session(server).address}"
        return self

    def _may_fail(self, who: str) -> None:
        if who in self.faults:
            raise self.faults[who]

    async def sessions(self) -> tuple[Session, ...]:
        self._may_fail("")
        return tuple(self.rows.values())

    async def session(self, server: Server) -> Session | None:
        self.meanwhile(server)
        return self.rows.get(server)

    async def known_users(self, names):
        return frozenset(self.users.intersection(names))

    async def live(self):
        return None if self.memory is None else dict(self.memory)

    def pending(self, server: Server) -> str:
        return (self.memory or {}).get(server, Live()).pending

    async def routes(self):
        return None if self.targets is None else dict(self.targets)

    def _end(self, kind: str, one: Session, why: str) -> None:
        self._may_fail(one.server.user)
        self.did.append((kind, str(one.server), why))
        for records in (self.rows, self.memory, self.targets):
            if records is not None:
                records.pop(one.server, None)

    async def clear(self, one: Session, why: str, *, ended: bool = False) -> None:
        self._end("clear-ended" if ended else "clear", one, why)

    async def stop(self, one: Session, why: str) -> None:
        self._end("stop", one, why)

    async def relink(self, server: Server, name: str, identity: LabIdentity) -> None:
        self._may_fail(server.user)
        self.did.append(("relink", str(server), name, identity.uid))
        self.has(server)

    async def check_routes(self) -> None:
        self._may_fail("proxy")
        self.did.append(("check-routes",))

    async def unstick(self, server: Server) -> str:
        self._may_fail(server.user)
        if not self.pending(server):
            return "unchanged: the hub is not busy with it"
        self.did.append(("unstick", str(server)))
        assert self.memory is not None
        self.memory[server] = Live()
        return "done: given up"

    async def forget_user(self, name: str) -> None:
        if any(one.user == name for one in self.rows):
            raise Conflict(f"{name} still has a running server")
        self.users.discard(name)
        self.did.append(("forget", name))


class InventoryDouble(Inventory):
    """Labs by name, with what a table and what a live read says of each."""

    #: As NubladoInventory has it: asks for each session by itself.
    needs_sessions = False

    def __init__(self, clock: Clock, sessions: Callable[[], int] = lambda: 100) -> None:
        super().__init__()
        self.clock, self._sessions = clock, sessions
        self.absences = Absences(clock)
        self.listed: dict[str, Lab] = {}
        self.live: dict[str, Pod] = {}
        self.whose: dict[tuple[str, str], LabIdentity] = {}
        self.doubt: Doubt | None = None
        #: What each look says next, instead of what is there.
        self.sightings: list[Sighting] = []
        self.deleted: list[tuple[str, str]] = []
        self.trusted: list[str] = []
        self.taken = 0

    def runs(self, *servers: Server) -> InventoryDouble:
        for server in servers:
            self.listed[lab_name(server)] = lab(server)
            self.live[lab_name(server)] = pod(server)
        return self

    def orphan(self, server: Server, **fields: Any) -> None:
        self.runs(server)
        name = lab_name(server)
        given = {"uid": f"uid-of-{name}", "hub": "hub"} | fields
        self.whose[NAMESPACE, name] = LabIdentity(given["uid"], NAMESPACE, server, given["hub"])

    def lose(self, *servers: Server) -> None:
        for server in servers:
            self.listed.pop(lab_name(server), None)
            self.live.pop(lab_name(server), None)
            self.whose.pop((NAMESPACE, lab_name(server)), None)

    def lab_of(self, user, server, state):
        raise NotImplementedError

    async def take(self, sessions) -> Listing:
        self.taken += 1
        if self.doubt is not None:
            raise self.doubt
        return listing(*self.listed.values())

    async def look(self, one: Session) -> Sighting:
        if self.sightings:
            return self.sightings.pop(0)
        if self.doubt is not None:
            return Sighting(Presence.DOUBT, why=str(self.doubt))
        found = self.live.get(one.lab)
        key = f"{one.namespace}/{one.lab}"
        if found is not None:
            self.absences.seen(key)
            return Sighting(classify(found), found)
        if self.absences.missed(key, self._sessions()):
            return Sighting(Presence.GONE)
        return Sighting(Presence.DOUBT, why="not found; looking again")

    async def identify(self, labs):
        names = {one.name for one in labs}
        return {key: one for key, one in self.whose.items() if key[1] in names}

    def trust(self, one: Session) -> None:
        self.trusted.append(one.lab)
        self.absences.take_word(f"{one.namespace}/{one.lab}")

    async def delete(self, identity: LabIdentity, name: str) -> None:
        if (found := self.live.get(name)) is None:
            return
        if found.uid != identity.uid:
            raise Conflict(f"lab {name} is another one")
        self.deleted.append((name, identity.uid))
        self.live.pop(name)
        self.listed.pop(name)
        self.whose.pop((NAMESPACE, name), None)
