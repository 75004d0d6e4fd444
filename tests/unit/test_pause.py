"""A pause outlives the hub's process and its database, and is never taken for none in doubt."""

from __future__ import annotations

import base64
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from jhub_safety.cluster.notes import Note
from jhub_safety.errors import Conflict, Doubt, SafetyError
from jhub_safety.owner import HUB_LABEL
from jhub_safety.sessions.pause import FirstPass, Pause
from tests.unit import api_server as http
from tests.unit.api_server import TOKEN, ApiServer, api_server
from tests.unit.given import AWKWARD, HUB

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Secrets:
    """As the API server keeps Secrets; one that exists is not made twice."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {}
        self.methods: list[str] = []

    async def reply(self, request: web.Request) -> web.StreamResponse:
        self.methods.append(request.method)
        name = request.path.rpartition("/")[2]
        if request.method == "POST":
            body = json.loads(await request.text())
            name = body["metadata"]["name"]
            if name in self.kept:
                return await http.status(409, "AlreadyExists")(request)
            text = body.pop("stringData", {})
            data = {key: base64.b64encode(one.encode()).decode() for key, one in text.items()}
            self.kept[name] = body | {"kind": "Secret", "data": data}
            return await http.says(201, self.kept[name])(request)
        if name not in self.kept:
            return await http.not_found(name)(request)
        if request.method == "DELETE":
            del self.kept[name]
            return await http.says(200, {"kind": "Status", "status": "Success"})(request)
        return await http.says(200, self.kept[name])(request)


@pytest.fixture
async def server():
    async with api_server() as double:
        yield double


@pytest.fixture
def secrets(server):
    made = Secrets()
    server.answers(made.reply)
    return made


def note(server: ApiServer, about: str = "pause", hub: str = HUB) -> Note:
    return Note(server.api, "jupyter", hub, about, timeout=1.5)


def pause(server: ApiServer, now: datetime = NOON, hub: str = HUB) -> Pause:
    return Pause(note(server, hub=hub), now=lambda: now)


def written(**text: str) -> http.Reply:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in text.items()}
    return http.says(200, {"kind": "Secret", "data": data})


# -- notes


async def test_a_note_is_read_as_it_was_written(server, secrets):
    one = note(server)
    assert await one.read() is None
    await one.write({"until": "tomorrow", "why": "änderung 🦊\n"})
    assert await note(server).read() == {"until": "tomorrow", "why": "änderung 🦊\n"}
    (kept,) = secrets.kept.values()
    assert kept["metadata"]["labels"] == {HUB_LABEL: HUB}


async def test_a_note_is_replaced_with_the_verbs_that_the_charts_role_has(server, secrets):
    one = note(server)
    await one.write({"a": "1", "b": "2"})
    await one.write({"a": "3"})
    assert await one.read() == {"a": "3"}
    assert set(secrets.methods) == {"DELETE", "POST", "GET"}


async def test_a_note_that_is_deleted_twice_is_gone(server, secrets):
    one = note(server)
    await one.write({"a": "1"})
    await one.delete()
    await one.delete()
    assert await one.read() is None
    assert secrets.kept == {}


async def test_notes_of_two_hubs_and_about_two_things_are_four(server, secrets):
    for hub in ("hub", "staging"):
        for about in ("pause", "version"):
            await note(server, about, hub).write({"of": f"{hub} {about}"})
    assert len(secrets.kept) == 4
    assert await note(server, "version", "staging").read() == {"of": "staging version"}


async def test_a_note_without_text_is_one(server):
    server.answers(http.says(200, {"kind": "Secret"}))
    assert await note(server).read() == {}


UNREADABLE = {
    "no base64": http.says(200, {"kind": "Secret", "data": {"until": "%%%"}}),
    "no text": http.says(200, {"kind": "Secret", "data": {"until": "/////w=="}}),
    "a number": http.says(200, {"kind": "Secret", "data": {"until": 7}}),
    "null": http.says(200, {"kind": "Secret", "data": {"until": None}}),
    "data is a list": http.says(200, {"kind": "Secret", "data": ["until"]}),
    "data is a text": http.says(200, {"kind": "Secret", "data": "until"}),
    "another kind": http.says(200, {"kind": "SecretList", "items": []}),
    "garbage": http.text(200, "<html>"),
    "half a body": http.cut_off({"kind": "Secret", "data": {"until": "eA=="}}),
    "404 of an ingress": http.text(404, "not here"),
    "404 of another object": http.not_found("something-else"),
    "silence": http.silence(3.0),
    "hangs up": http.hangs_up(),
    **{f"HTTP {code}": http.status(code, "Nope") for code in (401, 403, 410, 429, 500, 503)},
}


@pytest.mark.parametrize("case", UNREADABLE)
async def test_a_note_that_cannot_be_read_is_doubt(server, case):
    server.answers(UNREADABLE[case])
    with pytest.raises(Doubt) as caught:
        await note(server).read()
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("code", [401, 403, 409, 429, 500, 503])
async def test_a_note_that_may_still_be_there_is_not_deleted(server, code):
    server.answers(http.status(code, "Nope"))
    with pytest.raises(SafetyError):
        await note(server).delete()


async def test_what_was_made_meanwhile_is_a_conflict(server):
    name = note(server).name
    server.answers(http.not_found(name), http.status(409, "AlreadyExists"))
    with pytest.raises(Conflict):
        await note(server).write({"a": "1"})


# -- the pause


async def test_without_a_note_there_is_no_pause(server, secrets):
    assert await pause(server).why() == ""


async def test_a_pause_outlives_the_hub_that_made_it(server, secrets):
    """Nothing of it is in the process or in the hub's database."""
    until = await pause(server).begin(2 * HOUR, "storage maintenance")
    assert until == NOON + 2 * HOUR
    why = await pause(server, NOON + HOUR).why()
    assert why == "paused until 2026-11-21 14:00 UTC (storage maintenance)"
    assert await pause(server, hub="staging").why() == ""


@pytest.mark.parametrize(
    ("after", "paused"),
    [(timedelta(0), True), (HOUR - timedelta(seconds=1), True), (HOUR, False), (2 * HOUR, False)],
    ids=["at once", "a second before", "at its end", "after"],
)
async def test_a_pause_ends_by_itself(server, secrets, after, paused):
    await pause(server).begin(HOUR, "why not")
    assert bool(await pause(server, NOON + after).why()) is paused


async def test_a_pause_is_ended_and_replaced(server, secrets):
    one = pause(server)
    await one.begin(HOUR, "first")
    await one.begin(3 * HOUR, "second")
    assert await one.why() == "paused until 2026-11-21 15:00 UTC (second)"
    await one.end()
    assert await one.why() == ""
    await one.end()


async def test_a_pause_without_a_reason_says_so(server, secrets):
    await pause(server).begin(HOUR, "")
    assert "no reason given" in await pause(server).why()


async def test_a_pause_is_in_utc_whatever_the_clock(server, secrets):
    east = datetime(2026, 11, 21, 21, tzinfo=timezone(9 * HOUR))
    assert await pause(server, east).begin(HOUR, "x") == NOON + HOUR
    assert "13:00 UTC" in await pause(server).why()


@pytest.mark.parametrize(
    "text",
    [
        {},
        {"why": "no end"},
        {"until": ""},
        {"until": "tomorrow"},
        {"until": "2026-13-45T00:00:00+00:00"},
        # Written by hand, without a zone: nobody knows which.
        {"until": "2026-11-21T14:00:00"},
        {"until": "2026-11-21"},
    ],
    ids=str,
)
async def test_a_pause_that_does_not_say_until_when_is_doubt(server, text):
    server.answers(written(**text))
    with pytest.raises(Doubt):
        await pause(server).why()


@pytest.mark.parametrize("case", UNREADABLE)
async def test_a_pause_that_cannot_be_read_is_doubt(server, case):
    server.answers(UNREADABLE[case])
    with pytest.raises(Doubt):
        await pause(server).why()


@settings(max_examples=30)
@given(st.sampled_from([one for one in AWKWARD if "\ud800" not in one]) | st.text(max_size=50))
def test_any_reason_and_any_hubs_name_come_back(why):
    import asyncio

    async def there_and_back():
        async with _fresh() as server:
            await pause(server, hub=why or "x").begin(HOUR, why)
            return await pause(server, hub=why or "x").why()

    if why.encode("utf-8", "replace").decode() == why:
        assert (why or "no reason given") in asyncio.run(there_and_back())


@asynccontextmanager
async def _fresh():
    async with api_server() as server:
        server.answers(Secrets().reply)
        yield server


# -- the first pass of a version


def first_pass(server: ApiServer, version: str = "1.0") -> FirstPass:
    return FirstPass(note(server, "version"), version)


async def test_a_version_is_news_until_a_pass_of_it_was_whole(server, secrets):
    one = first_pass(server)
    assert [await one.is_news() for _ in range(3)] == [True] * 3
    await one.done()
    assert not await one.is_news()


async def test_a_restart_makes_no_news(server, secrets):
    assert await first_pass(server).is_news()
    await first_pass(server).done()
    assert not await first_pass(server).is_news()


async def test_an_upgrade_is_news_and_so_is_the_way_back(server, secrets):
    for version in ("1.0", "1.1", "1.0"):
        assert await first_pass(server, version).is_news()
        await first_pass(server, version).done()


async def test_a_version_that_was_noted_is_not_asked_for_again(server, secrets):
    one = first_pass(server)
    await one.done()
    asked = len(server.requests)
    for _ in range(3):
        assert not await one.is_news()
        await one.done()
    assert len(server.requests) == asked


@pytest.mark.parametrize("case", UNREADABLE)
async def test_whether_a_version_is_news_may_be_doubt(server, case):
    server.answers(UNREADABLE[case])
    with pytest.raises(Doubt):
        await first_pass(server).is_news()


async def test_a_version_that_could_not_be_noted_stays_news(server, secrets):
    one = first_pass(server)
    server.answers(http.status(403, "Forbidden"))
    with pytest.raises(Doubt):
        await one.done()
    server.answers(secrets.reply)
    assert await one.is_news()
