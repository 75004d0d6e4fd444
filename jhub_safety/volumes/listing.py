"""One listing of the claims, shared by everybody who needs one at the same time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from jhub_safety.cluster.claims import Claim
from jhub_safety.errors import Doubt
from jhub_safety.metrics import CLAIM_LISTS
from jhub_safety.volumes.index import ClaimIndex

#: Claims that are indexed before others get their turn on the event loop (about 2 ms).
_CHUNK = 500


class SharedListing:
    """The claims of one namespace by name, listed at most once at a time.

    A storm of a thousand logins after the hub database was lost costs a handful of LISTs,
    not a thousand. A listing is handed out while it is younger than *max_age* seconds (or
    ten times what it took, so that listing never costs more than a tenth of the hub's time).

    What a listing of that age can miss is a claim made or given away since. So nothing is
    created, and nobody refused, on one: who finds nothing, or too much, asks again for a
    listing that began *since* their question. Those listings are shared too, and spaced to a
    third of the hub's time.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[dict[str, Claim]]],
        *,
        max_age: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._max_age = max_age
        self._clock = clock
        self._flight: asyncio.Task[ClaimIndex] | None = None
        self._index = ClaimIndex()
        self._started = float("-inf")
        self._took = 0.0

    def now(self) -> float:
        """The clock that *since* is read on."""
        return self._clock()

    async def claims(self, since: float | None = None) -> ClaimIndex:
        """All claims of the namespace, as listed not long ago, or after *since*.

        Raises:
            Doubt: the listing failed. A failure is never kept: the next caller asks again.
        """
        while not self._is_new_enough(since):
            if self._flight is None:
                # A task of its own: one caller's time-out must not end the others' listing.
                self._flight = asyncio.create_task(self._list())
                # Whoever waits gets the error; when nobody waits any more it is nobody's.
                self._flight.add_done_callback(lambda task: task.cancelled() or task.exception())
            # Not by shield(): from Python 3.14 on that logs an error which the others were told,
            # when one of them was cancelled.
            flight = self._flight
            await asyncio.wait({flight})
            if flight.cancelled():
                raise Doubt("listing the claims was not finished")
            index = flight.result()
            if since is None:
                return index
        return self._index

    def shows(self, since: float) -> bool:
        """Whether the listing that is handed out began at *since* or later."""
        return self._started >= since

    def _is_new_enough(self, since: float | None) -> bool:
        if since is not None:
            return self.shows(since)
        if self._flight is not None:
            return False
        return self._clock() - self._started <= max(self._max_age, 10 * self._took)

    async def _list(self) -> ClaimIndex:
        # Waiting here, and not before, gathers all who come in meanwhile.
        await asyncio.sleep(max(0.0, self._started + 3 * self._took - self._clock()))
        started = self._clock()
        try:
            claims = await self._fetch()
        except BaseException:
            CLAIM_LISTS.labels(outcome="failed").inc()
            raise
        else:
            CLAIM_LISTS.labels(outcome="complete").inc()
            index = ClaimIndex()
            for count, claim in enumerate(claims.values(), 1):
                index.put(claim)
                if count % _CHUNK == 0:
                    await asyncio.sleep(0)
            self._index, self._started = index, started
            self._took = self._clock() - started
            # 20,000 claims are some 50 MB; nobody needs them between two storms.
            keep = max(self._max_age, 10 * self._took) + 1
            asyncio.get_running_loop().call_later(keep, self._drop, index)
            return index
        finally:
            self._flight = None

    def _drop(self, index: ClaimIndex) -> None:
        if self._index is index:
            self._index = ClaimIndex()
            self.forget()

    def note(self, claim: Claim) -> None:
        """Remember what was just written or read, so that the next caller sees it."""
        self._index.put(claim)

    def forget(self) -> None:
        """The next caller gets a new listing."""
        self._started = float("-inf")
