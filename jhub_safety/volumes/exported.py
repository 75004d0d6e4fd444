"""The file of ``claims export``: claims with their volumes, as ``claims reattach`` reads them.

JSON, in UTF-8. Version 1::

    {
      "format": "jhub-safety/claims",
      "version": 1,
      "made": "2026-11-21T18:00:00+00:00",
      "cluster": "https://10.0.0.1:443",
      "namespace": "jhub",
      "hub": "jhub",
      "claims": [
        {
          "owner": "ada of hub jhub",          # for people; not read
          "claim": {
            "name", "uid", "labels", "annotations", "access_modes", "capacity",
            "storage_class", "volume_mode", "attributes_class"
          },
          "volume": {
            "name", "labels", "annotations",
            "spec": {...}                      # the PersistentVolume's, without claimRef
          }
        }
      ],
      "left_out": [{"name", "why", "lost"}]
    }

A reader refuses a version or a key that it does not know, and a value of another form: what it
makes of a file is done with an operator's rights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from jhub_safety.cluster.claims import Claim
from jhub_safety.cluster.volumes import Volume
from jhub_safety.errors import SafetyError
from jhub_safety.volumes.relation import owner_of
from jhub_safety.volumes.untrusted import UID, VOLUME_MODES, Part, brief

FORMAT = "jhub-safety/claims"
VERSION = 1

#: What is written on claims by controllers for themselves; some of it would stop a new claim
#: from being bound (pv.kubernetes.io/bind-completed: the claim is Lost at once).
_BOOKKEEPING = (
    "pv.kubernetes.io/",
    "volume.kubernetes.io/",
    "volume.beta.kubernetes.io/",
    "kubectl.kubernetes.io/",
)
#: On a volume these stay: without them a CSI driver's provisioner does not know the volume as its
#: own (external-provisioner, pkg/controller/controller.go), and could never delete it.
_OF_VOLUMES = (
    "pv.kubernetes.io/provisioned-by",
    "volume.kubernetes.io/provisioner-deletion-secret-name",
    "volume.kubernetes.io/provisioner-deletion-secret-namespace",
)
#: How classes were named before 1.6; Kubernetes still goes by it first.
_FORMER_CLASS = "volume.beta.kubernetes.io/storage-class"
#: What of a volume's spec is no source (core/v1 PersistentVolumeSpec, Kubernetes 1.34).
_NO_SOURCE = frozenset(
    {
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    }
)
_SOURCES = frozenset(
    {
        *("awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "csi", "fc"),
        *("flexVolume", "flocker", "gcePersistentDisk", "glusterfs", "hostPath", "iscsi", "local"),
        *("nfs", "photonPersistentDisk", "portworxVolume", "quobyte", "rbd", "scaleIO"),
        *("storageos", "vsphereVolume"),
    }
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A claim and its volume, without what only Kubernetes itself writes."""

    claim: Claim
    volume: Volume

    @property
    def owner(self) -> str:
        return owner_of(self.claim)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A claim that is not in the file. *lost*: it had a volume that could not be found."""

    name: str
    why: str
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Export:
    """What a file holds."""

    made: str
    cluster: str
    namespace: str
    hub: str
    entries: tuple[Entry, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


def bare(claim: Claim, volume: Volume) -> Entry:
    """What has to be kept of a claim and its volume to make both anew."""
    return Entry(
        Claim(
            claim.name,
            claim.namespace,
            uid=claim.uid,
            capacity=claim.capacity,
            storage_class=claim.annotations.get(_FORMER_CLASS) or claim.storage_class,
            access_modes=claim.access_modes,
            volume_mode=claim.volume_mode,
            attributes_class=claim.attributes_class,
            volume=volume.name,
            annotations=MappingProxyType(_without_bookkeeping(claim.annotations)),
            labels=claim.labels,
        ),
        Volume(
            volume.name,
            labels=volume.labels,
            annotations=MappingProxyType(_without_bookkeeping(volume.annotations, _OF_VOLUMES)),
            spec=MappingProxyType({k: v for k, v in volume.spec.items() if k != "claimRef"}),
        ),
    )


def _without_bookkeeping(written: Mapping[str, str], keep: tuple[str, ...] = ()) -> dict[str, str]:
    return {
        key: value
        for key, value in written.items()
        if key in keep or not key.startswith(_BOOKKEEPING)
    }


def source(volume: Volume) -> dict[str, Any]:
    """Where the data is: the one part of the spec such as ``{"csi": {...}}``."""
    return {key: value for key, value in volume.spec.items() if key not in _NO_SOURCE}


def handle(volume: Volume) -> str:
    """Equal for two volumes that are the same disk or directory, whatever they are called."""
    where = source(volume)
    csi = where.get("csi")
    if isinstance(csi, dict):
        return json.dumps(["csi", csi.get("driver"), csi.get("volumeHandle")])
    # The same directory of two nodes is two volumes.
    pinned = volume.spec.get("nodeAffinity") if {"hostPath", "local"} & set(where) else None
    return json.dumps([where, pinned], sort_keys=True)


def in_words(volume: Volume) -> str:
    """The source for people, such as ``csi ebs.csi.aws.com vol-1``."""
    for kind, where in source(volume).items():
        if isinstance(where, dict):
            keys = ("driver", "volumeHandle", "server", "path", "pdName", "volumeID", "diskName")
            return " ".join([kind, *(str(where[key]) for key in keys if key in where)])
    return "nothing"


# -- writing


def dump(export: Export) -> str:
    """The file's text."""
    return json.dumps(record(export), indent=1, ensure_ascii=True, allow_nan=False) + "\n"


def record(export: Export) -> dict[str, Any]:
    """JSON-ready."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "made": export.made,
        "cluster": export.cluster,
        "namespace": export.namespace,
        "hub": export.hub,
        "claims": [_entry_record(entry) for entry in export.entries],
        "left_out": [
            {"name": one.name, "why": one.why, "lost": one.lost} for one in export.left_out
        ],
    }


def _entry_record(entry: Entry) -> dict[str, Any]:
    claim, volume = entry.claim, entry.volume
    return {
        "owner": entry.owner,
        "claim": {
            "name": claim.name,
            "uid": claim.uid,
            "labels": dict(claim.labels),
            "annotations": dict(claim.annotations),
            "access_modes": list(claim.access_modes),
            "capacity": claim.capacity,
            "storage_class": claim.storage_class,
            "volume_mode": claim.volume_mode,
            "attributes_class": claim.attributes_class,
        },
        "volume": {
            "name": volume.name,
            "labels": dict(volume.labels),
            "annotations": dict(volume.annotations),
            "spec": dict(volume.spec),
        },
    }


# -- reading


def parse(text: str, file: str) -> Export:
    """What *text*, the contents of *file*, says.

    Raises:
        SafetyError: it is no such file, or a value in it has another form.
    """
    try:
        body = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise SafetyError(
            f"{file} is no file of jhub-safety claims export: it is no JSON"
        ) from error
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise SafetyError(f"{file} is no file of jhub-safety claims export: no format {FORMAT!r}")
    version = body.get("version")
    if isinstance(version, bool) or version != VERSION:
        raise SafetyError(
            f"{file} is of version {brief(version)}, and this jhub-safety reads version "
            f"{VERSION} only; use the release that has written it"
        )
    top = Part(file, body)
    top.only("format", "version", "made", "cluster", "namespace", "hub", "claims", "left_out")
    namespace = top.name("namespace", most=63)
    return Export(
        made=top.text("made"),
        cluster=top.text("cluster"),
        namespace=namespace,
        hub=top.text("hub"),
        entries=tuple(_entry(part, namespace) for part in top.parts("claims")),
        left_out=tuple(_left_out(part) for part in top.parts("left_out")),
    )


def _no_constant(text: str) -> float:
    raise ValueError(text)


def _left_out(part: Part) -> LeftOut:
    part.only("name", "why", "lost")
    if not isinstance(part.body.get("lost"), bool):
        raise part.wrong("lost", "true or false")
    return LeftOut(part.text("name"), part.text("why"), part.body["lost"])


def _entry(part: Part, namespace: str) -> Entry:
    part.only("owner", "claim", "volume")
    volume = _volume(part.part("volume"))
    claim = _claim(part.part("claim"), namespace)
    return Entry(replace(claim, volume=volume.name), volume)


def _claim(part: Part, namespace: str) -> Claim:
    part.only(
        *("name", "uid", "labels", "annotations", "access_modes", "capacity", "storage_class"),
        *("volume_mode", "attributes_class"),
    )
    if not UID.fullmatch(part.text("uid")):
        raise part.wrong("uid", "the uid of a claim")
    return Claim(
        part.name("name"),
        namespace,
        uid=part.text("uid"),
        capacity=part.size("capacity"),
        storage_class=part.name("storage_class", empty=True),
        access_modes=part.modes("access_modes"),
        volume_mode=part.one_of("volume_mode", VOLUME_MODES),
        attributes_class=part.name("attributes_class", empty=True),
        annotations=part.texts("annotations"),
        labels=part.texts("labels", labels=True),
    )


def _volume(part: Part) -> Volume:
    part.only("name", "labels", "annotations", "spec")
    spec = part.part("spec")
    found = sorted(set(spec.body) - _NO_SOURCE)
    if len(found) != 1 or found[0] not in _SOURCES:
        raise part.wrong("spec", "a volume's, with one source such as csi or nfs")
    if "claimRef" in spec.body:
        raise spec.wrong("claimRef", "left out: a volume is given to the claim of its own entry")
    _check_source(found[0], spec.part(found[0]))
    spec.part("capacity").size("storage")
    spec.modes("accessModes")
    if "volumeMode" in spec.body:
        spec.one_of("volumeMode", VOLUME_MODES)
    for key in ("storageClassName", "volumeAttributesClassName"):
        if key in spec.body:
            spec.name(key, empty=True)
    if "nodeAffinity" in spec.body:
        spec.part("nodeAffinity")
    if "mountOptions" in spec.body:
        spec.strings("mountOptions")
    return Volume(
        part.name("name"),
        labels=part.texts("labels", labels=True),
        annotations=part.texts("annotations"),
        spec=MappingProxyType(spec.body),
    )


def _check_source(kind: str, where: Part) -> None:
    required = {
        "csi": ("driver", "volumeHandle"),
        "hostPath": ("path",),
        "local": ("path",),
        "nfs": ("server", "path"),
    }
    for key in required.get(kind, ()):
        where.text(key)
    # Glusterfs, and drivers of other people, have other things called so.
    if kind in ("hostPath", "local", "nfs", "cephfs") and "path" in where.body:
        path = where.text("path")
        if not path.startswith("/") or ".." in path.split("/") or not path.isprintable():
            raise where.wrong("path", "an absolute path without '..'")
