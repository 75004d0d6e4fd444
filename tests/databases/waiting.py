"""For servers that have not yet seen their client go."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import TypeVar

import pytest

_T = TypeVar("_T")
#: Seconds.
SEEN = 10.0


def until_it_is(wanted: _T, ask: Callable[[], _T]) -> None:
    """Ask again and again; a test that does not get the answer in time has failed."""
    deadline = time.monotonic() + SEEN
    # What only Python's collector would close while this waits was left open.
    gc.disable()
    try:
        while (found := ask()) != wanted:
            if time.monotonic() > deadline:
                pytest.fail(f"it is {found!r} after {SEEN:.0f} s, and not {wanted!r}")
            time.sleep(0.05)
    finally:
        gc.enable()
