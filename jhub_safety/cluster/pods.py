"""Pods of one namespace: all of them, with the claims they mount, and ones of this library."""

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

_EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod as it was when it was read."""

    name: str
    uid: str
    claims: tuple[str, ...] = ()
    deleting: bool = False
    labels: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    annotations: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    #: Image by container, the init containers among them.
    images: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    #: As the API writes it.
    status: Mapping[str, Any] = field(default_factory=lambda: _EMPTY, repr=False)

    @property
    def ended(self) -> bool:
        """True when no container of it will run again; one that is being deleted may still run."""
        return self.status.get("phase") in ("Succeeded", "Failed")

    @classmethod
    def parse(cls, item: Mapping[str, Any]) -> Pod:
        """From the API's JSON.

        Raises:
            Doubt: a part that every pod has is missing.
        """
        try:
            meta, spec = item["metadata"], item["spec"]
            parts = [*(spec.get("initContainers") or []), *spec["containers"]]
            return cls(
                name=meta["name"],
                uid=meta["uid"],
                claims=tuple(
                    volume["persistentVolumeClaim"]["claimName"]
                    for volume in spec.get("volumes") or []
                    if "persistentVolumeClaim" in volume
                ),
                deleting="deletionTimestamp" in meta,
                labels=MappingProxyType(dict(meta.get("labels") or {})),
                annotations=MappingProxyType(dict(meta.get("annotations") or {})),
                images=MappingProxyType({one["name"]: one.get("image", "") for one in parts}),
                status=MappingProxyType(dict(item.get("status") or {})),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Doubt(f"a pod in the API server's answer is not whole: {error!r}") from error


class PodsApi:
    """*timeout* is for one request, *patience* the seconds in which a failed read is repeated."""

    def __init__(
        self,
        api: kube.CoreV1Api,
        namespace: str,
        *,
        timeout: float = 30.0,
        patience: float = 30.0,
    ) -> None:
        self._api, self.namespace = api, namespace
        self._timeout, self._patience = timeout, patience

    async def list(self, selector: str = "") -> tuple[Pod, ...]:
        """All of them, or those with the labels, or an error. The most recent state.

        Raises:
            Doubt: a page failed, was cut off, or expired twice.
        """
        listed = await read_all(
            partial(
                self._api.list_namespaced_pod,
                self.namespace,
                **({"label_selector": selector} if selector else {}),
            ),
            f"listing the pods of namespace {self.namespace}",
            "PodList",
            Pod.parse,
            timeout=self._timeout,
            patience=self._patience,
            large=True,
        )
        return tuple(listed)

    async def read(self, name: str) -> Pod | None:
        """The pod, or None when the API server says 404 for this very pod.

        Raises:
            Doubt: any other answer.
        """
        what = f"reading pod {name} in namespace {self.namespace}"
        answer = await ask(
            partial(self._api.read_namespaced_pod, name, self.namespace, _preload_content=False),
            what,
            timeout=self._timeout,
            patience=self._patience,
        )
        if is_absent(answer, what, name):
            return None
        return Pod.parse(expect(answer, what, "Pod"))

    async def create(self, manifest: Mapping[str, Any]) -> Pod:
        """Raises Conflict when there is one of that name, Doubt for anything else."""
        what = f"creating pod {manifest['metadata']['name']} in namespace {self.namespace}"
        create = partial(
            self._api.create_namespaced_pod, self.namespace, manifest, _preload_content=False
        )
        return Pod.parse(expect(await ask(create, what, timeout=self._timeout), what, "Pod"))

    async def delete(self, pod: Pod) -> None:
        """Exactly the pod that was read, with the grace it asks for; its being gone is success.

        Raises:
            Conflict: the name belongs to another pod now.
            Doubt: any other failure.
        """
        what = f"deleting pod {pod.name} in namespace {self.namespace}"
        body = kube.V1DeleteOptions(preconditions=kube.V1Preconditions(uid=pod.uid))
        delete = partial(
            self._api.delete_namespaced_pod,
            pod.name,
            self.namespace,
            body=body,
            _preload_content=False,
        )
        answer = await ask(delete, what, timeout=self._timeout)
        if answer.status == 409:
            raise Conflict(f"{what}: {answer.message}")
        if not is_absent(answer, what, pod.name) and not 200 <= answer.status < 300:
            raise Doubt(f"{what}: HTTP {answer.status} {answer.message}", status=answer.status)
