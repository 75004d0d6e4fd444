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
from typing import Any, ClassVar

from kubernetes_asyncio import client as kube

from jhub_safety import metrics
from jhub_safety.admission import AdmissionMixin
from jhub_safety.cluster import events
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.refused import SpawnRefused
from jhub_safety.sidecars import ownership, pod
from jhub_safety.sidecars.notice import Notice, Where, notices, of_claim, of_folders, unborn
from jhub_safety.sidecars.server import DatabaseServer, parse_servers
from jhub_safety.volumes.declared import ExtraVolume, parse_all
from jhub_safety.volumes.names import Generation


class _WithoutThem(Exception):
    """The lab waits for servers that will never come: it is to start without them."""

    def __init__(self, names: frozenset[str]) -> None:
        self.names = names


#: Between two looks at what pages have still to show.
_LOOK_SECONDS = 0.1
#: How long a lab that is up may wait for a page that has still to show what is wrong.
_SHOW_SECONDS = 3


class DatabasesMixin(AdmissionMixin):
    """Servers beside the lab."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._notices: dict[tuple[str, str], Notice] = {}
        #: How many of the notices each page shows that watches this start.
        self._shown: dict[object, int] = {}
        #: Names of servers, and ownership.PART, that this start does without, since they kept the
        #: lab from starting.
        self._left_out: frozenset[str] = frozenset()
        #: When a start began, on the event loop's clock; None: none is under way.
        self._began: float | None = None
        super().__init__(*args, **kwargs)

    def _servers(self) -> tuple[DatabaseServer, ...]:
        return parse_servers(self.databases)

    # -- its claim

    def _does_without(self, volume: ExtraVolume, refused: SpawnRefused) -> bool:
        """A claim that is only a database's keeps no lab from starting, as no other trouble of it.

        What may pass by itself does: the start is refused, and the next try finds it all.
        """
        servers = [one for one in self._servers() if one.claim_template == volume.name]
        declared = {one.name for one in parse_all(self.extra_pvcs)}
        if not servers or volume.name in declared or refused.retryable:
            return False
        if any(one.required for one in servers):
            return False
        why = refused.story.removeprefix(f"Server of {self._log_name} not started: ")
        self._take_note([of_claim(server, why) for server in servers])
        self._left_out |= {one.name for one in servers}
        return True

    # -- the pod

    async def get_pod_manifest(self) -> kube.V1Pod:
        """KubeSpawner's, with the servers; nothing of the hub's own is replaced."""
        made = await super().get_pod_manifest()
        servers = self._servers()
        self._keep_to_itself(pod.objection(made, servers))
        whom = pod.who(made, self.pvc_name, self.home_mount_path)
        claims = {one.volume.name: one.claim for one in self._extras}
        native = await self._has_native(servers)
        beside = [
            pod.Beside(
                one,
                claims[one.claim_template],
                native if one.startup == "auto" else one.startup == "native",
                _is_alone(one),
            )
            for one in servers
            if one.name not in self._left_out
        ]
        if beside:
            pod.add_servers(made, beside, whom)
        wanted = self.ownership == "always" or (self.ownership == "auto" and beside)
        if wanted and ownership.PART not in self._left_out:
            folders = pod.folders(made, beside, whom, self.ownership_paths)
            root = await self._admits_root(folders)
            pod.add_ownership(
                made, folders, self.ownership_image, self.image_pull_policy, root=root
            )
        return made

    async def _make_create_pod_request(self, made: kube.V1Pod, request_timeout: float) -> bool:
        # Again: modify_pod_hook is called with what get_pod_manifest has made. With host_network
        # set there, everybody on the node could use the user's database.
        self._keep_to_itself(pod.exposure(made, self._servers()))
        return await super()._make_create_pod_request(made, request_timeout)

    def _keep_to_itself(self, why: str) -> None:
        if why:
            raise self._lab_refused(
                "database-exposed", why, "its database would be open to other people"
            )

    # -- the beginning

    def start(self) -> asyncio.Future[Any]:
        self._notices.clear()
        self._left_out = frozenset()
        usual: int = self.start_timeout
        # JupyterHub reads this when the call returns (user.py:982, 6.1.1). With its default of
        # 60 s a start was cancelled at the very moment at which it would have gone on without.
        self.start_timeout: int = usual + sum(one.startup_deadline for one in self._servers())
        # The first one begins here and now: the progress page may ask before the loop's next turn.
        starting = asyncio.ensure_future(self._start_with_what_runs(super().start(), super().start))
        starting.add_done_callback(lambda _: setattr(self, "start_timeout", usual))
        return starting

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
            SpawnRefused: a server that is required is down, or its folder cannot be given to it.
            _WithoutThem: the lab can start without them.
        """
        if self._began is None:
            return
        waited = asyncio.get_running_loop().time() - self._began
        absent = unborn(status)
        stuck = set()
        if waited >= ownership.PATIENCE and ownership.holds_back(status, absent):
            told = of_folders(self._where())
            self._take_note([told])
            for server in servers.values():
                if server.required:
                    raise self._without_a_required(server, told)
            stuck.add(ownership.PART)
        for server in servers.values():
            down = [
                one for one in self._notices.values() if one.database == server.name and one.down
            ]
            patient = server.container in absent and waited < server.startup_deadline
            if not down or patient:
                continue
            if server.required:
                raise self._without_a_required(server, down[-1])
            if server.container in absent:
                stuck.add(server.name)
        if stuck:
            raise _WithoutThem(frozenset(stuck))

    def _without_a_required(self, server: DatabaseServer, told: Notice) -> SpawnRefused:
        story = (
            f"Server of {self._log_name} not started: database {server.name}, which is "
            f"required: {told.said}. To do: {told.remedy}"
        )
        self.log.error("%s", story)
        return SpawnRefused(
            f"database-{told.code}",
            story,
            f"Your server was not started: your {told.about}: {told.said}. Nothing was lost.",
            retryable=False,
        )

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
        if found:
            status = found["status"]
            self._take_note(notices(status, servers, self._where()))
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
                self._take_note(notices(found["status"], servers, self._where()))
        return ended

    def _take_note(self, found: list[Notice]) -> None:
        for notice in found:
            key = (notice.database, notice.code)
            if key in self._notices:
                continue
            self._notices[key] = notice
            metrics.DATABASE_NOTICES.labels(notice.database, notice.code).inc()
            claim = self._claim_of(notice.database)
            story = (
                f"{notice.about.capitalize()} of {self._log_name} (claim {claim}): {notice.said}. "
                f"To do: {notice.remedy}"
            )
            self.log.warning("%s.", story)
            task = asyncio.ensure_future(self._tell_the_claim(notice, claim, story))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    _telling: ClassVar[set[asyncio.Future[None]]] = set()

    def _claim_of(self, database: str) -> str:
        """By what is saved: a hub that was restarted has settled nothing for a lab that runs."""
        if not database:
            return self._home_claim.name if self._home_claim else ""
        server = next(one for one in self._servers() if one.name == database)
        return self._extra_claims.get(server.claim_template, "")

    def _where(self) -> Where:
        claims = {one.name: self._claim_of(one.name) for one in self._servers()}
        return Where(self.namespace, self.pod_name, claims)

    async def _tell_the_claim(self, notice: Notice, claim: str, story: str) -> None:
        if not claim:
            return  # The hub's record has been lost; the log says it.
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
        if not self._servers() and self.ownership != "always":
            # Nothing can be wrong with what there is none of: 1,000 pages that looked ten times a
            # second took 9 % of a core.
            async for event in super().progress():
                yield event
            return
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
                        "message": f"Your {notice.about}: {notice.said}.",
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


def _is_alone(server: DatabaseServer) -> bool:
    """No other pod can have its claim, as far as the entry says."""
    template = server.claim_template
    own = Generation(template, template, "safe").per_server
    return own and set(server.access_modes) <= {"ReadWriteOnce", "ReadWriteOncePod"}


def _camel(code: str) -> str:
    return "".join(word.capitalize() for word in code.split("-"))
