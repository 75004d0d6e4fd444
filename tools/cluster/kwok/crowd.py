"""Thousands of fake nodes and labs at once: made, waited for, removed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

import aiohttp
from kubernetes_asyncio import client as kube

from tools.cluster.errors import ClusterError

from .labs import CROWD, FAKE, NODE, FakeLab

_Item = TypeVar("_Item")
# More at once only makes the API server's answers later: two cores are busy with 16.
_AT_ONCE = 16
_REQUEST_TIMEOUT = 60.0
_NODES = "/api/v1/nodes"
#: As kubectl gets it: a row for each object, 70 times less than the objects.
TABLE = "application/json;as=Table;g=meta.k8s.io;v=v1"
_SELECTOR = ",".join(f"{key}={value}" for key, value in FAKE.items())
# In no network of a usual machine. Nothing routes it: a fake lab answers nobody.
_POD_NETWORK = "10.{}.0.0/16"
_FIRST_POD_NETWORK = 192


class Crowd:
    """The fakes of one cluster, while kwok plays them, with their labs in one namespace.

    Nothing here touches an object that does not carry the mark of a fake.
    """

    def __init__(
        self, client: kube.ApiClient, namespace: str, nodes: int, alive: Callable[[], None]
    ) -> None:
        """*alive* raises when kwok has ended; asked while something is waited for."""
        self._client = client
        self._space = f"/api/v1/namespaces/{namespace}"
        self.namespace = namespace
        self._pods = f"{self._space}/pods"
        # Of their own: another namespace's nodes may be kept with their labs when these end.
        self._nodes = [f"{namespace}-{number}" for number in range(nodes)]
        self._own_nodes = f"{CROWD}={namespace}"
        self._alive = alive

    async def set_up(self) -> None:
        """Make the namespace and the nodes that are missing, and wait until all can be used.

        Raises:
            ClusterError: the namespace is there, and somebody else's.
        """
        for number, name in enumerate(self._nodes):
            node = _node(name, number, self.namespace)
            await self._send("POST", _NODES, node, allowed=(409,))
        await self._until(self._can_be_used, "the fake nodes are Ready", timeout=60)

    async def _can_be_used(self) -> bool:
        # Again each time: the one of a run that has just ended may be on its way out.
        metadata = {"name": self.namespace, "labels": FAKE}
        await self._send("POST", "/api/v1/namespaces", {"metadata": metadata}, allowed=(409,))
        space = await self._send("GET", self._space, allowed=(404,))
        if space["kind"] != "Namespace" or space["status"]["phase"] != "Active":
            return False
        if not _is_fake(space):
            raise ClusterError(f"The namespace {self.namespace} was not made for fake labs")
        # Pods are refused in a namespace that has no service account yet.
        account = await self._send("GET", f"{self._space}/serviceaccounts/default", allowed=(404,))
        nodes = await self._send("GET", _NODES, labelSelector=self._own_nodes)
        ready = sum(_is_ready(item) for item in nodes["items"])
        return account["kind"] == "ServiceAccount" and ready >= len(self._nodes)

    async def make(self, labs: Iterable[FakeLab]) -> None:
        """Make the labs, and wait until each that has a node runs (not for one that has none).

        A lab whose name is taken already is left as it is: see :meth:`names`.
        """

        async def create(lab: FakeLab) -> None:
            await self._send("POST", self._pods, lab.manifest(self._nodes), allowed=(409,))

        await self._each(labs, create)

        async def running() -> bool:
            # The node is named from the beginning, unless the scheduler is to look in vain.
            waiting = "status.phase=Pending,spec.nodeName!="
            body = await self._send(
                "GET", self._pods, labelSelector=_SELECTOR, fieldSelector=waiting, limit=1
            )
            return not body["items"]

        await self._until(running, "the fake labs run", timeout=600)

    async def names(self) -> set[str]:
        """The pods of the fake labs that are there."""
        body = await self._send(
            "GET", self._pods, accept=TABLE, labelSelector=_SELECTOR, includeObject="None"
        )
        return {row["cells"][0] for row in body["rows"] or []}

    async def set_status(self, statuses: Mapping[str, Mapping[str, Any]]) -> None:
        """Change the statuses of running labs, given by pod: kwok leaves them so.

        A status is merged; ``containerStatuses`` replaces the list.
        """

        async def patch(entry: tuple[str, Mapping[str, Any]]) -> None:
            name, status = entry
            await self._send("PATCH", f"{self._pods}/{name}/status", {"status": status})

        await self._each(statuses.items(), patch)

    async def delete(self, names: Iterable[str]) -> None:
        """Ask for the end of labs, given by pod.

        One that :attr:`FakeLab.stays` is Terminating from then on.
        """

        async def one(name: str) -> None:
            # A grace of 0 asks no kubelet: it works without kwok too.
            body = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}
            await self._send("DELETE", f"{self._pods}/{name}", body, allowed=(404,))

        await self._each(names, one)

    async def remove(self) -> None:
        """Delete every fake lab, also those that stay, then nodes and namespace. Needs no kwok."""

        async def let_go(name: str) -> None:
            body = {"metadata": {"finalizers": None}}
            await self._send("PATCH", f"{self._pods}/{name}", body, allowed=(404,))

        await self.delete(await self.names())
        await self._each(await self.names(), let_go)
        # After the labs: those whose node is gone are collected by the cluster, for minutes.
        await self._send("DELETE", _NODES, labelSelector=self._own_nodes)
        space = await self._send("GET", self._space, allowed=(404,))
        # Also run after a namespace was refused as somebody else's.
        if _is_fake(space):
            await self._send("DELETE", self._space, allowed=(404, 409))

    async def _each(self, items: Iterable[_Item], call: Callable[[_Item], Awaitable[None]]) -> None:
        """*call* for each item, a bounded number at once; the first failure ends all."""
        left = iter(items)

        async def worker() -> None:
            for item in left:
                await call(item)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(_AT_ONCE):
                    group.create_task(worker())
        except* ClusterError as failed:
            # The others are of the same kind; one is told.
            raise failed.exceptions[0] from None

    async def _until(
        self, condition: Callable[[], Awaitable[bool]], what: str, *, timeout: float
    ) -> None:
        deadline = time.monotonic() + timeout
        while not await condition():
            self._alive()
            if time.monotonic() > deadline:
                raise ClusterError(f"Waiting until {what}: not within {timeout:.0f} s")
            # Looking through 10,000 pods takes the API server's time, which the labs need.
            await asyncio.sleep(0.5)

    async def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        accept: str = "application/json",
        allowed: tuple[int, ...] = (),
        **query: str | int,
    ) -> dict[str, Any]:
        """One request; the body of its answer as plain JSON (typed models cost 2 ms a pod)."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        what = f"{method} {path}"
        try:
            response = await self._client.call_api(
                path,
                method,
                query_params=list(query.items()),
                header_params={"Accept": accept, "Content-Type": kind},
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _return_http_data_only=True,
                _request_timeout=_REQUEST_TIMEOUT,
            )
            try:
                raw = await response.read()
            finally:
                response.release()
        except (aiohttp.ClientError, OSError) as error:
            raise ClusterError(f"{what}: {type(error).__name__}: {error}") from error
        if response.status >= 300 and response.status not in allowed:
            raise ClusterError(f"{what}: {response.status} {raw[:300].decode()}")
        return dict(json.loads(raw))


def _node(name: str, number: int, namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {NODE: "fake"},
            "labels": FAKE | {NODE: "fake", CROWD: namespace, "kubernetes.io/hostname": name},
        },
        "spec": {
            # So that nothing else lands there.
            "taints": [{"key": NODE, "value": "fake", "effect": "NoSchedule"}],
            "podCIDR": _POD_NETWORK.format(_FIRST_POD_NETWORK + number),
        },
    }


def _is_fake(answer: Mapping[str, Any]) -> bool:
    return FAKE.items() <= (answer["metadata"].get("labels") or {}).items()


def _is_ready(node: Mapping[str, Any]) -> bool:
    conditions = node["status"].get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
