"""Storage classes: what the cluster makes volumes of. They are of the whole cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from kubernetes_asyncio import client as kube

from jhub_safety.cluster.client import ask, expect
from jhub_safety.errors import Doubt

#: Marks the class of claims that name none (storage/util/helpers.go); the older is still in use.
_DEFAULT = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)


@dataclass(frozen=True, slots=True)
class StorageClass:
    """A StorageClass as it was when it was read."""

    name: str
    default: bool = False
    expands: bool = False
    #: What becomes of a volume whose claim is deleted: "Delete" or "Retain".
    reclaims: str = "Delete"
    #: "Immediate", or "WaitForFirstConsumer": when a pod that mounts it has a node.
    binding: str = "Immediate"
    provisioner: str = ""
    created: datetime | None = None

    @classmethod
    def parse(cls, item: Mapping[str, Any]) -> StorageClass:
        """From the API's JSON.

        Raises:
            Doubt: a part that every class has is missing.
        """
        try:
            meta = item["metadata"]
            annotations = meta.get("annotations") or {}
            created = meta.get("creationTimestamp")
            return cls(
                name=meta["name"],
                default=any(annotations.get(key) == "true" for key in _DEFAULT),
                expands=item.get("allowVolumeExpansion") is True,
                reclaims=item.get("reclaimPolicy") or "Delete",
                binding=item.get("volumeBindingMode") or "Immediate",
                provisioner=item["provisioner"],
                created=datetime.fromisoformat(created) if created else None,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Doubt(f"a storage class in the answer is not whole: {error!r}") from error


async def read_all(api: kube.CoreV1Api, *, timeout: float = 10.0) -> tuple[StorageClass, ...]:
    """Every class of the cluster, by name. A cluster has a handful.

    Raises:
        Doubt: any answer that is not whole; ``status`` 403 when the caller may not list them.
    """
    what = "listing the storage classes of the cluster"
    storage = kube.StorageV1Api(api.api_client)
    answer = await ask(
        partial(storage.list_storage_class, _preload_content=False), what, timeout=timeout
    )
    items = expect(answer, what, "StorageClassList").get("items")
    if not isinstance(items, list):
        raise Doubt(f"{what}: the list has no items")
    return tuple(sorted(map(StorageClass.parse, items), key=lambda one: one.name))
