"""`make drill`: what becomes of homes and labs when the hub database is lost, measured.

Real hub, real claims, real labs. Three users:

- erin has a claim with the name that KubeSpawner 6 gave it, and a hub that remembers her from then,
- alice has one with today's name,
- grace's lab runs on throughout, with a file that is nowhere but in its memory.

The hub is killed, its database replaced by a file of zero bytes, the hub started again. Everybody
logs in anew, and what their labs then give back is compared with what had been written.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jupyterhub import orm
from rich.console import Console

from tools.cluster import ClusterInfo, Progress, ensure_up
from tools.cluster import load as load_cluster

from . import interrupts, report
from .client import ClientError, HubClient, LabCodeError
from .hub import LOG, HubProcess, end_recorded
from .kube import USERNAME, Namespace
from .report import Home, Report, RunningLab
from .run import stop_cluster
from .settings import CLUSTER, Settings, make_hub, namespace_for, state_dir

NAMESPACE = "drill"
FILE = "thesis.bin"
FILE_BYTES = 1_000_000
MEMORY_FILE = "/memory/unsaved.txt"

ERIN, ALICE, GRACE = "erin@school.edu", "alice", "grace"
# What KubeSpawner 6.2.0 made of that name, with escapism: seen by running it.
ERINS_ESCAPED_NAME = "erin-40school-2eedu"
HOMES = {ERIN: "named by KubeSpawner 6", ALICE: "named as today"}


def run(*, vanilla: bool, report: Path | None) -> int:
    """The whole drill, on the demo's cluster. Gives the exit code."""
    interrupts.treat_all_as_ctrl_c()
    progress = Progress()
    was_up = load_cluster(CLUSTER) is not None
    try:
        cluster = ensure_up(CLUSTER, os.environ.get("CLUSTER") or "auto", progress)
        measured = asyncio.run(_Drill(cluster, vanilla, progress).run())
    except KeyboardInterrupt:
        progress.say("Interrupted; the drill's hub was stopped.")
        return 130
    finally:
        interrupts.ignore()
        if not was_up and load_cluster(CLUSTER) is not None:
            stop_cluster()
    if report is not None:
        report.write_text(json.dumps(measured.as_json(), indent=2) + "\n")
    _show(measured)
    progress.say(f"The hub's log: {state_dir('drill') / 'hub' / LOG}")
    return 0 if measured.passed else 1


def _show(measured: Report) -> None:
    console = Console()
    if not console.is_terminal:
        # A file has no width; this one holds the claims' names without a break.
        console = Console(width=120)
    console.print()
    report.show(measured, console)


@dataclass(frozen=True)
class _Before:
    """What was true just before the loss."""

    homes: tuple[Home, ...]
    lab_uid: str
    claims: dict[str, str]


class _Drill:
    def __init__(self, cluster: ClusterInfo, vanilla: bool, progress: Progress) -> None:
        self.vanilla = vanilla
        self.progress = progress
        self.cluster = cluster
        state = state_dir("drill")
        # One that was killed may have left its hub.
        end_recorded(state / "hub")
        shutil.rmtree(state / "hub", ignore_errors=True)
        self.settings = Settings(
            namespace=namespace_for(cluster, NAMESPACE),
            lab_image=cluster.lab_image,
            init_image=cluster.init_image,
            storage_class=cluster.storage_class,
            password=secrets.token_urlsafe(12),
            safe=not vanilla,
            databases=None if vanilla else (),
        )
        self.hub: HubProcess = make_hub(cluster, self.settings, state)
        self.namespace = Namespace(cluster.kubeconfig, self.settings.namespace)
        self.secret = secrets.token_hex(16)

    async def run(self) -> Report:
        async with self.namespace:
            try:
                await self._prepare()
                before = await self._fill()
                down_seconds = await self._lose_the_database()
                return await self._compare(before, down_seconds)
            finally:
                self.hub.close()
                await self._clean()

    async def _clean(self) -> None:
        # In a namespace that others use as well only the drill's own users are touched.
        own = {ERIN, ALICE, GRACE} if self.cluster.namespace else None
        await self.namespace.delete_labs_and_claims(own)

    async def _prepare(self) -> None:
        with self.progress.step(f"Cleaning the namespace {self.settings.namespace}"):
            await self.namespace.ensure()
            await self._clean()
        await self.namespace.create_claim(
            f"claim-{ERINS_ESCAPED_NAME}",
            self.settings.storage_class,
            # As KubeSpawner 6.2.0 writes them; its annotation has the name unescaped.
            labels={
                "app": "jupyterhub",
                "component": "singleuser-storage",
                "heritage": "jupyterhub",
                "hub.jupyter.org/username": ERINS_ESCAPED_NAME,
            },
            annotations={USERNAME: ERIN},
        )
        self._remember_erin()
        spawner = "plain KubeSpawner" if self.vanilla else "jhub-safety"
        with self.progress.step(f"Starting a hub with {spawner}", about="6 s"):
            await self.hub.start()

    def _remember_erin(self) -> None:
        """A hub database that KubeSpawner 6 has worked with: its state names no claim."""
        pod = f"jupyter-{ERINS_ESCAPED_NAME}"
        namespace = self.settings.namespace
        state = {
            "pod_name": pod,
            "namespace": namespace,
            "dns_name": f"{pod}.{namespace}.svc.cluster.local",
        }
        # Making the tables, JupyterHub's alembic says so on standard error, with its own logging.
        logging.disable(logging.INFO)
        session = orm.new_session_factory(f"sqlite:///{self.hub.database}")()
        try:
            user = orm.User(name=ERIN)
            session.add(user)
            session.add(orm.Spawner(name="", user=user, state=state))
            session.commit()
        finally:
            session.close()
            session.get_bind().dispose()
            logging.disable(logging.NOTSET)

    async def _fill(self) -> _Before:
        with self.progress.step("Starting three labs and writing a file in each", about="20 s"):
            homes = [await self._write_home(user, kind) for user, kind in HOMES.items()]
            await self._write_memory()
        lab = await self.namespace.lab_of(GRACE)
        if lab is None:
            raise ClientError(f"the lab of {GRACE} is not in the cluster")
        return _Before(tuple(homes), lab.uid, await self._claims())

    async def _write_home(self, user: str, kind: str) -> Home:
        content = secrets.token_bytes(FILE_BYTES)
        async with await self._login(user) as client:
            await client.start_server()
            await client.wait_ready()
            await client.write_file(FILE, content)
            claim, uid = await self._claim_in_use(user)
            await client.stop_server()
        return Home(user, kind, claim, uid, hashlib.sha256(content).hexdigest())

    async def _write_memory(self) -> None:
        async with await self._login(GRACE) as client:
            await client.start_server()
            await client.wait_ready()
            code = f"open({MEMORY_FILE!r}, 'w').write({self.secret!r})"
            await client.lab_exec(code)

    async def _lose_the_database(self) -> float:
        """Kill the hub, empty its database, start it. Gives the seconds without a hub."""
        begin = time.monotonic()
        with self.progress.step("Killing the hub, emptying its database, starting it again"):
            await self.hub.kill()
            # What SQLite keeps beside the file would bring a part of the content back.
            for suffix in ("-journal", "-wal", "-shm"):
                self.hub.database.with_name(f"{self.hub.database.name}{suffix}").unlink(
                    missing_ok=True
                )
            self.hub.database.write_bytes(b"")
            await self.hub.start()
        return time.monotonic() - begin

    async def _compare(self, before: _Before, down_seconds: float) -> Report:
        with self.progress.step("Logging in anew and reading the files back", about="25 s"):
            homes = [await self._read_home(home) for home in before.homes]
            lab = await self._read_memory(before.lab_uid)
        return Report(
            vanilla=self.vanilla,
            hub_down_seconds=round(down_seconds, 1),
            homes=tuple(homes),
            lab=lab,
            claims_before=before.claims,
            claims_after=await self._claims(),
        )

    async def _read_home(self, home: Home) -> Home:
        begin = time.monotonic()
        try:
            async with await self._login(home.user) as client:
                await client.start_server()
                await client.wait_ready()
                digest = await client.file_sha256(FILE)
            seconds = round(time.monotonic() - begin, 1) if digest else None
            claim, uid = await self._claim_in_use(home.user)
        except ClientError as error:
            return replace(home, problem=_one_line(error))
        problem = "" if digest else f"the lab has no {FILE}: an empty home"
        return replace(
            home,
            claim_after=claim,
            uid_after=uid,
            sha256_after=digest,
            seconds=seconds,
            problem=problem,
        )

    async def _read_memory(self, uid_before: str) -> RunningLab:
        memory = "gone"
        try:
            async with await self._login(GRACE) as client:
                model = await client.server()
                # A hub that lost its database shows her a button to start, and she presses it.
                if model is None or not (model["ready"] or model["pending"]):
                    await client.start_server()
                await client.wait_ready()
                path = f"pathlib.Path({MEMORY_FILE!r})"
                code = f"import pathlib; print({path}.exists() and {path}.read_text())"
                memory = "same" if (await client.lab_exec(code)).strip() == self.secret else "gone"
        except (ClientError, LabCodeError, TimeoutError) as error:
            memory = f"not readable through the hub ({_one_line(error)})"
        lab = await self.namespace.lab_of(GRACE)
        return RunningLab(GRACE, uid_before, lab.uid if lab else None, memory)

    async def _login(self, user: str) -> HubClient:
        return await HubClient.login(self.hub.url, user, self.settings.password)

    async def _claims(self) -> dict[str, str]:
        return {claim.name: claim.uid for claim in await self.namespace.claims()}

    async def _claim_in_use(self, user: str) -> tuple[str, str]:
        """Name and uid of the claim that the user's lab has mounted now."""
        lab = await self.namespace.lab_of(user)
        claim = await self.namespace.claim_mounted_by(lab) if lab else None
        if claim is None:
            raise ClientError(f"no lab of {user} with a home is in the cluster")
        return claim, (await self._claims()).get(claim, "")


def _one_line(error: BaseException) -> str:
    words: Sequence[str] = str(error).split()
    return " ".join(words)[:300] or type(error).__name__
