"""What many wait for at once: reflectors that load, and what is done upon what they hold.

KubeSpawner's own code runs here, and its reflectors; only the API server is a double.
"""

from __future__ import annotations

import asyncio
import gc
import json
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from jupyterhub import orm
from kubespawner import KubeSpawner
from kubespawner.reflector import ResourceReflector
from traitlets.config import Config

from jhub_safety import labs
from jhub_safety.cluster.labs import Lab
from jhub_safety.databases import DatabasesMixin
from jhub_safety.errors import Doubt
from jhub_safety.labs import LabsMixin
from jhub_safety.reflection import FROZEN, is_loaded
from jhub_safety.sessions.absence import Absences
from jhub_safety.spawner import SafeKubeSpawner
from tests.unit.test_presence import pod

OLD, NEW = "10.0.0.1", "10.0.0.2"
REFUSED = aiohttp.ClientConnectionError("refused")


class Cluster:
    """The API server, as far as a reflector lists from it and watches."""

    def __init__(self) -> None:
        #: Listings are answered while it is set.
        self.answers = asyncio.Event()
        self.fault: Exception | None = None
        self.pods: list[dict[str, Any]] = []
        self.listings = 0
        self.watchers: list[asyncio.Task[None]] = []

    async def _list(self, **_: Any) -> SimpleNamespace:
        self.listings += 1
        await self.answers.wait()
        if self.fault is not None:
            raise self.fault
        body = json.dumps({"metadata": {"resourceVersion": "7"}, "items": self.pods})

        async def read() -> str:
            return body

        return SimpleNamespace(ok=True, read=read)

    list_namespaced_pod = list_namespaced_event = list_pod_for_all_namespaces = _list

    async def watch(self, reflector: ResourceReflector) -> None:
        """Until it is stopped, which KubeSpawner's own does not pass on either."""
        self.watchers.append(asyncio.current_task())
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not reflector._stopping:
                raise

    @property
    def watching(self) -> int:
        return sum(not task.done() for task in self.watchers)


@pytest.fixture
def cluster(monkeypatch):
    made = Cluster()

    async def watch(reflector: ResourceReflector) -> None:
        await made.watch(reflector)

    monkeypatch.setattr("kubespawner.spawner.load_config", lambda **_: None)
    monkeypatch.setattr("kubespawner.spawner.shared_client", lambda _: None)
    monkeypatch.setattr("kubespawner.reflector.shared_client", lambda _: made)
    monkeypatch.setattr(ResourceReflector, "_watch_and_update", watch)
    monkeypatch.setattr(KubeSpawner, "reflectors", {})
    monkeypatch.setattr(LabsMixin, "absences", Absences())

    async def no_database(_: object) -> int:
        return 0

    monkeypatch.setattr(DatabasesMixin, "_seconds_to_end", no_database)
    return made


@pytest.fixture
def spawner(cluster):
    """As a hub makes one; its lab is the pod that the tests of test_presence.py have."""

    def make(**settings):
        server = orm.Server(proto="http", ip=OLD, port=8888, base_url="/", cookie_name="x")
        row = orm.Spawner(name="", state={}, server=server)
        config = Config(SafeKubeSpawner={"namespace": "hub"} | settings)
        one = SafeKubeSpawner(_mock=True, orm_spawner=row, config=config)
        one.pod_name = "jupyter-alice"
        one.db = SimpleNamespace(commit=lambda: None)
        one._nothing_started = False
        return one

    return make


async def turns(number: int = 10) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def waiting(*waits: Any) -> list[asyncio.Task[Any]]:
    return [asyncio.ensure_future(one) for one in waits]


async def ends(tasks: list[asyncio.Task[Any]]) -> list[Any]:
    """Results and errors, CancelledError among them."""
    async with asyncio.timeout(5):
        return await asyncio.gather(*tasks, return_exceptions=True)


async def held(one: SafeKubeSpawner, cluster: Cluster) -> Any:
    """A reflector that has loaded."""
    cluster.answers.set()
    return await one._start_watching_pods()


# -- many wait for one load


@pytest.mark.parametrize("kind", ["pods", "events"])
@pytest.mark.parametrize("who", [0, 1, 2])
async def test_a_wait_that_is_cancelled_ends_nobody_elses(cluster, spawner, kind, who):
    """Seen: all the others' starts ended in CancelledError, which user.spawn does not catch."""
    users = [spawner() for _ in range(3)]
    tasks = waiting(*(getattr(one, f"_start_watching_{kind}")() for one in users))
    await turns()
    tasks.pop(who).cancel()
    await turns()
    cluster.answers.set()
    first, second = await ends(tasks)
    assert is_loaded(first)
    assert first is second
    assert list(KubeSpawner.reflectors.values()) == [first]
    assert (cluster.listings, cluster.watching) == (1, 1)


async def test_a_spawn_page_that_is_closed_ends_no_start(cluster, spawner):
    page = spawner().progress()
    start, coming = waiting(spawner()._start_watching_events(), anext(page))
    await asyncio.sleep(0.05)
    coming.cancel()
    await turns()
    cluster.answers.set()
    assert [is_loaded(one) for one in await ends([start])] == [True]
    await page.aclose()


async def test_all_who_wait_for_a_load_that_fails_are_told_and_the_next_one_loads(cluster, spawner):
    tasks = waiting(*(spawner()._start_watching_pods() for _ in range(3)))
    await turns()
    cluster.fault = REFUSED
    cluster.answers.set()
    assert await ends(tasks) == [REFUSED] * 3
    assert KubeSpawner.reflectors == {}
    cluster.fault = None
    assert is_loaded(await spawner()._start_watching_pods())


@pytest.mark.parametrize("wait", ["_start_watching_pods", "_fresh_pods"])
async def test_nothing_is_logged_of_an_error_that_nobody_waits_for(cluster, spawner, caplog, wait):
    tasks = waiting(getattr(spawner(), wait)())
    await turns()
    tasks[0].cancel()
    await ends(tasks)
    cluster.fault = REFUSED
    cluster.answers.set()
    await turns()
    tasks.clear()
    gc.collect()
    assert [entry for entry in caplog.records if entry.name == "asyncio"] == []
    assert KubeSpawner.reflectors == {}


async def test_a_load_that_is_cancelled_is_doubt_to_all_who_wait(cluster, spawner):
    """Not their own end."""
    one = spawner(claim_request_timeout=5)
    tasks = waiting(one._start_watching_pods(), one._fresh_pods())
    await turns()
    [load] = LabsMixin._loading.values()
    load.cancel()
    error, pods = await ends(tasks)
    assert isinstance(error, Doubt)
    assert pods is None
    assert KubeSpawner.reflectors == LabsMixin._loading == {}


async def test_whatever_ends_a_look_at_the_pods_is_no_answer(spawner, monkeypatch):
    async def cancelled(_: object) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(LabsMixin, "_watch_pods", cancelled)
    assert await spawner()._fresh_pods() is None


async def test_a_load_that_fails_with_user_namespaces_does_not_end_the_hub(cluster, spawner):
    cluster.fault = REFUSED
    cluster.answers.set()
    users = [spawner(enable_user_namespaces=True) for _ in range(2)]
    found = await ends(waiting(*(one._start_watching_pods() for one in users)))
    assert [type(one) for one in found] == [Doubt, Doubt]


def test_a_hub_that_is_ended_while_a_reflector_loads_ends_at_once(cluster, spawner, caplog):
    """As its shutdown_cancel_tasks does it (app.py:4030, 6.1.1)."""
    caplog.set_level("DEBUG", "asyncio")

    async def hub() -> set[asyncio.Task[Any]]:
        one, other = spawner(), spawner()
        waiting(one._start_watching_pods(), other._fresh_pods(), one._start_watching_events())
        waiting(other.stop(), one.poll())
        await turns()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=5)
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert asyncio.run(hub()) == set()
    gc.collect()
    assert [entry for entry in caplog.records if entry.levelname in ("WARNING", "ERROR")] == []
    assert KubeSpawner.reflectors == LabsMixin._loading == {}


def test_what_a_loop_left_behind_is_not_waited_for_in_the_next(cluster, spawner):
    """JupyterHub cleans up at exit in a loop of its own."""
    left, one = asyncio.new_event_loop(), spawner()

    async def begin() -> None:
        waiting(one._start_watching_pods())
        await turns()

    left.run_until_complete(begin())
    cluster.answers = asyncio.Event()

    async def cleanup() -> list[Any]:
        cluster.answers.set()
        return [await ends(waiting(one._start_watching_pods())) for _ in range(2)]

    [[error], [loaded]] = asyncio.run(cleanup())
    for task in asyncio.all_tasks(left):
        task.cancel()
    left.run_until_complete(turns())
    left.close()
    assert isinstance(error, RuntimeError)
    assert loaded.first_load_future.done()


# -- one is replaced


async def test_one_that_has_loaded_is_given_without_a_pause(cluster, spawner):
    """In a pause another one, still empty, may be put in its place."""
    one = spawner()
    reflector = await held(one, cluster)
    with pytest.raises(StopIteration) as returned:
        one._start_watching_pods().send(None)
    assert returned.value.value is reflector


async def test_a_frozen_reflector_is_replaced_once_however_many_see_it(cluster, spawner):
    old = await held(spawner(), cluster)
    old.loaded_at -= FROZEN + 1
    cluster.answers.clear()
    polls = waiting(*(spawner(claim_request_timeout=5)._fresh_pods() for _ in range(20)))
    await turns()
    cluster.answers.set()
    assert await ends(polls) == [{}] * 20
    assert (cluster.listings, cluster.watching) == (2, 1)


async def test_what_was_held_stays_until_a_newer_one_has_loaded(cluster, spawner):
    """Seen: it watched on beside the next one, and starts that looked for their labs failed."""
    one = spawner()
    old = await held(one, cluster)
    old.loaded_at -= FROZEN + 1
    cluster.fault = REFUSED
    assert await one._fresh_pods() is None
    assert one.pod_reflector is old
    cluster.fault = None
    assert await one._fresh_pods() == {}
    assert one.pod_reflector is not old
    assert cluster.watching == 1


async def test_one_that_gave_up_is_looked_into_until_a_newer_one_has_loaded(cluster, spawner):
    one = spawner()
    cluster.pods = [pod()]
    old = await held(one, cluster)
    await turns()
    cluster.watchers[0].cancel()
    await turns()
    cluster.fault = REFUSED
    assert await one._fresh_pods() is None
    assert one.pod_reflector is old
    cluster.fault = None
    assert await one._fresh_pods() == {"hub/jupyter-alice": pod()}
    assert (one.pod_reflector is old, cluster.watching) == (False, 1)


async def test_a_load_that_fails_takes_nothing_away_from_a_newer_one(cluster, spawner):
    one = spawner()
    newer = await held(one, cluster)
    KubeSpawner.reflectors.clear()
    cluster.answers.clear()
    tasks = waiting(one._start_watching_pods())
    await turns()
    KubeSpawner.reflectors[one._get_reflector_key("pods")] = newer
    cluster.fault = REFUSED
    cluster.answers.set()
    assert await ends(tasks) == [REFUSED]
    assert one.pod_reflector is newer


# -- what a reflector holds, and what was read since


@pytest.fixture
def stops(monkeypatch):
    made = []

    async def stop(self, now=False):
        made.append(now)

    monkeypatch.setattr(KubeSpawner, "stop", stop)
    return made


def reads(monkeypatch, item: dict[str, Any]) -> None:
    async def read(_: str) -> Lab:
        return Lab.parse(item)

    monkeypatch.setattr(
        LabsMixin, "_labs_api", lambda _: SimpleNamespace(namespace="hub", read=read)
    )


@pytest.mark.parametrize(
    "known",
    [
        pytest.param([pod(exit_code=137)], id="its notebook ended"),
        pytest.param([pod(exit_code=0, deleting=True)], id="it was being deleted"),
        pytest.param([pod("Failed", exit_code=1)], id="it failed"),
        pytest.param([{**pod(exit_code=1), "spec": None}], id="not whole"),
        pytest.param([], id="nothing"),
    ],
)
async def test_a_lab_that_was_read_alive_is_not_deleted_upon_what_was_known_before(
    cluster, spawner, stops, monkeypatch, known
):
    """The kubelet starts a notebook that ended again (restartPolicy OnFailure, objects.py:350)."""
    one = spawner()
    cluster.pods = known
    await held(one, cluster)
    reads(monkeypatch, pod())
    assert await one.poll() is None
    assert stops == []


async def test_what_ends_while_a_check_waits_is_not_deleted_without_a_look(
    cluster, spawner, stops, monkeypatch
):
    """At hub start the lab does not answer, and KubeSpawner's poll comes a pause later."""
    monkeypatch.setattr(labs, "PAUSES", (0.01, 0.01))
    one = spawner()
    one._check_pending = True
    cluster.pods = [pod()]
    reflector = await held(one, cluster)
    reads(monkeypatch, pod())
    tries = []

    async def answers(self, url):
        tries.append(url)
        reflector.resources = {"hub/jupyter-alice": pod(exit_code=1)}
        return len(tries) > 3

    monkeypatch.setattr(LabsMixin, "_answers", answers)
    await asyncio.wait_for(one.get_url(), 5)
    assert stops == []


async def test_a_new_address_of_a_lab_that_runs_is_taken_up(cluster, spawner, stops):
    one, moved = spawner(), pod()
    moved["spec"]["containers"][0]["ports"] = [{"name": "notebook-port", "containerPort": 8888}]
    moved["status"]["containerStatuses"][0]["ready"] = True
    moved["status"]["podIP"] = NEW
    cluster.pods = [moved]
    await held(one, cluster)
    assert await one.poll() is None
    assert (one.server.ip, stops) == (NEW, [])


@pytest.mark.parametrize(
    ("pending", "said"), [("_check_pending", 1), ("_stop_pending", 1), ("", None)]
)
async def test_a_lab_that_is_left_is_taken_for_gone_only_while_its_session_is_ended(
    cluster, spawner, pending, said
):
    """A check that was given up may end well all the same: its session is one as any other."""
    one = spawner()
    cluster.pods = [pod()]
    await held(one, cluster)
    one.leave_lab = True
    if pending:
        setattr(one, pending, True)
    assert await one.poll() == said
