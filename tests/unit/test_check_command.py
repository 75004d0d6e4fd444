"""``jhub-safety db check``: what it looks for, by the command itself; and what a hub logs of it."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import sys
import threading
from contextlib import closing
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
from click.testing import CliRunner
from jupyterhub import orm, roles
from jupyterhub.spawner import SimpleLocalProcessSpawner as SimpleSpawner
from traitlets.config import Config

from jhub_safety.cli import cli
from jhub_safety.errors import SafetyError
from jhub_safety.hub import application, dbchecking
from jhub_safety.volumes.slugs import safe
from tests.unit.hub_database import add_user, opened, tables
from tests.unit.session_world import Running, surroundings
from tests.unit.test_hub_access import pod

#: As of a class: none of them is another's escaped name, though "user-40" could be read as "user@".
USERS = ("ada", "bob", *(f"user-{number}" for number in range(50)))
PROGRAM = "import sys, time; f = open(sys.argv[1]); print('up', flush=True); time.sleep(60)"


@pytest.fixture
def world(monkeypatch):
    """No hub runs; its database is in order."""
    with surroundings(monkeypatch) as made:
        made.extra = (
            f"\nc.DatabaseGuard.fingerprint_file = {str(made.directory / 'known.json')!r}\n"
        )
        made.write_config()
        with opened(made.database) as db:
            for role in roles.get_default_roles():
                roles.create_role(db, role)
            db.add(orm.OAuthClient(identifier="jupyterhub"))
            for name in USERS:
                add_user(db, name)
                roles.assign_default_roles(db, entity=orm.User.find(db, name))
            orm.User.find(db, "ada").new_api_token(note="ada's")
            orm.User.find(db, "bob").new_api_token(note="bob's")
        yield made


def run(*arguments: str):
    result = CliRunner().invoke(cli, ["db", *arguments])
    if not isinstance(result.exception, (SafetyError, SystemExit, type(None))):
        raise result.exception
    return result


def check() -> dict[str, dict[str, str]]:
    """What is found, by code, but for notes."""
    result = run("check", "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == int(any(one["severity"] == "error" for one in found))
    return {one["code"]: one for one in found if one["severity"] != "ok"}


def shell(world, *statements: str) -> None:
    with closing(sqlite3.connect(world.database)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def unkeyed(table: str) -> list[str]:
    """As made by hand: the columns, and no constraint."""
    return [
        f"CREATE TABLE by_hand AS SELECT * FROM {table}",
        f"DROP TABLE {table}",
        f"ALTER TABLE by_hand RENAME TO {table}",
    ]


def test_in_one_that_is_in_order_nothing_is_found(world):
    assert check() == {}


def test_the_schema_is_compared_with_the_one_of_the_jupyterhub_that_is_installed(world):
    shell(world, "UPDATE alembic_version SET version_num = 'feed00000000'")
    assert "feed00000000, and this JupyterHub's is" in check()["db-revision"]["story"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("john.doe", "john-2edoe", id="a dot, as KubeSpawner 6 wrote it"),
        pytest.param("a@b", "a-40b", id="an at sign"),
        pytest.param("a@b", "A-40B", id="in capitals"),
        pytest.param("é", "-c3-a9", id="two bytes"),
        pytest.param("john.doe", safe("john.doe"), id="as KubeSpawner 7 writes it"),
    ],
)
def test_a_user_who_is_called_as_anothers_name_is_escaped_is_found(world, one, other):
    with opened(world.database) as db:
        for name in (one, other):
            add_user(db, name)
            roles.assign_default_roles(db, entity=orm.User.find(db, name))
    assert f"({one} and {other})" in check()["db-twins"]["story"]


def test_another_process_that_has_the_file_open_is_told(world):
    with Running(sys.executable, "-c", PROGRAM, str(world.database)) as process:
        found = check()["db-opened-twice"]
    assert (found["severity"], found["command"]) == ("warning", f"ps -fp {process.pid}")
    assert f"process {process.pid} (" in found["story"]


def test_one_hub_is_as_it_should_be_and_two_are_an_error(world):
    program = world.directory / "jupyterhub"
    program.write_text(PROGRAM)
    with Running(sys.executable, str(program), str(world.database)) as first:
        assert check() == {}
        with Running(sys.executable, str(program), str(world.database)) as second:
            found = check()["db-opened-twice"]
    assert found["severity"] == "error"
    assert f"process {first.pid} (" in found["story"]
    assert f"process {second.pid} (" in found["story"]


def test_a_second_pod_of_a_hub_is_told_and_one_is_as_it_should_be(world):
    world.cluster.pods = [[pod("hub-one")]]
    assert check() == {}
    world.cluster.pods = [[pod("hub-one"), pod("hub-two", "Pending"), pod("hub-old", "Failed")]]
    found = check()["db-opened-twice"]
    assert found["severity"] == "warning"
    assert "2 pods of hubs are there (hub-one, hub-two)" in found["story"]


def test_pods_that_cannot_be_listed_are_said_to_be_unseen(world):
    world.cluster.status = 403
    found = check()["db-holders-unseen"]
    assert found["severity"] == "unknown"
    assert "HTTP 403" in found["story"]


def test_on_a_token_that_two_owners_have_a_hub_holds_until_it_is_deleted(world):
    shell(world, *unkeyed("api_tokens"))
    shell(world, "UPDATE api_tokens SET hashed = (SELECT min(hashed) FROM api_tokens)")
    found = check()["db-tokens-shared"]
    assert "1 tokens have two owners" in found["story"]
    assert found["command"] == "jhub-safety db repair"
    told = json.loads(run("status", "--json").stdout)
    assert (told["row"], told["verdict"]) == ("unsafe", "hold")
    assert told["next"] == "jhub-safety db check"
    result = run("repair", "--yes", "--no-snapshot")
    assert result.exit_code == 0, result.output
    assert "delete tokens that two owners have" in result.output
    assert tables(world.database)["api_tokens"] == set()
    assert "db-tokens-shared" not in check()
    assert json.loads(run("status", "--json").stdout)["verdict"] == "serve"


def test_of_a_token_that_one_owner_has_twice_one_stays(world):
    before = tables(world.database)["api_tokens"]
    shell(world, *unkeyed("api_tokens"), "INSERT INTO api_tokens SELECT * FROM api_tokens")
    assert json.loads(run("status", "--json").stdout)["verdict"] == "serve"
    assert run("repair", "--yes", "--no-snapshot").exit_code == 0
    assert tables(world.database)["api_tokens"] == before
    assert "db-tokens-shared" not in check()


def test_what_keeps_users_apart_is_added_where_a_table_was_made_by_hand(world):
    """A copy of it, by a move or a restore, lacks the same."""
    before = tables(world.database)
    shell(world, *unkeyed("users"), "UPDATE users SET cookie_id = 'same' WHERE id < 3")
    found = check()["db-constraints"]
    assert found["command"] == "jhub-safety db repair --constraints"
    for what in ("UNIQUE (name)", "UNIQUE (cookie_id)", "NOT NULL (cookie_id)", "PRIMARY KEY (id)"):
        assert what in found["story"]
    assert run("repair", "--yes", "--no-snapshot").exit_code == 0
    assert set(check()) == {"db-constraints"}
    shell(world, "UPDATE users SET cookie_id = 'same' WHERE id < 3")
    result = run("repair", "--constraints", "--yes", "--no-snapshot", "--json")
    assert json.loads(result.stdout) == {"db-cookie-missing": 2, "db-constraints": len(USERS)}
    assert check() == {}
    after = tables(world.database)
    assert {name: rows for name, rows in after.items() if rows != before[name]}.keys() == {"users"}
    new = {dict(row)["name"] for row in after["users"] - before["users"]}
    assert new == {"ada", "bob"}, "who shared a cookie_id"
    # The hub goes on with it: new users get numbers of their own, and no one another's cookie.
    with opened(world.database) as db:
        assert add_user(db, "eve").id == len(USERS) + 1
        roles.assign_default_roles(db, entity=orm.User.find(db, "eve"))
    for statement in (
        "UPDATE users SET cookie_id = 'same'",
        "UPDATE users SET cookie_id = NULL",
        "UPDATE users SET name = 'ada'",
    ):
        with pytest.raises(sqlite3.IntegrityError):
            shell(world, statement)
    assert run("backup").exit_code == 0
    result = run("repair", "--constraints", "--yes", "--json")
    assert json.loads(result.stdout) == {}


def test_users_who_are_called_the_same_are_in_the_way_of_that_and_all_stays(world):
    shell(world, *unkeyed("users"), "UPDATE users SET name = 'ada' WHERE id = 2")
    before = tables(world.database)
    result = run("repair", "--constraints", "--yes", "--no-snapshot")
    assert "users have the same name, or none (1 such)" in str(result.exception)
    assert tables(world.database) == before


# -- at the start of a hub


class Hub:
    """As much of JupyterHub's application as is asked, when it has started."""

    def __init__(self, world) -> None:
        self.db_url, self.db_kwargs = f"sqlite:///{world.database}", {}
        self.config, self.log = Config(), logging.getLogger("hub")
        self._start_future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        self._start_future.set_result(None)

    async def cleanup(self) -> None:
        pass


async def said(world, caplog, monkeypatch) -> list[str]:
    """What a hub logs of its database, looked at beside its loop."""
    look, here, threads = dbchecking._found, threading.get_ident(), []

    def found(app):
        threads.append(threading.get_ident())
        return look(app)

    monkeypatch.setattr(dbchecking, "_found", found)
    hub = Hub(world)
    dbchecking.wire(hub)
    with caplog.at_level(logging.INFO, "hub"):
        await hub.start()
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))
        await hub.cleanup()
    assert len(threads) == 1
    assert threads != [here]
    return [one.getMessage() for one in caplog.records if one.name == "hub"]


async def test_a_hub_logs_all_that_is_found_once_it_has_started(world, caplog, monkeypatch):
    secret = world.directory / "jupyterhub_cookie_secret"
    secret.write_text("a" * 64)
    secret.chmod(0o644)
    shell(
        world,
        "DELETE FROM user_role_map WHERE user_id = 1",
        "UPDATE users SET name = 'BOB' WHERE name = 'user-1'",
        "UPDATE alembic_version SET version_num = 'feed00000000'",
    )
    lines = await said(world, caplog, monkeypatch)
    for code in ("db-no-roles", "db-twins", "db-revision", "secret-open"):
        assert any(f"({code})" in one for one in lines), lines


async def test_a_hub_whose_database_is_in_order_says_nothing(world, caplog, monkeypatch):
    assert await said(world, caplog, monkeypatch) == []


async def test_a_database_that_cannot_be_looked_at_is_told_and_the_hub_goes_on(
    world, caplog, monkeypatch
):
    world.database.write_bytes(b"x" * 9000)
    (line,) = await said(world, caplog, monkeypatch)
    assert line.startswith("The hub's database was not looked at")


def test_every_hub_that_is_set_up_does_so(monkeypatch):
    wired = []
    app = SimpleNamespace(config=Config(), spawner_class=SimpleSpawner)
    monkeypatch.setattr(application, "finish", lambda _: None)
    for name in ("guarding", "snapshots"):
        monkeypatch.setattr(application, name, MagicMock())
    monkeypatch.setattr(application.dbchecking, "wire", wired.append)
    application._before_database(app)
    assert wired == [app]
