"""What a cluster takes: native sidecars, containers that run as root. Asked once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from kubernetes_asyncio import client as kube

from jhub_safety.cluster.client import ask, expect
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.extras import ExtrasMixin
from jhub_safety.sidecars import ownership
from jhub_safety.sidecars.server import DatabaseServer

#: The first Kubernetes whose init containers may go on running without a feature gate.
_NATIVE_SINCE = (1, 29)


class AdmissionMixin(ExtrasMixin):
    """Questions to the API server before a pod is made."""

    #: By API server: whether it has native sidecars. By namespace: whether it takes root.
    _native: ClassVar[dict[str, bool]] = {}
    _takes_root: ClassVar[dict[str, bool]] = {}
    #: Questions about these that are under way.
    _asking: ClassVar[dict[tuple[str, str], asyncio.Future[bool]]] = {}

    async def _has_native(self, servers: tuple[DatabaseServer, ...]) -> bool:
        if not any(one.startup == "auto" for one in servers):
            return False
        host = self.api.api_client.configuration.host
        if host in self._native:
            return self._native[host]
        return await self._shared(("native", host), partial(self._ask_native, host))

    async def _ask_native(self, host: str) -> bool:
        what = "asking the API server for its version"
        version = kube.VersionApi(self.api.api_client)
        answer = await ask(
            partial(version.get_code, _preload_content=False),
            what,
            timeout=self.claim_request_timeout,
            patience=self.claim_request_timeout,
        )
        try:
            body = answer.body or {}
            numbers = (int(body["major"]), int(body["minor"].rstrip("+")))
        except (KeyError, ValueError, AttributeError):
            self.log.warning("%s: no version in its answer; taking ordinary containers", what)
            return False
        self._native[host] = numbers >= _NATIVE_SINCE
        return self._native[host]

    async def _admits_root(self, folders: list[ownership.Folder]) -> bool:
        """Ask the API server with a dry run, once for each namespace."""
        if self.namespace in self._takes_root or not folders:
            return self._takes_root.get(self.namespace, True)
        return await self._shared(("root", self.namespace), self._ask_root)

    async def _ask_root(self) -> bool:
        made = kube.V1Pod(
            metadata=kube.V1ObjectMeta(generate_name="jhub-safety-dry-run-"),
            spec=kube.V1PodSpec(
                containers=[
                    kube.V1Container(**ownership.container(self.ownership_image, "Never", []))
                ]
            ),
        )
        what = f"asking namespace {self.namespace} whether it takes a container that runs as root"
        create = partial(
            self.api.create_namespaced_pod,
            self.namespace,
            made,
            dry_run="All",
            _preload_content=False,
        )
        try:
            answer = await ask(create, what, timeout=self.claim_request_timeout)
            refused = answer.status == 403 and ownership.is_refused_root(answer.message)
            if not refused:
                expect(answer, what, "Pod")
        except (Conflict, Doubt) as doubt:
            # The pod itself will tell; nothing is decided by this.
            self.log.warning("%s; taking it that it does", doubt)
            return True
        self._takes_root[self.namespace] = not refused
        if refused:
            self.log.warning(
                "Namespace %s takes no container that runs as root: folders are given to users by "
                "fsGroup, as far as their volumes know it",
                self.namespace,
            )
        return not refused

    async def _shared(self, about: tuple[str, str], question: Callable[[], Any]) -> bool:
        """Ask once for all starts that wait for the answer: after a restart they come together."""
        asked = self._asking.get(about)
        if asked is None or asked.done() or asked.get_loop() is not asyncio.get_running_loop():
            asked = self._asking[about] = asyncio.ensure_future(question())
        # It goes on when a caller is cancelled. Not by shield(): from Python 3.14 on that logs an
        # error which the others have been told.
        await asyncio.wait({asked})
        if asked.cancelled():
            raise Doubt(f"{' '.join(about)}: not asked to the end")
        return asked.result()
