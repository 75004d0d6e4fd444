"""One listing of the claims, shared by everybody who needs one at the same time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

from jhub_safety.cluster.claims import Claim
from jhub_safety.metrics import CLAIM_LISTS


class SharedListing:
    """The claims of one namespace by name, listed at most once at a time.

    A storm of a thousand logins after the hub database was lost costs a handful of LISTs,
    not a thousand. A listing is handed out while it is younger than *max_age* seconds (or
    ten times what it took, so that listing never costs more than a tenth of the hub's time).

    What a listing of that age can miss is a claim made since by somebody else; it is never
    taken for "absent" on its own: each name that the owner's claim may have is read by
    itself before a claim is created, and a name that is taken meanwhile answers 409.
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
        self._flight: asyncio.Task[dict[str, Claim]] | None = None
        self._claims: dict[str, Claim] = {}
        self._started = float("-inf")
        self._took = 0.0

    async def claims(self) -> Mapping[str, Claim]:
        """All claims, by name.

        Raises:
            Doubt: the listing failed. A failure is never kept: the next caller asks again.
        """
        if self._flight is None:
            age = self._clock() - self._started
            if age <= max(self._max_age, 10 * self._took):
                return MappingProxyType(self._claims)
            # A task of its own: one caller's time-out must not end the others' listing.
            self._flight = asyncio.create_task(self._list())
        return MappingProxyType(await asyncio.shield(self._flight))

    async def _list(self) -> dict[str, Claim]:
        started = self._clock()
        try:
            claims = await self._fetch()
        except BaseException:
            CLAIM_LISTS.labels(outcome="failed").inc()
            raise
        else:
            CLAIM_LISTS.labels(outcome="complete").inc()
            self._claims, self._started = claims, started
            self._took = self._clock() - started
            return claims
        finally:
            self._flight = None

    def note(self, claim: Claim) -> None:
        """Remember what was just written or read, so that the next caller sees it."""
        self._claims[claim.name] = claim

    def forget(self) -> None:
        """The next caller gets a new listing."""
        self._started = float("-inf")
