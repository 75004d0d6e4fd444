"""Stopwatch, and the loop's stalls: how late a timer of 5 ms fires meanwhile."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass
class Stall:
    """Longest time that the event loop was held, in seconds."""

    longest: float = 0.0


@asynccontextmanager
async def watched() -> AsyncIterator[Stall]:
    """Measure the loop's stalls while the block runs."""
    stall = Stall()

    async def tick() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            stall.longest = max(stall.longest, time.perf_counter() - before - 0.005)

    task = asyncio.create_task(tick())
    await asyncio.sleep(0.02)
    stall.longest = 0.0
    try:
        yield stall
        # A stall shows when the timer fires after it.
        await asyncio.sleep(0.01)
    finally:
        task.cancel()


async def timed(call: Callable[[], Awaitable[object]]) -> float:
    """Seconds that a call takes."""
    begin = time.perf_counter()
    await call()
    return time.perf_counter() - begin


def spread(values: list[float], unit: str = "s") -> str:
    """Median and range."""
    return f"{statistics.median(values):.2f} {unit} ({min(values):.2f} to {max(values):.2f})"
