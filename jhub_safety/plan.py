"""Plan, Action, Refusal: the one record that is printed, journalled and executed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, Literal

Kind = Literal[
    "create-claim",
    "annotate-claim",
    "resize-claim",
    "release-claim",
    "forget-claim",
    "delete-claim",
    "clear-session",
    "stop-server",
    "relink-lab",
    "delete-lab",
    "check-routes",
    "end-session",
    "unstick",
    "forget-user",
    "choose-folder",
    "retain-volume",
    "create-volume",
    "reserve-volume",
    "bind-claim",
    "upgrade-database",
    "back-up-database",
    "keep-database",
    "restore-database",
    "change-database",
    "copy-database",
    "delete-snapshot",
    "recover-database",
    "accept-database",
    "rebuild-database",
    "repair-database",
    "log-out",
    "hold-hub",
    "end-hub",
]


@dataclass(frozen=True, slots=True)
class Action:
    """One change to one object.

    *uid* is the object's uid as seen when the plan was made, "" for one that is to be
    created; the executor refuses a target whose uid has changed. *user* and *server* say whose
    session or lab it is, where that is the point, and *since* when the session began (ISO 8601, ""
    where that is not known): labs of a server have one name, and none of them is meant but that.
    """

    kind: Kind
    namespace: str
    name: str
    reason: str
    uid: str = ""
    annotations: Mapping[str, str | None] = field(default_factory=lambda: MappingProxyType({}))
    labels: Mapping[str, str | None] = field(default_factory=lambda: MappingProxyType({}))
    user: str = ""
    server: str = ""
    since: str = ""
    #: What a claim is to be enlarged to.
    capacity: str = ""

    def record(self) -> dict[str, Any]:
        whose = {"user": self.user, "server": self.server} if self.user else {}
        return {
            "kind": self.kind,
            "namespace": self.namespace,
            "name": self.name,
            "uid": self.uid,
            "reason": self.reason,
            "annotations": dict(self.annotations),
            "labels": dict(self.labels),
            **whose,
            **({"since": self.since} if self.since else {}),
            **({"capacity": self.capacity} if self.capacity else {}),
        }


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something that was asked for and will not be done.

    *code* is stable (metrics, docs, tests); *command* is the one to run next.
    """

    code: str
    who: str
    reason: str
    command: str = ""
    retryable: bool = False

    def record(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that will be changed, in order, and everything that will not be."""

    title: str
    actions: tuple[Action, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    #: An operator's word stands for sightings that are still missing.
    on_word: bool = False

    def __bool__(self) -> bool:
        return bool(self.actions)

    def record(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "title": self.title,
            "actions": [action.record() for action in self.actions],
            "refusals": [refusal.record() for refusal in self.refusals],
            "on_word": self.on_word,
        }
