"""Volumes in memory, and what Kubernetes' volume controller does about them.

Written from what a real one (1.34) does, as ``tests/cluster/test_moving.py`` holds it: a volume
with a claimRef without uid is Available, and is bound to the claim of that name only; a claim that
names a volume which is for another one stays Pending; a PATCH with an older resourceVersion is a
Conflict.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from jhub_safety.cluster.claims import Claim
from jhub_safety.cluster.volumes import RETAIN, Volume
from jhub_safety.errors import Conflict
from tests.unit.cluster_double import ClusterDouble
from tests.unit.given import NAMESPACE

ELSEWHERE = "https://old-cluster"


def csi(handle: str) -> dict[str, Any]:
    return {"csi": {"driver": "disk.example", "volumeHandle": handle, "fsType": "ext4"}}


def volume(
    name: str,
    holder: Claim | Mapping[str, str] | None = None,
    *,
    phase: str = "Released",
    reclaim: str = RETAIN,
    size: str = "10Gi",
    spec: Mapping[str, Any] = MappingProxyType({}),
    **fields: Any,
) -> Volume:
    """A volume of the disk that is called as itself, claimed by *holder*."""
    if isinstance(holder, Claim):
        holder = {"namespace": holder.namespace, "name": holder.name, "uid": holder.uid}
    whole = {
        "accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": size},
        "persistentVolumeReclaimPolicy": reclaim,
        "storageClassName": "standard",
        "volumeMode": "Filesystem",
        **({"claimRef": dict(holder)} if holder else {}),
        **(spec if set(spec) & {"nfs", "csi", "hostPath"} else {**csi(f"disk-of-{name}"), **spec}),
    }
    fields = {"uid": f"uid-of-{name}", "resource_version": "1"} | fields
    return Volume(name, phase=phase, spec=MappingProxyType(whole), **fields)


@dataclass
class VolumesDouble:
    """Implements what is used of ``VolumesApi``, for the claims of one ClusterDouble."""

    claims: ClusterDouble
    stored: dict[str, Volume] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    faults: dict[str, list[Exception | None]] = field(default_factory=dict)
    #: Called before each call with its verb and name: somebody else's doings.
    meanwhile: Callable[[str, str], None] = lambda verb, name: None

    def put(self, *volumes: Volume) -> VolumesDouble:
        self.stored |= {one.name: one for one in volumes}
        return self

    def writes(self) -> list[tuple[str, str]]:
        return [call for call in self.calls if call[0] not in ("read", "list")]

    def _called(self, verb: str, name: str = "") -> None:
        self.calls.append((verb, name))
        self.meanwhile(verb, name)
        faults = self.faults.get(verb, [])
        if faults and (fault := faults.pop(0)) is not None:
            raise fault

    async def read(self, name: str) -> Volume | None:
        self._called("read", name)
        return self.stored.get(name)

    async def list(self) -> dict[str, Volume]:
        self._called("list")
        return dict(self.stored)

    async def retain(self, name: str, claim_uid: str) -> bool:
        now = await self.read(name)
        if now is None or now.holder.get("uid") != claim_uid:
            raise Conflict(f"switching volume {name} to Retain: it is another claim's")
        if now.reclaim == RETAIN:
            return False
        await self.patch(now, {"persistentVolumeReclaimPolicy": RETAIN}, "retaining")
        return True

    async def patch(
        self,
        volume: Volume,
        spec: Mapping[str, Any],
        what: str,
        annotations: Mapping[str, str] = MappingProxyType({}),
    ) -> Volume:
        self._called("patch", volume.name)
        now = self.stored.get(volume.name)
        if now is None or (now.uid, now.resource_version) != (volume.uid, volume.resource_version):
            raise Conflict(f"{what}: the object has been modified")
        return self._write(
            now,
            spec=MappingProxyType(_merged(now.spec, spec)),
            annotations=MappingProxyType({**now.annotations, **annotations}),
        )

    async def create(self, manifest: Mapping[str, Any]) -> Volume:
        meta = manifest["metadata"]
        self._called("create", meta["name"])
        if meta["name"] in self.stored:
            raise Conflict(f"creating volume {meta['name']}: it already exists")
        made = Volume(
            meta["name"],
            uid=f"created-{len(self.calls)}",
            resource_version="1",
            phase="Pending",
            labels=MappingProxyType(meta["labels"]),
            annotations=MappingProxyType(meta["annotations"]),
            spec=MappingProxyType(copy.deepcopy(manifest["spec"])),
        )
        self.stored[made.name] = made
        return self._write(made, phase="Available")

    def _write(self, now: Volume, **changes: Any) -> Volume:
        changed = replace(now, resource_version=str(int(now.resource_version) + 1), **changes)
        if changed.phase == "Released" and not changed.holder.get("uid"):
            changed = replace(changed, phase="Available")
        self.stored[now.name] = changed
        return changed

    def bind(self) -> None:
        """The controller's turn."""
        for claim in list(self.claims.stored.values()):
            found = self.stored.get(claim.volume)
            if claim.phase != "Pending" or found is None:
                continue
            holder = found.holder
            if (holder.get("namespace"), holder.get("name")) == (
                claim.namespace,
                claim.name,
            ) and holder.get("uid") in (None, "", claim.uid):
                spec = {"claimRef": {"uid": claim.uid}}
                self._write(found, phase="Bound", spec=MappingProxyType(_merged(found.spec, spec)))
                self.claims.stored[claim.name] = replace(claim, phase="Bound")

    def lose_namespace(self) -> None:
        """Every claim is gone, its volume is kept."""
        for claim in self.claims.stored.values():
            self._write(self.stored[claim.volume], phase="Released")
        self.claims.stored.clear()


def _merged(now: Any, by: Mapping[str, Any]) -> dict[str, Any]:
    """RFC 7386."""
    merged = dict(now)
    for key, value in by.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            merged[key] = _merged(merged.get(key) or {}, value)
        else:
            merged[key] = value
    return merged


def bound(claim: Claim, **fields: Any) -> tuple[Claim, Volume]:
    """The claim with the volume that it is bound to."""
    claim = replace(
        claim, capacity="10Gi", storage_class="standard", access_modes=("ReadWriteOnce",)
    )
    assert claim.namespace == NAMESPACE
    return claim, volume(claim.volume, claim, phase="Bound", **fields)
