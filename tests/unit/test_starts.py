"""Starts and stops that hang can be given up, and a user is told once how the former lab ended."""

from __future__ import annotations

import asyncio
import json

import pytest
from jupyterhub import orm
from kubespawner import KubeSpawner
from traitlets.config import Config

from jhub_safety import starts
from jhub_safety.databases import DatabasesMixin
from jhub_safety.errors import Doubt
from jhub_safety.hub.abandoned import abandon
from jhub_safety.labs import LabsMixin
from jhub_safety.refused import SpawnRefused
from jhub_safety.sessions.absence import Absences
from jhub_safety.sessions.records import ENDED
from jhub_safety.spawner import SafeKubeSpawner
from jhub_safety.starts import StartsMixin

WHY = "it used more memory than it may (OOMKilled, exit code 137)"


class Base:
    """What KubeSpawner's own start, stop and progress do in a test."""

    def __init__(self) -> None:
        self.starting: asyncio.Future | None = None
        self.go = asyncio.Event()
        self.stops = 0
        #: Raised by the next stops; None: it works.
        self.faults: list[Exception | None] = []
        #: What live reads say of the lab when a stop has ended: "gone", or what else there is.
        self.reads = ["gone"]
        self.events = [{"progress": 50, "message": "Pulling the image"}]

    def start(self, _):
        async def run():
            await self.go.wait()
            return ("10.88.0.7", 8888)

        self.starting = asyncio.ensure_future(run())
        return self.starting

    async def stop(self, _, now=False):
        self.stops += 1
        if self.faults:
            fault = self.faults.pop(0) if len(self.faults) > 1 else self.faults[0]
            if fault is not None:
                raise fault
            return
        await self.go.wait()

    async def is_stopped(self):
        return (self.reads.pop(0) if len(self.reads) > 1 else self.reads[0]) == "gone"

    async def progress(self, _):
        for event in self.events:
            yield event


@pytest.fixture
def base(monkeypatch):
    made = Base()
    for name in ("start", "stop", "progress"):
        method = getattr(made, name)
        monkeypatch.setattr(
            KubeSpawner, name, lambda self, *args, _m=method, **more: _m(self, *args, **more)
        )
    return made


@pytest.fixture
def spawner(monkeypatch, base):
    """As a hub makes one, without a cluster to connect to."""
    monkeypatch.setattr("kubespawner.spawner.load_config", lambda **_: None)
    monkeypatch.setattr("kubespawner.spawner.shared_client", lambda _: None)
    monkeypatch.setattr(LabsMixin, "absences", Absences())

    async def no_database(_: object) -> int:
        return 0

    monkeypatch.setattr(DatabasesMixin, "_seconds_to_end", no_database)
    monkeypatch.setattr(StartsMixin, "_is_stopped", base.is_stopped)
    monkeypatch.setattr(starts, "PAUSES", (0.001, 0.002))
    monkeypatch.setattr(starts, "LAST_TRY", 0.05)

    def make(**settings):
        row = orm.Spawner(name="", state={})
        return SafeKubeSpawner(_mock=True, orm_spawner=row, config=Config(SafeKubeSpawner=settings))

    return make


async def told(spawner) -> list[str]:
    return [event["message"] async for event in spawner.progress()]


async def started(spawner, base):
    base.go.set()
    return await spawner.start()


# -- how the former one ended


def test_nothing_is_noted_of_a_server_that_did_not_end(spawner):
    assert ENDED not in spawner().get_state()


def test_how_a_lab_ended_is_saved_and_survives_a_restart_of_the_hub(spawner):
    one = spawner()
    one.ended = WHY
    saved = json.loads(json.dumps(one.get_state()))
    assert saved[ENDED] == WHY
    other = spawner()
    other.load_state(saved)
    assert other.get_state()[ENDED] == WHY


def test_it_survives_that_the_hub_forgets_the_rest(spawner):
    """user.stop: clear_state(), then the state is saved."""
    one = spawner()
    one.ended = WHY
    one.clear_state()
    assert one.get_state()[ENDED] == WHY


@pytest.mark.parametrize("value", [None, 7, "", ["x"], {}], ids=repr)
def test_a_note_that_is_no_text_is_none(spawner, value):
    one = spawner()
    one.ended = "of before"
    one.load_state(one.get_state() | {ENDED: value})
    assert ENDED not in one.get_state()


async def test_the_next_start_tells_it_first_and_once(spawner, base):
    one = spawner()
    one.ended = WHY
    await started(one, base)
    first, *rest = await told(one)
    assert WHY in first
    assert "Your files are where they were" in first
    assert rest == ["Pulling the image"]
    assert ENDED not in one.get_state()
    await started(one, base)
    assert await told(one) == ["Pulling the image"]


async def test_everybody_who_watches_that_start_is_told(spawner, base):
    """Two tabs of one browser."""
    one = spawner()
    one.ended = WHY
    await started(one, base)
    assert [WHY in (await told(one))[0] for _ in range(2)] == [True, True]


async def test_it_is_told_before_the_first_event(spawner, base):
    one = spawner()
    one.ended = WHY
    starting = one.start()
    first = await anext(one.progress())
    assert (first["progress"], WHY in first["message"]) == (1, True)
    base.go.set()
    await starting


async def test_a_first_start_tells_nothing(spawner, base):
    one = spawner()
    await started(one, base)
    assert await told(one) == ["Pulling the image"]


async def test_the_lab_of_a_new_start_is_not_suspected_for_the_former(spawner, base):
    one = spawner()
    key = f"{one.namespace}/{one.pod_name}"
    one.absences.missing(key)
    await started(one, base)
    assert one.absences.suspected() == ()


# -- a start


async def test_a_start_ends_with_its_url(spawner, base):
    assert await started(spawner(), base) == ("10.88.0.7", 8888)


async def test_the_error_of_a_start_is_its_own(spawner, base):
    one = spawner()
    starting = one.start()
    await asyncio.sleep(0)
    base.starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting


async def test_a_start_that_is_given_up_is_refused_and_can_be_tried_again(spawner, base):
    one = spawner()
    starting = one.start()
    await asyncio.sleep(0)
    one.given_up.set()
    with pytest.raises(SpawnRefused) as caught:
        await asyncio.wait_for(starting, 5)
    assert (caught.value.code, caught.value.retryable) == ("given-up", True)
    assert "try again" in caught.value.jupyterhub_message
    await asyncio.sleep(0)
    assert base.starting.cancelled()
    assert await asyncio.wait_for(started(one, base), 5) == ("10.88.0.7", 8888)


async def test_a_start_whose_time_is_up_ends_wholly(spawner, base):
    """JupyterHub's start_timeout cancels it."""
    one = spawner()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(one.start(), 0.01)
    await asyncio.sleep(0)
    assert base.starting.cancelled()


async def test_what_was_given_up_before_does_not_end_the_next_start(spawner, base):
    one = spawner()
    one.given_up.set()
    one.leave_lab = True
    assert await asyncio.wait_for(started(one, base), 5) == ("10.88.0.7", 8888)
    assert not one.leave_lab


# -- a stop


def running(make, **settings):
    one = make(**settings)
    one._nothing_started = False
    return one


async def test_a_stop_returns_when_the_lab_is_gone(spawner, base):
    stopping = asyncio.ensure_future(running(spawner).stop())
    await asyncio.sleep(0.01)
    assert not stopping.done()
    base.go.set()
    await asyncio.wait_for(stopping, 5)
    assert base.stops == 1


async def test_a_stop_goes_on_until_the_cluster_answers(spawner, base):
    base.faults = [TimeoutError(), Doubt("HTTP 503"), OSError("refused"), None]
    base.reads = ["doubt", "doubt", "doubt", "gone"]
    base.go.set()
    await asyncio.wait_for(running(spawner).stop(), 5)
    assert base.stops == 4


async def test_a_stop_that_failed_is_over_when_the_lab_is_gone(spawner, base):
    base.faults = [TimeoutError()]
    await asyncio.wait_for(running(spawner).stop(), 5)
    assert base.stops == 1


@pytest.mark.parametrize("seen", ["alive", "doubt"])
async def test_a_stop_is_not_over_because_kubespawners_cache_has_no_lab(
    spawner, base, caplog, seen
):
    """That of a reflector which is being replaced has none: its pods come with its first load."""
    base.go.set()
    base.reads = [seen, seen, "gone"]
    await asyncio.wait_for(running(spawner).stop(), 5)
    assert base.stops == 3
    assert not base.reads[1:]


async def test_a_bug_in_a_stop_is_told(spawner, base):
    base.faults = [ZeroDivisionError()]
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(running(spawner).stop(), 5)


async def test_a_stop_that_is_given_up_has_one_last_try(spawner, base, caplog):
    one = running(spawner)
    stopping = asyncio.ensure_future(one.stop())
    async with asyncio.timeout(5):
        while not base.stops:
            await asyncio.sleep(0)
    now = asyncio.get_running_loop().time
    since = now()
    one.given_up.set()
    await asyncio.wait_for(stopping, 5)
    # However slow this machine is; a clock's tick less than it.
    assert now() - since > 0.9 * starts.LAST_TRY
    assert not base.go.is_set()


async def test_a_stop_that_ends_within_its_last_try_has_ended(spawner, base, monkeypatch):
    monkeypatch.setattr(starts, "LAST_TRY", 30.0)
    one = running(spawner)
    one.given_up.set()
    stopping = asyncio.ensure_future(one.stop())
    await asyncio.sleep(0.01)
    assert not stopping.done()
    base.go.set()
    await asyncio.wait_for(stopping, 5)


async def test_a_stop_after_a_start_that_was_given_up_does_not_hang(spawner, base):
    """user.spawn calls it; no cluster answers."""
    one = spawner()
    starting = one.start()
    await asyncio.sleep(0)
    one._nothing_started = False
    one.given_up.set()
    with pytest.raises(SpawnRefused):
        await asyncio.wait_for(starting, 5)
    await asyncio.wait_for(one.stop(), 5)
    assert base.stops == 1


async def test_a_lab_that_is_to_be_left_is_not_stopped(spawner, base):
    one = running(spawner)
    one.leave_lab = True
    await asyncio.wait_for(one.stop(), 5)
    assert base.stops == 0


async def test_a_lab_that_ran_before_a_failed_start_is_not_stopped(spawner, base):
    one = running(spawner)
    one._relinked = True
    one._waiting_for_response = True
    await asyncio.wait_for(one.stop(), 5)
    assert base.stops == 0


async def test_a_lab_that_was_taken_up_is_stopped_like_any_other_later(spawner, base):
    one = running(spawner)
    one._relinked = True
    base.go.set()
    await asyncio.wait_for(one.stop(), 5)
    assert base.stops == 1


@pytest.mark.parametrize("mode", ["off", "observe"])
async def test_without_enforcement_a_stop_is_kubespawners_own(spawner, base, mode):
    base.faults = [TimeoutError("as KubeSpawner has it")]
    with pytest.raises(TimeoutError, match="as KubeSpawner has it"):
        await running(spawner, sessions=mode).stop()
    assert base.stops == 1


async def test_nothing_of_a_stop_goes_on_when_it_is_cancelled(spawner, base):
    one = running(spawner)
    before = len(asyncio.all_tasks())
    stopping = asyncio.ensure_future(one.stop())
    await asyncio.sleep(0.01)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == before


async def test_what_the_hub_forgot_stops_nothing_and_keeps_no_others_state(spawner, base):
    """A stop of its own was on its way; its lab's name is the next lab's."""
    one = running(spawner)
    row = one.orm_spawner
    row.server = orm.Server(ip="10.88.0.8", port=8888, base_url="/", cookie_name="x")
    abandon(one)
    await asyncio.wait_for(one.stop(), 5)
    one.server = None
    one.orm_spawner.state = one.get_state()
    one.start_polling()
    assert (base.stops, one._poll_callback) == (0, None)
    assert (row.server.ip, row.state) == ("10.88.0.8", {})
    assert isinstance(one, SafeKubeSpawner)
