"""The inventory of a Nublado controller: only the controller's own, whole word counts."""

from __future__ import annotations

import asyncio
import gc
import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from traitlets import TraitError
from traitlets.config import Config
from traitlets.config.loader import PyFileConfigLoader

from jhub_safety.errors import ConfigError, Conflict, Doubt
from jhub_safety.sessions.absence import APART, Absences
from jhub_safety.sessions.inventory import Inventory
from jhub_safety.sessions.model import Lab, LabIdentity, LabState, Server, Session
from jhub_safety.sessions.nublado import NubladoInventory
from jhub_safety.sessions.presence import Presence
from tests.unit import api_server as http
from tests.unit.nublado_double import LABS, TOKEN, NubladoDouble, error, nublado


class Clock:
    """Time that passes only when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def double():
    async with nublado() as controller:
        yield controller


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return path


@pytest.fixture
async def make(double: NubladoDouble, token_file: Path, clock: Clock):
    """Inventories that ask the double; closed at the end."""
    made = []

    def inventory(**settings: Any) -> NubladoInventory:
        one = NubladoInventory(
            absences=settings.pop("absences", None) or Absences(clock),
            **({"controller_url": double.url, "token_file": str(token_file)} | settings),
        )
        made.append(one)
        return one

    yield inventory
    for one in made:
        await one.close()


@pytest.fixture
def inventory(make) -> NubladoInventory:
    return make()


def session(user: str, name: str = "", lab: str | None = None) -> Session:
    """As the reader of the hub's records makes it: a named server has no lab."""
    return Session(Server(user, name), ("" if name else user) if lab is None else lab)


def sessions(*users: str) -> tuple[Session, ...]:
    return tuple(session(user) for user in users)


def identity(user: str, name: str = "") -> LabIdentity:
    return LabIdentity(user, "", Server(user, name))


async def gone_after(inventory: NubladoInventory, clock: Clock, user: str) -> list[Presence]:
    """Three looks, a minute apart."""
    seen = []
    for _ in range(3):
        seen.append((await inventory.look(session(user))).presence)
        clock.now += APART
    return seen


# -- what a lab is called


def test_it_is_an_inventory_that_configuration_can_name():
    assert issubclass(NubladoInventory, Inventory)


def test_a_lab_is_called_as_its_user_whatever_the_record_says(inventory):
    assert inventory.lab_of("erin@school.edu", "", {"pod_name": "jupyter-erin"}) == (
        "erin@school.edu",
        "",
    )


def test_a_named_server_has_no_lab(inventory):
    assert inventory.lab_of("erin", "gpu", {}) is None


# -- words of the controller

WORDS = {
    "pending": (LabState.PENDING, Presence.ALIVE),
    "running": (LabState.RUNNING, Presence.ALIVE),
    "terminating": (LabState.TERMINATING, Presence.TERMINATING),
    "terminated": (LabState.ENDED, Presence.ENDED),
    "failed": (LabState.ENDED, Presence.ENDED),
}


@pytest.mark.parametrize(("word", "state"), [(word, is_[0]) for word, is_ in WORDS.items()])
async def test_each_word_is_a_state_in_the_listing(double, inventory, word, state):
    double.has(erin=word)
    listing = await inventory.take(sessions("erin"))
    assert listing.labs == {"erin": (Lab("erin", state, word, ready=word == "running"),)}


@pytest.mark.parametrize(("word", "presence"), [(word, is_[1]) for word, is_ in WORDS.items()])
async def test_each_word_is_a_presence_in_a_look(double, inventory, word, presence):
    double.has(erin=word)
    sighting = await inventory.look(session("erin"))
    assert (sighting.presence, sighting.why) == (presence, f"Nublado says {word}")
    assert sighting.lab is not None
    assert sighting.lab.reason == word


async def test_only_a_pending_lab_looks_pending(double, inventory):
    """Whoever stops what is pending too long asks for the phase."""
    double.has(**{word: word for word in WORDS})
    phases = {word: (await inventory.look(session(word))).lab.phase for word in WORDS}
    assert [word for word, phase in phases.items() if phase == "Pending"] == ["pending"]


# -- the listing


async def test_a_running_lab_is_known_by_the_listing_alone(double, inventory):
    double.has(erin="running", frank="running")
    assert set((await inventory.take(sessions("erin", "frank"))).labs) == {"erin", "frank"}
    assert double.asked == ["GET (all)"]


async def test_who_is_missing_in_the_listing_is_asked_for(double, inventory):
    double.has(erin="running", frank="pending", grace="terminating")
    listing = await inventory.take(sessions("erin", "frank", "grace", "heidi"))
    assert set(listing.labs) == {"erin", "frank", "grace"}
    assert double.asked[0] == "GET (all)"
    assert sorted(double.asked[1:]) == ["GET /frank", "GET /grace", "GET /heidi"]


async def test_labs_without_a_session_are_listed(double, inventory):
    double.has(erin="running", orphan="running")
    assert set((await inventory.take(sessions("erin"))).labs) == {"erin", "orphan"}


async def test_no_sessions_and_no_labs_are_an_empty_listing(inventory):
    assert (await inventory.take(())).labs == {}


@pytest.mark.parametrize("limit", [1, 3, 10])
async def test_no_more_labs_are_asked_for_at_once_than_allowed(double, make, limit):
    double.answer_takes = 0.03
    everybody = sessions(*(f"user-{n}" for n in range(25)))
    await make(concurrency=limit).take(everybody)
    assert len(double.requests) == 26
    assert limit // 2 < double.most_under_way <= limit


async def test_one_doubtful_lab_makes_the_listing_doubtful_and_ends_the_asking(double, make):
    everybody = sessions(*(f"user-{n:02}" for n in range(25)))
    beside, never = asyncio.Event(), asyncio.Event()

    async def once_another_is_under_way(_: web.Request) -> web.Response:
        await beside.wait()
        return web.json_response({}, status=503)

    async def is_not_answered(_: web.Request) -> web.Response:
        beside.set()
        await never.wait()
        return web.Response()

    double.instead[f"{LABS}/user-03"] = once_another_is_under_way
    double.instead |= {f"{LABS}/user-{n:02}": is_not_answered for n in range(4, 25)}
    inventory = make(concurrency=2)
    with pytest.raises(Doubt, match="lab of 'user-03': HTTP 503"):
        await inventory.take(everybody)
    never.set()
    # Nothing comes later, either: this is answered after whatever was left behind.
    await inventory.look(session("later"))
    asked = ["GET (all)", *(f"GET /user-{n:02}" for n in range(5)), "GET /later"]
    assert sorted(double.asked) == sorted(asked)


async def test_a_listing_that_is_cancelled_leaves_no_request_behind(double, inventory):
    asked, never = asyncio.Event(), asyncio.Event()

    async def is_not_answered(_: web.Request) -> web.Response:
        asked.set()
        await never.wait()
        return web.Response()

    double.instead |= {f"{LABS}/{user}": is_not_answered for user in ("erin", "frank")}
    taking = asyncio.create_task(inventory.take(sessions("erin", "frank")))
    await asyncio.wait_for(asked.wait(), 10)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    never.set()
    assert not [one for one in asyncio.all_tasks() if "_ask_for_each" in repr(one.get_coro())]


# -- the fault table: each of them, at each question

LOGIN_PAGE = "<html>Log in</html>"
FAULTS: dict[str, Callable[[], Any]] = {
    "302 to a login page": lambda: http.text(302, LOGIN_PAGE),
    "400": lambda: http.says(400, {}),
    "401": lambda: http.text(401, LOGIN_PAGE),
    "403 of the controller": lambda: refusal(403, "permission_denied"),
    "403 of the ingress": lambda: http.text(403, LOGIN_PAGE),
    "404 of an ingress": lambda: http.text(404, "<html>default backend</html>"),
    "404 of no route": lambda: http.says(404, {"detail": "Not Found"}),
    "404 of another kind": lambda: refusal(404, "not_found"),
    "404 with nothing in it": lambda: http.text(404, ""),
    "404 with an empty detail": lambda: http.says(404, {"detail": []}),
    "404 with a list": lambda: http.says(404, [{"type": "unknown_user"}]),
    "404 with a flat detail": lambda: http.says(404, {"detail": {"type": "unknown_user"}}),
    "404 that says it in the message": lambda: refusal(404, "not_found", "unknown_user"),
    "410": lambda: refusal(410, "unknown_user"),
    "429": lambda: http.says(429, {}),
    "500": lambda: http.says(500, {"detail": "Internal Server Error"}),
    "502": lambda: http.text(502, "<html>Bad Gateway</html>"),
    "503": lambda: http.text(503, "<html>Service Unavailable</html>"),
    "200 unknown_user": lambda: refusal(200, "unknown_user"),
    "201": lambda: http.says(201, {"status": "terminated"}),
    "202": lambda: http.says(202, {"status": "terminated"}),
    "timeout": lambda: http.silence(5),
    "half a body": lambda: http.cut_off({"status": "terminated", "user": {"username": "erin"}}),
    "hangs up": http.hangs_up,
    "garbage": lambda: http.text(200, "\x00\xff{", "application/json"),
    "a login page": lambda: http.text(200, LOGIN_PAGE),
    "nothing": lambda: http.text(200, ""),
    "deeper than anybody can read": lambda: http.text(200, "[" * 100_000, "application/json"),
    "null": lambda: http.says(200, None),
    "text": lambda: http.says(200, "terminated"),
    "number": lambda: http.says(200, 0),
    "empty object": lambda: http.says(200, {}),
}
#: Only where one lab is asked for.
OF_A_LAB: dict[str, Callable[[], Any]] = {
    "empty list": lambda: http.says(200, []),
    "list": lambda: http.says(200, [{"status": "terminated"}]),
    "no status": lambda: http.says(200, {"user": {"username": "erin"}}),
    "status null": lambda: http.says(200, {"status": None}),
    "status list": lambda: http.says(200, {"status": ["terminated"]}),
    "status object": lambda: http.says(200, {"status": {"is": "terminated"}}),
    "status unheard of": lambda: http.says(200, {"status": "hibernating"}),
    "status in capitals": lambda: http.says(200, {"status": "TERMINATED"}),
    "somebody else's": lambda: http.says(
        200, {"status": "terminated", "user": {"username": "eve"}}
    ),
    "user null": lambda: http.says(200, {"status": "terminated", "user": None}),
    "user text": lambda: http.says(200, {"status": "terminated", "user": "erin"}),
    "user without a name": lambda: http.says(200, {"status": "terminated", "user": {}}),
}
OF_THE_LIST: dict[str, Callable[[], Any]] = {
    "404 unknown_user": lambda: refusal(404, "unknown_user"),
    "object of users": lambda: http.says(200, {"erin": "running"}),
    "list of objects": lambda: http.says(200, [{"user": "erin"}]),
    "list with a number": lambda: http.says(200, ["erin", 7]),
    "list with null": lambda: http.says(200, [None]),
    "list with an empty name": lambda: http.says(200, ["erin", ""]),
}


def limit(fault: Callable[[], Any]) -> float:
    """Short only where no answer comes: what is answered may take its time on a busy machine."""
    return 0.2 if fault is FAULTS["timeout"] else 5.0


def refusal(status: int, kind: str, message: str = "No") -> Any:
    async def reply(_: Any) -> Any:
        return error(status, kind, message)

    return reply


def table(*faults: dict[str, Callable[[], Any]]) -> Any:
    return pytest.mark.parametrize(
        "fault", [pytest.param(make, id=name) for one in faults for name, make in one.items()]
    )


@table(FAULTS, OF_A_LAB)
async def test_a_fault_makes_a_look_doubtful(double, make, clock, fault):
    """However often: it is never counted as a sighting."""
    double.instead[f"{LABS}/erin"] = fault()
    inventory = make(request_timeout=0.2)
    assert await gone_after(inventory, clock, "erin") == [Presence.DOUBT] * 3


@table(FAULTS, OF_A_LAB)
async def test_a_fault_at_one_lab_makes_the_listing_doubtful(double, make, fault):
    double.has(frank="running")
    double.instead[f"{LABS}/erin"] = fault()
    with pytest.raises(Doubt, match="lab of 'erin'"):
        await make(request_timeout=limit(fault)).take(sessions("erin", "frank"))


@table(FAULTS, OF_THE_LIST)
async def test_a_fault_of_the_list_makes_the_listing_doubtful(double, make, fault):
    double.instead[LABS] = fault()
    with pytest.raises(Doubt, match="listing the labs that run"):
        await make(request_timeout=0.2).take(sessions("erin"))
    # aiohttp by itself asks once more when the connection is lost.
    assert set(double.asked) == {"GET (all)"}, "nobody is missing in a list that is none"


@table(FAULTS)
async def test_a_fault_at_a_deletion_is_doubt(double, make, fault):
    double.instead[f"{LABS}/erin"] = fault()
    with pytest.raises(Doubt, match="deleting the lab of 'erin'"):
        await make(deletion_timeout=0.2).delete(identity("erin"), "erin")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://nowhere.invalid", "https"])
async def test_no_connection_is_doubt(double, make, url):
    """Refused, a name that is none, and TLS with a server that speaks none."""
    if url == "https":
        url = double.url.replace("http:", "https:")
    inventory = make(controller_url=url)
    assert (await inventory.look(session("erin"))).presence is Presence.DOUBT
    with pytest.raises(Doubt):
        await inventory.take(sessions("erin"))


async def test_a_redirect_is_not_followed(double, inventory):
    """It would lead to a login page, or take the token to another host."""

    async def elsewhere(_: Any) -> Any:
        return web.Response(status=307, headers={"Location": f"{LABS}/frank"})

    double.has(frank="terminated")
    double.instead[f"{LABS}/erin"] = elsewhere
    assert (await inventory.look(session("erin"))).presence is Presence.DOUBT
    assert double.asked == ["GET /erin"]


@pytest.mark.parametrize(
    ("fault", "retryable"),
    [("302 to a login page", False), ("401", False), ("403 of the ingress", False)]
    + [(name, True) for name in ("404 of an ingress", "429", "500", "503", "timeout", "garbage")],
)
async def test_doubt_says_whether_asking_again_may_help(double, make, fault, retryable):
    double.instead[""] = FAULTS[fault]()
    with pytest.raises(Doubt) as doubt:
        await make(request_timeout=0.2).take(())
    assert doubt.value.retryable is retryable


# -- gone


async def test_an_unknown_user_is_gone_when_missing_twice_a_minute_apart(inventory, clock):
    looks = await gone_after(inventory, clock, "erin")
    assert looks[:2] == [Presence.DOUBT, Presence.GONE]


async def test_two_looks_within_a_minute_are_one(inventory, clock):
    assert (await inventory.look(session("erin"))).presence is Presence.DOUBT
    clock.now += APART - 1
    assert (await inventory.look(session("erin"))).presence is Presence.DOUBT


async def test_a_lab_that_is_seen_again_begins_anew(double, inventory, clock):
    await inventory.look(session("erin"))
    clock.now += APART
    double.has(erin="running")
    await inventory.look(session("erin"))
    del double.labs["erin"]
    assert (await inventory.look(session("erin"))).presence is Presence.DOUBT


async def test_sightings_are_shared_under_the_reconcilers_key(make, clock):
    absences = Absences(clock)
    absences.missing("/erin")
    clock.now += APART
    look = make(absences=absences).look(session("erin"))
    assert (await look).presence is Presence.GONE


async def test_a_lab_deleted_behind_its_back_runs_until_the_controllers_own_pass(
    double, inventory, clock
):
    double.has(erin="running")
    double.delete_behind_its_back("erin")
    assert set((await inventory.take(sessions("erin"))).labs) == {"erin"}
    assert (await inventory.look(session("erin"))).presence is Presence.ALIVE

    double.reconcile()

    assert (await inventory.take(sessions("erin"))).labs == {}
    assert (await gone_after(inventory, clock, "erin"))[:2] == [Presence.DOUBT, Presence.GONE]


async def test_nobody_is_gone_while_the_controller_knows_none_of_three(double, inventory, clock):
    """Another environment's controller answers well-formed, too."""
    double.has(stranger="running")
    await inventory.take(sessions("erin", "frank", "grace"))
    assert await gone_after(inventory, clock, "erin") == [Presence.DOUBT] * 3
    assert "another environment" in (await inventory.look(session("erin"))).why


@pytest.mark.parametrize("known", ["a listing", "a look", "a deletion"])
async def test_a_controller_that_knows_one_of_them_is_believed(double, inventory, clock, known):
    everybody = sessions("erin", "frank", "grace")
    await inventory.take(everybody)
    double.has(frank="running")
    if known == "a listing":
        await inventory.take(everybody)
    elif known == "a look":
        await inventory.look(session("frank"))
    else:
        await inventory.delete(identity("frank"), "frank")
    assert Presence.GONE in await gone_after(inventory, clock, "erin")


@pytest.mark.parametrize("users", [("erin",), ("erin", "frank")])
async def test_the_last_labs_of_a_small_hub_can_go(inventory, clock, users):
    await inventory.take(sessions(*users))
    assert Presence.GONE in await gone_after(inventory, clock, "erin")


# -- named servers, and records of another spawner

NOT_OURS = {
    "named server": session("erin", "gpu"),
    "named server with a lab": session("erin", "gpu", lab="erin"),
    "pod of KubeSpawner": session("erin", lab="jupyter-erin"),
    "record without a lab": session("erin", lab=""),
}


@pytest.mark.parametrize("record", NOT_OURS.values(), ids=NOT_OURS)
async def test_what_nublado_cannot_know_is_doubt_and_never_asked(double, inventory, clock, record):
    for _ in range(3):
        assert (await inventory.look(record)).presence is Presence.DOUBT
        clock.now += APART
    await inventory.take([record])
    assert double.asked == ["GET (all)"]


async def test_the_lab_of_a_user_with_a_named_server_is_nobodys_that_could_be_told(
    double, inventory
):
    """Nublado's spawner starts both servers in the one lab of the user."""
    double.has(erin="running", frank="running")
    listing = await inventory.take([session("erin", "gpu")])
    labs = [lab for one in listing.labs.values() for lab in one]
    assert set(await inventory.identify(labs)) == {("", "frank")}


async def test_labs_that_no_session_names_are_their_users_and_told_apart(double, inventory):
    double.has(erin="running", frank="running")
    listing = await inventory.take(())
    found = await inventory.identify([lab for one in listing.labs.values() for lab in one])
    assert {key: one.server for key, one in found.items()} == {
        ("", "erin"): Server("erin"),
        ("", "frank"): Server("frank"),
    }
    assert len({one.uid for one in found.values()}) == 2
    assert {(one.hub, one.created) for one in found.values()} == {(None, None)}


# -- deletions


async def test_a_deletion_waits_until_the_lab_is_gone(double, inventory):
    double.has(erin="running")
    double.may_go.clear()
    deleting = asyncio.create_task(inventory.delete(identity("erin"), "erin"))
    async with asyncio.timeout(10):
        while double.labs["erin"] != "terminating":
            await asyncio.sleep(0.01)
    assert (await inventory.look(session("erin"))).presence is Presence.TERMINATING
    assert not deleting.done()
    double.may_go.set()
    await deleting
    assert "erin" not in double.cluster
    assert double.asked == ["DELETE /erin", "GET /erin"]


async def test_a_deletion_may_take_longer_than_a_question(double, make):
    double.has(erin="running")
    double.deletion_takes = 0.3
    await make(request_timeout=0.1).delete(identity("erin"), "erin")
    assert "erin" not in double.cluster


async def test_deleting_what_is_gone_is_success(inventory):
    await inventory.delete(identity("erin"), "erin")


async def test_deleting_twice_at_once_deletes_once(double, inventory):
    double.has(erin="running")
    double.deletion_takes = 0.05
    await asyncio.gather(*(inventory.delete(identity("erin"), "erin") for _ in range(3)))
    assert double.labs == {}


async def test_a_lab_with_which_something_else_is_under_way_is_a_conflict(double, inventory):
    double.has(erin="pending")
    double.busy.add("erin")
    with pytest.raises(Conflict, match=r"'erin'.*nothing was deleted"):
        await inventory.delete(identity("erin"), "erin")
    assert double.labs == {"erin": "pending"}


async def test_a_deletion_that_fails_is_doubt_and_says_so(double, inventory):
    double.has(erin="running")
    double.stuck.add("erin")
    with pytest.raises(Doubt, match="HTTP 500 delete_failed") as doubt:
        await inventory.delete(identity("erin"), "erin")
    assert doubt.value.status == 500


@pytest.mark.parametrize(
    "whose",
    [
        pytest.param(identity("eve"), id="another user"),
        pytest.param(identity("erin", "gpu"), id="a named server"),
        pytest.param(LabIdentity("erin", "", None), id="nobody"),
    ],
)
async def test_a_lab_is_deleted_for_the_default_server_of_its_user_only(double, inventory, whose):
    double.has(erin="running")
    with pytest.raises(Conflict):
        await inventory.delete(whose, "erin")
    assert double.requests == []


# -- names that are meant to be something else

NAMES = {
    "../x": "..%2Fx",
    "a/b": "a%2Fb",
    "erin@school.edu": "erin%40school.edu",
    "../../admin": "..%2F..%2Fadmin",
    "erin/events": "erin%2Fevents",
    "erin?x=1": "erin%3Fx%3D1",
    "erin#x": "erin%23x",
    "%2e%2e": "%252e%252e",
    "a b": "a%20b",
    "a\r\nHost: evil": "a%0D%0AHost%3A%20evil",
    "zoë": "zo%C3%AB",
    "...": "...",
    "x\\y": "x%5Cy",
}


@pytest.mark.parametrize(("user", "segment"), NAMES.items(), ids=map(repr, NAMES))
async def test_a_name_is_one_segment_of_the_path(double, inventory, user, segment):
    await inventory.look(session(user))
    try:
        await inventory.delete(identity(user), user)
    except Doubt:
        assert "/" in user
    assert [one.path for one in double.requests] == [f"{LABS}/{segment}"] * 2


@pytest.mark.parametrize("user", ["../x", "a/b", "erin/events"])
async def test_a_name_that_the_controller_cannot_have_is_never_gone(inventory, clock, user):
    """It is no route there: its 404 says nothing of a lab."""
    assert await gone_after(inventory, clock, user) == [Presence.DOUBT] * 3


@pytest.mark.parametrize("user", ["", ".", "..", "\ud800"], ids=repr)
async def test_a_name_that_no_quoting_makes_safe_is_never_sent(double, inventory, user):
    assert (await inventory.look(session(user))).presence is Presence.DOUBT
    with pytest.raises(Doubt):
        await inventory.delete(identity(user), user)
    assert double.requests == []


@pytest.mark.parametrize("user", ["erin@school.edu", "zoë", "a b"])
async def test_an_unusual_name_is_found(double, inventory, user):
    double.has(**{user: "pending"})
    assert set((await inventory.take(sessions(user))).labs) == {user}


async def test_a_name_in_an_error_is_one_line(double, inventory):
    double.instead[""] = http.says(503, {})
    assert "\n" not in (await inventory.look(session("a\nFATAL: b"))).why


# -- the token


async def test_the_token_is_read_anew_for_each_request(double, inventory, token_file):
    double.tokens = {"first", "second"}
    for token in ("first", "second"):
        token_file.write_text(token)
        await inventory.look(session("erin"))
    assert [one.token for one in double.requests] == ["first", "second"]


async def test_a_token_that_was_replaced_heals_by_itself(double, inventory, token_file):
    double.has(erin="running")
    double.tokens = {"new"}
    assert (await inventory.look(session("erin"))).presence is Presence.DOUBT
    token_file.write_text("new")
    assert (await inventory.look(session("erin"))).presence is Presence.ALIVE


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(None, id="missing"),
        pytest.param(b"", id="empty"),
        pytest.param(b" \n", id="blank"),
        pytest.param(b"s3cret\nX-Admin: yes", id="two lines"),
        pytest.param(b"s3cret two", id="two words"),
        pytest.param(b"s3cret\xff\xfe", id="not text"),
        pytest.param("s3cretë".encode(), id="not ASCII"),
        pytest.param(b"s3cret\0", id="with a NUL"),
    ],
)
async def test_a_token_file_without_a_token_is_doubt_and_nothing_is_sent(
    double, inventory, token_file, content
):
    if content is None:
        token_file.unlink()
    else:
        token_file.write_bytes(content)
    with pytest.raises(Doubt, match="token file") as doubt:
        await inventory.take(sessions("erin"))
    assert doubt.value.retryable is False
    assert (await inventory.look(session("erin"))).presence is Presence.DOUBT
    assert double.requests == []
    assert "s3cret" not in everything_about(doubt.value)


def everything_about(error: BaseException) -> str:
    """Its text, and that and the repr of all that hangs on it."""
    parts = traceback.format_exception(error)
    pending: list[BaseException | None] = [error]
    while pending:
        one = pending.pop()
        if one is not None:
            parts += [str(one), repr(one), repr(one.args), repr(vars(one))]
            pending += [one.__cause__, one.__context__]
    return "\n".join(parts)


def echo(status: int) -> Any:
    """What stands in the way sends the request back, in each place of an error."""

    async def reply(request: Any) -> Any:
        sent = request.headers["Authorization"]
        return error(status, sent, sent, sent)

    return reply


def echo_status() -> Any:
    """The token where the lab's status should be."""

    async def reply(request: Any) -> Any:
        return web.json_response({"status": request.headers["Authorization"].split()[1]})

    return reply


def no_http() -> Any:
    """Not even HTTP, and the request in it."""

    async def reply(request: Any) -> Any:
        request.transport.write(f"{request.headers['Authorization']}\r\n\r\n".encode())
        request.transport.close()
        return web.Response()

    return reply


LEAKS = {
    **FAULTS,
    "401 with an echo": lambda: echo(401),
    "404 with an echo": lambda: echo(404),
    "500 with an echo": lambda: echo(500),
    "status with an echo": echo_status,
    "no HTTP with an echo": no_http,
}


@table(LEAKS)
async def test_the_token_is_in_no_error_log_or_repr(double, make, caplog, fault):
    caplog.set_level(logging.DEBUG)
    double.instead[f"{LABS}/erin"] = fault()
    inventory = make(request_timeout=0.2, deletion_timeout=0.2)
    with pytest.raises(Doubt) as taking:
        await inventory.take(sessions("erin"))
    with pytest.raises(Doubt) as deleting:
        await inventory.delete(identity("erin"), "erin")
    look = await inventory.look(session("erin"))
    assert double.requests[0].token == TOKEN, "it was sent"
    told = "\n".join(
        [
            everything_about(taking.value),
            everything_about(deleting.value),
            repr(look),
            repr(inventory),
            repr(vars(inventory)),
            caplog.text,
        ]
    )
    assert TOKEN not in told


# -- settings


def test_each_setting_says_since_when_it_is_there():
    own = NubladoInventory.class_own_traits(config=True)
    assert set(own) == {
        "controller_url",
        "token_file",
        "request_timeout",
        "deletion_timeout",
        "concurrency",
    }
    assert [name for name, trait in own.items() if ".. versionadded:: 0.1" not in trait.help] == []


async def test_settings_come_from_the_configuration():
    config = Config()
    config.NubladoInventory.controller_url = "https://data.example.org/"
    inventory = NubladoInventory(config=config)
    assert inventory.controller_url == "https://data.example.org"


def test_without_a_url_the_setting_is_named():
    with pytest.raises(ConfigError, match=r"NubladoInventory\.controller_url is not set"):
        NubladoInventory()


@pytest.mark.parametrize(
    "url",
    [
        "data.example.org",
        "ftp://data.example.org",
        "https://",
        "https://hub:s3cret@data.example.org",
        "https://data.example.org/nublado",
        "https://data.example.org/nublado/spawner/v1",
        "https://data.example.org?token=s3cret",
        "https://data.example.org#x",
        "https://data.example.org:port",
        "https://[::1",
    ],
)
def test_an_unusable_url_is_refused_and_not_shown(url):
    with pytest.raises(TraitError, match=r"NubladoInventory\.controller_url: must be as") as error:
        NubladoInventory(controller_url=url)
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("base", ["", "/", "/rsp", "/rsp/"])
async def test_the_url_may_have_a_path_of_its_own(double, make, base):
    await make(controller_url=double.url + base).look(session("erin"))
    assert double.requests[0].path == f"{base.rstrip('/')}{LABS}/erin"


@pytest.mark.parametrize(
    "setting", [{"request_timeout": 0}, {"deletion_timeout": -1}, {"concurrency": 0}], ids=str
)
def test_a_number_that_makes_no_sense_is_refused(setting):
    with pytest.raises(TraitError):
        NubladoInventory(controller_url="https://data.example.org", **setting)


async def test_closing_gives_up_the_connection_and_may_be_done_twice(inventory, recwarn):
    await inventory.look(session("erin"))
    await inventory.close()
    await inventory.close()
    gc.collect()
    assert [one for one in recwarn if issubclass(one.category, ResourceWarning)] == []


# -- what people copy


def test_the_example_names_settings_that_exist(monkeypatch):
    monkeypatch.setenv("NUBLADO_URL", "https://data.example.org")
    examples = Path(__file__).resolve().parents[2] / "examples"
    config = PyFileConfigLoader("nublado_config.py", path=str(examples)).load_config()

    module, _, name = config.SessionReconciler.inventory_class.rpartition(".")
    assert (module, name) == (NubladoInventory.__module__, NubladoInventory.__name__)
    assert set(config.NubladoInventory) <= set(NubladoInventory.class_own_traits(config=True))
    assert NubladoInventory(config=config).controller_url == "https://data.example.org"
