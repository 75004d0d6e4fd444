"""When a lab that is not found may be taken for gone.

Pure but for the clock that is handed in. Absent is earned: seen missing twice, a minute apart, in
a place that is proven to be the right one, and not with too many others at once.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

#: Seconds between two sightings that count.
APART = 60.0
#: Sightings in a row that are needed beyond the cap.
SIGHTINGS_OVER_CAP = 3
#: The cap: disappearances that are believed within WINDOW seconds.
WINDOW = 3600.0
LEAST = 2
SHARE = 0.1


@dataclass
class _Missing:
    """A lab that was not found, and when that last counted."""

    counted_at: float
    sightings: int = 1


@dataclass
class Absences:
    """Of all sessions of a hub together; start-up checks, polls and the reconciler share one."""

    clock: Callable[[], float] = time.monotonic
    _missing: dict[str, _Missing] = field(default_factory=dict)
    _believed: deque[float] = field(default_factory=deque)

    def seen(self, lab: str) -> None:
        """The lab is there: whatever was suspected of it is forgotten."""
        self._missing.pop(lab, None)

    def missed(self, lab: str, sessions: int) -> bool:
        """The API server answered 404 for *lab*, in the right place. True when it is gone.

        *sessions*: how many the hub has now, for the cap.
        """
        now = self.clock()
        missing = self._missing.get(lab)
        if missing is None:
            self._missing[lab] = _Missing(now)
            return False
        if now - missing.counted_at >= APART:
            missing.counted_at = now
            missing.sightings += 1
        if missing.sightings < self._needed(sessions, now):
            return False
        del self._missing[lab]
        self._believed.append(now)
        return True

    def _needed(self, sessions: int, now: float) -> int:
        while self._believed and now - self._believed[0] > WINDOW:
            self._believed.popleft()
        # Those that were believed are no longer among the sessions.
        cap = max(LEAST, SHARE * (sessions + len(self._believed)))
        return 2 if len(self._believed) < cap else SIGHTINGS_OVER_CAP

    def next_look(self, lab: str) -> float:
        """Seconds after which looking again may change something."""
        missing = self._missing.get(lab)
        return APART if missing is None else max(0.0, missing.counted_at + APART - self.clock())
