"""How many sessions the hub has, for the cap of absences."""

from __future__ import annotations

import time
from collections.abc import Callable

from jupyterhub.app import JupyterHub

#: Seconds for which a count is good enough: the cap is a share of the sessions of an hour.
KEPT = 1.0

_MARK = "_jhub_safety_count"


class SessionCount:
    """JupyterHub's own count of active servers, taken at most once in :data:`KEPT` seconds.

    Every 404 of a lab asks for it, and it goes over every user in memory: 25 ms of the loop at
    10,000. When a cluster lost all of 10,000 labs, one round of polls held the hub for 250 s.
    """

    def __init__(self, app: JupyterHub, clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._clock = clock
        self._count = 0
        self._counted_at = float("-inf")

    def __call__(self) -> int:
        now = self._clock()
        if now - self._counted_at >= KEPT:
            self._count = int(self._app.users.count_active_users()["active"])
            self._counted_at = now
        return self._count


def session_count(app: JupyterHub) -> SessionCount:
    """The one of this hub, for all who ask."""
    found: SessionCount | None = getattr(app, _MARK, None)
    if found is None:
        found = SessionCount(app)
        setattr(app, _MARK, found)
    return found
