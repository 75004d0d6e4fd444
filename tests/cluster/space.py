"""A namespace of the real cluster as tests see it: made, filled, watched and deleted by them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes_asyncio import client

from tools.demo.kube import USERNAME, Namespace

SERVERNAME = "hub.jupyter.org/servername"
SERVICE_ACCOUNT = "hub"
TOKEN_SECONDS = 4 * 3600
ROOT = Path(__file__).resolve().parents[2]
#: What the Zero to JupyterHub chart gives its hub, and what this library asks for beyond it.
CHART_ROLE = Path(__file__).with_name("chart-role.yaml")
LIBRARY_ROLE = ROOT / "examples" / "helm" / "rbac.yaml"
DEADLINE = 60.0


@dataclass(frozen=True)
class Home:
    """A claim that a lab has mounted."""

    name: str
    uid: str


class Space(Namespace):
    """One fresh namespace; an async context manager that makes nothing by itself."""

    def __init__(self, kubeconfig: Path, name: str) -> None:
        super().__init__(kubeconfig, name)
        self.kubeconfig = kubeconfig

    @property
    def hub_user(self) -> str:
        """What the API server calls a hub that runs as this namespace's service account."""
        return f"system:serviceaccount:{self.name}:{SERVICE_ACCOUNT}"

    async def prepare(self, *roles: Path) -> None:
        """Make the namespace with the service account `hub`, and bind it to the given Roles."""
        await self.ensure()
        await self._core.create_namespaced_service_account(
            self.name, {"metadata": {"name": SERVICE_ACCOUNT}}
        )
        for role in roles:
            await self.apply_role(role)

    async def apply_role(self, file: Path) -> None:
        """`kubectl apply -n` for a file of Roles and RoleBindings, of which none exists yet."""
        rbac = client.RbacAuthorizationV1Api(self._api)
        create = {
            "Role": rbac.create_namespaced_role,
            "RoleBinding": rbac.create_namespaced_role_binding,
        }
        for document in _documents(file):
            await create[document["kind"]](self.name, document)

    async def allow_everywhere(self, rules: Sequence[Mapping[str, Any]]) -> None:
        """Give the hub these rights in all namespaces, until `forbid_everywhere`."""
        rbac = client.RbacAuthorizationV1Api(self._api)
        metadata = {"name": self.name}
        await rbac.create_cluster_role({"metadata": metadata, "rules": list(rules)})
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": self.name}
        hub = {"kind": "ServiceAccount", "name": SERVICE_ACCOUNT, "namespace": self.name}
        await rbac.create_cluster_role_binding(
            {"metadata": metadata, "roleRef": role, "subjects": [hub]}
        )

    async def forbid_everywhere(self) -> None:
        rbac = client.RbacAuthorizationV1Api(self._api)
        await rbac.delete_cluster_role_binding(self.name)
        await rbac.delete_cluster_role(self.name)

    async def hub_token(self) -> str:
        """A fresh token of the service account, as its pod would get it."""
        answer = await self._core.create_namespaced_service_account_token(
            SERVICE_ACCOUNT, self.name, {"spec": {"expirationSeconds": TOKEN_SECONDS}}
        )
        return str(answer.status.token)

    async def write_kubeconfig(self, file: Path, *, server: str | None = None) -> Path:
        """A kubeconfig for the hub's service account; `server` for one on the way to the API."""
        (config,) = _documents(self.kubeconfig)
        config["users"] = [{"name": "hub", "user": {"token": await self.hub_token()}}]
        config["contexts"][0]["context"] |= {"user": "hub", "namespace": self.name}
        config["current-context"] = config["contexts"][0]["name"]
        if server is not None:
            config["clusters"][0]["cluster"] = {"server": server}
        await asyncio.to_thread(file.write_text, json.dumps(config))
        return file

    async def close(self) -> None:
        await self._api.close()

    async def delete(self) -> None:
        """Ask for its end; that it takes some seconds more is nobody's business."""
        await self._core.delete_namespace(self.name, grace_period_seconds=0)

    # Claims

    async def uids(self) -> dict[str, str]:
        """Every claim by name: what a test means by "nothing was created or deleted"."""
        return {claim.name: claim.uid for claim in await self.claims()}

    async def claim(self, name: str) -> Any:
        """One claim as the API has it."""
        return await self._core.read_namespaced_persistent_volume_claim(name, self.name)

    async def marks(self, name: str) -> dict[str, str]:
        """Labels and annotations of one claim, without what Kubernetes itself wrote."""
        metadata = (await self.claim(name)).metadata
        written = {**(metadata.labels or {}), **(metadata.annotations or {})}
        return {key: value for key, value in written.items() if "kubernetes.io/" not in key}

    async def make_claim(
        self,
        name: str,
        user: str | None = None,
        server: str = "",
        *,
        storage_class: str = "",
        **annotations: str,
    ) -> str:
        """A claim as KubeSpawner makes it for that user, or one without annotations. Its uid.

        The class with an empty name is the cluster's default one.
        """
        written = dict(annotations)
        if user is not None:
            written[USERNAME] = user
        if server:
            # KubeSpawner leaves it out when it is empty.
            written[SERVERNAME] = server
        labels = {
            "app": "jupyterhub",
            "component": "singleuser-storage",
            "heritage": "jupyterhub",
        }
        await self.create_claim(name, storage_class, labels, written)
        return str((await self.claim(name)).metadata.uid)

    async def make_extra_claim(self, name: str, user: str) -> str:
        """As 2i2c's recipe makes it. Its uid."""
        labels = {"component": "extra-pvc", USERNAME: "x"}
        await self.create_claim(name, "", labels, {USERNAME: user})
        return str((await self.claim(name)).metadata.uid)

    async def annotate(self, name: str, annotations: dict[str, str]) -> None:
        await self._core.patch_namespaced_persistent_volume_claim(
            name,
            self.name,
            {"metadata": {"annotations": annotations}},
            _content_type="application/merge-patch+json",
        )

    async def until_gone(self, claim: str) -> None:
        async with asyncio.timeout(DEADLINE):
            while claim in await self.uids():
                await asyncio.sleep(0.1)

    # Labs

    async def pod(self, name: str) -> Any:
        """A pod as the API has it; None without one."""
        try:
            return await self._core.read_namespaced_pod(name, self.name)
        except client.ApiException as error:
            if error.status == 404:
                return None
            raise

    async def pods(self) -> dict[str, str]:
        found = await self._core.list_namespaced_pod(self.name)
        return {pod.metadata.name: pod.metadata.uid for pod in found.items}

    async def phases(self) -> dict[str, tuple[str, str]]:
        """Every pod's uid and phase by name; "Terminating" for one that is being deleted."""
        found = await self._core.list_namespaced_pod(self.name)
        return {
            pod.metadata.name: (
                pod.metadata.uid,
                "Terminating" if pod.metadata.deletion_timestamp else pod.status.phase,
            )
            for pod in found.items
        }

    async def make_pod(
        self,
        name: str,
        image: str,
        claim: str | None,
        user: str | None,
        server: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> str:
        """A pod that runs on without a hub that knows of it. Its uid, once it runs."""
        container: dict[str, Any] = {
            "name": "notebook",
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "command": ["sleep", "3600"],
        }
        spec = {"containers": [container], "terminationGracePeriodSeconds": 1}
        if claim is not None:
            container["volumeMounts"] = [{"name": "home", "mountPath": "/home/jovyan"}]
            spec["volumes"] = [{"name": "home", "persistentVolumeClaim": {"claimName": claim}}]
        metadata: dict[str, Any] = {
            "name": name,
            "labels": {"component": "singleuser-server", USERNAME: "x", **(labels or {})},
        }
        if user is not None:
            metadata["annotations"] = {USERNAME: user, SERVERNAME: server}
        made = await self._core.create_namespaced_pod(
            self.name, {"metadata": metadata, "spec": spec}
        )
        async with asyncio.timeout(DEADLINE):
            while (await self.pod(name)).status.phase != "Running":
                await asyncio.sleep(0.1)
        return str(made.metadata.uid)

    async def delete_pod(self, name: str) -> None:
        """As an administrator would, behind the hub's back; returns when it is gone."""
        await self._core.delete_namespaced_pod(name, self.name, grace_period_seconds=0)
        async with asyncio.timeout(DEADLINE):
            while await self.pod(name) is not None:
                await asyncio.sleep(0.1)

    async def end_pod(self, name: str) -> None:
        """Its lab ends by itself, as when it runs out of memory; the pod stays."""
        # A deadline of the pod ends it as the kubelet does: phase Failed, DeadlineExceeded.
        await self._core.patch_namespaced_pod(
            name,
            self.name,
            {"spec": {"activeDeadlineSeconds": 1}},
            _content_type="application/merge-patch+json",
        )

    async def home_of(self, user: str, server: str = "") -> Home:
        """The claim that the lab of this user and server has as its home now.

        Raises LookupError without such a lab.
        """
        found = await self._core.list_namespaced_pod(self.name)
        for pod in found.items:
            annotations = pod.metadata.annotations or {}
            # On a pod, unlike on a claim, KubeSpawner writes an empty server name too.
            owner = annotations.get(USERNAME), annotations.get(SERVERNAME) or ""
            if owner == (user, server) and pod.metadata.deletion_timestamp is None:
                mounts = [volume.persistent_volume_claim for volume in pod.spec.volumes]
                name = next(mount.claim_name for mount in mounts if mount)
                return Home(name, (await self.claim(name)).metadata.uid)
        raise LookupError(f"no lab of {user}/{server} in {[p.metadata.name for p in found.items]}")

    async def events(self, reason: str) -> list[Any]:
        found = await self._core.list_namespaced_event(self.name, field_selector=f"reason={reason}")
        return list(found.items)


def _documents(file: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(file.read_text()))
