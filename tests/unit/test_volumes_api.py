"""Volumes over the wire: what is sent, and what an answer means."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_asyncio

from jhub_safety.cluster import namespaces, volumes
from jhub_safety.cluster.volumes import Volume, VolumesApi
from jhub_safety.errors import Conflict, Doubt, SafetyError
from tests.unit.api_server import api_server, hangs_up, says, status

FORBIDDEN = status(403, "Forbidden", 'User "hub" cannot patch resource "persistentvolumes"')


def pv(name: str, reclaim: str = "Delete", uid: str = "uid-of-claim", **metadata: Any) -> Any:
    return {
        "kind": "PersistentVolume",
        "apiVersion": "v1",
        "metadata": {"name": name, "uid": f"uid-of-{name}", "resourceVersion": "17"} | metadata,
        "spec": {
            "capacity": {"storage": "10Gi"},
            "csi": {"driver": "disk.example", "volumeHandle": name},
            "claimRef": {"namespace": "jupyter", "name": "home", "uid": uid},
            "persistentVolumeReclaimPolicy": reclaim,
        },
        "status": {"phase": "Bound"},
    }


def pv_list(*names: str, **metadata: Any) -> Any:
    items = [pv(name) for name in names]
    return {
        "kind": "PersistentVolumeList",
        "apiVersion": "v1",
        "metadata": {"resourceVersion": "100"} | metadata,
        "items": items,
    }


def not_found(kind: str, name: str) -> Any:
    return status(404, "NotFound", f'{kind} "{name}" not found', {"name": name, "kind": kind})


@pytest_asyncio.fixture
async def server():
    async with api_server() as double:
        yield double


@pytest.fixture
def api(server) -> VolumesApi:
    return VolumesApi(server.api)


async def test_a_volume_is_switched_to_retain_with_what_was_read_as_a_precondition(server):
    server.answers(says(200, pv("pv-a")), says(200, pv("pv-a", "Retain")))
    await volumes.retain(server.api, "pv-a", "uid-of-claim")
    read, patch = server.requests
    assert (read.method, read.path) == ("GET", "/api/v1/persistentvolumes/pv-a")
    assert (patch.method, patch.path) == ("PATCH", "/api/v1/persistentvolumes/pv-a")
    assert patch.headers["Content-Type"] == "application/merge-patch+json"
    assert patch.body == {
        "metadata": {"uid": "uid-of-pv-a", "resourceVersion": "17"},
        "spec": {"persistentVolumeReclaimPolicy": "Retain"},
    }


async def test_a_volume_that_is_retained_is_not_written_to(server):
    server.answers(says(200, pv("pv-a", "Retain")))
    await volumes.retain(server.api, "pv-a", "uid-of-claim")
    assert [one.method for one in server.requests] == ["GET"]


@pytest.mark.parametrize(
    ("replies", "words"),
    [
        pytest.param([says(200, pv("pv-a", uid="another"))], "not bound to", id="another claim's"),
        pytest.param([not_found("persistentvolumes", "pv-a")], "it is gone", id="gone"),
        pytest.param(
            [says(200, pv("pv-a")), status(409, "Conflict", "modified")], "modified", id="changed"
        ),
        pytest.param(
            [says(200, pv("pv-a")), not_found("persistentvolumes", "pv-a")],
            "it is gone",
            id="gone meanwhile",
        ),
    ],
)
async def test_a_volume_that_is_not_what_was_planned_for_is_left_alone(server, replies, words):
    server.answers(*replies)
    with pytest.raises(Conflict, match=words):
        await volumes.retain(server.api, "pv-a", "uid-of-claim")


@pytest.mark.parametrize("replies", [[FORBIDDEN], [says(200, pv("pv-a")), FORBIDDEN]])
async def test_without_the_right_it_is_doubt_with_its_status(server, replies):
    server.answers(*replies)
    with pytest.raises(Doubt, match="cannot patch") as error:
        await volumes.retain(server.api, "pv-a", "uid-of-claim")
    assert error.value.status == 403


async def test_what_was_read_is_what_the_volume_says(server, api):
    body = pv("pv-a", labels={"zone": "a"}, annotations={"x": "y"}, deletionTimestamp="2024")
    server.answers(says(200, body))
    found = await api.read("pv-a")
    assert found == Volume(
        "pv-a",
        uid="uid-of-pv-a",
        resource_version="17",
        phase="Bound",
        deleting=True,
        labels={"zone": "a"},
        annotations={"x": "y"},
        spec=body["spec"],
    )
    assert (found.reclaim, found.holder["name"]) == ("Delete", "home")


async def test_only_a_404_for_this_volume_is_absent(server, api):
    server.answers(not_found("persistentvolumes", "pv-a"))
    assert await api.read("pv-a") is None
    server.answers(not_found("persistentvolumes", "pv-b"))
    with pytest.raises(Doubt):
        await api.read("pv-a")


async def test_all_pages_are_one_listing(server, api):
    server.answers(
        says(200, pv_list("a", "b", **{"continue": "next", "remainingItemCount": 1})),
        says(200, pv_list("c")),
    )
    assert list(await api.list()) == ["a", "b", "c"]
    assert [one.query.get("continue") for one in server.requests] == [None, "next"]


@pytest.mark.parametrize(
    "replies",
    [
        pytest.param([says(200, pv_list("a", **{"continue": "x"})), hangs_up()], id="cut off"),
        pytest.param([says(200, pv_list("a", **{"continue": "x"})), FORBIDDEN], id="forbidden"),
        pytest.param([says(200, pv_list("a", **{"continue": "x"}))], id="the same page for ever"),
        pytest.param([says(200, pv_list("a", remainingItemCount=3))], id="not the last page"),
        pytest.param([says(200, pv_list("a", resourceVersion=""))], id="of no state"),
        pytest.param([says(200, {"kind": "PersistentVolumeList"})], id="no items"),
        pytest.param(
            [says(200, {**pv_list(), "items": [{"metadata": {"name": "a"}}]})], id="not whole"
        ),
        pytest.param([says(200, {"kind": "Status"})], id="another kind"),
        pytest.param([status(410, "Expired")], id="expired twice"),
    ],
)
async def test_a_listing_that_is_not_whole_is_no_listing(server, api, replies):
    server.answers(*replies)
    with pytest.raises(Doubt):
        await api.list()


async def test_a_listing_that_expired_is_begun_again(server, api):
    server.answers(
        says(200, pv_list("old", **{"continue": "x"})),
        status(410, "Expired"),
        says(200, pv_list("a")),
    )
    assert list(await api.list()) == ["a"]


async def test_a_volume_that_exists_is_no_success_of_making_it(server, api):
    server.answers(status(409, "AlreadyExists", "already exists"))
    with pytest.raises(Conflict, match="already exists"):
        await api.create({"metadata": {"name": "pv-a"}})


# -- the namespace


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        pytest.param(not_found("namespaces", "lost"), "kubectl create namespace lost", id="gone"),
        pytest.param(
            says(200, {"kind": "Namespace", "status": {"phase": "Terminating"}}),
            "Wait until it is gone",
            id="going",
        ),
    ],
)
async def test_a_namespace_that_is_not_there_is_said_before_anything_is_made(server, reply, words):
    server.answers(reply)
    with pytest.raises(SafetyError, match=words):
        await namespaces.must_be_active(server.api, "lost")


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(says(200, {"kind": "Namespace", "status": {"phase": "Active"}}), id="there"),
        pytest.param(status(403, "Forbidden"), id="not to be asked"),
    ],
)
async def test_a_namespace_that_may_be_there_is_gone_on_with(server, reply):
    server.answers(reply)
    await namespaces.must_be_active(server.api, "jupyter")
    (request,) = server.requests
    assert request.path == "/api/v1/namespaces/jupyter"


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(says(200, {"kind": "Namespace"}), id="without a phase"),
        pytest.param(says(404, {"page": "of a proxy"}), id="a proxy's 404"),
    ],
)
async def test_an_answer_that_is_not_whole_is_doubt(server, reply):
    server.answers(reply)
    with pytest.raises(Doubt):
        await namespaces.must_be_active(server.api, "jupyter")
