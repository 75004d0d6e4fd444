"""What a start with databases asks of JupyterHub and of the pod, on a spawner without a cluster."""

from __future__ import annotations

import asyncio

import pytest
from jupyterhub import orm
from kubernetes_asyncio import client as kube
from kubespawner import KubeSpawner
from traitlets.config import Config

from jhub_safety.refused import SpawnRefused
from jhub_safety.spawner import SafeKubeSpawner
from jhub_safety.starts import StartsMixin


@pytest.fixture
def make(monkeypatch):
    """Spawners as a hub makes them, without a cluster to connect to."""
    monkeypatch.setattr("kubespawner.spawner.load_config", lambda **_: None)
    monkeypatch.setattr("kubespawner.spawner.shared_client", lambda _: None)

    def one(*entries: object, **settings) -> SafeKubeSpawner:
        settings = {"databases": list(entries), **settings}
        row = orm.Spawner(name="", state={})
        return SafeKubeSpawner(_mock=True, orm_spawner=row, config=Config(SafeKubeSpawner=settings))

    return one


# -- the time that a start has


@pytest.fixture
def starting(monkeypatch):
    """KubeSpawner's own start: ends as it is told."""
    made: list[asyncio.Future] = []

    def start(_):
        made.append(asyncio.get_running_loop().create_future())
        return made[-1]

    monkeypatch.setattr(KubeSpawner, "start", start)
    return made


@pytest.mark.parametrize(
    ("entries", "own", "wanted"),
    [
        pytest.param([], {}, 60, id="no database"),
        pytest.param(["postgres"], {}, 120, id="KubeSpawner's default is that of a server"),
        pytest.param(["postgres", "mysql"], {}, 180, id="one is waited for after the other"),
        pytest.param(
            [{"kind": "postgres", "startup_deadline": 300}], {"start_timeout": 200}, 500, id="both"
        ),
    ],
)
async def test_a_lab_has_its_whole_time_after_the_servers_deadlines(
    make, starting, entries, own, wanted
):
    """JupyterHub asks for it when start() has returned, and cancels the start then."""
    spawner = make(*entries, **own)
    usual = spawner.start_timeout
    start = spawner.start()
    assert spawner.start_timeout == wanted
    starting[0].set_result(("10.88.0.7", 8888))
    await asyncio.wait_for(start, 5)
    assert spawner.start_timeout == usual


@pytest.mark.parametrize("end", ["fails", "is cancelled"])
async def test_a_start_that_does_not_succeed_leaves_the_time_of_the_next_as_it_was(
    make, starting, end
):
    spawner = make("postgres")
    for _ in range(3):
        start = spawner.start()
        assert spawner.start_timeout == 120
        await asyncio.sleep(0)
        if end == "fails":
            starting[-1].set_exception(OSError("x"))
        else:
            start.cancel()
        with pytest.raises((OSError, asyncio.CancelledError)):
            await asyncio.wait_for(start, 5)
        await asyncio.sleep(0)
    assert spawner.start_timeout == 60


# -- what a hook makes of the pod


def pod(**spec) -> kube.V1Pod:
    lab = kube.V1Container(name="notebook")
    ours = kube.V1Container(name="jhub-safety-postgres")
    spec = {"containers": [lab, ours]} | spec
    return kube.V1Pod(metadata=kube.V1ObjectMeta(name="jupyter-ada"), spec=kube.V1PodSpec(**spec))


@pytest.fixture
def created(monkeypatch):
    found = []

    async def create(_, made, __):
        found.append(made)
        return True

    monkeypatch.setattr(StartsMixin, "_make_create_pod_request", create)
    return found


DOOR = kube.V1Container(name="door", ports=[kube.V1ContainerPort(container_port=5432)])


@pytest.mark.parametrize(
    ("made", "said"),
    [
        pytest.param(pod(host_network=True), "hostNetwork is on", id="host network"),
        pytest.param(
            pod(containers=[kube.V1Container(name="notebook"), DOOR]),
            "container door declares port 5432",
            id="a container's port",
        ),
        pytest.param(pod(init_containers=[DOOR]), "declares port 5432", id="a sidecar's port"),
    ],
)
async def test_a_hook_that_would_show_the_database_to_others_is_refused(make, created, made, said):
    """modify_pod_hook comes after get_pod_manifest."""
    with pytest.raises(SpawnRefused) as refused:
        await make("postgres")._make_create_pod_request(made, 3)
    assert (refused.value.code, created) == ("database-exposed", [])
    assert said in refused.value.story


@pytest.mark.parametrize(
    ("entries", "made"),
    [
        pytest.param(["postgres"], pod(), id="its own container is no stranger"),
        pytest.param([], pod(host_network=True), id="no database"),
    ],
)
async def test_whatever_shows_no_database_to_others_is_made(make, created, entries, made):
    assert await make(*entries)._make_create_pod_request(made, 3)
    assert created == [made]
