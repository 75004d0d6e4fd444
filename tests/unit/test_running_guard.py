"""The guard of a hub that runs: when the process ends, when not, and what it rescues first."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from jupyterhub import orm
from kubespawner import KubeSpawner
from traitlets.config import Config

from jhub_safety.errors import Doubt
from jhub_safety.hub import guarding, watching
from jhub_safety.hub.guarded import GuardedHub
from jhub_safety.hub.guarding import HubGuard
from jhub_safety.hub.recovering import Gathered
from jhub_safety.hub.watching import LOST_UNDER_IT, Watch
from jhub_safety.hubdb.alone import alone
from jhub_safety.hubdb.guarding import Row, Verdict
from jhub_safety.hubdb.known import FiledKnown
from jhub_safety.recovery.rebuild import People, Unclear
from tests.unit.hub_database import add_user, opened

USERS = 60


class Ended(BaseException):
    """The process, with this code."""


@pytest.fixture
def file(tmp_path):
    made = tmp_path / "volume" / "jupyterhub.sqlite"
    made.parent.mkdir()
    with opened(made) as db:
        for number in range(USERS):
            add_user(db, f"user-{number}")
    return made


@pytest.fixture
def hub(file, tmp_path, monkeypatch):
    """A hub without a cluster, as far as the guard needs it; its database is open."""
    config = Config()
    config.DatabaseGuard.fingerprint_file = str(tmp_path / "fingerprint.json")
    # For its journal.
    monkeypatch.chdir(tmp_path)
    db = orm.new_session_factory(f"sqlite:///{file}")()
    app = SimpleNamespace(
        config=config,
        log=logging.getLogger("test"),
        db_url=f"sqlite:///{file}",
        db_kwargs={},
        reset_db=False,
        db=db,
    )
    monkeypatch.setattr(watching, "AGAIN", 0.0)

    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(watching.os, "_exit", end)
    yield app
    db.close()
    db.get_bind().dispose()


@pytest.fixture
async def guard(hub):
    made = Watch(GuardedHub(hub, None))
    made._file = watching.file_id(hub.db_url)
    await look(made)
    return made


async def look(guard: Watch) -> None:
    await guard._hub.with_guard(guard._pass)


async def ends(guard: Watch) -> int:
    with pytest.raises(Ended) as ended:
        await look(guard)
    return ended.value.args[0]


def shell(file, *statements: str) -> None:
    with closing(sqlite3.connect(file)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def rescued(file) -> list[str]:
    return sorted(one.name for one in file.parent.glob("*.rescued-*"))


def save(file) -> None:
    with closing(sqlite3.connect(":memory:")) as empty, closing(sqlite3.connect(file)) as target:
        empty.backup(target)


@pytest.mark.parametrize(
    "lose",
    [
        pytest.param(save, id="the save of 2017"),
        pytest.param(lambda file: os.truncate(file, 0), id="emptied"),
        pytest.param(lambda file: shell(file, "DELETE FROM users"), id="users deleted by hand"),
        pytest.param(
            lambda file: shell(file, "DELETE FROM users WHERE id <= 21"),
            id="a third deleted by hand",
        ),
        pytest.param(
            lambda file: shell(file, "DROP TABLE jhub_safety"), id="another database's content"
        ),
    ],
)
async def test_a_loss_under_the_hub_ends_it_and_what_is_known_stays(guard, hub, file, lose):
    before = guard._last
    lose(file)
    assert await ends(guard) == LOST_UNDER_IT
    assert await FiledKnown(_fingerprint(hub)).read() == before
    assert rescued(file) == []


def _fingerprint(hub) -> Path:
    return Path(hub.config.DatabaseGuard.fingerprint_file)


@pytest.mark.parametrize("how", ["replaced", "deleted"])
async def test_what_the_hub_still_had_is_written_down_whole(guard, file, how):
    before = names(file)
    if how == "replaced":
        other = file.with_name("other.sqlite")
        with opened(other) as db:
            add_user(db, "stranger")
        other.replace(file)
    else:
        file.unlink()
    assert await ends(guard) == LOST_UNDER_IT
    (name,) = rescued(file)
    assert names(file.with_name(name)) == before
    # Nothing is put over what somebody put there.
    assert names(file) == ({"stranger"} if how == "replaced" else before)


def names(file) -> set[str]:
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return {name for (name,) in database.execute("SELECT name FROM users")}


async def test_how_a_hub_ended_is_in_its_journal(guard, file, tmp_path):
    file.unlink()
    await ends(guard)
    (line,) = map(json.loads, (tmp_path / "jhub-safety.journal").read_text().splitlines())
    (name,) = rescued(file)
    assert (line["kind"], line["outcome"], line["rescued"]) == (
        "end-hub",
        "done",
        str(file.with_name(name)),
    )
    assert line["name"] == f"sqlite {file}"


async def test_told_to_ignore_it_goes_on_and_rescues_once(guard, file):
    guard._hub.guard.on_loss = "ignore"
    file.unlink()
    file.write_bytes(b"")
    for _ in range(3):
        await look(guard)
    assert len(rescued(file)) == 1


async def test_users_whom_the_hub_deletes_are_no_loss(guard, hub):
    watching.event.listen(orm.User, "after_delete", guard._count_deletion)
    try:
        for user in hub.db.query(orm.User).limit(50).all():
            hub.db.delete(user)
        hub.db.commit()
        await look(guard)
    finally:
        watching.event.remove(orm.User, "after_delete", guard._count_deletion)
    assert guard._last.users == USERS - 50
    assert guard._deleted == 0


async def test_deleting_wakes_it(guard):
    assert not guard._wake.is_set()
    guard._count_deletion()
    assert guard._wake.is_set()


async def test_a_hub_that_ends_notes_what_it_has_deleted(guard, hub):
    guard._task = asyncio.ensure_future(asyncio.Event().wait())
    for user in hub.db.query(orm.User).limit(50).all():
        hub.db.delete(user)
        guard._count_deletion()
    hub.db.commit()
    await guard.end()
    assert (await FiledKnown(_fingerprint(hub)).read()).users == USERS - 50


async def test_a_cluster_that_does_not_answer_ends_no_hub(guard, hub, file, monkeypatch):
    async def fail(_):
        raise Doubt("HTTP 503")

    monkeypatch.setattr(FiledKnown, "read", fail)
    await look(guard)
    # What this process wrote itself is known all the same.
    shell(file, "DELETE FROM users")
    assert await ends(guard) == LOST_UNDER_IT


async def test_a_young_hub_without_users_outlives_a_cluster_that_does_not_answer(
    hub, file, monkeypatch
):
    shell(file, "DELETE FROM users")
    guard = Watch(GuardedHub(hub, None))
    guard._file = watching.file_id(hub.db_url)

    async def fail(_):
        raise Doubt("HTTP 503")

    monkeypatch.setattr(FiledKnown, "read", fail)
    await look(guard)
    assert guard._last is None


async def test_a_locked_database_ends_no_hub(guard, file, monkeypatch):
    connect = sqlite3.connect
    # Not five seconds.
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **{**k, "timeout": 0.1}))
    before = guard._last
    with closing(connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        await look(guard)
    assert guard._last == before


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param({"db_url": "sqlite://"}, "in memory", id="in memory"),
        pytest.param({"reset_db": True}, "--reset-db", id="reset"),
        pytest.param({"config": Config()}, "fingerprint_file", id="no place for fingerprints"),
    ],
)
def test_what_is_not_guarded_is_said(hub, change, why):
    vars(hub).update(change)
    assert why in GuardedHub(hub, None).unguarded()


def test_a_hub_without_a_cluster_is_guarded_with_a_file(hub):
    assert GuardedHub(hub, None).unguarded() == ""


class OnKubernetes(KubeSpawner):
    """Makes the guard look for a cluster."""


@pytest.mark.parametrize("content", [None, "not: [whole", "users: [{token: s3cret}]"])
def test_a_kubeconfig_that_cannot_be_used_is_a_doubt_and_ends_no_hub(
    hub, file, tmp_path, monkeypatch, caplog, content
):
    hub.config.DatabaseGuard.fingerprint_file = ""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    if content is not None:
        (tmp_path / "kubeconfig").write_text(content)
    guard = HubGuard(GuardedHub(hub, OnKubernetes))
    _, decision = guard._look()
    assert (decision.row, decision.verdict) == (Row.UNKNOWN_BEFORE, Verdict.ALARM)
    file.write_bytes(b"")
    _, decision = guard._look()
    assert (decision.row, decision.verdict) == (Row.UNKNOWN_BEFORE, Verdict.HOLD)
    assert "s3cret" not in caplog.text


def test_a_lost_database_without_a_cluster_to_ask_is_held_and_left_as_it_is(
    hub, file, tmp_path, monkeypatch
):
    guard = HubGuard(GuardedHub(hub, None))
    asyncio.run(guard.hub.with_guard(lambda one: one.take()))
    file.write_bytes(b"")
    case, decision = guard._look()
    assert guard._recover(case, decision) == "this hub has no cluster. Nothing was changed"
    assert file.read_bytes() == b""
    assert {one.name for one in file.parent.iterdir()} == {
        file.name,
        f".{file.name}.jhub-safety",
    }


def test_of_claims_that_name_nobody_those_are_told_that_no_record_names(hub, caplog):
    """240 warnings after a restore, of homes whose owners were in the snapshot."""
    hub.db.add(orm.Spawner(name="lab", user_id=1, state={"pvc_name": "claim-0"}))
    hub.db.commit()
    unclear = tuple(Unclear(f"claim-{number}", "it names no user") for number in range(25))
    with caplog.at_level(logging.WARNING):
        HubGuard(GuardedHub(hub, None))._say_unclear(unclear)
    told = [record.getMessage() for record in caplog.records]
    assert told[:-1] == [
        f"Claim claim-{number}: it names no user; nobody was made for it" for number in range(1, 21)
    ]
    assert told[-1].startswith("4 more claims name nobody")


def lost(hub, file, monkeypatch, content: bytes = b""):
    """The guard of a known database that is *content* now, in a cluster that knows ada."""
    guard = HubGuard(GuardedHub(hub, None))
    asyncio.run(guard.hub.with_guard(lambda one: one.take()))
    file.write_bytes(content)

    async def everybody():
        return Gathered(People(frozenset({"ada"})), ())

    monkeypatch.setattr(guard.hub, "gather", everybody)
    return guard, *guard._look()


def test_a_recovery_that_fails_half_way_says_where_the_old_one_is(hub, file, monkeypatch):
    guard, case, decision = lost(hub, file, monkeypatch, b"no database at all" * 999)

    def full(*_, **__):
        raise Doubt("the hub's database cannot be used: OperationalError")

    monkeypatch.setattr(guarding, "rebuild", full)
    problem = guard._recover(case, decision)
    (aside,) = file.parent.glob("*.lost-*")
    assert problem == (
        f"the hub's database cannot be used: OperationalError. What was left of it is {aside}"
    )
    assert aside.read_bytes() == b"no database at all" * 999


def test_a_recovery_that_may_have_begun_does_not_say_that_nothing_was_changed(
    hub, file, monkeypatch
):
    guard, case, decision = lost(hub, file, monkeypatch)

    async def cut_off(_):
        raise Doubt("the disk is full")

    monkeypatch.setattr(guard, "_restore", cut_off)
    assert guard._recover(case, decision) == "the disk is full. Nothing was deleted"


def test_of_two_hubs_that_find_it_lost_one_makes_it_again(hub, file, monkeypatch):
    guard, case, decision = lost(hub, file, monkeypatch)
    with alone(hub.db_url):
        assert guard._recover(case, decision) == (
            "another process is making the database again. Nothing was changed"
        )
    assert file.read_bytes() == b""
    assert guard._recover(case, decision) is None
    assert guard._look()[1].row is Row.AS_BEFORE


def test_a_hub_does_not_serve_on_what_another_is_still_making(hub, file, monkeypatch, caplog):
    """It may be the half of a database, with nothing that shows it."""
    guard = HubGuard(GuardedHub(hub, None))
    asyncio.run(guard.hub.with_guard(lambda one: one.take()))
    other = alone(hub.db_url)
    other.__enter__()
    told = []

    def page():
        told.append(guard._told)
        other.__exit__(None, None, None)

    monkeypatch.setattr(guard, "_page", page)
    monkeypatch.setattr(guarding, "HOLDING", 0.0)
    with caplog.at_level(logging.CRITICAL):
        guard.before_database()
    assert told == [("as-before", "jhub-safety db status")]
    (said,) = (one.getMessage() for one in caplog.records if one.levelno == logging.CRITICAL)
    assert "another process is making the database again. Nothing was changed" in said


def without_a_lock(file) -> Path:
    """A link to itself: root cannot open it, either."""
    lock = file.with_name(f".{file.name}.jhub-safety-lock")
    lock.symlink_to(lock)
    return lock


@pytest.mark.parametrize("lost", [False, True])
def test_where_the_lock_never_works_a_database_that_is_whole_is_served_with_an_alarm(
    hub, file, monkeypatch, caplog, lost
):
    """It held for ever; told to ignore a loss as well, against the documentation."""
    guard = HubGuard(GuardedHub(hub, None))
    asyncio.run(guard.hub.with_guard(lambda one: one.take()))
    lock = without_a_lock(file)
    if lost:
        guard.hub.guard.on_loss = "ignore"
        file.write_bytes(b"")
    told = []
    monkeypatch.setattr(guard, "_tell", lambda reason, _: told.append(reason))
    monkeypatch.setattr(guarding.time, "sleep", lambda _: pytest.fail("it holds"))
    with caplog.at_level(logging.ERROR):
        guard.before_database()
    assert told == ["HubDatabaseAlarm"] * (1 + lost)
    said = caplog.messages[0]
    assert "is not known" in said
    assert str(lock) in said
    assert "jhub-safety db status" in said


def test_a_database_that_another_is_making_again_is_not_served_whatever_is_ignored(
    hub, file, monkeypatch
):
    guard = HubGuard(GuardedHub(hub, None))
    guard.hub.guard.on_loss = "ignore"
    other = alone(hub.db_url)
    other.__enter__()
    pages = []
    monkeypatch.setattr(guard, "_page", lambda: pages.append(other.__exit__(None, None, None)))
    monkeypatch.setattr(guarding, "HOLDING", 0.0)
    guard.before_database()
    assert len(pages) == 1


def test_a_hub_that_knows_nothing_does_not_serve_while_another_may_be_at_it(
    hub, file, monkeypatch, caplog
):
    guard = HubGuard(GuardedHub(hub, None))

    async def fail(_):
        raise Doubt("HTTP 503")

    monkeypatch.setattr(FiledKnown, "read", fail)
    lock = without_a_lock(file)
    monkeypatch.setattr(guard, "_page", lock.unlink)
    monkeypatch.setattr(guarding, "HOLDING", 0.0)
    with caplog.at_level(logging.CRITICAL):
        guard.before_database()
    (said,) = (one.getMessage() for one in caplog.records if one.levelno == logging.CRITICAL)
    assert "is not known" in said
    assert str(lock) in said
    assert "Nothing was changed" in said
