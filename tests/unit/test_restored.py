"""After ``jhub-safety db restore`` the hub serves: what is known of its database goes along."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
import urllib.request
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from jupyterhub.app import JupyterHub
from traitlets.config import Config

from jhub_safety.cli import cli, hubalive
from jhub_safety.errors import SafetyError
from jhub_safety.hub import guarding
from jhub_safety.hub.guarded import GuardedHub
from jhub_safety.hub.guarding import HubGuard
from jhub_safety.hubdb.guard import DatabaseGuard
from jhub_safety.hubdb.guarding import Row, Verdict
from jhub_safety.hubdb.known import FiledKnown
from tests.unit.hub_database import add_user, opened
from tests.unit.session_world import Running, closed_port, surroundings
from tests.unit.test_hub_access import pod

USERS = {"ada", "bob", "carol"}


@pytest.fixture
def world(monkeypatch):
    """No hub runs. A snapshot is kept, and the fingerprint is of later: as on any hub."""
    with surroundings(monkeypatch) as made:
        made.port = closed_port()
        made.extra = (
            f"\nc.DatabaseGuard.fingerprint_file = {str(made.directory / 'known.json')!r}\n"
            "c.DatabaseGuard.on_loss = 'hold'\n"
        )
        made.write_config(hub_port=made.port)
        with opened(made.database) as db:
            for name in USERS:
                add_user(db, name)
        take(made)
        assert run(made, "backup").exit_code == 0
        take(made)
        yield made


def guard_of(world) -> DatabaseGuard:
    async def no_homes() -> bool:
        return False

    guard = DatabaseGuard()
    guard.attach(f"sqlite:///{world.database}", FiledKnown(known(world)), no_homes)
    return guard


def known(world) -> Path:
    return world.directory / "known.json"


def take(world) -> int:
    return asyncio.run(guard_of(world).take()).epoch


def seen(world) -> tuple[Row, Verdict]:
    _, decision = asyncio.run(guard_of(world).look())
    return decision.row, decision.verdict


def run(world, *arguments: str, answer: str = ""):
    result = CliRunner().invoke(cli, ["db", *arguments], input=answer)
    if not isinstance(result.exception, (SafetyError, SystemExit, type(None))):
        raise result.exception
    return result


def restore(world, *arguments: str):
    result = run(world, "restore", "newest", "--yes", *arguments)
    assert result.exit_code == 0, result.output
    return result


def users(world) -> set[str]:
    with closing(sqlite3.connect(world.database)) as database:
        return {row[0] for row in database.execute("SELECT name FROM users")}


def journal(world) -> list[dict]:
    file = world.directory / "state" / "jhub-safety" / "journal.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


@contextmanager
def holding(world, monkeypatch):
    """The hub's own process before it opens its database; it holds."""
    ended = threading.Event()

    def pause(seconds: float) -> None:
        if ended.wait(min(seconds, 0.05)):
            raise SystemExit

    monkeypatch.setattr(guarding, "time", SimpleNamespace(sleep=pause, monotonic=time.monotonic))
    config = Config()
    config.DatabaseGuard.fingerprint_file = str(known(world))
    config.DatabaseGuard.on_loss = "hold"
    config.SafetySettings.journal = ""
    app = JupyterHub(
        config=config, db_url=f"sqlite:///{world.database}", hub_ip="127.0.0.1", hub_port=world.port
    )
    hub = HubGuard(GuardedHub(app, None))

    def hold() -> None:
        with suppress(SystemExit):
            hub.before_database()

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    try:
        for _ in range(500):
            with suppress(OSError), urllib.request.urlopen(health(world), timeout=5):
                break
            ended.wait(0.01)
        else:
            pytest.fail("it does not hold")
        yield thread
    finally:
        ended.set()
        thread.join(20)


def health(world) -> str:
    return f"http://127.0.0.1:{world.port}/hub/health"


def test_a_hub_that_holds_serves_after_a_restore_inside_it(world, monkeypatch):
    world.database.write_bytes(b"")
    with holding(world, monkeypatch) as hub:
        result = restore(world)
        hub.join(10)
        assert not hub.is_alive(), "it holds again"
    assert users(world) == USERS
    assert seen(world) == (Row.AS_BEFORE, Verdict.SERVE)
    assert "goes on within seconds" in result.stderr


@pytest.mark.parametrize(
    "change",
    [
        pytest.param("DELETE FROM jhub_safety", id="a snapshot from before the guard"),
        pytest.param(
            "UPDATE jhub_safety SET value = 'f' WHERE key = 'identity'", id="another identity"
        ),
    ],
)
def test_it_serves_whatever_mark_the_snapshot_has(world, change):
    with closing(sqlite3.connect(world.database)) as database:
        before = database.execute("SELECT * FROM jhub_safety").fetchall()
        database.execute(change)
        database.commit()
        assert run(world, "backup").exit_code == 0
        database.execute("DELETE FROM jhub_safety")
        database.executemany("INSERT INTO jhub_safety VALUES (?, ?)", before)
        database.commit()
    restore(world)
    assert seen(world) == (Row.AS_BEFORE, Verdict.SERVE)


def test_the_plan_says_so_and_the_journal_what_came_of_it(world):
    found = json.loads(run(world, "restore", "newest", "--dry-run", "--json").stdout)
    last = found["plan"]["actions"][-1]
    assert (last["kind"], "the hub serves" in last["reason"]) == ("accept-database", True)
    found = json.loads(restore(world, "--json").stdout)
    assert found["outcome"]["next"] == ""
    (line,) = [one for one in journal(world) if one["kind"] == "accept-database"]
    assert (line["outcome"], line["snapshot"]) == ("done", found["snapshot"])


def test_a_restored_database_serves_also_when_the_command_is_killed_right_after(world, monkeypatch):
    """What is in the database from its first moment is enough."""

    async def never(_):
        raise SystemExit(137)

    monkeypatch.setattr("jhub_safety.cli.dbknown.KnownHere.go_along", never)
    world.database.write_bytes(b"")
    assert run(world, "restore", "newest", "--yes").exit_code == 137
    assert seen(world) == (Row.AS_BEFORE, Verdict.SERVE)


def test_where_what_is_known_cannot_be_moved_the_next_step_is_to_accept(world):
    known(world).unlink()
    known(world).mkdir()
    result = restore(world, "--json")
    found = json.loads(result.stdout)
    assert "cannot be read" in found["plan"]["actions"][-1]["reason"]
    assert found["outcome"]["next"].endswith("Say: jhub-safety db accept")
    assert "jhub-safety db accept" in result.stderr
    assert users(world) == USERS
    (line,) = [one for one in journal(world) if one["kind"] == "accept-database"]
    assert line["outcome"].startswith("failed: ")


def test_where_nothing_was_known_nothing_is_noted(world):
    known(world).unlink()
    restore(world)
    assert not known(world).exists()
    assert seen(world) == (Row.FIRST_GUARDED, Verdict.SERVE)


def test_a_second_hub_is_looked_for_also_while_this_one_holds(world, monkeypatch):
    monkeypatch.setattr(hubalive, "GLANCE", 0)
    world.database.write_bytes(b"")
    world.cluster.pods = [[pod("hub-one"), pod("hub-two")]]
    with holding(world, monkeypatch):
        result = run(world, "restore", "newest", "--yes")
    assert "a hub is alive: pod hub-one is Running" in str(result.exception)
    assert world.database.read_bytes() == b""


def test_what_has_the_database_open_is_looked_for_also_while_this_one_holds(world, monkeypatch):
    monkeypatch.setattr(hubalive, "GLANCE", 0)
    world.database.write_bytes(b"")
    with (
        holding(world, monkeypatch),
        Running("sh", "-c", f"exec 3<{world.database}; echo; exec sleep 60"),
    ):
        result = run(world, "restore", "newest", "--yes")
    assert "has its database open" in str(result.exception)
    assert world.database.read_bytes() == b""
