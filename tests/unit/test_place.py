"""Labs that are missing together are proven to be missed in the right place by one question."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace

import pytest
from jupyterhub import orm
from traitlets.config import Config

from jhub_safety.errors import Doubt
from jhub_safety.hub import reconciling
from jhub_safety.labs import LabsMixin
from jhub_safety.sessions import place
from jhub_safety.sessions.absence import Absences
from jhub_safety.sessions.kubernetes import KubernetesInventory
from jhub_safety.sessions.place import KEPT, Places
from jhub_safety.sessions.presence import Presence
from jhub_safety.spawner import SafeKubeSpawner
from tests.unit import api_server as http
from tests.unit.api_server import api_server
from tests.unit.given import HUB, NAMESPACE
from tests.unit.session_given import Clock, session

UID = "uid-of-mark"


class Marks:
    """The API server, as far as marks are read."""

    def __init__(self):
        self.asked = []
        self.go = asyncio.Event()
        self.go.set()
        self.says = UID

    async def uid(self, api, namespace, hub, mark, *, timeout):
        self.asked.append(namespace)
        await self.go.wait()
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


@pytest.fixture
def marks(monkeypatch):
    made = Marks()
    monkeypatch.setattr(place.landmark, "uid", made.uid)
    return made


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def places(clock):
    return Places(clock=clock)


class Claims:
    def __init__(self, namespace=NAMESPACE, found=None):
        self.namespace, self.found, self.asked = namespace, found, 0

    async def read(self, name):
        self.asked += 1
        return self.found


def proven(places, claims=None, *, saved=UID, claim=None):
    return places.proven(None, HUB, claims or Claims(), place=saved, claim=claim, timeout=1.0)


@pytest.mark.parametrize(
    ("mark", "saved", "claim", "found", "expected"),
    [
        (UID, UID, None, None, True),
        ("another", UID, "claim-ada", object(), False),
        (None, UID, "claim-ada", object(), False),
        (UID, None, None, None, True),
        (UID, None, "claim-ada", None, True),
        (None, None, "claim-ada", object(), True),
        (None, None, "claim-ada", None, False),
        (None, None, None, None, False),
    ],
    ids=[
        "the mark on record",
        "another cluster's, with a claim of that name",
        "no mark, with a claim of that name",
        "none on record, a mark",
        "none on record, a mark, no claim",
        "none on record, its claim",
        "none on record, no mark, no claim",
        "nothing",
    ],
)
async def test_a_place_is_proven_by_what_the_session_has_on_record(
    marks, places, mark, saved, claim, found, expected
):
    marks.says = mark
    assert await proven(places, Claims(found=found), saved=saved, claim=claim) is expected


async def test_all_who_ask_at_the_same_time_wait_for_one_answer(marks, places):
    marks.go.clear()
    waiting = [asyncio.ensure_future(proven(places)) for _ in range(100)]
    await asyncio.sleep(0)
    marks.go.set()
    assert await asyncio.gather(*waiting) == [True] * 100
    assert await proven(places)
    assert len(marks.asked) == 1


async def test_an_answer_serves_for_a_second_from_the_beginning_of_its_question(
    marks, places, clock
):
    marks.go.clear()
    slow = asyncio.ensure_future(proven(places))
    await asyncio.sleep(0)
    clock.now += KEPT
    marks.go.set()
    assert await slow
    marks.says = "another"
    assert not await proven(places)
    clock.now += KEPT / 2
    marks.says = UID
    assert not await proven(places)
    clock.now += KEPT / 2
    assert await proven(places)
    assert len(marks.asked) == 3


async def test_an_answer_that_came_late_is_not_kept_behind_newer_ones(marks, places, clock):
    marks.go.clear()
    slow = asyncio.ensure_future(proven(places))
    await asyncio.sleep(0)
    clock.now += KEPT
    other = asyncio.ensure_future(proven(places, Claims("other")))
    await asyncio.sleep(0)
    marks.go.set()
    assert await asyncio.gather(slow, other) == [True, True]
    await proven(places)
    assert marks.asked == [NAMESPACE, "other", NAMESPACE]


async def test_each_namespace_is_asked_for_itself(marks, places):
    assert await proven(places)
    assert await proven(places, Claims("other"))
    assert marks.asked == [NAMESPACE, "other"]


async def test_an_error_is_everybodys_and_is_never_kept(marks, places):
    marks.go.clear()
    marks.says = Doubt("HTTP 503")
    waiting = [asyncio.ensure_future(proven(places)) for _ in range(3)]
    await asyncio.sleep(0)
    marks.go.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [str(one) for one in found] == ["HTTP 503"] * 3
    marks.says = UID
    assert await proven(places)
    assert len(marks.asked) == 2


async def test_who_is_cancelled_takes_the_answer_from_nobody(marks, places):
    marks.go.clear()
    first, second = (asyncio.ensure_future(proven(places)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    marks.go.set()
    assert await asyncio.wait_for(second, 5)
    assert len(marks.asked) == 1


# -- the two who ask


@pytest.fixture
async def server():
    async with api_server() as double:
        yield double


@pytest.fixture
def spawner(monkeypatch, server):
    """As a hub makes one; polls look through it."""
    monkeypatch.setattr("kubespawner.spawner.load_config", lambda **_: None)
    monkeypatch.setattr("kubespawner.spawner.shared_client", lambda _: server.api)
    settings = {"namespace": NAMESPACE, "hub_name": HUB}
    one = SafeKubeSpawner(
        _mock=True,
        orm_spawner=orm.Spawner(name="", state={}),
        config=Config(SafeKubeSpawner=settings),
    )
    one._saved_place = UID
    return one


async def test_polls_and_passes_of_many_missing_labs_read_the_mark_once(
    monkeypatch, server, spawner, clock
):
    """10,000 labs that were missing cost 10,000 more reads of one Secret each round."""

    async def reply(request):
        if "/secrets/" in request.path:
            body = {"kind": "Secret", "metadata": {"uid": UID}}
            return await http.says(200, body)(request)
        return await http.not_found(request.path.rpartition("/")[2])(request)

    server.answers(reply)
    monkeypatch.setattr(LabsMixin, "places", Places(clock=clock))
    inventory = KubernetesInventory(server.api, HUB, NAMESPACE, absences=Absences(clock), timeout=5)
    inventory.places = LabsMixin.places
    looks = [inventory.look(session(lab=f"jupyter-{number}", place=UID)) for number in range(20)]
    polls = [spawner._place_is_proven() for _ in range(20)]
    found = await asyncio.gather(*looks, *polls)
    assert [one.presence for one in found[:20]] == [Presence.DOUBT] * 20
    assert found[20:] == [True] * 20
    paths = [one.path for one in server.requests]
    assert sum("/pods/" in path for path in paths) == 20
    assert sum("/secrets/" in path for path in paths) == 1


def test_the_hubs_inventory_asks_where_its_polls_ask(monkeypatch):
    app = SimpleNamespace(
        config=Config(SafeKubeSpawner={"namespace": NAMESPACE}), log=logging.getLogger(__name__)
    )
    monkeypatch.setattr(reconciling.Watch, "_api", lambda self: None)
    watch = reconciling.Watch(app, SafeKubeSpawner)
    assert watch.inventory.places is LabsMixin.places
