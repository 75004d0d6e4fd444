"""Claims: whole answers or Doubt, and writes that touch only what was read."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from kubernetes_asyncio import client as kube

from jhub_safety.cluster.claims import Claim, ClaimsApi
from jhub_safety.cluster.listing import PAGE
from jhub_safety.errors import Conflict, Doubt
from tests.unit import api_server as http
from tests.unit.api_server import TOKEN, api_server, pvc, pvc_list, says, status

CLAIMS = "/api/v1/namespaces/jupyter/persistentvolumeclaims"


@pytest.fixture
async def server():
    async with api_server() as double:
        yield double


@pytest.fixture
async def claims(server):
    return ClaimsApi(server.api, "jupyter", timeout=5.0)


def manifest(name: str) -> kube.V1PersistentVolumeClaim:
    return kube.V1PersistentVolumeClaim(metadata=kube.V1ObjectMeta(name=name))


# -- what is read


async def test_a_claim_is_read_whole(server, claims):
    annotations, labels = {"a/b": "c"}, {"component": "singleuser-storage"}
    server.answers(says(200, pvc("claim-a", annotations=annotations, labels=labels)))
    assert await claims.read("claim-a") == Claim(
        name="claim-a",
        namespace="jupyter",
        uid="uid-of-claim-a",
        resource_version="17",
        phase="Bound",
        access_modes=("ReadWriteOnce",),
        created=datetime(2024, 5, 1, 12, tzinfo=UTC),
        capacity="10Gi",
        storage_class="standard",
        volume="pv-claim-a",
        annotations=annotations,
        labels=labels,
    )
    [request] = server.requests
    assert (request.method, request.path) == ("GET", f"{CLAIMS}/claim-a")


async def test_a_claim_being_deleted_says_so(server, claims):
    """A finalizer keeps it while a pod mounts it."""
    server.answers(says(200, pvc("claim-a", deletionTimestamp="2024-05-02T12:00:00Z")))
    assert (await claims.read("claim-a")).deleting


async def test_a_claim_without_volume_or_class_is_no_doubt(server, claims):
    body = pvc("claim-a")
    body["spec"] = {"accessModes": ["ReadWriteOnce"]}
    body["status"] = {"phase": "Pending"}
    server.answers(says(200, body))
    claim = await claims.read("claim-a")
    assert (claim.phase, claim.volume, claim.storage_class, claim.capacity) == (
        "Pending",
        "",
        "",
        "",
    )


async def test_absent_is_a_404_of_the_api_server_for_this_very_claim(server, claims):
    server.answers(http.not_found("claim-a"))
    assert await claims.read("claim-a") is None


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(http.text(404, "default backend - 404"), id="an ingress"),
        pytest.param(http.text(404, ""), id="nothing"),
        pytest.param(says(404, {"message": "no Route matched"}), id="a gateway"),
        pytest.param(says(404, {"code": 404, "details": "no route"}), id="details in words"),
        pytest.param(says(404, {"kind": "Status", "details": ["claim-a"]}), id="details in a list"),
        pytest.param(http.not_found("claim-b"), id="another claim"),
        pytest.param(status(404, "NotFound", "page not found"), id="no details"),
        pytest.param(
            status(404, "NotFound", 'namespaces "jupyter" not found', {"name": "jupyter"}),
            id="the namespace",
        ),
        pytest.param(says(404, ["claim-a"]), id="a list"),
    ],
)
async def test_any_other_404_is_doubt(server, claims, reply):
    """Something on the way that knows nothing of claims answers 404 as well."""
    server.answers(reply)
    with pytest.raises(Doubt, match="HTTP 404") as doubt:
        await claims.read("claim-a")
    assert doubt.value.status == 404


NO_ANSWERS = {
    "401": status(401, "Unauthorized"),
    "403": status(403, "Forbidden"),
    "429": status(429, "TooManyRequests"),
    "500": status(500, "InternalError"),
    "503": status(503, "ServiceUnavailable"),
    "hung up": http.hangs_up(),
    "login page": http.text(200, "<html>please log in</html>"),
    "garbage": http.text(200, '{"kind": "Persist', "application/json"),
    "empty": http.text(200, ""),
    "Status with 200": says(200, {"kind": "Status", "status": "Failure"}),
    "pod": says(200, pvc("claim-a") | {"kind": "Pod"}),
}


@pytest.mark.parametrize("reply", NO_ANSWERS)
async def test_reading_without_a_whole_answer_is_doubt(server, claims, reply):
    server.answers(NO_ANSWERS[reply])
    with pytest.raises(Doubt, match="reading claim claim-a in namespace jupyter") as doubt:
        await claims.read("claim-a")
    assert TOKEN not in str(doubt.value)


@pytest.mark.parametrize("part", ["name", "namespace", "uid", "resourceVersion"])
async def test_a_claim_without_a_part_that_every_claim_has_is_doubt(server, claims, part):
    body = pvc("claim-a")
    del body["metadata"][part]
    server.answers(says(200, body))
    with pytest.raises(Doubt, match="not whole"):
        await claims.read("claim-a")


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": None},
        {"metadata": "claim-a"},
        {"spec": "x"},
        {"status": "Bound"},
        {"metadata": pvc("claim-a")["metadata"] | {"creationTimestamp": "yesterday"}},
        {"metadata": pvc("claim-a")["metadata"] | {"annotations": "none"}},
    ],
    ids=["no metadata", "metadata in words", "spec", "status", "time", "annotations"],
)
async def test_a_claim_of_another_shape_is_doubt(server, claims, change):
    server.answers(says(200, pvc("claim-a") | change))
    with pytest.raises(Doubt, match="not whole"):
        await claims.read("claim-a")


async def test_reading_has_patience(server):
    server.answers(status(503, "ServiceUnavailable"), says(200, pvc("claim-a")))
    patient = ClaimsApi(server.api, "jupyter", timeout=5.0, patience=30.0)
    assert (await patient.read("claim-a")).name == "claim-a"


# -- what is listed


async def test_a_listing_is_every_page(server, claims):
    server.answers(
        says(200, pvc_list("a", "b", **{"continue": "page-2", "remainingItemCount": 3})),
        says(200, pvc_list("c", "d", **{"continue": "page-3"})),
        says(200, pvc_list("e")),
    )
    assert sorted(await claims.list()) == ["a", "b", "c", "d", "e"]
    assert [request.path for request in server.requests] == [CLAIMS] * 3
    assert [request.query for request in server.requests] == [
        {"limit": str(PAGE)},
        {"limit": str(PAGE), "continue": "page-2"},
        {"limit": str(PAGE), "continue": "page-3"},
    ]


async def test_an_empty_namespace_is_an_empty_listing(server, claims):
    server.answers(says(200, pvc_list()))
    assert await claims.list() == {}


async def test_a_listing_is_the_most_recent_state_of_all_claims(server, claims):
    """With resourceVersion=0 it may be a cache's; with a selector old claims are missing."""
    server.answers(says(200, pvc_list("a")))
    await claims.list()
    assert set(server.requests[0].query) == {"limit"}


def without(key: str) -> dict:
    body = pvc_list("a")
    del body[key]
    return body


BROKEN_PAGES = {
    "no items": says(200, without("items")),
    "items null": says(200, pvc_list() | {"items": None}),
    "items an object": says(200, pvc_list() | {"items": {}}),
    "no metadata": says(200, without("metadata")),
    "metadata null": says(200, pvc_list() | {"metadata": None}),
    "no resourceVersion": says(200, pvc_list("a", resourceVersion="")),
    "more remain": says(200, pvc_list("a", remainingItemCount=7)),
    "an item null": says(200, pvc_list() | {"items": [None]}),
    "an item without uid": says(200, pvc_list() | {"items": [{"metadata": {"name": "a"}}]}),
    "another kind": says(200, pvc_list("a") | {"kind": "PodList"}),
    "cut off": http.cut_off(pvc_list(*"abcdefgh")),
    **NO_ANSWERS,
}


@pytest.mark.parametrize("page", [1, 2])
@pytest.mark.parametrize("reply", BROKEN_PAGES)
async def test_a_listing_with_a_broken_page_is_doubt(server, claims, reply, page):
    """Never half a listing: who is not in it would get a new, empty home."""
    first = [says(200, pvc_list("a", **{"continue": "page-2"}))] * (page - 1)
    server.answers(*first, BROKEN_PAGES[reply])
    with pytest.raises(Doubt):
        await claims.list()
    # aiohttp itself sends a GET again on another connection when one was closed on it.
    assert len(server.requests) in ((page, page + 1) if reply == "hung up" else (page,))


async def test_a_page_that_does_not_come_in_time_is_doubt(server):
    hasty = ClaimsApi(server.api, "jupyter", timeout=0.5)
    server.answers(says(200, pvc_list("a", **{"continue": "page-2"})), http.silence(5))
    with pytest.raises(Doubt, match=r"no answer within 0\.5 s"):
        await hasty.list()


EXPIRED = status(410, "Expired", "The provided continue parameter is too old")


async def test_an_expired_continue_token_begins_again_once(server, claims):
    """What was read so far is thrown away: "gone" is not in the second listing."""
    server.answers(
        says(200, pvc_list("gone", "a", **{"continue": "old"})),
        EXPIRED,
        says(200, pvc_list("a", **{"continue": "new"})),
        says(200, pvc_list("b")),
    )
    assert sorted(await claims.list()) == ["a", "b"]
    tokens = [request.query.get("continue") for request in server.requests]
    assert tokens == [None, "old", None, "new"]


async def test_an_expired_continue_token_twice_is_doubt(server, claims):
    server.answers(
        says(200, pvc_list("a", **{"continue": "old"})),
        EXPIRED,
        says(200, pvc_list("a", **{"continue": "old"})),
        EXPIRED,
    )
    with pytest.raises(Doubt, match="HTTP 410") as doubt:
        await claims.list()
    assert doubt.value.retryable
    assert len(server.requests) == 4


@pytest.mark.timeout(10)
async def test_a_listing_that_never_ends_is_doubt(server, claims):
    """A proxy that ignores the query gives the first page for ever."""
    server.answers(says(200, pvc_list("a", **{"continue": "again"})))
    with pytest.raises(Doubt):
        await claims.list()


# -- what is written


async def test_a_created_claim_is_what_the_api_server_made_of_it(server, claims):
    server.answers(says(201, pvc("claim-a")))
    created = await claims.create(manifest("claim-a"))
    assert (created.name, created.uid) == ("claim-a", "uid-of-claim-a")
    [request] = server.requests
    assert (request.method, request.path) == ("POST", CLAIMS)
    assert request.body["metadata"]["name"] == "claim-a"


async def test_a_name_that_is_taken_is_a_conflict(server, claims):
    taken = 'persistentvolumeclaims "claim-a" already exists'
    server.answers(status(409, "AlreadyExists", taken))
    with pytest.raises(Conflict, match=r"creating claim claim-a.*already exists"):
        await claims.create(manifest("claim-a"))


@pytest.mark.parametrize("reply", NO_ANSWERS)
async def test_creating_without_a_whole_answer_is_doubt_and_tried_once(server, reply):
    """The claim may exist: a second try would meet the first one's."""
    patient = ClaimsApi(server.api, "jupyter", timeout=5.0, patience=30.0)
    server.answers(NO_ANSWERS[reply])
    with pytest.raises(Doubt, match="creating claim claim-a"):
        await patient.create(manifest("claim-a"))
    assert len(server.requests) == 1


A = Claim.parse(pvc("claim-a"))


async def test_annotating_names_the_very_object_that_was_read(server, claims):
    server.answers(says(200, pvc("claim-a", resourceVersion="18")))
    changed = await claims.annotate(A, {"x/y": "z", "gone": None}, {"hub": "h"})
    [request] = server.requests
    assert (request.method, request.path) == ("PATCH", f"{CLAIMS}/claim-a")
    assert request.headers["Content-Type"] == "application/merge-patch+json"
    assert request.body == {
        "metadata": {
            "uid": "uid-of-claim-a",
            "resourceVersion": "17",
            "annotations": {"x/y": "z", "gone": None},
            "labels": {"hub": "h"},
        }
    }
    assert changed.resource_version == "18"


@pytest.mark.parametrize(
    "reply",
    [
        status(409, "Conflict", "the object has been modified"),
        status(422, "Invalid", "metadata.uid: field is immutable"),
        http.not_found("claim-a"),
    ],
    ids=["modified", "made anew", "deleted"],
)
async def test_a_claim_that_is_not_the_one_that_was_read_is_a_conflict(server, claims, reply):
    server.answers(reply)
    with pytest.raises(Conflict, match="annotating claim claim-a"):
        await claims.annotate(A, {"x/y": "z"})


async def test_annotating_when_forbidden_is_doubt_with_its_status(server, claims):
    """The chart's Role has no PATCH: the caller goes on without."""
    server.answers(status(403, "Forbidden", "cannot patch resource"))
    with pytest.raises(Doubt) as doubt:
        await claims.annotate(A, {"x/y": "z"})
    assert (doubt.value.status, doubt.value.retryable) == (403, False)


async def test_deleting_names_the_very_object_that_was_read(server, claims):
    server.answers(says(200, pvc("claim-a", deletionTimestamp="2024-05-02T12:00:00Z")))
    await claims.delete(A)
    [request] = server.requests
    assert (request.method, request.path) == ("DELETE", f"{CLAIMS}/claim-a")
    assert request.body["preconditions"] == {"uid": "uid-of-claim-a"}


async def test_deleting_only_as_it_was_read_names_its_version_too(server, claims):
    server.answers(says(200, pvc("claim-a", deletionTimestamp="2024-05-02T12:00:00Z")))
    await claims.delete(A, unchanged=True)
    [request] = server.requests
    assert request.body["preconditions"] == {
        "uid": "uid-of-claim-a",
        "resourceVersion": A.resource_version,
    }


async def test_a_404_from_something_on_the_way_deletes_nothing(server, claims):
    server.answers(http.text(404, "default backend - 404"))
    with pytest.raises(Doubt, match="not from the API server"):
        await claims.delete(A)


async def test_a_claim_that_is_gone_is_deleted(server, claims):
    server.answers(http.not_found("claim-a"))
    await claims.delete(A)


async def test_a_claim_made_anew_is_not_deleted(server, claims):
    server.answers(status(409, "Conflict", "Precondition failed: UID in precondition: 1"))
    with pytest.raises(Conflict, match="deleting claim claim-a"):
        await claims.delete(A)


@pytest.mark.parametrize("reply", ["401", "403", "429", "500", "503", "hung up"])
async def test_deleting_without_an_answer_is_doubt(server, claims, reply):
    server.answers(NO_ANSWERS[reply])
    with pytest.raises(Doubt, match="deleting claim claim-a"):
        await claims.delete(A)


def test_a_claim_is_shown_as_json():
    shown = A.record()
    assert shown["name"] == "claim-a"
    assert shown["created"] == "2024-05-01T12:00:00+00:00"
    assert "resource_version" not in shown
