"""Sessions, labs and what is seen of them, written as briefly as a table wants them."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

from jhub_safety.sessions.model import (
    Lab,
    LabIdentity,
    LabState,
    Listing,
    Live,
    Observation,
    Server,
    Session,
)
from tests.unit.given import HUB, NAMESPACE

ADA, GPU, BOB, CAROL = Server("ada"), Server("ada", "gpu"), Server("bob"), Server("carol")
IP = "10.88.0.7"
ADDRESS = f"{IP}:8888"
TARGET = f"http://{ADDRESS}"
READY = Live(ready=True)
#: kubectl's word for each state.
WORDS = {
    LabState.PENDING: "ContainerCreating",
    LabState.RUNNING: "Running",
    LabState.LOST: "Unknown",
    LabState.TERMINATING: "Terminating",
    LabState.ENDED: "OOMKilled",
}


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def lab_name(server: Server) -> str:
    return f"jupyter-{server.user}" + (f"--{server.name}" if server.name else "")


def session(server: Server = ADA, **fields: Any) -> Session:
    given = {"namespace": NAMESPACE, "address": ADDRESS} | fields
    return Session(server, given.pop("lab", lab_name(server)), **given)


def lab(server: Server | str = ADA, state: LabState = LabState.RUNNING, **fields: Any) -> Lab:
    name = server if isinstance(server, str) else lab_name(server)
    ready = state is LabState.RUNNING
    given = {"words": WORDS[state], "ready": ready, "ip": IP, "node": "node-1"} | fields
    return Lab(name, state, namespace=NAMESPACE, **given)


def identity(
    server: Server | None = ADA,
    *,
    hub: str | None = HUB,
    uid: str = "uid-1",
    namespace: str = NAMESPACE,
) -> LabIdentity:
    return LabIdentity(uid, namespace, server, hub)


def listing(*labs: Lab) -> Listing:
    found: dict[str, tuple[Lab, ...]] = {}
    for one in labs:
        found[one.name] = (*found.get(one.name, ()), one)
    return Listing(MappingProxyType(found))


def observed(
    *labs: Lab,
    sessions: tuple[Session, ...] = (),
    whose: dict[str, LabIdentity] | None = None,
    **fields: Any,
) -> Observation:
    """What is seen while no hub runs; *whose*: identities by the name of a lab."""
    identities = {(one.namespace, name): one for name, one in (whose or {}).items()}
    return Observation(sessions, listing(*labs), identities=identities, **fields)


def up(seen: Observation, *, pending: str = "", **fields: Any) -> Observation:
    """The same beside a running hub, which has every session in memory, and all its routes."""
    live = {one.server: Live(pending, not pending) for one in seen.sessions}
    routes = {one.server: f"http://{one.address}" for one in seen.sessions}
    return replace(seen, **({"live": live, "routes": routes} | fields))
