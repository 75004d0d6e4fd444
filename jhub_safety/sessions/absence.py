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
    #: When each was believed gone. Ending a session asks several times more.
    _gone: dict[str, float] = field(default_factory=dict)
    _believed: deque[float] = field(default_factory=deque)

    def seen(self, lab: str) -> None:
        """The lab is there: whatever was suspected of it is forgotten."""
        self._missing.pop(lab, None)
        self._gone.pop(lab, None)

    def suspected(self) -> tuple[str, ...]:
        """Labs that were missing when last looked for."""
        return tuple(self._missing)

    def missing(self, lab: str) -> None:
        """Count one sighting, when the last one that counted is a minute ago."""
        now = self.clock()
        missing = self._missing.get(lab)
        if missing is None:
            self._missing[lab] = _Missing(now)
        elif now - missing.counted_at >= APART:
            missing.counted_at = now
            missing.sightings += 1

    def is_due(self, lab: str, sessions: int) -> bool:
        """True when one more live answer 404 may be believed.

        *sessions*: how many the hub has now, for the cap. Over the cap means all that are
        missing, not those beyond a number: what has gone wrong has gone wrong for all.
        """
        missing = self._missing.get(lab)
        if missing is None:
            return False
        return missing.sightings >= (SIGHTINGS_OVER_CAP if self.over_cap(sessions) else 2)

    def over_cap(self, sessions: int) -> bool:
        """True when more labs are missing, or were believed gone of late, than is plausible."""
        now = self.clock()
        while self._believed and now - self._believed[0] > WINDOW:
            self._believed.popleft()
        for lab in [name for name, one in self._missing.items() if now - one.counted_at > WINDOW]:
            del self._missing[lab]
        # Those that were believed are no longer among the sessions.
        cap = max(LEAST, SHARE * (sessions + len(self._believed)))
        return len(self._believed) + len(self._missing) > cap

    def missed(self, lab: str, sessions: int) -> bool:
        """The API server answered 404 for *lab*, in the right place. True when it is gone."""
        now = self.clock()
        if now - self._gone.get(lab, float("-inf")) <= APART:
            return True
        self.missing(lab)
        if not self.is_due(lab, sessions):
            return False
        del self._missing[lab]
        self._gone = {name: at for name, at in self._gone.items() if now - at <= APART}
        self._gone[lab] = now
        self._believed.append(now)
        return True

    def take_word(self, lab: str) -> None:
        """An operator says that the next live 404 of *lab* is to be believed."""
        self._missing[lab] = _Missing(self.clock(), SIGHTINGS_OVER_CAP)
