"""The control socket: for the hub's own user alone, and each plan is carried out once."""

from __future__ import annotations

import json
import os
import socket
import stat
import tempfile
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp
import pytest
from hypothesis import given

from jhub_safety import __version__
from jhub_safety.control import KEPT, ControlSocket, socket_path
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.plan import Action, Plan
from jhub_safety.sessions.act import Outcome
from jhub_safety.sessions.operations import Proposal
from tests.unit.given import AWKWARD, HUB, any_text


class Operations:
    """Proposes a plan that is another one each time; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.executed: list[Plan] = []
        self.error: Exception | None = None

    def _propose(self, *asked: Any) -> Proposal:
        if self.error is not None:
            raise self.error
        self.asked.append(asked)
        action = Action("unstick", "", f"number {len(self.asked)}", "test", user="ada")
        return Proposal((), MappingProxyType({}), Plan("test", (action,)), hub_runs=True)

    async def survey(self, user=None, server=None):
        return self._propose("survey", user, server)

    async def reconcile(self, *, over_cap=False):
        return self._propose("reconcile", over_cap)

    async def delete(self, user, server=None, *, forget):
        return self._propose("delete", user, server, forget)

    async def unstick(self, user, server=None):
        return self._propose("unstick", user, server)

    async def execute(self, plan):
        if self.error is not None:
            raise self.error
        self.executed.append(plan)
        return tuple(Outcome(one, "done") for one in plan.actions)


@pytest.fixture
def folder():
    # Not pytest's: a socket's path may have 107 characters.
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture
def path(folder):
    return folder / "run" / "hub.sock"


@pytest.fixture
def operations():
    return Operations()


@pytest.fixture
async def control(operations, path):
    made = ControlSocket(operations, HUB, path)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def client(control):
    connector = aiohttp.UnixConnector(str(control.path))
    async with aiohttp.ClientSession("http://hub", connector=connector) as session:
        yield session


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# -- who may open it


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077], ids=oct)
async def test_only_the_hubs_own_user_can_open_it(operations, path, mask):
    before = os.umask(mask)
    try:
        control = ControlSocket(operations, HUB, path)
        await control.open()
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert (mode(path), mode(path.parent)) == (0o600, 0o700)
        await control.close()
        assert os.umask(mask) == mask
    finally:
        os.umask(before)


@pytest.mark.parametrize("open_to", [0o777, 0o770, 0o720, 0o702, 0o1777], ids=oct)
async def test_a_directory_that_others_can_write_is_refused(operations, path, open_to):
    """Somebody else could put a socket of their own there."""
    path.parent.mkdir()
    path.parent.chmod(open_to)
    with pytest.raises(OSError, match="can be written by others"):
        await ControlSocket(operations, HUB, path).open()
    assert list(path.parent.iterdir()) == []
    assert mode(path.parent) == open_to


@pytest.mark.parametrize("open_to", [0o700, 0o750, 0o755], ids=oct)
async def test_a_directory_that_others_can_only_read_is_used_as_it_is(operations, path, open_to):
    path.parent.mkdir()
    path.parent.chmod(open_to)
    control = ControlSocket(operations, HUB, path)
    await control.open()
    assert (mode(path), mode(path.parent)) == (0o600, open_to)
    await control.close()


async def test_a_directory_of_somebody_else_is_refused(operations, path, monkeypatch):
    path.parent.mkdir(mode=0o700)
    monkeypatch.setattr(os, "getuid", lambda: path.stat().st_uid + 1 if path.exists() else 4711)
    with pytest.raises(OSError, match="can be written by others"):
        await ControlSocket(operations, HUB, path).open()
    assert list(path.parent.iterdir()) == []


async def test_a_socket_that_a_killed_hub_left_is_replaced(operations, path):
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert path.exists()
    control = ControlSocket(operations, HUB, path)
    await control.open()
    connector = aiohttp.UnixConnector(str(path))
    async with aiohttp.ClientSession("http://hub", connector=connector) as client:
        assert (await client.get("/hub")).status == 200
    await control.close()


async def test_a_file_that_is_no_socket_is_never_replaced(operations, path):
    """A path that was mistyped: it may be the hub's database."""
    path.parent.mkdir(mode=0o700)
    path.write_text("SQLite format 3")
    with pytest.raises(OSError, match=path.name):
        await ControlSocket(operations, HUB, path).open()
    assert path.read_text() == "SQLite format 3"


async def test_a_path_that_is_too_long_is_an_error_of_its_own(operations, folder):
    """The hub says so, and serves without it."""
    with pytest.raises(OSError, match="too long"):
        await ControlSocket(operations, HUB, folder / ("x" * 120)).open()


async def test_nothing_is_left_when_the_hub_has_ended(operations, path):
    control = ControlSocket(operations, HUB, path)
    await control.open()
    await control.close()
    await control.close()
    assert list(path.parent.iterdir()) == []


async def test_one_that_never_opened_closes_and_takes_away_nobodys(operations, client, path):
    """A second hub of that name, which could not have its own."""
    await ControlSocket(operations, HUB, path).close()
    assert path.is_socket()
    assert (await client.get("/hub")).status == 200


# -- where it is


def test_the_configured_path_is_taken_as_it_is():
    assert socket_path("any", "/run/x/y.sock") == Path("/run/x/y.sock")


@given(any_text)
def test_any_hubs_name_makes_a_short_path(hub):
    if "\ud800" <= max(hub) <= "\udfff":
        return
    path = socket_path(hub)
    assert path.parent == Path(tempfile.gettempdir()) / f"jhub-safety-{os.getuid()}"
    assert len(path.name) == 17
    assert path == socket_path(hub)


def test_each_hub_has_a_path_of_its_own():
    names = [one for one in AWKWARD if one.isprintable()]
    assert len({socket_path(name) for name in names}) == len(names)


# -- what it is asked


async def test_it_says_whose_it_is(client):
    async with client.get("/hub") as answer:
        assert await answer.json() == {"hub": HUB, "version": __version__}


@pytest.mark.parametrize(
    ("what", "body", "asked"),
    [
        ("survey", {}, ("survey", None, None)),
        ("survey", {"user": "ada"}, ("survey", "ada", None)),
        ("survey", {"user": "ada", "server": ""}, ("survey", "ada", "")),
        ("reconcile", {}, ("reconcile", False)),
        ("reconcile", {"over_cap": True}, ("reconcile", True)),
        ("delete", {"user": "ada"}, ("delete", "ada", None, False)),
        ("delete", {"user": "🦊", "server": "a b", "forget": True}, ("delete", "🦊", "a b", True)),
        ("unstick", {"user": "ada", "server": "gpu"}, ("unstick", "ada", "gpu")),
    ],
)
async def test_what_is_asked_arrives_as_it_was_said(client, operations, what, body, asked):
    async with client.post(f"/sessions/{what}", json=body) as answer:
        assert answer.status == 200
        found = await answer.json()
    assert operations.asked == [asked]
    assert found["plan"]["actions"][0]["name"] == "number 1"
    assert operations.executed == []


async def test_a_plan_is_carried_out_once_and_exactly_as_it_was_shown(client, operations):
    shown = []
    for _ in range(2):
        async with client.post("/sessions/survey", json={}) as answer:
            shown.append(await answer.json())
    async with client.post(f"/plans/{shown[0]['id']}", json={}) as answer:
        outcomes = (await answer.json())["outcomes"]
    assert [plan.record() for plan in operations.executed] == [shown[0]["plan"]]
    assert outcomes == [shown[0]["plan"]["actions"][0] | {"outcome": "done"}]
    async with client.post(f"/plans/{shown[0]['id']}", json={}) as answer:
        assert answer.status == 404
    assert len(operations.executed) == 1


async def test_a_plan_that_failed_is_used_up_too(client, operations):
    """Half of it may have been done: it is shown again before it is tried again."""
    async with client.post("/sessions/survey", json={}) as answer:
        plan = (await answer.json())["id"]
    operations.error = Doubt("HTTP 503")
    async with client.post(f"/plans/{plan}", json={}) as answer:
        assert (answer.status, await answer.json()) == (409, {"error": "HTTP 503"})
    operations.error = None
    async with client.post(f"/plans/{plan}", json={}) as answer:
        assert answer.status == 404


async def test_a_plan_that_nobody_showed_is_unknown(client, operations):
    async with client.post("/plans/0123456789abcdef", json={}) as answer:
        assert (answer.status, await answer.text()) == (404, "no such plan; ask again")
    assert operations.executed == []


async def test_only_the_last_plans_are_kept(client, operations):
    plans = []
    for _ in range(KEPT + 2):
        async with client.post("/sessions/survey", json={}) as answer:
            plans.append((await answer.json())["id"])
    assert len(set(plans)) == len(plans)
    status = {}
    for plan in plans:
        async with client.post(f"/plans/{plan}", json={}) as answer:
            status[plan] = answer.status
    assert list(status.values()) == [404, 404] + [200] * KEPT


@pytest.mark.parametrize("error", [Doubt("HTTP 503"), Conflict("has changed")], ids=str)
@pytest.mark.parametrize("what", ["survey", "reconcile"])
async def test_an_error_is_told_as_json(client, operations, error, what):
    operations.error = error
    async with client.post(f"/sessions/{what}", json={}) as answer:
        assert (answer.status, await answer.json()) == (409, {"error": str(error)})


@pytest.mark.parametrize(
    ("where", "body"),
    [("/sessions/delete", {}), ("/sessions/unstick", {"server": "x"}), ("/sessions/nonsense", {})],
    ids=["delete whom", "unstick whom", "unknown"],
)
async def test_a_question_that_is_not_whole_is_told_as_json(client, operations, where, body):
    async with client.post(where, json=body) as answer:
        assert answer.status == 400
        assert "is missing or unknown" in (await answer.json())["error"]
    assert operations.asked == []


@pytest.mark.parametrize("body", ["", "nonsense", "[]", "7", "null", '"ada"'])
@pytest.mark.parametrize("what", ["survey", "delete"])
async def test_garbage_does_nothing(client, operations, what, body):
    async with client.post(f"/sessions/{what}", data=body) as answer:
        assert answer.status >= 400
    assert operations.asked == []


async def test_a_bug_shows_nothing_of_itself(client, operations):
    operations.error = RuntimeError("token s3cr3t")
    async with client.post("/sessions/survey", json={}) as answer:
        assert answer.status == 500
        assert "s3cr3t" not in await answer.text()


async def test_reading_methods_change_nothing(client, operations):
    for path in ("/sessions/survey", "/plans/x"):
        async with client.get(path) as answer:
            assert answer.status == 405
    assert json.dumps(operations.asked) == "[]"
