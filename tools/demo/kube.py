"""What demo and drill look at and change in the cluster themselves, behind the hub's back."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kubernetes_asyncio import client, config

USERNAME = "hub.jupyter.org/username"
GONE_TIMEOUT = 60.0


@dataclass(frozen=True)
class Claim:
    """A claim as listed; owner is what KubeSpawner's annotation says, "" without one."""

    name: str
    uid: str
    owner: str


@dataclass(frozen=True)
class Lab:
    """A single-user pod as listed."""

    name: str
    uid: str
    owner: str


class Namespace:
    """One namespace of a cluster; an async context manager."""

    def __init__(self, kubeconfig: Path, name: str) -> None:
        self.name = name
        self._kubeconfig = kubeconfig
        self._api: Any = None
        self._core: Any = None

    async def __aenter__(self) -> Self:
        self._api = await config.new_client_from_config(config_file=str(self._kubeconfig))
        self._core = client.CoreV1Api(self._api)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._api.close()

    async def ensure(self) -> str:
        """Make the namespace unless it exists, and wait until pods can be made in it. Its uid."""
        try:
            await self._core.create_namespace({"metadata": {"name": self.name}})
        except client.ApiException as error:
            if error.status != 409:
                raise
        async with asyncio.timeout(GONE_TIMEOUT):
            while True:
                try:
                    await self._core.read_namespaced_service_account("default", self.name)
                    found = await self._core.read_namespace(self.name)
                    return str(found.metadata.uid)
                except client.ApiException as error:
                    # A pod is refused while its service account is not there yet.
                    if error.status != 404:
                        raise
                    await asyncio.sleep(0.1)

    async def claims(self) -> list[Claim]:
        found = await self._core.list_namespaced_persistent_volume_claim(self.name)
        return [Claim(*_identity(item.metadata)) for item in found.items]

    async def labs(self) -> list[Lab]:
        found = await self._core.list_namespaced_pod(self.name, label_selector=f"{USERNAME}")
        return [Lab(*_identity(item.metadata)) for item in found.items]

    async def lab_of(self, owner: str) -> Lab | None:
        return next((lab for lab in await self.labs() if lab.owner == owner), None)

    async def claim_mounted_by(self, lab: Lab) -> str | None:
        """The name of the claim that a lab has as its home; None when the lab is gone."""
        try:
            pod = await self._core.read_namespaced_pod(lab.name, self.name)
        except client.ApiException as error:
            if error.status == 404:
                return None
            raise
        mounts = [volume.persistent_volume_claim for volume in pod.spec.volumes]
        return next((str(mount.claim_name) for mount in mounts if mount), None)

    async def create_claim(
        self,
        name: str,
        storage_class: str,
        labels: Mapping[str, str],
        annotations: Mapping[str, str],
    ) -> None:
        metadata = {"name": name, "labels": dict(labels), "annotations": dict(annotations)}
        spec: dict[str, Any] = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        }
        if storage_class:
            spec["storageClassName"] = storage_class
        await self._core.create_namespaced_persistent_volume_claim(
            self.name, {"metadata": metadata, "spec": spec}
        )

    async def delete_labs_and_claims(self, owners: Collection[str] | None) -> None:
        """Delete what belongs to these users (None: to anybody), and wait until it is gone."""

        async def left() -> tuple[list[Lab], list[Claim]]:
            return (
                [one for one in await self.labs() if owners is None or one.owner in owners],
                [one for one in await self.claims() if owners is None or one.owner in owners],
            )

        labs, claims = await left()
        for lab in labs:
            await self._delete(self._core.delete_namespaced_pod, lab.name)
        for claim in claims:
            await self._delete(self._core.delete_namespaced_persistent_volume_claim, claim.name)
        async with asyncio.timeout(GONE_TIMEOUT):
            while any(await left()):
                await asyncio.sleep(0.2)

    async def _delete(self, call: Any, name: str) -> None:
        try:
            await call(name, self.name, grace_period_seconds=1)
        except client.ApiException as error:
            if error.status != 404:
                raise


def _identity(metadata: Any) -> tuple[str, str, str]:
    return metadata.name, metadata.uid, (metadata.annotations or {}).get(USERNAME, "")
