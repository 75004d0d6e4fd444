"""Database servers, wired to a KubeSpawner: in the pod, for as long as it runs, and told about.

What is overridden of KubeSpawner 7.1, and what was seen without it:

- ``get_pod_manifest``: adds the servers, and one init container that gives folders to the user.
- ``stop``: ``now=True`` deletes the pod with no grace at all (spawner.py:3458), and the default of
  ``delete_grace_period`` is 1 s: a server was killed in the middle of a write, and the next pod
  opened its data while it still ran.
- ``is_pod_running``: waits for each container to be ready, also for one that cannot be.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any, ClassVar

from kubernetes_asyncio import client as kube

from jhub_safety import metrics
from jhub_safety.cluster import events
from jhub_safety.cluster.client import ask, expect
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.extras import ExtrasMixin
from jhub_safety.refused import SpawnRefused
from jhub_safety.sidecars import ownership, pod
from jhub_safety.sidecars.notice import Notice, notices, unborn
from jhub_safety.sidecars.server import DatabaseServer, parse_servers
from jhub_safety.volumes.declared import ExtraVolume


class _WithoutThem(Exception):
    """The lab waits for servers that will never come: it is to start without them."""

    def __init__(self, names: frozenset[str]) -> None:
        self.names = names


#: The first Kubernetes whose init containers may go on running without a feature gate.
_NATIVE_SINCE = (1, 29)


class DatabasesMixin(ExtrasMixin):
    """Servers beside the lab."""

    #: By API server: whether it has native sidecars. By namespace: whether it takes root.
    _native: ClassVar[dict[str, bool]] = {}
    _takes_root: ClassVar[dict[str, bool]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._notices: dict[tuple[str, str], Notice] = {}
        self._unsaid: list[Notice] = []
        #: Names of servers that this start does without, since they kept the lab from starting.
        self._left_out: frozenset[str] = frozenset()
        #: When a start began, on the event loop's clock; None: none is under way.
        self._began: float | None = None
        super().__init__(*args, **kwargs)

    def _servers(self) -> tuple[DatabaseServer, ...]:
        return parse_servers(self.databases)

    def _extra_volumes(self) -> tuple[ExtraVolume, ...]:
        entries = [one.volume_entry() for one in self._servers()]
        return (*super()._extra_volumes(), *map(ExtraVolume.parse, entries))

    # -- the pod

    async def get_pod_manifest(self) -> kube.V1Pod:
        """KubeSpawner's, with the servers; nothing of the hub's own is replaced."""
        made = await super().get_pod_manifest()
        servers = self._servers()
        if why := pod.objection(made, servers):
            raise self._lab_refused(
                "database-exposed", why, "its database would be open to other people"
            )
        whom = pod.who(made, self.pvc_name, self.home_mount_path)
        claims = {one.volume.name: one.claim for one in self._extras}
        native = await self._has_native(servers)
        beside = [
            pod.Beside(
                one,
                claims[one.claim_template],
                native if one.startup == "auto" else one.startup == "native",
            )
            for one in servers
            if one.name not in self._left_out
        ]
        if beside:
            pod.add_servers(made, beside, whom)
        if self.ownership == "always" or (self.ownership == "auto" and beside):
            folders = pod.folders(made, beside, whom, self.ownership_paths)
            root = await self._admits_root(folders)
            pod.add_ownership(
                made, folders, self.ownership_image, self.image_pull_policy, root=root
            )
        return made

    async def _has_native(self, servers: tuple[DatabaseServer, ...]) -> bool:
        if not any(one.startup == "auto" for one in servers):
            return False
        host = self.api.api_client.configuration.host
        if host not in self._native:
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

    # -- the beginning

    def start(self) -> asyncio.Future[Any]:
        self._notices.clear()
        self._unsaid.clear()
        self._left_out = frozenset()
        return asyncio.ensure_future(self._start_with_what_runs(super().start))

    async def _start_with_what_runs(self, start: Callable[[], asyncio.Future[Any]]) -> Any:
        """A native sidecar whose image cannot be had holds back the lab for ever."""
        loop = asyncio.get_running_loop()
        while True:
            self._began = loop.time()
            try:
                return await start()
            except _WithoutThem as without:
                self._left_out |= without.names
                names = ", ".join(sorted(without.names))
                self.log.warning("Starting %s again, without %s", self._log_name, names)
                lab = await self._labs_api().read(self.pod_name)
                if lab is not None and self._is_mine(lab):
                    await self._labs_api().delete(lab, grace=None)
                    await self._wait_until_gone(lab)
            finally:
                self._began = None

    def _mind_the_lab(
        self, status: Mapping[str, Any], servers: Mapping[str, DatabaseServer]
    ) -> None:
        """End a start that waits for what will not come.

        Raises:
            SpawnRefused: a server that is required is down.
            _WithoutThem: the lab can start without them.
        """
        if self._began is None:
            return
        waited = asyncio.get_running_loop().time() - self._began
        absent = unborn(status)
        stuck = set()
        for server in servers.values():
            down = [
                one for one in self._notices.values() if one.database == server.name and one.down
            ]
            patient = server.container in absent and waited < server.startup_deadline
            if not down or patient:
                continue
            if server.required:
                story = (
                    f"Server of {self._log_name} not started: database {server.name}, which is "
                    f"required: {down[-1].said}. To do: {down[-1].remedy}"
                )
                self.log.error("%s", story)
                raise SpawnRefused(
                    f"database-{down[-1].code}",
                    story,
                    f"Your server was not started: your database {server.name}: {down[-1].said}.",
                    retryable=False,
                )
            if server.container in absent:
                stuck.add(server.name)
        if stuck:
            raise _WithoutThem(frozenset(stuck))

    # -- the end

    async def stop(self, now: bool = False) -> None:
        if self._servers():
            # A database needs its time, and its data must not be opened again before it is over.
            now = False
            need = pod.LAB_SECONDS + sum(one.stop_seconds for one in self._servers())
            self.delete_grace_period: int = max(self.delete_grace_period, need)
        await super().stop(now=now)

    # -- what is told

    def is_pod_running(self, found: Any) -> bool:
        """KubeSpawner's, without the containers of servers that cannot run."""
        servers = {one.container: one for one in self._servers()}
        if servers and found:
            status = found["status"]
            self._take_note(notices(status, servers))
            self._mind_the_lab(status, servers)
            ours = [one for one in status.get("containerStatuses") or [] if one["name"] in servers]
            down = {one.database for one in self._notices.values() if one.down}
            ignored = [one for one in ours if servers[one["name"]].name in down]
            if ignored:
                rest = [one for one in status["containerStatuses"] if one not in ignored]
                found = {**found, "status": {**status, "containerStatuses": rest}}
        running: bool = super().is_pod_running(found)
        return running

    def _take_note(self, found: list[Notice]) -> None:
        for notice in found:
            key = (notice.database, notice.code)
            if key in self._notices:
                continue
            self._notices[key] = notice
            self._unsaid.append(notice)
            metrics.DATABASE_NOTICES.labels(notice.database, notice.code).inc()
            story = f"Database {notice.database} of {self._log_name}: {notice.said}"
            self.log.warning("%s. To do: %s.", story, notice.remedy)
            task = asyncio.ensure_future(self._tell_the_claim(notice, story))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    _telling: ClassVar[set[asyncio.Future[None]]] = set()

    async def _tell_the_claim(self, notice: Notice, story: str) -> None:
        server = next(one for one in self._servers() if one.name == notice.database)
        claim = next(
            (one.claim for one in self._extras if one.volume.name == server.claim_template), ""
        )
        try:
            await events.warn_about_claim(
                self.api, self.namespace, claim, "", f"Database{_camel(notice.code)}", story
            )
        except (Conflict, Doubt) as doubt:
            self._say_once("events", "Refusals are in this log only, not in events: %s", doubt)

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        async for event in super().progress():
            for notice in self._new_notices():
                yield notice
            yield event
        for notice in self._new_notices():
            yield notice

    def _new_notices(self) -> list[dict[str, Any]]:
        told, self._unsaid = self._unsaid, []
        return [
            {"progress": 90, "message": f"Your database {one.database}: {one.said}."}
            for one in told
        ]


def _camel(code: str) -> str:
    return "".join(word.capitalize() for word in code.split("-"))
