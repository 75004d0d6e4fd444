"""Volumes behind claims: read and patched with an operator's rights; a hub has none to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

from kubernetes_asyncio import client as kube

from jhub_safety.cluster.client import ask, expect, is_absent
from jhub_safety.cluster.listing import read_all
from jhub_safety.errors import Conflict, Doubt

RETAIN = "Retain"

_EMPTY: Mapping[str, Any] = MappingProxyType({})
_MERGE = "application/merge-patch+json"


@dataclass(frozen=True, slots=True)
class Volume:
    """A PersistentVolume as it was when it was read. *spec* is the API's own JSON."""

    name: str
    uid: str = ""
    resource_version: str = ""
    phase: str = ""
    deleting: bool = False
    labels: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    annotations: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    spec: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)

    @classmethod
    def parse(cls, item: Mapping[str, Any]) -> Volume:
        """From the API's JSON.

        Raises:
            Doubt: a part that every volume has is missing.
        """
        try:
            meta = item["metadata"]
            return cls(
                name=meta["name"],
                uid=meta["uid"],
                resource_version=meta["resourceVersion"],
                phase=(item.get("status") or {}).get("phase", ""),
                deleting="deletionTimestamp" in meta,
                labels=MappingProxyType(dict(meta.get("labels") or {})),
                annotations=MappingProxyType(dict(meta.get("annotations") or {})),
                spec=MappingProxyType(dict(item["spec"])),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Doubt(f"a volume in the API server's answer is not whole: {error!r}") from error

    @property
    def reclaim(self) -> str:
        """``Retain`` or ``Delete``: what becomes of the data when the claim is deleted."""
        return str(self.spec.get("persistentVolumeReclaimPolicy") or "")

    @property
    def holder(self) -> Mapping[str, str]:
        """The claim that the volume is for (``namespace``, ``name``, ``uid``), or nothing."""
        return self.spec.get("claimRef") or _EMPTY


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


async def retain(
    api: kube.CoreV1Api, volume_name: str, claim_uid: str, *, timeout: float = 10.0
) -> None:
    """Let a volume outlive its claim: see :meth:`VolumesApi.retain`.

    Raises:
        Conflict: the volume is gone, another claim's, or was changed meanwhile.
        Doubt: any other failure; ``status`` 403 when the caller may not get or patch volumes.
    """
    await VolumesApi(api, timeout=timeout, patience=timeout).retain(volume_name, claim_uid)


class VolumesApi:
    """The volumes of the cluster, at most one request a question.

    *timeout* is for one request, *patience* the seconds in which a failed read is tried again.
    Every Doubt has ``status`` 403 where the caller lacks the right.
    """

    def __init__(
        self, api: kube.CoreV1Api, *, timeout: float = 10.0, patience: float = 0.0
    ) -> None:
        self._api = api
        self._timeout = timeout
        self._patience = patience

    async def read(self, name: str) -> Volume | None:
        """The volume, or None when the API server says 404 for this very volume.

        Raises:
            Doubt: any other answer.
        """
        what = f"reading volume {name}"
        answer = await ask(
            partial(self._api.read_persistent_volume, name, _preload_content=False),
            what,
            timeout=self._timeout,
            patience=self._patience,
        )
        if is_absent(answer, what, name):
            return None
        return Volume.parse(expect(answer, what, "PersistentVolume"))

    async def list(self) -> dict[str, Volume]:
        """Every volume of the cluster, by name: all of them, or an error.

        Raises:
            Doubt: a page failed, was cut off, or expired twice.
        """
        listed = await read_all(
            self._api.list_persistent_volume,
            "listing the volumes of the cluster",
            "PersistentVolumeList",
            Volume.parse,
            timeout=self._timeout,
            patience=self._patience,
        )
        return {volume.name: volume for volume in listed}

    async def retain(self, name: str, claim_uid: str) -> bool:
        """Reclaim policy ``Retain`` for the volume that is bound to the claim *claim_uid*.

        May be run again. False when it was so already.

        Raises:
            Conflict: the volume is gone, another claim's, or was changed meanwhile.
            Doubt: any other failure.
        """
        what = f"switching volume {name} to {RETAIN}"
        volume = await self.read(name)
        if volume is None:
            raise Conflict(f"{what}: it is gone")
        if volume.holder.get("uid") != claim_uid:
            raise Conflict(f"{what}: it is not bound to the claim that was read (uid {claim_uid})")
        if volume.reclaim == RETAIN:
            return False
        await self.patch(volume, {"persistentVolumeReclaimPolicy": RETAIN}, what)
        return True

    async def patch(
        self,
        volume: Volume,
        spec: Mapping[str, Any],
        what: str,
        annotations: Mapping[str, str] = _EMPTY,
    ) -> Volume:
        """Merge *spec* and *annotations* into exactly the volume that was read; None removes.

        Raises:
            Conflict: the volume was changed, deleted or made anew since.
            Doubt: any other failure.
        """
        metadata: dict[str, Any] = {
            "uid": volume.uid,
            "resourceVersion": volume.resource_version,
        }
        if annotations:
            metadata["annotations"] = dict(annotations)
        answer = await ask(
            partial(
                self._api.patch_persistent_volume,
                volume.name,
                {"metadata": metadata, "spec": dict(spec)},
                _content_type=_MERGE,
                _preload_content=False,
            ),
            what,
            timeout=self._timeout,
        )
        if answer.status == 404:
            raise Conflict(f"{what}: it is gone")
        return Volume.parse(expect(answer, what, "PersistentVolume"))

    async def create(self, manifest: Mapping[str, Any]) -> Volume:
        """Create a volume, as the API's own JSON has it.

        Raises:
            Conflict: a volume of that name exists.
            Doubt: anything else; after a time-out the volume may or may not exist.
        """
        what = f"creating volume {manifest['metadata']['name']}"
        answer = await ask(
            partial(self._api.create_persistent_volume, dict(manifest), _preload_content=False),
            what,
            timeout=self._timeout,
        )
        return Volume.parse(expect(answer, what, "PersistentVolume"))
