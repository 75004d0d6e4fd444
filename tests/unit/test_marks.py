"""The Secrets in which a hub remembers: what was given up, and that there were homes."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest

from jhub_safety.cluster import events, forgotten, landmark
from jhub_safety.errors import Conflict, Doubt
from tests.unit import api_server as http
from tests.unit.api_server import api_server, says, status
from tests.unit.given import ALICE, GPU, HUB

SECRETS = "/api/v1/namespaces/jupyter/secrets"


@pytest.fixture
async def server():
    async with api_server() as double:
        yield double


SECRET_UID = "0d9f1f2e-uid-of-the-secret"


def secret(name: str, **data: str):
    metadata = {"name": name, "uid": SECRET_UID}
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return says(200, {"kind": "Secret", "metadata": metadata, "data": encoded})


def no_secret(name: str):
    message = f'secrets "{name}" not found'
    return status(404, "NotFound", message, {"name": name, "kind": "secrets"})


DOUBTFUL = {
    "403": status(403, "Forbidden"),
    "500": status(500, "InternalError"),
    "hung up": http.hangs_up(),
    "garbage": http.text(200, "<html>"),
    "another kind": says(200, {"kind": "ConfigMap"}),
    "an ingress's 404": http.text(404, "default backend - 404"),
    "a gateway's 404": says(404, {"message": "no Route matched"}),
}


def forgotten_name(owner) -> str:
    return f"jhub-safety-forgotten-{owner.hash}"


@pytest.mark.parametrize("owner", [ALICE, GPU], ids=str)
async def test_what_was_given_up_is_read_for_this_very_owner(server, owner):
    server.answers(secret(forgotten_name(owner), claim="claim-old"))
    assert await forgotten.read(server.api, "jupyter", owner) == "claim-old"
    assert server.requests[0].path == f"{SECRETS}/{forgotten_name(owner)}"


async def test_what_was_given_up_of_a_volume_is_apart_from_the_home_and_other_volumes(server):
    server.answers(secret("x", claim="postgres-old"))
    for volume in ("", "postgres-{username}", "data-{username}"):
        await forgotten.read(server.api, "jupyter", ALICE, volume)
    paths = [request.path for request in server.requests]
    assert paths[0] == f"{SECRETS}/{forgotten_name(ALICE)}"
    assert len(set(paths)) == 3
    server.answers(says(201, {"kind": "Secret", "metadata": {}}))
    await forgotten.write(server.api, "jupyter", ALICE, "postgres-old", "postgres-{username}")
    written = server.requests[-1].body["metadata"]["name"]
    assert paths[1] == f"{SECRETS}/{written}"


async def test_nothing_was_given_up(server):
    server.answers(no_secret(forgotten_name(ALICE)))
    assert await forgotten.read(server.api, "jupyter", ALICE) is None


@pytest.mark.parametrize("reply", DOUBTFUL)
async def test_not_knowing_what_was_given_up_is_doubt(server, reply):
    server.answers(DOUBTFUL[reply])
    with pytest.raises(Doubt):
        await forgotten.read(server.api, "jupyter", ALICE)


@pytest.mark.parametrize(
    "data", [None, {}, {"user": "YQ=="}, {"claim": "no base64!"}, {"claim": "//8="}], ids=str
)
async def test_a_record_that_does_not_say_which_claim_is_doubt(server, data):
    server.answers(says(200, {"kind": "Secret", "metadata": {}, "data": data}))
    with pytest.raises(Doubt, match="which claim") as doubt:
        await forgotten.read(server.api, "jupyter", ALICE)
    assert not doubt.value.retryable


async def test_giving_up_is_recorded(server):
    server.answers(says(201, {"kind": "Secret", "metadata": {}}))
    await forgotten.write(server.api, "jupyter", GPU, "claim-old")
    [request] = server.requests
    assert (request.method, request.path) == ("POST", SECRETS)
    assert request.body["metadata"]["name"] == forgotten_name(GPU)
    assert request.body["stringData"] == {"claim": "claim-old", "user": "alice", "server": "gpu"}


async def test_giving_up_another_claim_replaces_the_record(server):
    """Without PATCH, which the chart's Role does not give on Secrets."""
    made = says(201, {"kind": "Secret", "metadata": {}})
    server.answers(status(409, "AlreadyExists"), says(200, {"kind": "Status"}), made)
    await forgotten.write(server.api, "jupyter", ALICE, "claim-newer")
    assert [request.method for request in server.requests] == ["POST", "DELETE", "POST"]
    assert server.requests[1].path == f"{SECRETS}/{forgotten_name(ALICE)}"
    assert server.requests[2].body["stringData"]["claim"] == "claim-newer"


async def test_a_word_says_since_when_it_counts(server):
    when = "2026-05-01T10:00:00Z"
    metadata = {"name": "x", "uid": SECRET_UID, "creationTimestamp": when}
    data = {"claim": base64.b64encode(b"claim-old").decode()}
    server.answers(says(200, {"kind": "Secret", "metadata": metadata, "data": data}))
    found = await forgotten.word(server.api, "jupyter", ALICE)
    assert found == forgotten.Word("claim-old", SECRET_UID, datetime(2026, 5, 1, 10, tzinfo=UTC))


@pytest.mark.parametrize(
    ("given", "made", "older"),
    [
        (10, 9, False),
        (10, 10, True),
        (10, 11, True),
        (None, 9, False),
        (10, None, False),
    ],
    ids=["for this claim", "of the same second", "for one before", "no time", "no record of it"],
)
def test_a_word_is_for_the_claim_that_was_there_when_it_was_given(given, made, older):
    def at(hour):
        return None if hour is None else datetime(2026, 5, 1, hour, tzinfo=UTC)

    assert forgotten.Word("claim-old", "", at(given)).is_older_than(at(made)) is older


WORD = forgotten.Word("claim-old", SECRET_UID)


@pytest.mark.parametrize(
    "reply", [says(200, {"kind": "Status"}), no_secret(forgotten_name(ALICE))], ids=["there", "not"]
)
async def test_exactly_the_word_that_was_gone_by_is_taken_down(server, reply):
    server.answers(reply)
    await forgotten.take_down(server.api, "jupyter", ALICE, WORD)
    [request] = server.requests
    assert (request.method, request.path) == ("DELETE", f"{SECRETS}/{forgotten_name(ALICE)}")
    assert request.body["preconditions"] == {"uid": SECRET_UID}


@pytest.mark.parametrize("reply", ["403", "500", "hung up", "an ingress's 404"])
async def test_a_word_that_may_still_be_there_is_doubt(server, reply):
    server.answers(DOUBTFUL[reply])
    with pytest.raises(Doubt):
        await forgotten.take_down(server.api, "jupyter", ALICE, WORD)


async def test_a_word_that_was_given_since_is_left(server):
    server.answers(status(409, "Conflict", "the UID in the precondition differs"))
    with pytest.raises(Conflict, match="UID"):
        await forgotten.take_down(server.api, "jupyter", ALICE, WORD)


@pytest.mark.parametrize("replies", [("403",), ("500",), ("409", "403"), ("409",)], ids=" ".join)
async def test_a_record_that_was_not_written_is_an_error(server, replies):
    both = {"409": status(409, "AlreadyExists"), **DOUBTFUL}
    server.answers(*(both[reply] for reply in replies))
    with pytest.raises((Doubt, Conflict)):
        await forgotten.write(server.api, "jupyter", ALICE, "claim-old")


async def test_the_mark_of_homes_stands(server):
    server.answers(secret(landmark.name(HUB, landmark.HOMES)))
    assert await landmark.uid(server.api, "jupyter", HUB, landmark.HOMES) == SECRET_UID
    assert server.requests[0].path == f"{SECRETS}/{landmark.name(HUB, landmark.HOMES)}"


async def test_the_mark_of_homes_does_not_stand(server):
    server.answers(no_secret(landmark.name(HUB, landmark.HOMES)))
    assert await landmark.uid(server.api, "jupyter", HUB, landmark.HOMES) is None


@pytest.mark.parametrize("reply", DOUBTFUL)
async def test_not_knowing_whether_there_were_homes_is_doubt(server, reply):
    """An empty listing and a 404 from the same broken proxy must not make homes anew."""
    server.answers(DOUBTFUL[reply])
    with pytest.raises(Doubt):
        await landmark.uid(server.api, "jupyter", HUB, landmark.HOMES)


@pytest.mark.parametrize(
    "reply",
    [says(201, {"kind": "Secret", "metadata": {}}), status(409, "AlreadyExists")],
    ids=["made", "there"],
)
async def test_setting_up_the_mark_is_done_when_it_is_there(server, reply):
    server.answers(reply)
    await landmark.set_up(server.api, "jupyter", HUB, landmark.HOMES)
    assert server.requests[0].body["metadata"]["name"] == landmark.name(HUB, landmark.HOMES)


@pytest.mark.parametrize("hub", ["Hub", "a b", "🦊", "x" * 300, "-", "a.b"], ids=ascii)
def test_the_marks_name_is_valid_for_every_hub(hub):
    from jhub_safety.volumes.names import valid_name

    assert valid_name(landmark.name(hub, landmark.HOMES))
    assert landmark.name(hub, landmark.HOMES) != landmark.name(hub.lower() + "x", landmark.HOMES)


async def test_an_event_is_about_the_claim(server):
    server.answers(says(201, {"kind": "Event", "metadata": {}}))
    await events.warn_about_claim(
        server.api, "jupyter", "claim-a", "uid-1", "HomeRefused", "why " * 1000
    )
    [request] = server.requests
    assert (request.method, request.path) == ("POST", "/api/v1/namespaces/jupyter/events")
    body = request.body
    assert (body["type"], body["reason"]) == ("Warning", "HomeRefused")
    assert body["involvedObject"]["uid"] == "uid-1"
    assert body["involvedObject"]["name"] == "claim-a"
    # Kubernetes refuses longer ones.
    assert len(body["message"]) <= 1024


async def test_an_event_that_was_not_written_is_doubt(server):
    server.answers(status(403, "Forbidden"))
    with pytest.raises(Doubt) as doubt:
        await events.warn_about_claim(server.api, "jupyter", "c", "", "HomeRefused", "why")
    assert doubt.value.status == 403
