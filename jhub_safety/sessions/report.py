"""What one pass came to, and for how long things have been as passes see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from jhub_safety.sessions.act import Outcome
from jhub_safety.sessions.model import Judgement


@dataclass(frozen=True, slots=True)
class Report:
    """One pass: what was found, and what came of it.

    *dry*: why nothing was done, "" when it was. *outcomes*: one for each action of the plan.
    """

    at: datetime
    seconds: float
    judgement: Judgement
    dry: str = ""
    outcomes: tuple[Outcome, ...] = ()

    def record(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "time": self.at.isoformat(),
            "seconds": round(self.seconds, 3),
            "counts": {str(verdict): n for verdict, n in self.judgement.counts.items()},
            "findings": [one.record() for one in self.judgement.findings],
            "plan": self.judgement.plan.record(),
            "dry": self.dry,
            "outcomes": [one.record() for one in self.outcomes],
        }


@dataclass
class Since:
    """For how long something has been so, by passes that saw it without a break."""

    clock: Callable[[], float]
    _first: dict[Any, float] = field(default_factory=dict)

    def update(self, now_so: set[Any]) -> Mapping[Any, float]:
        now = self.clock()
        self._first = {key: self._first.get(key, now) for key in now_so}
        return {key: now - first for key, first in self._first.items()}
