"""A LIST that is whole, or an error: read in pages, from one state of the cluster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import aiohttp

from jhub_safety.cluster.client import ask, expect
from jhub_safety.collector import resting
from jhub_safety.errors import Doubt

#: One page of a LIST: 500 claims are about 0.8 MB and 20 ms of parsing, so that the event
#: loop is never held for long (one page of 20,000 claims took 0.8 s).
PAGE = 500
_Item = TypeVar("_Item")


async def read_all(
    call: Callable[..., Awaitable[aiohttp.ClientResponse]],
    what: str,
    kind: str,
    parse: Callable[[Any], _Item],
    *,
    timeout: float,
    patience: float = 0.0,
    large: bool = False,
) -> list[_Item]:
    """Every object, as *parse* has it, which raises Doubt for one that is not whole.

    Args:
        call: a client's list method with all but the paging; no resourceVersion, so that the
            answer is the most recent, not a cache's.
        what: for messages, such as "listing the claims of namespace x".
        kind: of the answer, such as "PodList".
        timeout, patience, large: as for :func:`~jhub_safety.cluster.client.ask`, for each page.

    Raises:
        Doubt: a page failed, was cut off, or expired twice.
    """
    once = partial(
        _read_once, call, what, kind, parse, timeout=timeout, patience=patience, large=large
    )
    try:
        return await once()
    except Doubt as doubt:
        # 410: the snapshot that the pages are read from was compacted away half-way.
        # What was read so far is worth nothing; begin again, once.
        if doubt.status != 410:
            raise
        return await once()


async def _read_once(
    call: Callable[..., Awaitable[aiohttp.ClientResponse]],
    what: str,
    kind: str,
    parse: Callable[[Any], _Item],
    *,
    timeout: float,
    patience: float,
    large: bool,
) -> list[_Item]:
    found: list[_Item] = []
    token = ""
    while True:
        page = partial(
            call,
            limit=PAGE,
            _preload_content=False,
            **({"_continue": token} if token else {}),
        )
        answer = await ask(page, what, timeout=timeout, patience=patience, large=large)
        body = expect(answer, what, kind)
        items, meta = body.get("items"), body.get("metadata")
        if not isinstance(items, list) or not isinstance(meta, dict):
            raise Doubt(f"{what}: the list has no items or no metadata")
        if not meta.get("resourceVersion"):
            raise Doubt(f"{what}: the list does not say which state it shows")
        with resting():
            found += map(parse, items)
        before, token = token, meta.get("continue") or ""
        if token and token == before:
            raise Doubt(f"{what}: the same page came twice")
        if not token:
            if meta.get("remainingItemCount"):
                raise Doubt(f"{what}: the last page says that more remain")
            return found
