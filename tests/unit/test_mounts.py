"""Which pods use which claims: all of them, or an error."""

from __future__ import annotations

import pytest
import pytest_asyncio

from jhub_safety.cluster import mounts
from jhub_safety.cluster.listing import PAGE
from jhub_safety.errors import Doubt
from tests.unit import api_server as http
from tests.unit.api_server import api_server, says, status

PODS = "/api/v1/namespaces/jupyter/pods"


@pytest_asyncio.fixture
async def server():
    async with api_server() as made:
        yield made


def pod(name, *claims, phase="Running", volumes=()):
    return {
        "metadata": {"name": name},
        "spec": {
            "volumes": [
                {"name": "token", "projected": {}},
                *({"name": c, "persistentVolumeClaim": {"claimName": c}} for c in claims),
                *volumes,
            ]
        },
        "status": {"phase": phase},
    }


def pods(*items, **metadata):
    metadata = {"resourceVersion": "7", **metadata}
    return {"kind": "PodList", "items": list(items), "metadata": metadata}


async def read(server):
    return await mounts.read(server.api, "jupyter", timeout=1.0, patience=0.0)


async def test_each_claim_has_the_pods_that_use_it(server):
    server.answers(
        says(
            200,
            pods(
                pod("jupyter-ada", "claim-ada", "data-ada", "claim-ada"),
                pod("jupyter-bob", "shared"),
                pod("jupyter-eve", "shared"),
                {"metadata": {"name": "bare"}, "spec": {}, "status": {}},
            ),
        )
    )
    assert await read(server) == {
        "claim-ada": ("jupyter-ada",),
        "data-ada": ("jupyter-ada",),
        "shared": ("jupyter-bob", "jupyter-eve"),
    }


@pytest.mark.parametrize("phase", ["Pending", "Running", "Succeeded", "Failed", "Unknown"])
async def test_a_pod_holds_its_claims_as_long_as_it_is_there(server, phase):
    server.answers(says(200, pods(pod("p", "c", phase=phase))))
    assert await read(server) == {"c": ("p",)}


async def test_a_volume_that_is_made_with_its_pod_counts(server):
    server.answers(says(200, pods(pod("p", volumes=[{"name": "scratch", "ephemeral": {}}]))))
    assert await read(server) == {"p-scratch": ("p",)}


async def test_all_pages_are_read(server):
    more = {"continue": "next", "remainingItemCount": 1}
    server.answers(says(200, pods(pod("a", "c"), **more)), says(200, pods(pod("b", "c"))))
    assert await read(server) == {"c": ("a", "b")}
    assert [request.query.get("continue") for request in server.requests] == [None, "next"]
    assert {request.query["limit"] for request in server.requests} == {str(PAGE)}


async def test_an_expired_list_is_begun_anew_once(server):
    server.answers(
        says(200, pods(pod("a", "c"), **{"continue": "next"})),
        status(410, "Expired"),
        says(200, pods(pod("b", "c"))),
    )
    assert await read(server) == {"c": ("b",)}


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(status(403, "Forbidden"), id="403"),
        pytest.param(status(500, "InternalError"), id="500"),
        pytest.param(status(410, "Expired"), id="expired twice"),
        pytest.param(http.hangs_up(), id="hung up"),
        pytest.param(http.cut_off(pods(pod("a", "c"))), id="cut off"),
        pytest.param(says(200, {"kind": "PodList"}), id="no items"),
        pytest.param(says(200, pods({"spec": {}})), id="a pod without a name"),
        pytest.param(says(200, pods(pod("a", "c"), remainingItemCount=3)), id="more remain"),
        pytest.param(says(200, pods(**{"continue": "x"})), id="the same page again"),
        pytest.param(says(200, {"kind": "Status"}), id="another kind"),
        pytest.param(says(200, pods(pod("a", "c"), resourceVersion="")), id="of no known state"),
    ],
)
async def test_an_answer_that_is_not_whole_is_doubt(server, reply):
    server.answers(reply)
    with pytest.raises(Doubt):
        await read(server)
