"""Coroutines for those methods of the hub that are synchronous, and called in the running loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")


def apart(make: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
    """Run a coroutine to its end in a thread of its own.

    ``init_db`` is synchronous, and is called in the running loop.
    """
    found: list[_Result] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(asyncio.run(make()))
        except BaseException as error:  # noqa: BLE001 - raised again below, where it belongs
            failed.append(error)

    thread = threading.Thread(target=run, name="jhub-safety-guard", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]
