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


class _WithoutThem(Exception):
    """The lab waits for servers that will never come: it is to start without them."""

    def __init__(self, names: frozenset[str]) -> None:
        self.names = names


#: The first Kubernetes whose init containers may go on running without a feature gate.
_NATIVE_SINCE = (1, 29)
#: Between two looks at what pages have still to show.
_LOOK_SECONDS = 0.1
#: How long a lab that is up may wait for a page that has still to show what is wrong.
_SHOW_SECONDS = 3


class DatabasesMixin(ExtrasMixin):
    """Servers beside the lab."""

    #: By API server: whether it has native sidecars. By namespace: whether it takes root.
    _native: ClassVar[dict[str, bool]] = {}
    _takes_root: ClassVar[dict[str, bool]] = {}
    #: Questions about these that are under way.
    _asking: ClassVar[dict[tuple[str, str], asyncio.Future[bool]]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._notices: dict[tuple[str, str], Notice] = {}
        #: How many of the notices each page shows that watches this start.
        self._shown: dict[object, int] = {}
        #: Names of servers that this start does without, since they kept the lab from starting.
        self._left_out: frozenset[str] = frozenset()
        #: When a start began, on the event loop's clock; None: none is under way.
        self._began: float | None = None
        super().__init__(*args, **kwargs)

    def _servers(self) -> tuple[DatabaseServer, ...]:
        return parse_servers(self.databases)

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
        return await asyncio.shield(asked)

    # -- the beginning

    def start(self) -> asyncio.Future[Any]:
        self._notices.clear()
        self._left_out = frozenset()
        # The first one begins here and now: the progress page may ask before the loop's next turn.
        return asyncio.ensure_future(self._start_with_what_runs(super().start(), super().start))

    async def _start_with_what_runs(
        self, starting: asyncio.Future[Any], again: Callable[[], asyncio.Future[Any]]
    ) -> Any:
        """A native sidecar whose image cannot be had holds back the lab for ever."""
        loop = asyncio.get_running_loop()
        while True:
            self._began = loop.time()
            try:
                started = await starting
                await self._until_shown()
                return started
            except _WithoutThem as without:
                self._left_out |= without.names
                names = ", ".join(sorted(without.names))
                self.log.warning("Starting %s again, without %s", self._log_name, names)
                lab = await self._labs_api().read(self.pod_name)
                if lab is not None and self._is_mine(lab):
                    await self._labs_api().delete(lab, grace=None)
                    await self._wait_until_gone(lab)
                if self.given_up.is_set():
                    # Meanwhile; another try would not know of it.
                    raise self._ended_by_an_administrator() from without
                starting = again()
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
        usual: int = self.delete_grace_period
        # One that is left alone is not deleted.
        if not self.leave_lab and (need := await self._seconds_to_end()):
            # A database needs its time, and its data must not be opened again before it is over.
            now = False
            self.delete_grace_period: int = max(usual, need)
        try:
            await super().stop(now=now)
        finally:
            self.delete_grace_period = usual

    async def _seconds_to_end(self) -> int:
        """What the lab needs for its databases; 0: it has none.

        By the lab itself, too: this hub may have been restarted since with other databases, or a
        profile or hook had asked for them, which counts at starts only.
        """
        need = sum(one.stop_seconds for one in self._servers())
        need += pod.LAB_SECONDS if need else 0
        if self.sessions != "enforce":
            return need  # Labs are left to KubeSpawner.
        try:
            lab = await self._labs_api().read(self.pod_name)
        except Doubt:
            return need or pod.LAB_SECONDS + DatabaseServer.stop_seconds
        if lab is None or pod.ANNOTATION not in lab.annotations:
            return need
        return max(need, lab.grace)

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

    async def poll(self) -> int | None:
        """KubeSpawner's; and what a server says that goes on being tried beside a running lab."""
        ended: int | None = await super().poll()
        servers = {one.container: one for one in self._servers()}
        if ended is None and servers and self._began is None and self.pod_reflector:
            found = self.pod_reflector.pods.get(f"{self.namespace}/{self.pod_name}")
            if found:
                self._take_note(notices(found["status"], servers))
        return ended

    def _take_note(self, found: list[Notice]) -> None:
        for notice in found:
            key = (notice.database, notice.code)
            if key in self._notices:
                continue
            self._notices[key] = notice
            metrics.DATABASE_NOTICES.labels(notice.database, notice.code).inc()
            claim = self._claim_of(notice.database)
            story = f"Database {notice.database} of {self._log_name} (claim {claim}): {notice.said}"
            self.log.warning("%s. To do: %s.", story, notice.remedy)
            task = asyncio.ensure_future(self._tell_the_claim(notice, claim, story))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    _telling: ClassVar[set[asyncio.Future[None]]] = set()

    def _claim_of(self, database: str) -> str:
        server = next(one for one in self._servers() if one.name == database)
        return next(
            (one.claim for one in self._extras if one.volume.name == server.claim_template), ""
        )

    async def _tell_the_claim(self, notice: Notice, claim: str, story: str) -> None:
        if not claim:
            return  # After a restart of the hub: it is known at the next start.
        try:
            await events.warn_about_claim(
                self.api, self.namespace, claim, "", f"Database{_camel(notice.code)}", story
            )
        except (Conflict, Doubt) as doubt:
            self._say_once("events", "Refusals are in this log only, not in events: %s", doubt)

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """KubeSpawner's, and each notice as soon as it is known, until the start is over.

        KubeSpawner says something once a second at most, and its events end earlier: at once where
        ``events_enabled`` is off, and with the first try of a start that goes on without a server.
        What was known last was never seen by anybody.
        """
        page = object()
        events = super().progress()
        coming: asyncio.Future[dict[str, Any]] | None = None
        ended = False
        self._shown[page] = 0
        try:
            # JupyterHub closes this when the start is over.
            while not ended or self.pending == "spawn":
                if coming is None and not ended:
                    coming = asyncio.ensure_future(anext(events))
                if coming is None:
                    await asyncio.sleep(_LOOK_SECONDS)
                else:
                    await asyncio.wait({coming}, timeout=_LOOK_SECONDS)
                for notice in list(self._notices.values())[self._shown[page] :]:
                    yield {
                        "progress": 90,
                        "message": f"Your database {notice.database}: {notice.said}.",
                    }
                    self._shown[page] += 1
                if coming is not None and coming.done():
                    done, coming = coming, None
                    try:
                        event = done.result()
                    except StopAsyncIteration:
                        ended = True
                    else:
                        yield event
        finally:
            del self._shown[page]
            if coming is not None:
                coming.cancel()

    async def _until_shown(self) -> None:
        """Whoever watches gets to see what is wrong before their lab opens.

        A lab that is up in two seconds is up before a browser has asked for its page's events.
        """
        for _ in range(int(_SHOW_SECONDS / _LOOK_SECONDS)):
            shown = self._shown.values()
            if not self._notices or (shown and min(shown) >= len(self._notices)):
                return
            await asyncio.sleep(_LOOK_SECONDS)


def _camel(code: str) -> str:
    return "".join(word.capitalize() for word in code.split("-"))
