"""The outage, step by step."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import secrets
import statistics
import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from jupyterhub import orm

from tools.cluster import ClusterInfo, Progress
from tools.demo.client import ClientError

from .busy import Busy
from .cluster import OutageNamespace, played_mounts
from .crowd import Arrival, Browser, at_once, responder, whose
from .losing import Database
from .people import Person, people
from .proxied import ProxiedHub
from .report import Checks, Report, Timeline

CONFIG = Path(__file__).with_name("jupyterhub_config.py")
VARIABLE = "JHUB_SAFETY_OUTAGE"
START_TIMEOUT = 300.0
NOTICE_TIMEOUT = 240.0
SNAPSHOT_TIMEOUT = 180.0
NONCE = "nonce.txt"
#: Real labs that are started at the same time; they share this machine's cores.
LABS_AT_ONCE = 5
#: Seconds between two questions to each lab that runs.
WATCH = 0.5


@dataclass(frozen=True)
class Scale:
    """interval: seconds between two looks of the guard; 60 as it is installed."""

    users: int = 1000
    labs: int = 20
    at_once: int = 20
    interval: float = 60.0


@dataclass
class Silence:
    """When labs that ran did not answer: user -> the time of their last answer, and longest gap.

    A lab that answers each time has gaps as long as the pauses between questions.
    """

    last: dict[str, float] = field(default_factory=dict)
    longest: float = 0.0

    def heard(self, user: str, at: float) -> None:
        self.longest = max(self.longest, at - self.last[user])
        self.last[user] = at


@dataclass
class _Seen:
    """What is noted on the way."""

    before: dict[str, str] = field(default_factory=dict)
    pods: dict[str, tuple[str, str]] = field(default_factory=dict)
    nonces: dict[str, str] = field(default_factory=dict)
    cookies: dict[str, dict[str, str]] = field(default_factory=dict)
    arrivals: dict[str, Arrival] = field(default_factory=dict)
    silence: Silence = field(default_factory=Silence)


class Replay:
    """One outage, in a namespace of its own that exists and is the caller's to delete."""

    def __init__(
        self,
        cluster: ClusterInfo,
        namespace: OutageNamespace,
        database: Database,
        directory: Path,
        scale: Scale,
        progress: Progress,
        *,
        kubeconfig: Path | None = None,
        hub_ip: str = "",
    ) -> None:
        """*kubeconfig*: whose rights the hub has; default: the cluster's administrator."""
        self.cluster, self.namespace, self.database = cluster, namespace, database
        self.scale, self.progress, self.directory = scale, progress, directory
        self.people = people(scale.users, scale.labs, namespace.name)
        self.real = [one for one in self.people if one.real]
        self.running = [one for one in self.people if one.runs]
        self.password = secrets.token_urlsafe(12)
        self.starts, self.snapshots = directory / "starts.jsonl", directory / "snapshots"
        self._settings = directory / "settings.json"
        self.hub = ProxiedHub(
            CONFIG,
            directory,
            environment={
                "KUBECONFIG": str(kubeconfig or cluster.kubeconfig),
                VARIABLE: str(self._settings),
            },
            hub_ip=hub_ip or cluster.host_ip or "127.0.0.1",
        )
        self.browsers = {one.name: Browser(self.hub.url, one.name) for one in self.people}
        self._responder = ""
        self._seen = _Seen()

    async def run(self) -> Report:
        """All of it. The hub and its proxy are ended in any case."""
        async with AsyncExitStack() as stack:
            self._responder = await stack.enter_async_context(responder())
            stack.callback(self.hub.close)
            for browser in self.browsers.values():
                stack.push_async_callback(browser.close)
            await self._before()
            return await self._outage()

    # -- before

    async def _before(self) -> None:
        self.snapshots.mkdir()
        self._write_settings(backup=False)
        early = [one for one in self.people if not one.late]
        late = [one for one in self.people if one.late]
        with self.progress.step("Starting a hub with an empty database"):
            self.hub.start_proxy()
            await self.hub.start(START_TIMEOUT)
        with self.progress.step(f"Making {len(early)} homes, named by four generations"):
            await self.namespace.make_claims(early, self.cluster.storage_class)
        with self.progress.step(f"{len(early)} users log in"):
            await self._log_in(early)
        with self.progress.step("Writing what earlier KubeSpawners had on record, hub restarted"):
            await self.hub.stop()
            await asyncio.to_thread(self._remember, early)
            self._write_settings(backup=True)
            await self.hub.start(START_TIMEOUT)
        with self.progress.step(f"{len(self.real)} real labs start, and each user writes a nonce"):
            await at_once(LABS_AT_ONCE, self.real, self._write_nonce)
        with self.progress.step("Waiting for a verified snapshot, and the guard's fingerprint"):
            await self._until(self._is_safe, SNAPSHOT_TIMEOUT, "verified snapshot")
        with self.progress.step(f"{len(late)} users come whom the snapshot does not know"):
            await self.namespace.make_claims(late, self.cluster.storage_class)
            await self._log_in(late)
        seen = self._seen
        seen.before = await self.namespace.uids()
        seen.pods = await self.namespace.mounts()
        seen.cookies = {one.name: self.browsers[one.name].cookies() for one in self.people}
        # Or the check after the loss would say nothing.
        for person in random.Random(0).sample(self.people, k=5):  # noqa: S311 - which ones is no secret
            found = await whose(self.hub.url, seen.cookies[person.name])
            if found != person.name:
                raise ClientError(f"the cookies of {person.name} say {found!r} before the loss")
        if set(seen.pods) != {one.name for one in self.running}:
            raise ClientError(f"labs of {sorted(seen.pods)} run, not what was wanted")

    def _write_settings(self, *, backup: bool) -> None:
        content = {
            "namespace": self.namespace.name,
            "image": self.cluster.init_image,
            "storage_class": self.cluster.storage_class,
            "password": self.password,
            "db_url": self.database.url,
            "real": [one.name for one in self.real],
            "responder": self._responder,
            "starts": str(self.starts),
            "interval": self.scale.interval,
            "snapshots": self.snapshots.as_uri(),
            "backup": backup,
        }
        self._settings.touch(mode=0o600)
        self._settings.write_text(json.dumps(content))

    async def _log_in(self, these: Collection[Person]) -> None:
        async def one(person: Person) -> None:
            await self.browsers[person.name].log_in(self.password)

        await at_once(self.scale.at_once, these, one)

    def _remember(self, these: Collection[Person]) -> None:
        """Into the stopped hub's database, what it would know from earlier years. Blocking."""
        # JupyterHub's alembic says each step on standard error.
        logging.disable(logging.INFO)
        session = orm.new_session_factory(self.database.url)()
        try:
            users = {user.name: user for user in session.query(orm.User)}
            for person in these:
                user = users[person.name]
                spawner = user.orm_spawners.get("") or orm.Spawner(name="", user=user)
                spawner.state = person.state(self.namespace.name)
                session.add(spawner)
            session.commit()
        finally:
            session.close()
            session.get_bind().dispose()
            logging.disable(logging.NOTSET)

    async def _write_nonce(self, person: Person) -> None:
        browser, nonce = self.browsers[person.name], secrets.token_hex(16)
        await browser.start_server()
        await browser.wait_ready()
        state = await self.namespace.lab_of(person.name)
        if state is None:
            raise ClientError(f"{person.name} has no lab in the cluster")
        await self.namespace.write(state.name, f"/home/jovyan/{NONCE}", nonce)
        self._seen.nonces[person.name] = nonce
        if not person.runs:
            await browser.stop_server()

    async def _is_safe(self) -> bool:
        verified = any(self.snapshots.rglob("*.verified"))
        return verified and await self.namespace.known_users() > 0

    # -- the loss and after

    async def _outage(self) -> Report:
        seen, scale = self._seen, self.scale
        mark = len(self.hub.log_text())
        lost = time.monotonic()
        seen.silence.last = {one.name: lost for one in self.running}
        watching = asyncio.create_task(self._watch_labs())
        try:
            how = await asyncio.to_thread(self.database.lose)
            self.progress.say(f"  LOST    {how}")
            with self.progress.step("Until the hub has noticed, and ended"):
                code = await self.hub.ended(NOTICE_TIMEOUT)
            restarted, busy = time.monotonic(), Busy.now()
            with self.progress.step("The hub is started again; what was lost comes back"):
                await self.hub.start(START_TIMEOUT)
            answers = time.monotonic()
            title = f"All {scale.users} users come back, {scale.at_once} at a time"
            with self.progress.step(title):
                await self._everybody_comes()
            hub_seconds = self.hub.cpu_seconds()
            others = Busy.now().others_since(busy, hub_seconds)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        for last in seen.silence.last.values():
            seen.silence.longest = max(seen.silence.longest, time.monotonic() - last)
        with self.progress.step("Comparing homes, logins and labs with those of before"):
            checks = await self._compare()
        good = {name: one.at - lost for name, one in seen.arrivals.items() if not one.problem}
        return Report(
            engine=self.database.engine,
            lost_by=how,
            exit_code=code,
            said=_said(self.hub.log_text()[mark:]),
            at_once=scale.at_once,
            kinds={
                str(kind): number for kind, number in Counter(p.kind for p in self.people).items()
            },
            timeline=Timeline(
                restarted=restarted - lost,
                answers=answers - lost,
                labs_silent=seen.silence.longest,
                first=min(good.values(), default=None),
                dots=max((at for name, at in good.items() if "." in name), default=None),
                everybody=max(good.values()) if len(good) == scale.users else None,
            ),
            checks=checks,
            cores=os.cpu_count() or 1,
            others=others,
            hub_seconds=hub_seconds,
            seconds_each=_spread([one.seconds for one in seen.arrivals.values()]),
        )

    async def _everybody_comes(self) -> None:
        crowd = list(self.people)
        # The same order in each run, and no generation first.
        random.Random(2017).shuffle(crowd)  # noqa: S311 - no secret

        async def one(person: Person) -> None:
            arrival = await self.browsers[person.name].arrive(self.password)
            self._seen.arrivals[person.name] = arrival

        await at_once(self.scale.at_once, crowd, one)

    async def _watch_labs(self) -> None:
        """Ask each lab that ran for its user's own nonce, through the proxy, again and again."""
        while True:
            for person in self.running:
                with suppress(aiohttp.ClientError, TimeoutError):
                    said = await self.browsers[person.name].read_own(NONCE)
                    if said == (200, self._seen.nonces[person.name]):
                        self._seen.silence.heard(person.name, time.monotonic())
            await asyncio.sleep(WATCH)

    async def _compare(self) -> Checks:
        seen, played = self._seen, played_mounts(self.starts)
        uids, pods = await self.namespace.uids(), await self.namespace.mounts()
        good = {name for name, one in seen.arrivals.items() if not one.problem}
        homes, other_homes, wrong = 0, [], []
        for person in self.people:
            if person.real:
                mounted = [[pods[person.name][1]]] if person.name in pods else []
            else:
                mounted = played.get(person.name, [])
            names = {tuple(claims) for claims in mounted}
            uid = uids.get(person.claim)
            if names == {(person.claim,)} and uid == seen.before.get(person.claim, ""):
                homes += 1
            elif names:
                # One that was not started is no empty home; it is counted as not arrived.
                other_homes.append(
                    f"{person.name}: {sorted(names)}, uid {uid}; before: {person.claim}, "
                    f"{seen.before.get(person.claim)}"
                )
        for person in self.real:
            status, text = await self.browsers[person.name].read_own(NONCE)
            if (status, text) != (200, seen.nonces[person.name]):
                wrong.append(f"{person.name}: {status} {text[:40]!r}")
        crossed, valid = await self._whose_logins()
        lost = [
            f"{one.name}: pod {seen.pods[one.name][0]}, now {pods.get(one.name, ('none',))[0]}"
            for one in self.running
            if pods.get(one.name) != seen.pods[one.name]
        ]
        arrived = [one for one in self.people if one.name in good]
        return Checks(
            users=len(self.people),
            labs=len(self.real),
            running=len(self.running),
            arrived_real=sum(one.real for one in arrived),
            arrived_played=sum(not one.real for one in arrived),
            homes=homes,
            nonces=len(self.real) - len(wrong),
            same_pods=len(self.running) - len(lost),
            old_cookies=valid,
            not_arrived=[
                f"{name}: {one.problem}" for name, one in seen.arrivals.items() if one.problem
            ],
            other_homes=other_homes,
            wrong_nonces=wrong,
            cross_logins=crossed,
            lost_labs=lost,
            claims_made=sorted(uids.keys() - seen.before.keys()),
            claims_gone=sorted(name for name, uid in seen.before.items() if uids.get(name) != uid),
        )

    async def _whose_logins(self) -> tuple[list[str], int]:
        """Whom the hub takes each browser for, with the new login and with the old cookies."""
        crossed: list[str] = []
        valid = 0

        async def one(person: Person) -> None:
            nonlocal valid
            now = await self.browsers[person.name].who()
            if now != person.name:
                crossed.append(f"{person.name} is logged in as {now or 'nobody'}")
            old = await whose(self.hub.url, self._seen.cookies[person.name])
            if old not in ("", person.name):
                crossed.append(f"the old cookies of {person.name} are those of {old}")
            valid += old == person.name

        await at_once(self.scale.at_once, self.people, one)
        return crossed, valid

    async def _until(self, condition: Callable[[], object], seconds: float, what: str) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not await condition():  # type: ignore[misc]
                    await asyncio.sleep(0.2)
        except TimeoutError:
            raise ClientError(f"no {what} within {seconds:.0f} s") from None


def _said(log: str) -> str:
    """The hub's own line on what was made again."""
    lines = [line for line in log.splitlines() if "It was made again" in line]
    return " ".join(lines[-1].split("The hub's database", 1)[-1].split()) if lines else "nothing"


def _spread(seconds: list[float]) -> tuple[float, float, float]:
    ordered = sorted(seconds)
    most = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return statistics.median(ordered), most, ordered[-1]
