"""A reconciler with doubles around it, and a clock that only a test moves."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jhub_safety.journal import Journal
from jhub_safety.sessions.absence import APART
from jhub_safety.sessions.model import Server
from jhub_safety.sessions.reconciler import SessionReconciler
from tests.unit.given import HUB
from tests.unit.session_doubles import HubDouble, InventoryDouble
from tests.unit.session_given import Clock


@dataclass
class FirstPassDouble:
    """As pause.FirstPass."""

    news: bool = True
    doubt: Exception | None = None

    async def is_news(self) -> bool:
        if self.doubt is not None:
            raise self.doubt
        return self.news

    async def done(self) -> None:
        if self.doubt is not None:
            raise self.doubt
        self.news = False


@dataclass
class Stage:
    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)
    first_pass: FirstPassDouble | None = None
    paused: str | Exception = ""

    def __post_init__(self) -> None:
        self.clock = Clock()
        self.hub = HubDouble()
        self.inventory = InventoryDouble(self.clock, lambda: len(self.hub.rows))
        self.reconciler = SessionReconciler(**self.settings).attach(
            self.hub,
            self.inventory,
            label=HUB,
            absences=self.inventory.absences,
            journal=Journal(self.folder / "journal"),
            paused=self._paused,
            first_pass=self.first_pass,
            clock=self.clock,
        )

    async def _paused(self) -> str:
        if isinstance(self.paused, Exception):
            raise self.paused
        return self.paused

    def has(self, *servers: Server) -> None:
        self.hub.has(*servers)
        self.inventory.runs(*servers)

    async def passes(self, number: int, apart: float = APART, **options: Any) -> list[list[str]]:
        """What each of them did, in words."""
        found = []
        for _ in range(number):
            before = len(self.hub.did) + len(self.inventory.deleted)
            report = await self.reconciler.one_pass(**options)
            done = [one.action.kind for one in report.outcomes if one.outcome == "done"]
            assert (len(self.hub.did) + len(self.inventory.deleted) > before) is bool(done)
            found.append(done)
            self.clock.now += apart
        return found

    def state(self) -> Any:
        return (
            dict(self.hub.rows),
            dict(self.inventory.live),
            list(self.hub.did),
            list(self.inventory.deleted),
            (self.folder / "journal").exists(),
        )
