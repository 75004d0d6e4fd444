"""Which pods use which claims: read only when somebody asks, since pods are large.

A LIST of 10,000 labs is 97 MB; it is read in pages, parsed beside the loop, and of each pod three
things are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from kubernetes_asyncio import client as kube

from jhub_safety.cluster.listing import read_all
from jhub_safety.errors import Doubt


async def read(
    api: kube.CoreV1Api, namespace: str, *, timeout: float = 30.0, patience: float = 30.0
) -> Mapping[str, tuple[str, ...]]:
    """The names of the pods that use a claim, by claim: all of them, or an error.

    Raises:
        Doubt: a page failed, was cut off, or expired twice.
    """
    listed = await read_all(
        partial(api.list_namespaced_pod, namespace),
        f"listing the pods of namespace {namespace}",
        "PodList",
        _claims_of,
        timeout=timeout,
        patience=patience,
        large=True,
    )
    found: dict[str, tuple[str, ...]] = {}
    for pod, claims in listed:
        for claim in claims:
            found[claim] = (*found.get(claim, ()), pod)
    return found


def _claims_of(pod: Any) -> tuple[str, tuple[str, ...]]:
    """The pod's name, and its claims. Raises Doubt."""
    try:
        return pod["metadata"]["name"], _claims(pod)
    except (KeyError, TypeError, AttributeError) as error:
        raise Doubt(f"a pod in the API server's answer is not whole: {error!r}") from error


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
