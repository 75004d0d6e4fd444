"""File locks: two runs of the harness at once wait for each other instead of colliding."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import ClusterError
from .progress import Progress


@contextmanager
def held(path: Path, progress: Progress, *, patience: float = 1800.0) -> Iterator[None]:
    """Hold the lock `path`; waits up to `patience` seconds for whoever has it.

    The kernel frees it when its process ends, so a killed run leaves no lock behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        deadline = time.monotonic() + patience
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ClusterError(f"Another run still holds {path}") from None
                if not told:
                    progress.say(f"Waiting for another run that holds {path}")
                    told = True
                time.sleep(0.2)
        yield
