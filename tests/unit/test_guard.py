"""``DatabaseGuard`` on real files: what it takes, what it refuses to take, what it writes down."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime

import pytest

from jhub_safety.errors import Doubt
from jhub_safety.hubdb.condition import State, mark_file
from jhub_safety.hubdb.guard import DatabaseGuard
from jhub_safety.hubdb.guarding import UNKNOWN, Row, Verdict
from jhub_safety.hubdb.known import FiledKnown
from tests.unit.hub_database import add_user, opened

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Forgetful(FiledKnown):
    """The cluster does not answer."""

    async def read(self):
        raise Doubt("HTTP 503")


@pytest.fixture
def file(tmp_path):
    made = tmp_path / "hub" / "jupyterhub.sqlite"
    made.parent.mkdir()
    with opened(made) as db:
        for number in range(50):
            add_user(db, f"user-{number}")
    return made


@pytest.fixture
def known(tmp_path):
    return FiledKnown(tmp_path / "fingerprint.json")


@pytest.fixture
def guard(file, known):
    return guard_of(file, known)


def guard_of(file, known, homes=False) -> DatabaseGuard:
    async def has_homes() -> bool:
        if homes is UNKNOWN:
            raise Doubt("HTTP 503")
        return homes

    made = DatabaseGuard()
    made.attach(f"sqlite:///{file}", known, has_homes, now=lambda: NOON)
    return made


def delete(file, number: int) -> None:
    with closing(sqlite3.connect(file)) as database:
        database.execute("DELETE FROM users WHERE id <= ?", (number,))
        database.commit()


def decided(looked) -> tuple[Row, Verdict]:
    return looked[1].row, looked[1].verdict


async def test_what_is_taken_is_what_is_seen_next_time(guard, known, file):
    assert decided(await guard.look()) == (Row.FIRST_GUARDED, Verdict.SERVE)
    taken = await guard.take()
    assert (taken.users, taken.highest_id, taken.epoch) == (50, 50, 1)
    assert taken.address == f"sqlite {file}"
    assert await known.read() == taken
    assert mark_file(file).read_text() == taken.identity
    assert decided(await guard.look()) == (Row.AS_BEFORE, Verdict.SERVE)
    assert (await guard.take()).epoch == 2


async def test_looking_changes_nothing(guard, file):
    await guard.take()
    before = {one.name: one.read_bytes() for one in file.parent.iterdir()}
    await guard.look()
    await guard.look(thorough=False)
    assert {one.name: one.read_bytes() for one in file.parent.iterdir()} == before


@pytest.mark.parametrize(
    ("change", "row"),
    [
        pytest.param(lambda file: file.unlink(), Row.MISSING, id="deleted"),
        pytest.param(lambda file: file.write_bytes(b""), Row.ZERO_BYTES, id="emptied"),
        pytest.param(lambda file: delete(file, 50), Row.NO_USERS, id="users deleted"),
        pytest.param(lambda file: delete(file, 21), Row.FEWER_USERS, id="many users deleted"),
        pytest.param(lambda file: delete(file, 20), Row.AS_BEFORE, id="some users deleted"),
        pytest.param(
            lambda file: (file.unlink(), mark_file(file).unlink()), Row.WRONG_VOLUME, id="unmounted"
        ),
    ],
)
async def test_what_happened_to_the_file_is_noticed(guard, file, change, row):
    await guard.take()
    change(file)
    assert (await guard.look())[1].row is row


async def test_an_older_copy_is_told_by_its_epoch_and_may_be_accepted(guard, file, tmp_path):
    await guard.take()
    content = file.read_bytes()
    await guard.take()
    await guard.take()
    file.write_bytes(content)
    assert decided(await guard.look()) == (Row.OLDER, Verdict.HOLD)
    assert (await guard.take()).epoch == 4
    assert decided(await guard.look()) == (Row.AS_BEFORE, Verdict.SERVE)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda file: file.unlink(), id="deleted"),
        pytest.param(lambda file: file.write_bytes(b""), id="emptied"),
        pytest.param(lambda file: file.write_text("x" * 5000), id="damaged"),
    ],
)
async def test_no_fingerprint_is_ever_taken_of_a_loss(guard, known, file, change):
    """It would make the loss the new normal. Nor is a file made."""
    taken = await guard.take()
    change(file)
    before = file.read_bytes() if file.exists() else None
    with pytest.raises(Doubt):
        await guard.take()
    assert await known.read() == taken
    assert (file.read_bytes() if file.exists() else None) == before


@pytest.mark.parametrize(
    ("gone", "by_the_hub", "taken"),
    [
        pytest.param(20, 0, True, id="few"),
        pytest.param(21, 0, False, id="many, by nobody knows whom"),
        pytest.param(21, 1, True, id="many, one by the hub"),
        pytest.param(50, 50, True, id="all, by the hub"),
    ],
)
async def test_a_hub_that_runs_takes_one_only_of_the_database_it_looked_at(
    guard, known, file, gone, by_the_hub, taken
):
    before = await guard.take()
    delete(file, gone)
    if taken:
        assert (await guard.take(like=before, deleted=by_the_hub)).users == 50 - gone
    else:
        with pytest.raises(Doubt, match="changed since"):
            await guard.take(like=before, deleted=by_the_hub)
        assert await known.read() == before


async def test_a_hub_that_runs_takes_none_of_another_database(guard, known, file, tmp_path):
    before = await guard.take()
    file.unlink()
    with opened(file) as db:
        for number in range(50):
            add_user(db, f"other-{number}")
    with pytest.raises(Doubt, match="changed since"):
        await guard.take(like=before)
    assert await known.read() == before


@pytest.mark.parametrize(
    ("homes", "row"),
    [
        pytest.param(False, Row.FIRST_START, id="none"),
        pytest.param(True, Row.EMPTY_BESIDE_HOMES, id="some"),
        pytest.param(UNKNOWN, Row.EMPTY_BESIDE_HOMES, id="not known"),
    ],
)
async def test_an_empty_database_at_first_is_compared_with_the_homes(tmp_path, known, homes, row):
    guard = guard_of(tmp_path / "none.sqlite", known, homes)
    case, decision = await guard.look()
    assert (case.condition.state, case.homes, decision.row) == (State.MISSING, homes, row)


async def test_a_cluster_that_does_not_answer_is_doubt_and_no_first_start(file, tmp_path):
    guard = guard_of(file, Forgetful(tmp_path / "x"))
    assert decided(await guard.look()) == (Row.UNKNOWN_BEFORE, Verdict.ALARM)
    file.write_bytes(b"")
    assert decided(await guard.look()) == (Row.UNKNOWN_BEFORE, Verdict.HOLD)
    with pytest.raises(Doubt):
        await guard.take()


async def test_a_volume_that_takes_no_mark_is_no_reason_to_know_nothing(guard, file, monkeypatch):
    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("jhub_safety.hubdb.guard.condition.mark_volume", refuse)
    assert (await guard.take()).users == 50


async def test_its_record_is_ready_for_json(guard):
    case, decision = await guard.look()
    assert guard.record(case, decision) == {
        "row": "first-guarded",
        "verdict": "serve",
        "why": "50 users, looked at for the first time",
        "state": "usable",
        "users": 50,
        "known_users": None,
        "known_since": None,
    }
