"""The inventory of a cluster: its table, whose its labs are, one close look, and one deletion."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from jhub_safety.cluster.labtable import Row
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.sessions import kubernetes
from jhub_safety.sessions.absence import APART, Absences
from jhub_safety.sessions.kubernetes import KubernetesInventory, parse
from jhub_safety.sessions.model import LabIdentity, LabState, Server
from jhub_safety.sessions.presence import Presence
from tests.unit import api_server as http
from tests.unit.api_server import ApiServer, api_server
from tests.unit.given import HUB, NAMESPACE
from tests.unit.session_given import ADA, GPU, Clock, lab, session
from tests.unit.test_labtable import ADA as ADA_ROW
from tests.unit.test_labtable import BOB as BOB_ROW
from tests.unit.test_labtable import table
from tests.unit.test_presence import pod as presence_pod

NAME = "jupyter-ada"


@pytest.fixture
async def server():
    async with api_server() as double:
        yield double


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make(server, clock):
    def inventory(**fields):
        given = {"absences": Absences(clock), "count": lambda: 100, "timeout": 1.5} | fields
        return KubernetesInventory(server.api, HUB, NAMESPACE, **given)

    return inventory


def partial(name: str = NAME, *, uid: str = "uid-1", namespace: str = NAMESPACE, **fields):
    return {
        "metadata": {
            "name": name,
            "uid": uid,
            "namespace": namespace,
            "creationTimestamp": "2026-11-21T12:00:00Z",
            "annotations": {"hub.jupyter.org/username": "ada"},
            "labels": {"jhub-safety/hub": HUB},
        }
        | fields
    }


def partials(*items):
    return http.says(200, {"kind": "PartialObjectMetadataList", "items": list(items)})


def pod(uid: str = "u1", **fields):
    made = presence_pod(**fields) | {"kind": "Pod"}
    made["metadata"] |= {"name": NAME, "namespace": NAMESPACE, "uid": uid}
    return http.says(200, made)


def mark(uid: str = "uid-of-mark"):
    return http.says(200, {"kind": "Secret", "metadata": {"uid": uid}})


GONE = http.not_found(NAME)


# -- whose session names which lab


@pytest.mark.parametrize(
    ("state", "named"),
    [
        ({"pod_name": "a", "namespace": "n"}, ("a", "n")),
        ({"pod_name": "a"}, ("a", NAMESPACE)),
        ({"pod_name": "a", "namespace": None}, ("a", NAMESPACE)),
        ({"namespace": "n"}, None),
        ({"pod_name": None}, None),
        ({"pod_name": 7}, None),
        ({}, None),
    ],
    ids=str,
)
def test_a_sessions_lab_is_the_one_on_record(make, state, named):
    assert make().lab_of("ada", "", state) == named


# -- the list


async def test_the_list_has_every_lab_of_this_component(make, server):
    server.answers(http.says(200, table(ADA_ROW, BOB_ROW)))
    found = (await make(component="own-component").take(())).labs
    assert {name: [(one.state, one.ready) for one in labs] for name, labs in found.items()} == {
        "jupyter-ada": [(LabState.RUNNING, True)],
        "jupyter-bob": [(LabState.PENDING, False)],
    }
    (request,) = server.requests
    assert request.path == f"/api/v1/namespaces/{NAMESPACE}/pods"
    assert request.query["labelSelector"] == "component=own-component"


# As an API server of 1.34 has printed them, each with its lab running or about to.
@pytest.mark.parametrize(
    ("ready", "status", "state"),
    [
        pytest.param("1/2", "OOMKilled", LabState.RUNNING, id="ordinary-sidecar-out-of-memory"),
        pytest.param("1/2", "Error", LabState.RUNNING, id="ordinary-sidecar-failed"),
        pytest.param("1/2", "CrashLoopBackOff", LabState.RUNNING, id="ordinary-sidecar-loops"),
        pytest.param("1/2", "NotReady", LabState.RUNNING, id="sidecar-or-lab-exited-0"),
        pytest.param("1/2", "Init:Error", LabState.RUNNING, id="native-sidecar-failed"),
        pytest.param("1/2", "Init:OOMKilled", LabState.RUNNING, id="native-sidecar-out-of-memory"),
        pytest.param("1/2", "Init:CrashLoopBackOff", LabState.RUNNING, id="native-sidecar-loops"),
        pytest.param("1/2", "Init:1/2", LabState.RUNNING, id="native-sidecar-begins-again"),
        pytest.param("0/2", "Init:1/2", LabState.PENDING, id="init-container-runs"),
        pytest.param("0/2", "Init:Error", LabState.PENDING, id="init-container-failed"),
        pytest.param("1/2", "PodInitializing", LabState.PENDING, id="only-sidecar-is-ready"),
        pytest.param("1/2", "ImagePullBackOff", LabState.PENDING, id="no-image-of-lab"),
        pytest.param("0/2", "OOMKilled", LabState.ENDED, id="all-ended"),
        pytest.param("0/1", "Error", LabState.ENDED, id="lab-ended"),
        pytest.param("0/2", "Completed", LabState.ENDED, id="all-exited-0"),
        pytest.param("0/2", "Evicted", LabState.ENDED, id="evicted"),
        pytest.param("2/2", "Terminating", LabState.TERMINATING, id="being-deleted"),
        pytest.param("1/2", "Terminating", LabState.TERMINATING, id="being-deleted-sidecar-left"),
        pytest.param("1/2", "Unknown", LabState.LOST, id="node-lost"),
    ],
)
def test_a_failed_sidecar_is_not_the_end_of_its_lab(ready, status, state):
    row = Row("jupyter-ada", ready, status, "10.0.0.1", "node")
    found = parse(row, NAMESPACE)
    assert (found.state, found.ready) == (state, ready == "2/2")


async def test_one_name_in_two_namespaces_is_two_labs(make, server):
    server.answers(http.says(200, table(ADA_ROW, ADA_ROW)))
    found = (await make(everywhere=True).take(())).labs
    assert [len(labs) for labs in found.values()] == [2]
    assert server.requests[0].path == "/api/v1/pods"


async def test_a_list_that_is_not_whole_is_doubt(make, server):
    server.answers(http.status(503, "Unavailable"))
    with pytest.raises(Doubt):
        await make().take(())


# -- whose labs they are


async def test_whose_a_lab_is_stands_in_its_annotations_and_labels(make, server):
    named = {"hub.jupyter.org/username": "ada", "hub.jupyter.org/servername": "gpu"}
    server.answers(partials(partial(annotations=named)))
    created = datetime(2026, 11, 21, 12, tzinfo=UTC)
    assert await make().identify([lab()]) == {
        (NAMESPACE, NAME): LabIdentity("uid-1", NAMESPACE, GPU, HUB, created)
    }


@pytest.mark.parametrize(
    ("fields", "server_of", "hub"),
    [
        ({"annotations": None}, None, HUB),
        ({"annotations": {"x": "y"}}, None, HUB),
        ({"labels": None}, ADA, None),
        ({"labels": {"jhub-safety/hub": "staging"}}, ADA, "staging"),
        ({"annotations": {"hub.jupyter.org/username": ""}}, Server(""), HUB),
    ],
    ids=["no annotations", "nobody's", "no labels", "another hub's", "an empty name"],
)
async def test_what_a_lab_does_not_say_is_not_known(make, server, fields, server_of, hub):
    server.answers(partials(partial(**fields)))
    (found,) = (await make().identify([lab()])).values()
    assert (found.server, found.hub) == (server_of, hub)


@pytest.mark.parametrize(
    "reply",
    [
        http.status(503, "Unavailable"),
        http.silence(3.0),
        partials(partial(creationTimestamp=None)),
        partials(partial(creationTimestamp="yesterday")),
        partials(partial(annotations=["x"])),
    ],
    ids=["503", "silence", "not created", "created when", "annotations a list"],
)
async def test_a_lab_that_cannot_be_read_is_left_out_and_asked_again(make, server, reply):
    inventory = make()
    server.answers(reply)
    assert await inventory.identify([lab()]) == {}
    server.answers(partials(partial()))
    assert set(await inventory.identify([lab()])) == {(NAMESPACE, NAME)}


async def test_a_lab_is_asked_for_once_while_it_is_there(make, server):
    inventory = make()
    server.answers(partials(partial()))
    for _ in range(3):
        await inventory.identify([lab()])
    assert len(server.requests) == 1
    await inventory.identify([])
    await inventory.identify([lab()])
    assert len(server.requests) == 2


async def test_a_lab_that_is_taken_up_meanwhile_is_known_to_a_survey_of_that_moment(make, server):
    """A relink reads its lab anew, while a survey waits for whose another one is."""
    inventory = make()
    bob = replace(lab(), name="jupyter-bob")
    server.answers(partials(partial()))
    await inventory.identify([lab()])
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def bobs(request):
        arrived.set()
        await go_on.wait()
        return await partials(partial("jupyter-bob"))(request)

    server.answers(bobs, pod())
    survey = asyncio.ensure_future(inventory.identify([lab(), bob]))
    await arrived.wait()
    await inventory.read(NAMESPACE, NAME)
    go_on.set()
    assert set(await survey) == {(NAMESPACE, NAME), (NAMESPACE, "jupyter-bob")}


@pytest.mark.parametrize(
    "changed",
    [{"ip": "10.88.0.8"}, {"node": "node-2"}, {"words": "Error", "state": LabState.ENDED}],
    ids=str,
)
async def test_a_lab_that_looks_otherwise_is_read_again(make, server, changed):
    """It may be another of that name."""
    inventory = make()
    server.answers(partials(partial(uid="u1")))
    await inventory.identify([lab()])
    server.answers(partials(partial(uid="u2")))
    (found,) = (await inventory.identify([replace(lab(), **changed)])).values()
    assert found.uid == "u2"


# -- a close look


async def look(inventory: KubernetesInventory, **fields):
    return (await inventory.look(session(**fields))).presence


@pytest.mark.parametrize(
    ("reply", "presence"),
    [
        (pod(), Presence.ALIVE),
        (pod(phase="Pending"), Presence.ALIVE),
        (pod(phase="Unknown"), Presence.ALIVE),
        (pod(deleting=True), Presence.TERMINATING),
        (pod(phase="Failed"), Presence.ENDED),
        (http.status(503, "Unavailable"), Presence.DOUBT),
        (http.status(403, "Forbidden"), Presence.DOUBT),
        (http.text(404, "<html>"), Presence.DOUBT),
        (http.silence(3.0), Presence.DOUBT),
    ],
    ids=["running", "pending", "lost", "terminating", "failed", "503", "403", "ingress", "silence"],
)
async def test_a_look_says_what_the_api_server_positively_says(make, server, reply, presence):
    server.answers(reply)
    assert await look(make()) is presence


@pytest.mark.parametrize(
    ("fields", "place", "believed"),
    [
        ({"place": "uid-of-mark"}, [mark()], True),
        ({"place": "uid-of-mark"}, [mark("another")], False),
        ({"place": "uid-of-mark"}, [http.not_found("x")], False),
        ({"place": "uid-of-mark"}, [http.status(403, "Forbidden")], False),
        ({}, [mark()], True),
        ({}, [http.status(503, "Unavailable")], False),
        (
            {"claim": "claim-ada"},
            [mark(), http.says(200, http.pvc("claim-ada"))],
            True,
        ),
    ],
    ids=[
        "the mark on record",
        "another cluster's mark",
        "a mark of another name",
        "mark not readable",
        "no mark on record",
        "503",
        "its claim",
    ],
)
async def test_gone_is_believed_twice_and_only_in_the_right_place(
    make, server, clock, fields, place, believed
):
    inventory = make()
    found = []
    for _ in range(2):
        server.answers(GONE, *place)
        found.append(await look(inventory, **fields))
        clock.now += APART
    assert found == [Presence.DOUBT, Presence.GONE if believed else Presence.DOUBT]


async def test_without_mark_and_claim_nothing_is_gone(make, server, clock):
    inventory = make()
    name = "jhub-safety-place-hub"
    for _ in range(3):
        server.answers(GONE, http.not_found(name))
        assert await look(inventory) is Presence.DOUBT
        clock.now += APART
    assert server.requests[1].path.endswith(f"/secrets/{name}")


async def test_an_operators_word_stands_for_the_sightings_not_for_the_place(make, server):
    inventory = make()
    inventory.trust(session(place="uid-of-mark"))
    server.answers(GONE, mark("another"))
    assert await look(inventory, place="uid-of-mark") is Presence.DOUBT
    server.answers(GONE, mark())
    assert await look(inventory, place="uid-of-mark") is Presence.GONE


# -- a deletion


def identity(uid: str = "u1") -> LabIdentity:
    return LabIdentity(uid, NAMESPACE, ADA, HUB)


def methods(server: ApiServer) -> list[str]:
    return [one.method for one in server.requests]


async def test_a_lab_is_deleted_by_its_uid_and_waited_for(make, server):
    server.answers(pod(), http.says(200, {"kind": "Pod"}), pod(deleting=True), GONE)
    await make().delete(identity(), NAME)
    assert methods(server) == ["GET", "DELETE", "GET", "GET"]
    body = server.requests[1].body
    assert body["preconditions"] == {"uid": "u1"}
    # As long as it asks for itself: it may be saving.
    assert "gracePeriodSeconds" not in body


async def test_a_lab_that_is_gone_already_is_success(make, server):
    server.answers(GONE)
    await make().delete(identity(), NAME)
    assert methods(server) == ["GET"]


async def test_a_lab_that_took_over_the_name_is_never_deleted(make, server):
    server.answers(pod("u2"))
    with pytest.raises(Conflict, match="another one"):
        await make().delete(identity("u1"), NAME)
    assert methods(server) == ["GET"]


async def test_a_lab_that_takes_over_the_name_meanwhile_is_not_waited_for(make, server):
    server.answers(pod(), http.says(200, {"kind": "Pod"}), pod("u2"))
    await make().delete(identity(), NAME)
    assert methods(server) == ["GET", "DELETE", "GET"]


async def test_a_lab_that_took_over_the_name_is_read_anew_in_the_next_pass(make, server):
    """Else the former one's uid would be deleted in vain in each pass."""
    inventory = make()
    server.answers(partials(partial(uid="u1")))
    await inventory.identify([lab()])
    server.answers(pod("u2"))
    with pytest.raises(Conflict):
        await inventory.delete(identity("u1"), NAME)
    server.answers(partials(partial(uid="u2")))
    (found,) = (await inventory.identify([lab()])).values()
    assert found.uid == "u2"


@pytest.mark.parametrize(
    "replies",
    [
        [http.status(503, "Unavailable")],
        [pod(), http.status(403, "Forbidden")],
        [pod(), http.status(500, "InternalError")],
    ],
    ids=["cannot be read", "forbidden", "500"],
)
async def test_a_deletion_that_is_not_certain_is_doubt(make, server, replies):
    server.answers(*replies)
    with pytest.raises(Doubt):
        await make().delete(identity(), NAME)


async def test_a_lab_that_does_not_go_is_told(make, server, monkeypatch):
    monkeypatch.setattr(kubernetes, "GOING", 0.05)
    server.answers(pod(), http.says(200, {"kind": "Pod"}), pod(deleting=True))
    with pytest.raises(Conflict, match="still there after"):
        await asyncio.wait_for(make().delete(identity(), NAME), 5)
