"""What is made in the cluster for the outage, and what is there before and after."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kubernetes_asyncio import client, config
from kubernetes_asyncio.stream import WsApiClient

from jhub_safety.hubdb.guarding import Fingerprint
from tools.demo.kube import USERNAME, Namespace

from .people import Person

#: Requests at the same time.
AT_ONCE = 16
PAGE = 500


class OutageNamespace(Namespace):
    """A namespace of its own, which is deleted with all that is in it."""

    async def make_claims(self, people: Iterable[Person], storage_class: str) -> None:
        left = iter(people)

        async def worker() -> None:
            for person in left:
                answer = await self._core.create_namespaced_persistent_volume_claim(
                    self.name, person.manifest(storage_class), _preload_content=False
                )
                text = await answer.text()
                if answer.status >= 300:
                    raise client.ApiException(answer.status, text[:500])

        await asyncio.gather(*(worker() for _ in range(AT_ONCE)))

    async def uids(self) -> dict[str, str]:
        """uid of every claim by name."""
        return {
            one["metadata"]["name"]: one["metadata"]["uid"]
            for one in await self._items(self._core.list_namespaced_persistent_volume_claim)
        }

    async def mounts(self) -> dict[str, tuple[str, str]]:
        """uid of the pod and name of the home's claim, of each user with a lab that goes on."""
        found = {}
        for pod in await self._items(self._core.list_namespaced_pod):
            metadata, volumes = pod["metadata"], pod["spec"].get("volumes", [])
            user = metadata.get("annotations", {}).get(USERNAME)
            claims = [
                one["persistentVolumeClaim"] for one in volumes if "persistentVolumeClaim" in one
            ]
            if user and claims and "deletionTimestamp" not in metadata:
                found[user] = (metadata["uid"], claims[0]["claimName"])
        return found

    async def known_users(self) -> int:
        """How many users the hub's fingerprint has; 0 without one."""
        notes = [
            {key: base64.b64decode(text).decode() for key, text in one.get("data", {}).items()}
            for one in await self._items(self._core.list_namespaced_secret)
            if one["metadata"]["name"].startswith("jhub-safety-database-")
        ]
        found = max(map(Fingerprint.parse, notes), key=lambda one: one.epoch, default=None)
        return found.users if found else 0

    async def write(self, pod: str, path: str, text: str) -> None:
        """Write a file in a lab, as its user would in a terminal."""
        made = client.Configuration()
        await config.load_kube_config(str(self._kubeconfig), client_configuration=made)
        async with WsApiClient(made) as api:
            said = await client.CoreV1Api(api).connect_get_namespaced_pod_exec(
                pod,
                self.name,
                command=["sh", "-c", 'printf %s "$1" >"$2"', "-", text, path],
                container="notebook",
                stdout=True,
                stderr=True,
                stdin=False,
                tty=False,
            )
        if said:
            raise OSError(f"{pod}: {said}")

    async def delete(self) -> None:
        await self._core.delete_namespace(self.name, grace_period_seconds=0)

    async def _items(self, list_them: Any) -> list[dict[str, Any]]:
        """All pages, as JSON: the client's own objects of a thousand claims take seconds."""
        found: list[dict[str, Any]] = []
        more: dict[str, Any] = {}
        while True:
            answer = await list_them(self.name, limit=PAGE, _preload_content=False, **more)
            page = json.loads(await answer.read())
            if answer.status != 200:
                raise client.ApiException(answer.status, str(page)[:500])
            found += page["items"]
            token = page["metadata"].get("continue")
            if not token:
                return found
            more = {"_continue": token}


def played_mounts(file: Path) -> dict[str, list[list[str]]]:
    """Claims that each start of a played server would have mounted, by user."""
    found: dict[str, list[list[str]]] = {}
    if file.exists():
        for line in file.read_text().splitlines():
            start = json.loads(line)
            found.setdefault(start["user"], []).append(start["claims"])
    return found
