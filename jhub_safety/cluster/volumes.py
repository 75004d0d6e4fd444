"""Volumes behind claims: read with an operator's rights; a hub has none to them."""

from __future__ import annotations

from functools import partial

from kubernetes_asyncio import client as kube

from jhub_safety.cluster.client import ask, expect


async def phase(api: kube.CoreV1Api, name: str, *, timeout: float = 10.0) -> str:
    """The phase of a volume: Bound, Released, Failed, ...

    Raises:
        Doubt: it could not be read; ``status`` 403 without the right to.
    """
    what = f"reading volume {name}"
    answer = await ask(
        partial(api.read_persistent_volume, name, _preload_content=False), what, timeout=timeout
    )
    found: str = (expect(answer, what, "PersistentVolume").get("status") or {}).get("phase", "")
    return found
