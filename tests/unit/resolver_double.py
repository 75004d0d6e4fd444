"""A Resolver over claims in memory, with everything that a spawner would give it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubernetes_asyncio import client as kube

from jhub_safety.errors import Doubt
from jhub_safety.journal import Journal
from jhub_safety.volumes.listing import SharedListing
from jhub_safety.volumes.model import Question
from jhub_safety.volumes.resolve import Resolver
from tests.unit.cluster_double import ClusterDouble

LOG = logging.getLogger("tests.unit.resolver")


class Clock:
    """A millisecond for each look at it, and what a test adds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@dataclass
class Stage:
    """What a test sets up and looks at afterwards."""

    cluster: ClusterDouble
    folder: Path
    clock: Clock = field(default_factory=Clock)
    #: What the Secrets and the hub's database say.
    forgotten: bool | Doubt = False
    landmark: bool | Doubt = False
    recorded: Mapping[str, str] = field(default_factory=dict)
    lost: str | Doubt | None = None
    may_annotate: bool = True
    prepared: int = 0
    cannot_annotate: list[Doubt] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.listing = SharedListing(self.cluster.list, max_age=5.0, clock=self.clock)

    @property
    def resolver(self) -> Resolver:
        return Resolver(
            claims=self.cluster,  # type: ignore[arg-type]
            listing=self.listing,
            journal=Journal(self.folder / "journal", log=LOG),
            log=LOG,
            manifest=self._manifest,
            prepare=self._prepare,
            forgotten=self._forgotten,
            recorded_for=lambda _, name: self.recorded.get(name, ""),
            lost_elsewhere=self._lost,
            landmark=self._landmark,
            cannot_annotate=self.cannot_annotate.append,
            may_annotate=self.may_annotate,
        )

    async def _lost(self, _: Any) -> str | None:
        if isinstance(self.lost, Doubt):
            raise self.lost
        return self.lost

    def journal(self) -> list[dict[str, Any]]:
        path = self.folder / "journal"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @staticmethod
    def _manifest(name: str) -> kube.V1PersistentVolumeClaim:
        """As KubeSpawner makes it, with annotations and labels of its own."""
        return kube.V1PersistentVolumeClaim(
            metadata=kube.V1ObjectMeta(
                name=name,
                annotations={"hub.jupyter.org/username": "alice", "extra": "kept"},
                labels={"component": "singleuser-storage"},
            )
        )

    async def _prepare(self) -> None:
        self.prepared += 1
        self.cluster.calls.append(("prepare", ""))

    async def _forgotten(self, _: Question) -> bool:
        return _say(self.forgotten)

    async def _landmark(self) -> bool:
        return _say(self.landmark)


def _say(answer: bool | Doubt) -> bool:
    if isinstance(answer, Doubt):
        raise answer
    return answer
