"""The few calls that the harness itself makes to an API server, with the standard library."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from datetime import datetime
from typing import Any

from . import credentials
from .errors import ClusterError
from .paths import Instance

STORAGE_CLASS = "standard"
STORAGE_CLASS_RETAIN = "standard-retain"


class Api:
    """An instance's API server, as its administrator."""

    def __init__(self, instance: Instance, server: str) -> None:
        self._server = server
        self._token = credentials.token(instance, credentials.ADMIN)
        self._context = ssl.create_default_context(cafile=str(instance.pki / "ca.crt"))
        # A machine's proxy must not be asked for its own loopback address.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self._context)
        )

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
        """The status and text of an answer; OSError when there is none within 3 s."""
        request = urllib.request.Request(  # noqa: S310 - always https, see components.server_url
            f"{self._server}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self._token}",
                "Content-Type": "application/json",
                "User-Agent": "jhub-safety-cluster",
            },
        )
        try:
            with self._opener.open(request, timeout=3) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def ready(self) -> bool:
        try:
            return self.call("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def node_ready(self, name: str, *, since: float = 0.0) -> bool:
        """Whether the node says that it is Ready and anything may be scheduled to it.

        since: the time (seconds since 1970) before which what it said does not count. A cluster
            that is started again still holds the Ready of the time before.
        """
        try:
            status, text = self.call("GET", f"/api/v1/nodes/{name}")
        except OSError:
            return False
        if status != 200:
            return False
        node = json.loads(text)
        conditions = node.get("status", {}).get("conditions", [])
        ready = any(
            c["type"] == "Ready"
            and c["status"] == "True"
            and datetime.fromisoformat(c["lastHeartbeatTime"]).timestamp() >= since
            for c in conditions
        )
        return ready and not node["spec"].get("taints")

    def exists(self, path: str) -> bool:
        try:
            return self.call("GET", path)[0] == 200
        except OSError:
            return False

    def create(self, path: str, body: dict[str, Any]) -> None:
        """Create an object; one of the name that is there already is left as it is."""
        status, text = self.call("POST", path, body)
        if status not in (200, 201, 409):
            raise ClusterError(f"POST {path}: {status} {text[:500]}")


def create_storage_classes(api: Api) -> None:
    for name, policy in ((STORAGE_CLASS, "Delete"), (STORAGE_CLASS_RETAIN, "Retain")):
        default = str(name == STORAGE_CLASS).lower()
        api.create(
            "/apis/storage.k8s.io/v1/storageclasses",
            {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "StorageClass",
                "metadata": {
                    "name": name,
                    "annotations": {"storageclass.kubernetes.io/is-default-class": default},
                },
                "provisioner": "kubernetes.io/host-path",
                "reclaimPolicy": policy,
                # A host path has no size that could grow; this lets the request through the API.
                "allowVolumeExpansion": True,
                "volumeBindingMode": "Immediate",
            },
        )
