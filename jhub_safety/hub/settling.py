"""A loss may be somebody's work in hand: it is believed once it has stood still.

A hub that holds asks for the right database to be put back. While a file is copied to its place it
is missing, then empty, then half a file: each of them a loss beyond doubt, for the moment.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from jhub_safety.hubdb.condition import Condition, sqlite_path

#: Seconds for which a loss must look the same before it is acted upon by a hub that has held.
SETTLED = 30.0

#: What is compared. Of a file also which one, its size, and when it was last written.
Sight = tuple[object, ...]


def sight(url: str, found: Condition) -> Sight:
    """What somebody who is at work there would change."""
    seen = (found.state, found.users, found.identity)
    path = sqlite_path(url)
    if path is None:
        return seen
    try:
        now = path.stat()
    except OSError as error:
        return (*seen, error.errno)
    return (*seen, now.st_ino, now.st_size, now.st_mtime_ns)


class Settling:
    """Told of each look."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: Sight | None = None
        self._since = 0.0

    def seen(self, now: Sight) -> bool:
        """Whether it has looked the same for long enough."""
        moment = self._clock()
        if now != self._last:
            self._last, self._since = now, moment
        return moment - self._since >= SETTLED
