"""Claims: read one, list all, create, annotate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import Any

from kubernetes_asyncio import client as kube

from jhub_safety.cluster.client import ask, expect, is_absent
from jhub_safety.cluster.listing import read_all
from jhub_safety.errors import Conflict, Doubt

_EMPTY: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Claim:
    """A PersistentVolumeClaim as it was when it was read."""

    name: str
    namespace: str
    uid: str
    resource_version: str = ""
    phase: str = "Bound"
    deleting: bool = False
    created: datetime | None = None
    capacity: str = ""
    storage_class: str = ""
    access_modes: tuple[str, ...] = ()
    #: ``Filesystem`` or ``Block``.
    volume_mode: str = "Filesystem"
    attributes_class: str = ""
    #: Type and message of each condition that is true.
    conditions: tuple[tuple[str, str], ...] = ()
    volume: str = ""
    #: Phase of the bound volume, or "" where it was not read (the hub may not read volumes).
    volume_phase: str = ""
    annotations: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    labels: Mapping[str, str] = field(default_factory=lambda: _EMPTY)

    @classmethod
    def parse(cls, item: Mapping[str, Any]) -> Claim:
        """From the API's JSON.

        Raises:
            Doubt: a part that every claim has is missing.
        """
        try:
            meta = item["metadata"]
            created = meta.get("creationTimestamp")
            spec = item.get("spec") or {}
            status = item.get("status") or {}
            requests = (spec.get("resources") or {}).get("requests") or {}
            return cls(
                name=meta["name"],
                namespace=meta["namespace"],
                uid=meta["uid"],
                resource_version=meta["resourceVersion"],
                phase=status.get("phase", ""),
                deleting="deletionTimestamp" in meta,
                created=datetime.fromisoformat(created) if created else None,
                capacity=requests.get("storage", ""),
                storage_class=spec.get("storageClassName") or "",
                access_modes=tuple(spec.get("accessModes") or ()),
                volume_mode=spec.get("volumeMode") or "Filesystem",
                attributes_class=spec.get("volumeAttributesClassName") or "",
                conditions=tuple(
                    (condition["type"], condition.get("message") or "")
                    for condition in status.get("conditions") or ()
                    if condition.get("status") == "True"
                ),
                volume=spec.get("volumeName") or "",
                annotations=MappingProxyType(dict(meta.get("annotations") or {})),
                labels=MappingProxyType(dict(meta.get("labels") or {})),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Doubt(f"a claim in the API server's answer is not whole: {error!r}") from error

    def record(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "name": self.name,
            "namespace": self.namespace,
            "uid": self.uid,
            "phase": self.phase,
            "deleting": self.deleting,
            "created": self.created.isoformat() if self.created else None,
            "capacity": self.capacity,
            "storage_class": self.storage_class,
            "volume": self.volume,
            "volume_phase": self.volume_phase,
        }


class ClaimsApi:
    """The claims of one namespace, at most one request a question.

    *timeout* is for one request, *patience* the seconds in which a failed read is tried again.
    """

    def __init__(
        self,
        api: kube.CoreV1Api,
        namespace: str,
        *,
        timeout: float = 10.0,
        patience: float = 0.0,
    ) -> None:
        self._api = api
        self.namespace = namespace
        self._timeout = timeout
        self._patience = patience

    async def read(self, name: str) -> Claim | None:
        """The claim, or None when the API server says 404 for this very claim.

        Raises:
            Doubt: any other answer.
        """
        what = f"reading claim {name} in namespace {self.namespace}"
        answer = await ask(
            partial(
                self._api.read_namespaced_persistent_volume_claim,
                name,
                self.namespace,
                _preload_content=False,
            ),
            what,
            timeout=self._timeout,
            patience=self._patience,
        )
        if is_absent(answer, what, name):
            return None
        return Claim.parse(expect(answer, what, "PersistentVolumeClaim"))

    async def list(self, selector: str = "") -> dict[str, Claim]:
        """Every claim of the namespace, by name: all of them, or an error.

        No *selector* when homes are looked for: claims of earlier generations carry different
        labels, some none. No resourceVersion: the answer is the most recent, not a cache's.

        Raises:
            Doubt: a page failed, was cut off, or expired twice.
        """
        listed = await read_all(
            partial(
                self._api.list_namespaced_persistent_volume_claim,
                self.namespace,
                **({"label_selector": selector} if selector else {}),
            ),
            f"listing the claims of namespace {self.namespace}",
            "PersistentVolumeClaimList",
            Claim.parse,
            timeout=self._timeout,
            patience=self._patience,
        )
        return {claim.name: claim for claim in listed}

    async def create(self, manifest: kube.V1PersistentVolumeClaim) -> Claim:
        """Create a claim.

        Raises:
            Conflict: a claim of that name exists. That is no success: see who owns it.
            Doubt: anything else; after a time-out the claim may or may not exist.
        """
        what = f"creating claim {manifest.metadata.name} in namespace {self.namespace}"
        answer = await ask(
            partial(
                self._api.create_namespaced_persistent_volume_claim,
                self.namespace,
                manifest,
                _preload_content=False,
            ),
            what,
            timeout=self._timeout,
        )
        return Claim.parse(expect(answer, what, "PersistentVolumeClaim"))

    async def annotate(
        self,
        claim: Claim,
        annotations: Mapping[str, str | None],
        labels: Mapping[str, str | None] = _EMPTY,
    ) -> Claim:
        """Set (None: remove) annotations and labels on exactly the claim that was read.

        Raises:
            Conflict: the claim was changed, deleted or made anew since.
            Doubt: any other failure; ``status`` 403 when the caller may not PATCH claims.
        """
        what = f"annotating claim {claim.name} in namespace {self.namespace}"
        metadata: dict[str, Any] = {
            "uid": claim.uid,
            "resourceVersion": claim.resource_version,
            "annotations": dict(annotations),
        }
        if labels:
            metadata["labels"] = dict(labels)
        answer = await ask(
            partial(
                self._api.patch_namespaced_persistent_volume_claim,
                claim.name,
                self.namespace,
                {"metadata": metadata},
                _content_type="application/merge-patch+json",
                _preload_content=False,
            ),
            what,
            timeout=self._timeout,
        )
        if answer.status in (404, 422):
            # 404: deleted since; 422: the uid in the patch is not the object's.
            raise Conflict(f"{what}: {answer.message or 'it is not the claim that was read'}")
        return Claim.parse(expect(answer, what, "PersistentVolumeClaim"))

    async def resize(self, claim: Claim, capacity: str) -> Claim:
        """Ask for more room on exactly the claim that was read.

        Raises:
            Conflict: the claim was changed, deleted or made anew since.
            Doubt: any other failure; ``status`` 403 when the caller may not PATCH claims, when
                a quota is exceeded or when the storage class cannot grow its volumes, and the
                message says which.
        """
        what = f"enlarging claim {claim.name} in namespace {self.namespace} to {capacity}"
        body = {
            "metadata": {"uid": claim.uid, "resourceVersion": claim.resource_version},
            "spec": {"resources": {"requests": {"storage": capacity}}},
        }
        answer = await ask(
            partial(
                self._api.patch_namespaced_persistent_volume_claim,
                claim.name,
                self.namespace,
                body,
                _content_type="application/merge-patch+json",
                _preload_content=False,
            ),
            what,
            timeout=self._timeout,
        )
        if answer.status == 404:
            raise Conflict(f"{what}: it is gone")
        return Claim.parse(expect(answer, what, "PersistentVolumeClaim"))

    async def delete(self, claim: Claim, *, unchanged: bool = False) -> None:
        """Delete exactly the claim that was read (uid precondition); 404 is success.

        *unchanged*: only as it was read (resourceVersion precondition).

        Raises:
            Conflict: the name belongs to another claim now, or it was changed since.
            Doubt: any other failure.
        """
        what = f"deleting claim {claim.name} in namespace {self.namespace}"
        body = kube.V1DeleteOptions(
            preconditions=kube.V1Preconditions(
                uid=claim.uid, resource_version=claim.resource_version if unchanged else None
            )
        )
        answer = await ask(
            partial(
                self._api.delete_namespaced_persistent_volume_claim,
                claim.name,
                self.namespace,
                body=body,
                _preload_content=False,
            ),
            what,
            timeout=self._timeout,
        )
        if answer.status == 409:
            raise Conflict(f"{what}: {answer.message}")
        if not is_absent(answer, what, claim.name) and not 200 <= answer.status < 300:
            raise Doubt(f"{what}: HTTP {answer.status} {answer.message}", status=answer.status)
