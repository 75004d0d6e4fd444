"""When a lab that is not found may be taken for gone.

Pure but for the clock that is handed in. Absent is earned: seen missing twice, a minute apart, in
a place that is proven to be the right one, and not with too many others at once.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

#: Seconds between two sightings that count.
APART = 60.0
#: Sightings in a row that are needed beyond the cap.
SIGHTINGS_OVER_CAP = 3
#: The cap: disappearances that are believed within WINDOW seconds.
WINDOW = 3600.0
LEAST = 2
SHARE = 0.1

_T = TypeVar("_T")


@dataclass
class _Missing:
    """A lab that was not found, and when that last counted."""

    counted_at: float
    sightings: int = 1


@dataclass
class Absences:
    """Of all sessions of a hub together; start-up checks, polls and the reconciler share one.

    Polls count on the hub's loop while a pass counts in a thread. Each method holds the lock for
    one lab, and costs the same however many are missing: nothing here may go over all of them for
    each of them. Without the lock, passes over 1,000 missing labs failed every time ("dictionary
    changed size"), and a poll can fail alike: JupyterHub then stops a server that runs.
    """

    #: Never goes back: what is oldest is found at the front.
    clock: Callable[[], float] = time.monotonic
    #: In the order of counted_at.
    _missing: OrderedDict[str, _Missing] = field(default_factory=OrderedDict)
    #: When each was believed gone, in that order. Ending a session asks several times more.
    _gone: OrderedDict[str, float] = field(default_factory=OrderedDict)
    _believed: deque[float] = field(default_factory=deque)
    #: The clock is read inside it, or the order would not hold.
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False, compare=False)

    def seen(self, lab: str) -> None:
        """The lab is there: whatever was suspected of it is forgotten."""
        with self._lock:
            self._missing.pop(lab, None)
            self._gone.pop(lab, None)

    def suspected(self) -> tuple[str, ...]:
        """Labs that were missing when last looked for."""
        with self._lock:
            return tuple(self._missing)

    def missing(self, lab: str) -> None:
        """Count one sighting, when the last one that counted is a minute ago."""
        with self._lock:
            now = self.clock()
            missing = self._missing.get(lab)
            if missing is None:
                self._missing[lab] = _Missing(now)
            elif now - missing.counted_at >= APART:
                missing.counted_at = now
                missing.sightings += 1
                self._missing.move_to_end(lab)

    def is_due(self, lab: str, sessions: int) -> bool:
        """True when one more live answer 404 may be believed.

        *sessions*: how many the hub has now, for the cap. Over the cap means all that are
        missing, not those beyond a number: what has gone wrong has gone wrong for all.
        """
        with self._lock:
            missing = self._missing.get(lab)
            if missing is None:
                return False
            return missing.sightings >= (SIGHTINGS_OVER_CAP if self.over_cap(sessions) else 2)

    def over_cap(self, sessions: int) -> bool:
        """True when more labs are missing, or were believed gone of late, than is plausible."""
        with self._lock:
            now = self.clock()
            while self._believed and now - self._believed[0] > WINDOW:
                self._believed.popleft()
            while self._missing and now - _first(self._missing).counted_at > WINDOW:
                self._missing.popitem(last=False)
            # Those that were believed are no longer among the sessions.
            cap = max(LEAST, SHARE * (sessions + len(self._believed)))
            return len(self._believed) + len(self._missing) > cap

    def missed(self, lab: str, sessions: int) -> bool:
        """The API server answered 404 for *lab*, in the right place. True when it is gone."""
        with self._lock:
            now = self.clock()
            if now - self._gone.get(lab, float("-inf")) <= APART:
                return True
            self.missing(lab)
            if not self.is_due(lab, sessions):
                return False
            self._missing.pop(lab, None)
            while self._gone and now - _first(self._gone) > APART:
                self._gone.popitem(last=False)
            self._gone[lab] = now
            self._believed.append(now)
            return True

    def take_word(self, lab: str) -> None:
        """An operator says that the next live 404 of *lab* is to be believed."""
        with self._lock:
            self._missing[lab] = _Missing(self.clock(), SIGHTINGS_OVER_CAP)
            self._missing.move_to_end(lab)


def _first(kept: OrderedDict[str, _T]) -> _T:
    return next(iter(kept.values()))
