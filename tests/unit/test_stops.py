"""What the cluster says while a lab is stopped: whether it is over, and how long it may take.

By the real client, as in test_client.py; test_starts.py has what a stop makes of the answers.
"""

from __future__ import annotations

import asyncio

import pytest
from jupyterhub import orm
from kubespawner import KubeSpawner
from traitlets.config import Config

from jhub_safety.sidecars.pod import ANNOTATION, LAB_SECONDS
from jhub_safety.sidecars.server import DatabaseServer
from jhub_safety.spawner import SafeKubeSpawner
from tests.unit import api_server as http
from tests.unit.api_server import api_server
from tests.unit.given import NAMESPACE
from tests.unit.test_presence import pod

LAB = "jupyter-ada"
#: Of one server that runs beside a lab.
ONE = LAB_SECONDS + DatabaseServer.stop_seconds


@pytest.fixture
async def server():
    async with api_server() as double:
        yield double


@pytest.fixture
def make(monkeypatch, server):
    """As a hub makes them."""
    monkeypatch.setattr("kubespawner.spawner.load_config", lambda **_: None)
    monkeypatch.setattr("kubespawner.spawner.shared_client", lambda _: server.api)

    def spawner(**settings):
        settings = {"namespace": NAMESPACE, "claim_request_timeout": 0.5} | settings
        one = SafeKubeSpawner(
            _mock=True,
            orm_spawner=orm.Spawner(name="", state={}),
            config=Config(SafeKubeSpawner=settings),
        )
        one.pod_name = LAB
        return one

    return spawner


def lab(grace: int | None = None, *, databases: bool = False, **fields):
    made = pod(**fields) | {"kind": "Pod"}
    made["metadata"] |= {"name": LAB, "namespace": NAMESPACE}
    if grace is not None:
        made["spec"]["terminationGracePeriodSeconds"] = grace
    if databases:
        made["metadata"]["annotations"] = {ANNOTATION: "{}"}
    return http.says(200, made)


GONE = http.not_found(LAB)
DOUBTS = {
    "503": http.status(503, "ServiceUnavailable"),
    "403": http.status(403, "Forbidden"),
    "a proxy's 404": http.text(404, "<html>"),
    "404 of something else": http.not_found("jupyter-bob"),
    "an empty 200": http.says(200, {}),
    "half of an answer": http.cut_off({"kind": "Pod"}),
    "silence": http.silence(1.0),
}
ALIVE = {
    "running": lab(),
    "pending": lab(phase="Pending"),
    "being deleted": lab(deleting=True),
    "its notebook ended": lab(exit_code=0),
    "failed": lab(phase="Failed"),
    "its node is lost": lab(phase="Unknown"),
}


@pytest.mark.parametrize("seen", [*ALIVE, *DOUBTS])
async def test_a_lab_is_not_stopped_while_it_may_be_there(make, server, seen):
    server.answers({**ALIVE, **DOUBTS}[seen])
    assert await make()._is_stopped() is False


async def test_a_lab_is_stopped_when_a_live_read_of_that_very_lab_says_404(make, server):
    server.answers(GONE)
    assert await make()._is_stopped() is True
    (asked,) = server.requests
    assert (asked.method, asked.path) == ("GET", f"/api/v1/namespaces/{NAMESPACE}/pods/{LAB}")
    # Never of a cache, which may be of yesterday.
    assert "resourceVersion" not in asked.query


@pytest.mark.parametrize("seen", ["running", "being deleted", "503", "a proxy's 404"])
async def test_a_stop_goes_on_until_the_cluster_says_that_the_lab_is_gone(
    make, server, monkeypatch, seen
):
    """KubeSpawner's own is content with a cache that holds no lab."""
    monkeypatch.setattr("jhub_safety.starts.PAUSES", (0.0, 0.0))
    stops = []

    async def stop(self, now=False):
        stops.append(len(server.requests))

    monkeypatch.setattr(KubeSpawner, "stop", stop)
    answer = {**ALIVE, **DOUBTS}[seen]
    # What its databases need, once; whether it is over, after each try.
    server.answers(answer, answer, answer, answer, GONE)
    await asyncio.wait_for(make().stop(), 10)
    assert (len(stops), len(server.requests)) == (4, 5)


@pytest.mark.parametrize(
    ("databases", "answer", "seconds"),
    [
        pytest.param([], lab(300), 0, id="no database, whatever its own grace"),
        pytest.param([], GONE, 0, id="no database, no lab"),
        pytest.param([], lab(75, databases=True), 75, id="a lab from before a restart has one"),
        pytest.param(["postgres"], lab(30), ONE, id="one, the lab says nothing"),
        pytest.param(["postgres"], GONE, ONE, id="one, no lab"),
        pytest.param(["postgres"], lab(200, databases=True), 200, id="its lab needs longer"),
        pytest.param(["postgres"], lab(5, databases=True), ONE, id="its lab says less"),
        pytest.param(
            [{"kind": "postgres", "stop_seconds": 90}, "mysql"],
            GONE,
            LAB_SECONDS + 90 + DatabaseServer.stop_seconds,
            id="two",
        ),
    ],
)
async def test_a_lab_has_the_time_that_its_databases_need(make, server, databases, answer, seconds):
    server.answers(answer)
    assert await make(databases=databases)._seconds_to_end() == seconds


@pytest.mark.parametrize("doubt", DOUBTS)
@pytest.mark.parametrize(
    ("databases", "seconds"),
    [([], ONE), ([{"kind": "postgres", "stop_seconds": 90}], LAB_SECONDS + 90)],
    ids=["none known of", "one that is known"],
)
async def test_in_doubt_a_lab_has_the_time_of_a_database(make, server, doubt, databases, seconds):
    """It may be of before a restart with other databases; killed, it is repaired at its start."""
    server.answers(DOUBTS[doubt])
    assert await make(databases=databases)._seconds_to_end() == seconds


@pytest.mark.parametrize("mode", ["off", "observe"])
async def test_without_enforcement_nobody_is_asked(make, server, mode):
    assert await make(databases=["postgres"], sessions=mode)._seconds_to_end() == ONE
    assert await make(sessions=mode)._seconds_to_end() == 0
    assert server.requests == []
