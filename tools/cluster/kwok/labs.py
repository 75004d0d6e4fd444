"""Fake labs: pods as KubeSpawner 7.1 asks for them, that only a fake node may get.

What a listing costs depends on what is in the pods, so nothing is left out that a hub with a
chart of usual settings puts in: labels, annotations, 22 variables, a claim, a second container.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kubespawner.slugs import is_valid_label, safe_slug

#: Marks what this package makes, so that nothing else is ever deleted by it.
FAKE = {"kwok.x-k8s.io/fake": "true"}
#: Label, annotation and taint of a fake node.
NODE = "kwok.x-k8s.io/node"
#: Label of a fake node: the namespace whose labs it is for.
CROWD = "kwok.x-k8s.io/crowd"
COMPONENT = "component=singleuser-server"
_VERSIONS = {
    "hub.jupyter.org/kubespawner-version": "7.1.0",
    "hub.jupyter.org/jupyterhub-version": "6.1.1",
}


@dataclass(frozen=True)
class FakeLab:
    """One lab.

    hub: value of the label of the hub that it belongs to; None: it has no such label.
    suffix: appended to the pod's name, for a further lab of a server that has one.
    node: 0 and up, taken modulo the number of nodes; None leaves it to the scheduler, which
        finds no node for it: it stays Pending.
    stays: a finalizer keeps it when it is deleted, so that it is Terminating until it is removed.
    """

    user: str
    server: str = ""
    hub: str | None = None
    suffix: str = ""
    node: int | None = 0
    stays: bool = False

    @property
    def _slug(self) -> str:
        user = safe_slug(self.user, max_length=48)
        return f"{user}--{safe_slug(self.server, max_length=48)}" if self.server else user

    @property
    def name(self) -> str:
        """The pod's, by KubeSpawner's template ``jupyter-{user_server}``."""
        return f"jupyter-{self._slug}{self.suffix}"

    @property
    def claim(self) -> str:
        """The claim that it mounts. None of the name has to exist for a fake node."""
        return f"claim-{self._slug}"

    @property
    def labels(self) -> dict[str, str]:
        """KubeSpawner's, the hub's, and the mark of a fake."""
        labels = {
            "app": "jupyterhub",
            "app.kubernetes.io/component": "singleuser-server",
            "app.kubernetes.io/managed-by": "kubespawner",
            "app.kubernetes.io/name": "jupyterhub",
            "component": "singleuser-server",
            "heritage": "jupyterhub",
            "hub.jupyter.org/servername": safe_slug(self.server, is_valid=is_valid_label),
            "hub.jupyter.org/username": safe_slug(self.user, is_valid=is_valid_label),
        }
        return labels | FAKE | ({"jhub-safety/hub": self.hub} if self.hub is not None else {})

    @property
    def annotations(self) -> dict[str, str]:
        """Whose it is, in full."""
        server = {"hub.jupyter.org/servername": self.server} if self.server else {}
        return {"hub.jupyter.org/username": self.user} | server | _VERSIONS

    def manifest(self, nodes: Sequence[str]) -> dict[str, Any]:
        """For the API. The node is written down here: the scheduler binds 50 pods a second."""
        placed: dict[str, Any] = {"nodeSelector": {NODE: "none"}}
        if self.node is not None:
            placed = {"nodeName": nodes[self.node % len(nodes)]}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": self.name,
                "labels": self.labels,
                "annotations": self.annotations,
                "finalizers": ["kwok.x-k8s.io/stays"] if self.stays else [],
            },
            "spec": placed
            | {
                "affinity": _ONLY_FAKE_NODES,
                "automountServiceAccountToken": False,
                "containers": [self._notebook(), _SIDECAR],
                "restartPolicy": "OnFailure",
                # Every taint for ever: labs that are kept while kwok is away must not be evicted.
                "tolerations": [{"operator": "Exists"}],
                "volumes": [
                    {"name": "home", "persistentVolumeClaim": {"claimName": self.claim}},
                ],
            },
        }

    def _notebook(self) -> dict[str, Any]:
        return {
            "name": "notebook",
            "image": "jhub-safety/lab:1",
            "imagePullPolicy": "IfNotPresent",
            "args": ["jupyterhub-singleuser"],
            "env": [{"name": name, "value": value} for name, value in self.environment().items()],
            "ports": [{"containerPort": 8888, "name": "notebook-port"}],
            "resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "2Gi"}},
            "securityContext": {"allowPrivilegeEscalation": False},
            "volumeMounts": [{"mountPath": "/home/jovyan", "name": "home"}],
        }

    def environment(self) -> dict[str, str]:
        """The variables of a lab with a limit and a guarantee of memory; no token is real."""
        server = f"{self.user}/{self.server}"
        scopes = f'["access:servers!server={server}", "access:servers!user={self.user}"]'
        prefix = f"/user/{server}/" if self.server else f"/user/{self.user}/"
        hub = "http://hub:8081/hub/api"
        return {
            "JPY_API_TOKEN": "0" * 32,
            "JUPYTERHUB_ACTIVITY_URL": f"{hub}/users/{self.user}/activity",
            "JUPYTERHUB_API_TOKEN": "0" * 32,
            "JUPYTERHUB_API_URL": hub,
            "JUPYTERHUB_BASE_URL": "/",
            "JUPYTERHUB_CLIENT_ID": f"jupyterhub-user-{self._slug}",
            "JUPYTERHUB_COOKIE_HOST_PREFIX_ENABLED": "0",
            "JUPYTERHUB_HOST": "",
            "JUPYTERHUB_OAUTH_ACCESS_SCOPES": scopes,
            "JUPYTERHUB_OAUTH_CALLBACK_URL": f"{prefix}oauth_callback",
            "JUPYTERHUB_OAUTH_CLIENT_ALLOWED_SCOPES": "[]",
            "JUPYTERHUB_OAUTH_SCOPES": scopes,
            "JUPYTERHUB_PUBLIC_HUB_URL": "",
            "JUPYTERHUB_PUBLIC_URL": "",
            "JUPYTERHUB_SERVER_NAME": self.server,
            "JUPYTERHUB_SERVICE_PREFIX": prefix,
            "JUPYTERHUB_SERVICE_URL": f"http://0.0.0.0:8888{prefix}",
            "JUPYTERHUB_USER": self.user,
            "JUPYTER_IMAGE": "jhub-safety/lab:1",
            "JUPYTER_IMAGE_SPEC": "jhub-safety/lab:1",
            "MEM_GUARANTEE": "1073741824",
            "MEM_LIMIT": "2147483648",
        }


# What keeps a real kubelet away even from a lab whose node was not written down.
_ONLY_FAKE_NODES = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [
                {"matchExpressions": [{"key": NODE, "operator": "In", "values": ["fake"]}]}
            ]
        }
    }
}
_SIDECAR = {
    "name": "sidecar",
    "image": "jhub-safety/busybox:1",
    "imagePullPolicy": "IfNotPresent",
    "args": ["sleep", "inf"],
    "env": [{"name": "HOME", "value": "/home/jovyan"}],
    "resources": {"limits": {"memory": "64Mi"}},
    "volumeMounts": [{"mountPath": "/home/jovyan", "name": "home"}],
}
