"""How the running hub ends a session, on JupyterHub's own users and spawners in memory."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace

import pytest
from jupyterhub import orm
from jupyterhub.spawner import Spawner
from jupyterhub.user import UserDict

from jhub_safety.errors import Conflict
from jhub_safety.hub.running import RunningHub
from jhub_safety.sessions.records import ENDED
from jhub_safety.starts import StartsMixin
from tests.unit.hub_database import add_server, opened
from tests.unit.session_given import ADA, session

WHY = "its lab is gone"


class Ends(Spawner, StartsMixin):
    """JupyterHub's, of a lab that has gone; only that it is one of ours counts here."""

    #: What a lab's poll says.
    status: int | None = 1

    def __init__(self, *args, **kwargs):
        Spawner.__init__(self, *args, **kwargs)
        self.given_up = asyncio.Event()
        self.leave_lab = False
        self.ended = ""
        self.stops = 0

    async def start(self):
        raise AssertionError("nothing is started here")

    async def stop(self, now=False):
        self.stops += 1

    async def poll(self):
        return self.status

    # JupyterHub's own: what ours add needs a cluster.
    get_state = Spawner.get_state
    load_state = Spawner.load_state
    clear_state = Spawner.clear_state
    get_url = Spawner.get_url
    progress = Spawner.progress


class Proxy:
    """Takes routes away when it is let, or fails."""

    def __init__(self):
        self.go = asyncio.Event()
        self.asked = asyncio.Event()
        self.fault: Exception | None = None
        self.deleted = []

    async def delete_user(self, user, server_name=""):
        self.asked.set()
        await self.go.wait()
        if self.fault is not None:
            raise self.fault
        self.deleted.append((user.name, server_name))


@pytest.fixture
def app(tmp_path):
    file = tmp_path / "jupyterhub.sqlite"
    with opened(file) as db:
        add_server(db, ADA)
        yield SimpleNamespace(
            db=db,
            users=UserDict(lambda: db, {"spawner_class": Ends, "base_url": "/"}),
            proxy=Proxy(),
            log=logging.getLogger("test"),
        )


@pytest.fixture
def spawner(app):
    made = app.users["ada"].spawners[""]
    assert made.server is not None
    yield made
    made.stop_polling()


@pytest.fixture
def stopped(app, monkeypatch):
    """The servers that JupyterHub stopped, one item each time."""
    found = []
    user = app.users["ada"]
    real = user.stop

    async def stop(name=""):
        found.append(name)
        await real(name)

    monkeypatch.setattr(user, "stop", stop)
    return found


@pytest.fixture
def notified(app, spawner):
    """A watch of the spawner as JupyterHub sets it up (handlers/base.py, add_poll_callback)."""
    found = []

    async def user_stopped():
        found.append("a poll")
        await app.users["ada"].stop("")

    spawner.poll_interval = 3600
    spawner.start_polling()
    spawner.add_poll_callback(user_stopped)
    return found


def hub(app):
    return RunningHub(app, inventory=None)


def row(app):
    return app.db.query(orm.Spawner).one()


async def test_a_poll_that_finds_the_lab_gone_meanwhile_ends_no_session_twice(
    app, spawner, stopped, notified
):
    ending = asyncio.ensure_future(hub(app).clear(session(ADA), WHY))
    await asyncio.wait_for(app.proxy.asked.wait(), 5)
    assert spawner._poll_callback is None or not spawner._poll_callback.is_running()
    # One that had begun before.
    await spawner.poll_and_notify()
    app.proxy.go.set()
    await asyncio.wait_for(ending, 5)
    assert notified == []
    assert stopped == [""]
    assert row(app).server is None


async def test_a_session_that_could_not_be_ended_is_watched_again(app, spawner, stopped, notified):
    app.proxy.fault = OSError("refused")
    app.proxy.go.set()
    with pytest.raises(OSError, match="refused"):
        await asyncio.wait_for(hub(app).clear(session(ADA), WHY), 5)
    assert row(app).server is not None
    assert (spawner.pending, spawner.leave_lab) == (None, False)
    assert spawner._poll_callback.is_running()
    app.proxy.fault = None
    await spawner.poll_and_notify()
    assert notified == ["a poll"]
    assert stopped == [""]


async def test_nothing_starts_while_a_session_is_ended(app, spawner, stopped):
    ending = asyncio.ensure_future(hub(app).clear(session(ADA), WHY))
    await asyncio.wait_for(app.proxy.asked.wait(), 5)
    assert spawner.pending == "stop"
    app.proxy.go.set()
    await asyncio.wait_for(ending, 5)
    assert spawner.pending is None


async def test_a_hub_killed_half_way_has_told_the_user_why(app, spawner):
    ending = asyncio.ensure_future(hub(app).clear(session(ADA), WHY))
    await asyncio.wait_for(app.proxy.asked.wait(), 5)
    app.db.expire_all()
    assert row(app).state[ENDED] == WHY
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert spawner.pending is None


async def test_a_lab_that_is_left_is_not_stopped_and_one_that_is_stopped_is(app, spawner):
    app.proxy.go.set()
    spawner.status = None
    await hub(app).stop(session(ADA), WHY)
    assert spawner.stops == 1


async def test_a_check_that_ends_well_meanwhile_does_not_keep_a_server_that_is_to_stop(
    app, spawner, stopped
):
    """`sessions delete` while the hub checks: the check found the lab alive just then."""
    app.proxy.go.set()
    spawner.status = None
    spawner._check_pending = True

    async def check():
        await spawner.given_up.wait()
        spawner._check_pending = False

    checking = asyncio.ensure_future(check())
    await asyncio.wait_for(hub(app).stop(session(ADA), WHY), 5)
    await checking
    assert (stopped, spawner.stops) == ([""], 1)
    assert row(app).server is None
    assert not spawner.given_up.is_set()


async def test_a_check_that_stopped_it_meanwhile_leaves_nothing_to_do(app, spawner, stopped):
    app.proxy.go.set()
    spawner._check_pending = True

    async def check():
        await spawner.given_up.wait()
        await app.users["ada"].stop("")

    checking = asyncio.ensure_future(check())
    await asyncio.wait_for(hub(app).stop(session(ADA), WHY), 5)
    await checking
    assert stopped == [""]
    assert app.proxy.deleted == []


async def test_a_check_that_does_not_let_go_is_a_conflict(app, spawner, monkeypatch, stopped):
    monkeypatch.setattr("jhub_safety.hub.running.LETTING_GO", 0.0)
    spawner._check_pending = True
    with pytest.raises(Conflict, match="is still being stopped"):
        await asyncio.wait_for(hub(app).stop(session(ADA), WHY), 5)
    assert stopped == []
    assert row(app).server is not None
    assert not spawner.given_up.is_set()
