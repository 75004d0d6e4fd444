"""What comparing 10,000 sessions with their labs costs a hub, against a bare listing and SELECT.

The labs are real objects in a real API server, on nodes that kwok plays; one in twenty is not in
step (population.py). The database is a SQLite file of JupyterHub's own schema (database.py).
Floor, in the same run and in turns with the passes: one Table LIST of the labs, read and parsed
as JSON, and one SELECT of the rows of all running servers.
"""

from __future__ import annotations

import asyncio
import gc
import json
import tempfile
import tracemalloc
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from kubernetes_asyncio import client as kube
from kubernetes_asyncio import config as kube_config
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, create_engine

from benchmarks import database
from benchmarks.measuring import spread, timed, watched
from benchmarks.population import HUB, NAMESPACE, USERS, Subject, expected, population
from jhub_safety.journal import Journal
from jhub_safety.owner import label_value
from jhub_safety.sessions import records
from jhub_safety.sessions.absence import Absences
from jhub_safety.sessions.kubernetes import KubernetesInventory
from jhub_safety.sessions.model import Live, Server, Session
from jhub_safety.sessions.reconciler import SessionReconciler
from tools.cluster import ClusterInfo, Progress
from tools.cluster.kwok import COMPONENT, TABLE, Crowd, playing

ROUNDS = 9
MIB = 1024 * 1024


@dataclass
class World:
    """What there is to compare."""

    client: kube.ApiClient
    #: Of the hub's database.
    url: str
    engine: Engine
    subjects: list[Subject]
    #: IP address by pod; a lab that is Pending has none.
    addresses: Mapping[str, str]
    #: What a pass keeps for the next one.
    kept: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def routes(self) -> dict[Server, str]:
        """What the proxy would say: target by server, some missing and some dead.

        No proxy runs: how long one takes to say so is no part of a pass here.
        """
        found = {
            Server(one.user, one.server): one.route(self.addresses.get(one.lab.name, ""))
            for one in self.subjects
        }
        return {server: target for server, target in found.items() if target is not None}


class BenchHub:
    """What a hub with these sessions says; its database is really read."""

    def __init__(self, world: World) -> None:
        self._world = world
        servers = [Server(one.user, one.server) for one in world.subjects if one.has_session]
        self._known: records.Known = {}
        self._engine = records.open_for_reading(world.url)
        self._memory = dict.fromkeys(servers, Live(ready=True))

    async def sessions(self) -> tuple[Session, ...]:
        inventory: KubernetesInventory = self._world.kept["inventory"]
        return await asyncio.to_thread(records.read, self._engine, inventory.lab_of, self._known)

    async def known_users(self, names: Collection[str]) -> frozenset[str]:
        with self._world.engine.connect() as connection:
            return records.known_users(connection, names)

    async def routes(self) -> Mapping[Server, str]:
        return self._world.routes

    async def live(self) -> Mapping[Server, Live]:
        return self._memory


async def one_pass(world: World) -> Mapping[str, int]:
    """One pass of the session reconciler, observe and decide, nothing done about it.

    Its object is made by the first pass (in ``world.kept``) and used by those that follow. Gives
    how often each verdict was found.
    """
    if "reconciler" not in world.kept:
        inventory = KubernetesInventory(kube.CoreV1Api(world.client), HUB, NAMESPACE)
        world.kept["inventory"] = inventory
        world.kept["reconciler"] = SessionReconciler().attach(
            BenchHub(world),  # type: ignore[arg-type] # what only acting asks for is left out
            inventory,
            label=label_value(HUB),
            absences=Absences(),
            journal=Journal(None),
            paused=_never,
        )
    reconciler: SessionReconciler = world.kept["reconciler"]
    judgement = await reconciler.judge(await reconciler.survey())
    return {str(verdict): number for verdict, number in judgement.counts.items()}


async def _never() -> str:
    return "measured, not done"


async def run(cluster: ClusterInfo, progress: Progress, *, keep: bool = False) -> None:
    """Make labs and database, measure, print, remove them; with *keep* the labs stay."""
    subjects = population()
    configuration = kube.Configuration()
    await kube_config.load_kube_config(str(cluster.kubeconfig), client_configuration=configuration)
    async with (
        playing(cluster, progress, namespace=NAMESPACE, keep=keep) as crowd,
        kube.ApiClient(configuration) as client,
    ):
        count = sum(len(subject.labs) for subject in subjects)
        with progress.step(f"Making {count} fake labs", about="1 to 2 min"):
            await _make(crowd, subjects)
        with tempfile.TemporaryDirectory() as folder:
            addresses = _addresses(await _listing(client))
            with progress.step("Writing the hub's database", about="5 s"):
                url = database.make(Path(folder) / "jupyterhub.sqlite", subjects, addresses)
            engine = create_engine(url)
            # What the benchmark itself holds is none of the collector's business meanwhile.
            gc.collect()
            gc.freeze()
            try:
                await _measure(World(client, url, engine, subjects, addresses))
            finally:
                gc.unfreeze()
                engine.dispose()


async def _make(crowd: Crowd, subjects: list[Subject]) -> None:
    labs = {lab.name: lab for subject in subjects for lab in subject.labs}
    there = await crowd.names()
    await crowd.delete(there - labs.keys())
    await crowd.make(lab for name, lab in labs.items() if name not in there)
    statuses = {subject.lab.name: subject.status for subject in subjects}
    await crowd.set_status({name: status for name, status in statuses.items() if status})
    await crowd.delete(name for name, lab in labs.items() if lab.stays)


async def _listing(client: kube.ApiClient) -> dict[str, Any]:
    """The labs as a Table, without their objects: the smallest whole answer there is."""
    response = await client.call_api(
        f"/api/v1/namespaces/{NAMESPACE}/pods",
        "GET",
        query_params=[("labelSelector", COMPONENT), ("includeObject", "None")],
        header_params={"Accept": TABLE},
        auth_settings=["BearerToken"],
        _preload_content=False,
        _return_http_data_only=True,
        _request_timeout=60,
    )
    raw = await response.read()
    response.release()
    if response.status != 200:
        raise RuntimeError(f"listing the labs: {response.status} {raw[:300].decode()}")
    return dict(json.loads(raw))


def _addresses(listing: Mapping[str, Any]) -> dict[str, str]:
    names = [column["name"] for column in listing["columnDefinitions"]]
    name, ip = names.index("Name"), names.index("IP")
    cells = [row["cells"] for row in listing["rows"]]
    return {one[name]: one[ip] for one in cells if one[ip] != "<none>"}


async def _measure(world: World) -> None:
    async def floor() -> None:
        await _listing(world.client)
        database.active(world.engine)

    async def whole() -> None:
        await one_pass(world)

    # The first of each opens connections.
    first_floor = await timed(floor)
    found: Mapping[str, int] | None = None

    async def first() -> None:
        nonlocal found
        found = await one_pass(world)

    async with watched() as first_stall:
        first_pass = await timed(first)
    measured = found is not None
    floors, passes = _Series(floor), _Series(whole)
    for number in range(ROUNDS):
        pair = [floors, passes] if measured else [floors]
        # In turns who is first: what one leaves behind (garbage, warm caches) finds the other.
        for series in pair if number % 2 else reversed(pair):
            await series.round()
    for series in (floors, passes) if measured else (floors,):
        await series.weigh()

    counts = expected(world.subjects)
    title = f"{sum(s.has_session for s in world.subjects)} sessions, {USERS} users"
    table = Table(title=f"{title}, median of {ROUNDS} (min to max)", box=None)
    table.add_column("")
    table.add_column("", justify="right")
    floors.rows(table, "bare listing and SELECT", first_floor)
    if measured:
        passes.rows(table, "pass: observe and decide", first_pass)
        table.add_row("  longest loop stall of the first", f"{1000 * first_stall.longest:.0f} ms")
        pairs = zip(passes.seconds, floors.seconds, strict=True)
        table.add_row("ratio, paired", spread([mine / bare for mine, bare in pairs], "x"))
        wrong = {
            verdict: f"{(found or {}).get(verdict, 0)} {verdict}, not {counts[verdict]}"
            for verdict in sorted({*counts, *(found or {})})
            if (found or {}).get(verdict, 0) != counts[verdict]
        }
        told = "; ".join(wrong.values()) or f"all {sum(counts.values())} as expected"
        table.add_row("verdicts", told)
    else:
        table.add_row("pass: observe and decide", "not measured: one_pass() is empty")
    Console().print(table)


class _Series:
    """The same call, again and again."""

    def __init__(self, call: Callable[[], Awaitable[None]]) -> None:
        self._call = call
        self.seconds: list[float] = []
        self._stalls: list[float] = []
        self._peak = 0

    async def round(self) -> None:
        async with watched() as stall:
            self.seconds.append(await timed(self._call))
        self._stalls.append(stall.longest)

    async def weigh(self) -> None:
        """Peak memory in a run of its own: counting it takes time."""
        gc.collect()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            await self._call()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        self._peak = peak - before

    def rows(self, table: Table, title: str, first: float) -> None:
        table.add_row(title, spread(self.seconds))
        table.add_row("  the first", f"{first:.2f} s")
        table.add_row("  longest loop stall", spread([1000 * one for one in self._stalls], "ms"))
        table.add_row("  peak memory, Python's", f"{self._peak / MIB:.0f} MiB")
