"""A claim and a volume as they are made again from a file: what is kept, and what is changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from kubernetes_asyncio import client as kube

from jhub_safety import owner as marks
from jhub_safety import quantity
from jhub_safety.cluster.claims import Claim
from jhub_safety.cluster.volumes import RETAIN
from jhub_safety.owner import label_value
from jhub_safety.volumes.exported import Entry, Export

#: On a volume that was given to a new claim: the uid of the claim in the file. By it the same file
#: serves again when the namespace is lost a second time.
REATTACHED = f"{marks.PREFIX}/reattached"


@dataclass(frozen=True, slots=True)
class Target:
    """Where to, for which hub, and what the operator allowed."""

    namespace: str
    hub: str
    create_volumes: bool = False


def wanted(export: Export, entry: Entry, target: Target) -> Claim:
    """The claim as it will be: as it was, and this hub's where it was the exported hub's."""
    claim = entry.claim
    annotations, labels = dict(claim.annotations), dict(claim.labels)
    if target.hub != export.hub:
        if annotations.get(marks.HUB) == export.hub:
            annotations[marks.HUB] = target.hub
        if labels.get(marks.HUB_LABEL) == label_value(export.hub):
            labels[marks.HUB_LABEL] = label_value(target.hub)
    return replace(
        claim,
        namespace=target.namespace,
        annotations=MappingProxyType(annotations),
        labels=MappingProxyType(labels),
        capacity=request(entry),
    )


def request(entry: Entry) -> str:
    """What the claim asked for, but no more than the volume has: such a claim is never bound.

    It is more when the volume was about to grow; it grows again at its user's next start.
    """
    has = size(entry.volume.spec)
    asked = entry.claim.capacity
    return has if quantity.storage(asked) > quantity.storage(has) else asked


def volume_manifest(entry: Entry, target: Target) -> dict[str, Any]:
    """The volume as the API takes it: reserved for the claim, and kept when that is deleted."""
    volume = entry.volume
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": volume.name,
            "labels": dict(volume.labels),
            "annotations": {**volume.annotations, REATTACHED: entry.claim.uid},
        },
        "spec": {
            **volume.spec,
            "persistentVolumeReclaimPolicy": RETAIN,
            "claimRef": claim_ref(entry, target),
        },
    }


def claim_ref(entry: Entry, target: Target) -> dict[str, str]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": target.namespace,
        "name": entry.claim.name,
    }


def size(spec: Mapping[str, Any]) -> str:
    return str(spec["capacity"]["storage"])


def claim_manifest(claim: Claim) -> kube.V1PersistentVolumeClaim:
    """As the API takes it. A class of "" is said, too: without it the default one counts."""
    return kube.V1PersistentVolumeClaim(
        api_version="v1",
        kind="PersistentVolumeClaim",
        metadata=kube.V1ObjectMeta(
            name=claim.name, labels=dict(claim.labels), annotations=dict(claim.annotations)
        ),
        spec=kube.V1PersistentVolumeClaimSpec(
            access_modes=list(claim.access_modes),
            resources=kube.V1VolumeResourceRequirements(requests={"storage": claim.capacity}),
            storage_class_name=claim.storage_class,
            volume_name=claim.volume,
            volume_mode=claim.volume_mode,
            volume_attributes_class_name=claim.attributes_class or None,
        ),
    )
