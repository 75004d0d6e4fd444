"""How the running hub ends a session, on JupyterHub's own users and spawners in memory."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from jupyterhub import orm
from jupyterhub.app import JupyterHub
from jupyterhub.spawner import Spawner
from jupyterhub.user import UserDict
from sqlalchemy import insert, inspect, text
from sqlalchemy.exc import OperationalError

from jhub_safety.errors import Conflict, Doubt
from jhub_safety.hub.running import RunningHub
from jhub_safety.journal import Journal
from jhub_safety.plan import Action, Plan
from jhub_safety.sessions.act import Executor
from jhub_safety.sessions.presence import Presence, Sighting
from jhub_safety.sessions.records import ENDED, STEP
from jhub_safety.starts import StartsMixin
from tests.unit.given import NAMESPACE
from tests.unit.hub_database import add_server, opened
from tests.unit.session_doubles import InventoryDouble, pod
from tests.unit.session_given import ADA, BOB, Clock, session

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
            users=UserDict(
                lambda: db,
                {
                    "spawner_class": Ends,
                    "base_url": "/",
                    # JupyterHub 5 counts what does not answer.
                    "statsd": SimpleNamespace(incr=lambda *_: None),
                },
            ),
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


class LabOf:
    """As much of an inventory as reading a session needs."""

    def lab_of(self, user, server, state):
        return f"jupyter-{user}", NAMESPACE


def hub(app):
    return RunningHub(app, inventory=LabOf())


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


def full(db, monkeypatch, commits):
    """The disk is full for these of the commits that follow."""
    real, calls = db.commit, []

    def commit():
        calls.append(1)
        if len(calls) in commits:
            raise OperationalError("COMMIT", {}, sqlite3.OperationalError("disk is full"))
        real()

    monkeypatch.setattr(db, "commit", commit)


#: user.stop commits twice at least: what failed first is tried again.
COMMITS = {"how it ended": {1}, "its tokens": {2}, "its end": {3, 4}}


@pytest.mark.parametrize("what", COMMITS)
async def test_a_session_whose_end_was_not_written_is_watched_again_and_can_be_stopped(
    app, spawner, stopped, notified, monkeypatch, what
):
    """It was "pending stop" until the hub was restarted, and nobody looked at its lab."""
    app.proxy.go.set()
    full(app.db, monkeypatch, COMMITS[what])
    with pytest.raises(OperationalError):
        await asyncio.wait_for(hub(app).clear(session(ADA), WHY), 5)
    assert row(app).server is not None
    assert (spawner.pending, spawner.leave_lab, spawner.ended) == (None, False, "")
    assert spawner._poll_callback.is_running()
    await spawner.poll_and_notify()
    assert notified == ["a poll"]
    assert row(app).server is None


@pytest.mark.parametrize("lock", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
async def test_a_locked_database_ends_no_session_and_is_readable_afterwards(
    app, spawner, stopped, notified, lock
):
    """Each later query of that pass failed (PendingRollbackError)."""
    app.proxy.go.set()
    running = hub(app)
    app.db.execute(text("PRAGMA busy_timeout = 0"))
    app.db.commit()
    with closing(sqlite3.connect(app.db.get_bind().url.database)) as other:
        other.execute(lock)
        with pytest.raises(OperationalError, match="locked"):
            await asyncio.wait_for(running.clear(session(ADA), WHY), 5)
        other.rollback()
    assert (spawner.pending, stopped) == (None, [])
    assert spawner._poll_callback.is_running()
    assert (await running.session(ADA)).server == ADA
    await asyncio.wait_for(running.clear(session(ADA), WHY), 5)
    assert (stopped, row(app).server) == ([""], None)


async def test_what_somebody_else_could_not_write_keeps_no_session_from_being_read(app):
    running = hub(app)
    app.db.add(orm.User(name="ada"))
    with pytest.raises(Exception, match="UNIQUE"):
        app.db.commit()
    assert (await running.session(ADA)).server == ADA
    app.db.add(orm.User(name="ada"))
    with pytest.raises(Exception, match="UNIQUE"):
        app.db.commit()
    assert running.pending(ADA) == ""


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


class Looks(InventoryDouble):
    """A live look, and what happens before it has its answer."""

    def __init__(self, presence, meanwhile):
        super().__init__(Clock())
        self.presence, self.meanwhile = presence, meanwhile

    def lab_of(self, user, server, state):
        return LabOf.lab_of(self, user, server, state)

    async def look(self, one):
        await self.meanwhile()
        running = self.presence is Presence.ALIVE
        return Sighting(self.presence, pod(ADA, phase="Pending") if running else None)


@pytest.mark.parametrize(
    ("kind", "presence"),
    [
        ("clear-session", Presence.GONE),
        ("clear-session", Presence.ENDED),
        ("stop-server", Presence.ALIVE),
        ("end-session", Presence.GONE),
        ("end-session", Presence.ALIVE),
    ],
)
async def test_a_session_that_began_while_the_former_was_looked_at_is_left_alone(
    app, spawner, stopped, kind, presence
):
    """A look may take 90 s. Its user had stopped and started meanwhile, and lost that server."""
    app.proxy.go.set()
    row(app).started = datetime(2026, 11, 22, 9, tzinfo=UTC)
    app.db.commit()

    async def meanwhile():
        await app.users["ada"].stop("")
        started_anew(app)
        row(app).started = datetime(2026, 11, 22, 10, tzinfo=UTC)
        app.db.commit()
        stopped.clear()

    inventory = Looks(presence, meanwhile)
    running = RunningHub(app, inventory)
    since = (await running.session(ADA)).since
    one = Action(kind, NAMESPACE, "jupyter-ada", "as planned", user="ada", server="", since=since)
    executor = Executor(running, inventory, Journal(None), app.log)
    (outcome,) = await executor.execute(Plan("test", (one,)))
    assert "was started anew meanwhile" in outcome.outcome
    assert (outcome.failed, stopped, app.proxy.deleted) == (True, [], [])
    assert row(app).server.ip == "10.88.0.8"
    assert app.users["ada"].spawners[""].pending is None


async def test_a_session_that_began_while_the_check_of_the_former_ended_is_left_alone(
    app, spawner, stopped
):
    app.proxy.go.set()
    spawner._check_pending = True

    async def check():
        await spawner.given_up.wait()
        await app.users["ada"].stop("")
        started_anew(app)
        row(app).started = datetime(2026, 11, 22, 10, tzinfo=UTC)
        app.db.commit()

    checking = asyncio.ensure_future(check())
    with pytest.raises(Conflict, match="was started anew"):
        await asyncio.wait_for(hub(app).stop(session(ADA), WHY), 5)
    await checking
    assert (stopped, app.proxy.deleted) == ([""], [])
    assert row(app).server.ip == "10.88.0.8"


# -- browser sessions


@pytest.fixture
def logins(app):
    """Ada and Bob in the hub's memory, each with a browser's token and one of their own."""
    add_server(app.db, BOB)
    for name in ("ada", "bob"):
        user = orm.User.find(app.db, name)
        orm.APIToken.new(user=user, note="my own")
        orm.APIToken.new(user=user, note="browser", session_id=f"session-of-{name}")
        # Loaded whole.
        assert (len(user.api_tokens), len(user.oauth_codes), bool(user.cookie_id)) == (4, 1, True)
        assert app.users[name].spawners[""].server is not None
    for client in app.db.query(orm.OAuthClient):
        assert client.access_tokens is not None
    return app.db


def notes(db, name):
    return sorted(token.note for token in orm.User.find(db, name).api_tokens)


def test_who_is_logged_out_is_read_again_and_nobody_else(app, logins):
    """Each object that is expired is a query when it is next used: 10,000 users, 10,000 queries."""
    bob = orm.User.find(logins, "bob")
    cookies = {name: orm.User.find(logins, name).cookie_id for name in ("ada", "bob")}
    others = [bob, *bob.api_tokens, *bob.oauth_codes, *bob.orm_spawners.values()]
    assert hub(app).logout("ada") == {"users": 1, "tokens": 1}
    assert not any(inspect(one).expired for one in others)
    assert {"cookie_id", "api_tokens", "oauth_codes"} <= inspect(bob).dict.keys()
    ada = orm.User.find(logins, "ada")
    assert ada.cookie_id != cookies["ada"]
    assert bob.cookie_id == cookies["bob"]
    assert "browser" not in notes(logins, "ada")
    assert "browser" in notes(logins, "bob")
    assert ada.oauth_codes == []
    for client in logins.query(orm.OAuthClient):
        assert None not in [token.note for token in client.access_tokens]
        assert [code.user.name for code in client.codes] in ([], ["bob"])


def test_everybody_is_read_again_when_everybody_is_logged_out(app, logins):
    before = {user.name: user.cookie_id for user in logins.query(orm.User)}
    assert hub(app).logout(None) == {"users": 2, "tokens": 2}
    after = {name: orm.User.find(logins, name).cookie_id for name in before}
    assert all(after[name] != before[name] for name in before)
    assert "browser" not in notes(logins, "ada") + notes(logins, "bob")


def test_nobody_is_logged_out_for_a_user_whom_the_hub_does_not_know(app, logins):
    before = {user.name: user.cookie_id for user in logins.query(orm.User)}
    with pytest.raises(Doubt, match="no user"):
        hub(app).logout("carol")
    logins.expire_all()
    assert {user.name: user.cookie_id for user in logins.query(orm.User)} == before


# -- a database in memory


def filled(db, number):
    """So many users with a session each, in one go."""
    ids = range(1, number + 1)
    db.execute(insert(orm.User), [{"id": n, "name": f"u{n}", "cookie_id": f"c{n}"} for n in ids])
    one = {"ip": "10.88.0.7", "port": 8888, "cookie_name": "c", "proto": "http", "base_url": "/"}
    db.execute(insert(orm.Server), [{"id": n, **one} for n in ids])
    rows = [{"id": n, "user_id": n, "server_id": n, "name": "", "state": {}} for n in ids]
    db.execute(insert(orm.Spawner), rows)
    db.commit()


async def test_sessions_in_memory_are_read_while_the_hub_goes_on_writing():
    """From 1,000 sessions on no pass went through: the connection had been closed."""
    db = orm.new_session_factory("sqlite:///:memory:")()
    filled(db, 2 * STEP + 200)
    app = SimpleNamespace(db=db, db_url="sqlite:///:memory:", db_kwargs={})
    reading = asyncio.ensure_future(RunningHub(app, LabOf()).sessions())
    commits = 0
    while not reading.done():
        db.query(orm.User).first().admin = commits % 2 == 0
        db.commit()
        commits += 1
        await asyncio.sleep(0)
    found = await reading
    assert commits > 2
    assert len({one.server for one in found}) == 2 * STEP + 200
    db.close()
    db.get_bind().dispose()


# -- what hangs


def pending(spawner, what, *, ends_well):
    """What the hub is doing about it, and how it ends once it is given up."""
    setattr(spawner, f"_{what}_pending", True)

    async def busy():
        await spawner.given_up.wait()
        if not ends_well:
            await spawner.user.stop("")
        setattr(spawner, f"_{what}_pending", False)

    return asyncio.ensure_future(busy())


@pytest.mark.parametrize("what", ["check", "spawn"])
async def test_what_ends_well_just_as_it_is_given_up_leaves_a_server_as_any_other(
    app, spawner, stopped, notified, what
):
    """Its next poll said 1: the session ended without a word, and the lab was an orphan."""
    busy = pending(spawner, what, ends_well=True)
    outcome = await asyncio.wait_for(hub(app).unstick(ADA), 5)
    await busy
    assert outcome == f"unchanged: pending {what} ended well just then, and the server runs"
    assert (spawner.leave_lab, spawner.given_up.is_set(), stopped) == (False, False, [])
    assert app.users["ada"].spawners[""] is spawner
    assert row(app).server is not None


async def test_a_check_that_is_given_up_ends_its_session_and_leaves_its_lab(app, spawner, stopped):
    busy = pending(spawner, "check", ends_well=False)
    outcome = await asyncio.wait_for(hub(app).unstick(ADA), 5)
    await busy
    assert outcome == "done: pending check was given up"
    assert (stopped, spawner.leave_lab) == ([""], True)
    assert row(app).server is None


class Hangs:
    """A step of JupyterHub's that does not end before the test lets it, and then as it says."""

    def __init__(self):
        self.begun, self.go = asyncio.Event(), asyncio.Event()

    async def __call__(self, result):
        self.begun.set()
        await self.go.wait()
        if isinstance(result, Exception):
            raise result
        return result


@pytest.fixture
def check(app):
    """JupyterHub's own check of all servers, as at a hub's start."""
    app.authenticator = SimpleNamespace(blocked_users=set())
    app.log_level = logging.INFO
    return lambda: asyncio.ensure_future(JupyterHub.init_spawners(app))


def started_anew(app):
    """What the user's next start leaves in memory and in the database."""
    spawner = app.users["ada"].spawners[""]
    row(app).server = orm.Server(ip="10.88.0.8", port=8888, base_url="/", cookie_name="d")
    row(app).state = {"pod_name": "the next"}
    app.db.add(orm.OAuthClient(identifier=spawner.oauth_client_id, description="the next"))
    app.db.commit()
    return spawner


def untouched(app, spawner, notified):
    app.db.expire_all()
    assert app.users["ada"].spawners[""] is spawner
    assert row(app).server.ip == "10.88.0.8"
    assert row(app).state == {"pod_name": "the next"}
    assert app.db.query(orm.OAuthClient).filter_by(description="the next").count() == 1
    assert notified == []


#: Where a check may hang, and how it ends at last.
LATE = {
    "it says stopped": ("poll", 1),
    "it says running": ("poll", None),
    "it fails": ("poll", RuntimeError("at last")),
    "it has an address": ("get_url", "http://10.88.0.7:8888"),
    "its lab answers": ("wait_up", SimpleNamespace(headers={})),
    "its lab does not answer": ("wait_up", TimeoutError()),
    "its stop ends": ("post_stop_hook", None),
}


@pytest.mark.parametrize("late", LATE)
async def test_a_check_that_was_given_up_never_touches_what_is_started_after_it(
    app, spawner, notified, check, monkeypatch, late
):
    """It ends servers by their name; the user's next lab was killed."""
    where, result = LATE[late]
    step = Hangs()
    app.proxy.go.set()
    monkeypatch.setattr("jhub_safety.hub.running.LETTING_GO", 0.0)
    spawner.poll_interval = 3600
    spawner.status = 1 if where == "post_stop_hook" else None
    if where == "wait_up":
        monkeypatch.setattr("jupyterhub.objects.Server.wait_up", lambda _, **__: step(result))
    elif where == "post_stop_hook":
        spawner.post_stop_hook = lambda _: step(result)
    else:
        monkeypatch.setattr(spawner, where, lambda: step(result), raising=False)
    checking = check()
    await asyncio.wait_for(step.begun.wait(), 5)
    assert spawner.pending == ("stop" if where == "post_stop_hook" else "check")
    outcome = await asyncio.wait_for(hub(app).unstick(ADA), 5)
    assert "was taken off the hub's memory" in outcome
    assert row(app).server is None
    anew = started_anew(app)
    assert anew is not spawner
    step.go.set()
    assert await asyncio.wait_for(checking, 5) == 1
    untouched(app, anew, notified)
    assert (spawner._poll_callback, spawner.stops, anew.stops) == (None, 0, 0)
