"""How tests on the cluster wait for what is to happen."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

_T = TypeVar("_T")


async def until(what: Callable[[], Awaitable[_T]], seconds: float) -> _T:
    """Ask again and again, for at most so long, until it gives something true; that."""
    async with asyncio.timeout(seconds):
        while not (found := await what()):
            await asyncio.sleep(0.1)
    return found
