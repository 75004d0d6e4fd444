"""Python's garbage collector rests while many objects are made that all stay."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Rest:
    """How many blocks it rests for: the loop and a pass's thread are in theirs at once."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    depth: int = 0
    #: Before the first of them.
    collected: bool = False


_rest = _Rest()


@contextmanager
def resting() -> Iterator[None]:
    """No collection in this block; for work of milliseconds that awaits nothing.

    Tens of thousands of new objects set it off again and again, for nothing (20,000 claims parsed:
    1.5 s with it, 0.95 s without), and a full collection holds every thread.

    The last block that ends puts the collector back. When each put back what it had found, one
    that began while another ended left it off for good, and the hub grew until it was killed.
    """
    with _rest.lock:
        _rest.depth += 1
        if _rest.depth == 1:
            _rest.collected = gc.isenabled()
            gc.disable()
    try:
        yield
    finally:
        with _rest.lock:
            _rest.depth -= 1
            if _rest.depth == 0 and _rest.collected:
                gc.enable()
