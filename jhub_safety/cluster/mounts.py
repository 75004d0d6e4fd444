"""Which pods use which claims: read only when somebody asks, since pods are large.

A LIST of 10,000 labs is 97 MB; it is read in pages, parsed beside the loop, and of each pod three
things are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from kubernetes_asyncio import client as kube

from jhub_safety.cluster.client import ask, expect
from jhub_safety.errors import Doubt

PAGE = 500


async def read(
    api: kube.CoreV1Api, namespace: str, *, timeout: float = 30.0, patience: float = 30.0
) -> Mapping[str, tuple[str, ...]]:
    """The names of the pods that use a claim, by claim: all of them, or an error.

    Raises:
        Doubt: a page failed, was cut off, or expired twice.
    """
    try:
        return await _read_once(api, namespace, timeout, patience)
    except Doubt as doubt:
        # 410: the snapshot that the pages are read from was compacted away half-way.
        if doubt.status != 410:
            raise
        return await _read_once(api, namespace, timeout, patience)


async def _read_once(
    api: kube.CoreV1Api, namespace: str, timeout: float, patience: float
) -> Mapping[str, tuple[str, ...]]:
    what = f"listing the pods of namespace {namespace}"
    found: dict[str, tuple[str, ...]] = {}
    token = ""
    while True:
        answer = await ask(
            partial(
                api.list_namespaced_pod,
                namespace,
                limit=PAGE,
                _preload_content=False,
                **({"_continue": token} if token else {}),
            ),
            what,
            timeout=timeout,
            patience=patience,
            large=True,
        )
        body = expect(answer, what, "PodList")
        try:
            for item in body["items"]:
                for claim in _claims(item):
                    found[claim] = (*found.get(claim, ()), item["metadata"]["name"])
            before, token = token, body["metadata"].get("continue") or ""
            left = body["metadata"].get("remainingItemCount")
        except (KeyError, TypeError, AttributeError) as error:
            raise Doubt(f"{what}: the list is not whole: {error!r}") from error
        if token and token == before:
            raise Doubt(f"{what}: the same page came twice")
        if not token:
            if left:
                raise Doubt(f"{what}: the last page says that more remain")
            return found


def _claims(pod: Mapping[str, Any]) -> tuple[str, ...]:
    """The claims of a pod, each once.

    Of one that has ended as well: while the pod is there Kubernetes lets no claim of its go.
    """
    name = pod["metadata"]["name"]
    volumes = pod["spec"].get("volumes") or ()
    claims = [
        one["persistentVolumeClaim"]["claimName"]
        for one in volumes
        if one.get("persistentVolumeClaim") is not None
    ]
    # A volume that is made with its pod has a claim of the pod's and its own name.
    claims += [f"{name}-{one['name']}" for one in volumes if one.get("ephemeral") is not None]
    return tuple(dict.fromkeys(claims))
