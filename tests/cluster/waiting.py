"""How tests on the cluster wait: for what happens, never for a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

#: Seconds. Only a test that fails waits that long; a machine that is busy with other things may
#: take ten times what a quiet one needs.
PATIENCE = 240.0
_T = TypeVar("_T")


async def until(what: Callable[[], Awaitable[_T]]) -> _T:
    """Ask again and again until it gives something true; that."""
    async with asyncio.timeout(PATIENCE):
        while not (found := await what()):
            await asyncio.sleep(0.1)
    return found
