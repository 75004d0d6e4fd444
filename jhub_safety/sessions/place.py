"""Is this the place where a session began? Asked once for all who ask at the same time."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kubernetes_asyncio import client as kube

from jhub_safety.cluster import landmark
from jhub_safety.cluster.claims import ClaimsApi
from jhub_safety.errors import Doubt

#: Seconds, from the beginning of a read, for which it is good enough for the next who asks.
KEPT = 1.0


@dataclass(frozen=True, slots=True)
class _Key:
    # In a loop that was left behind nothing ends any more.
    loop: asyncio.AbstractEventLoop
    namespace: str
    hub: str


class Places:
    """The marks of namespaces, as polls and the reconciler of a hub share them.

    Each lab that is not found asks for the mark of its namespace. When a cluster lost all of
    10,000 labs, each round of polls read one and the same Secret 10,000 times.
    """

    def __init__(self, *, keep: float = KEPT, clock: Callable[[], float] = time.monotonic) -> None:
        self._keep = keep
        self._clock = clock
        self._reading: dict[_Key, asyncio.Task[str | None]] = {}
        #: When each read began, and what it said; in the order of their ends.
        self._read: OrderedDict[_Key, tuple[float, str | None]] = OrderedDict()

    async def proven(
        self,
        api: kube.CoreV1Api,
        hub: str,
        claims: ClaimsApi,
        *,
        place: str | None,
        claim: str | None,
        timeout: float,
    ) -> bool:
        """Whether namespace and cluster of *claims* are where a session began.

        By the hub's mark, whose uid was saved at the start (*place*). A session from before this
        library has none saved: then by the user's *claim* on record, or the mark alone.

        Raises:
            Doubt: that could not be found out.
        """
        uid = await self._uid(api, claims.namespace, hub, timeout)
        if place is not None:
            # A claim of the same name exists in a staging cluster, too.
            return uid == place
        if claim is not None and await claims.read(claim) is not None:
            return True
        return uid is not None

    async def _uid(
        self, api: kube.CoreV1Api, namespace: str, hub: str, timeout: float
    ) -> str | None:
        key = _Key(asyncio.get_running_loop(), namespace, hub)
        now = self._clock()
        while self._read and self._is_over(next(iter(self._read)), now):
            self._read.popitem(last=False)
        if key in self._read and not self._is_over(key, now):
            return self._read[key][1]
        reading = self._reading.get(key)
        if reading is None:
            reading = asyncio.ensure_future(self._ask(key, api, timeout, now))
            self._reading[key] = reading
            reading.add_done_callback(_retrieve)
        # It goes on when a caller is cancelled. Not by shield(): see labs.py.
        await asyncio.wait({reading})
        if reading.cancelled():
            raise Doubt(f"the mark of namespace {namespace} was not read")
        return reading.result()

    async def _ask(
        self, key: _Key, api: kube.CoreV1Api, timeout: float, began: float
    ) -> str | None:
        try:
            uid = await landmark.uid(api, key.namespace, key.hub, landmark.PLACE, timeout=timeout)
            # Only an answer is kept, never an error.
            self._read[key] = began, uid
            self._read.move_to_end(key)
            return uid
        finally:
            del self._reading[key]

    def _is_over(self, key: _Key, now: float) -> bool:
        return now - self._read[key][0] >= self._keep


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Whoever waited was told, or has gone: asyncio need not log it."""
    if not task.cancelled():
        task.exception()
