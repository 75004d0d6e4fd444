"""Snapshots on a schedule: when, by a process beside, and what is told."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from traitlets.config import Config

from jhub_safety.errors import ConfigError, Doubt, SafetyError
from jhub_safety.hubdb import worker
from jhub_safety.hubdb.backup import Backups, DatabaseBackup, Schedule
from jhub_safety.hubdb.stores import NoRoom
from jhub_safety.journal import Journal
from tests import awkward

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


# -- when


@pytest.mark.parametrize(
    ("age", "failures", "since", "wait"),
    [
        pytest.param(None, 0, 0, 0, id="none yet: at once"),
        pytest.param(0, 0, 0, 3600, id="just made"),
        pytest.param(1000, 0, 0, 2600, id="a restart neither delays nor hurries it"),
        pytest.param(9999, 0, 0, 0, id="overdue: at once"),
        pytest.param(-50, 0, 0, 0, id="of the future: at once"),
        pytest.param(9999, 1, 0, 60, id="after a failure: a minute later"),
        pytest.param(9999, 3, 0, 240, id="after more: later"),
        pytest.param(9999, 50, 0, 3600, id="never later than the interval"),
        pytest.param(None, 1, 45, 15, id="what has passed counts"),
    ],
)
def test_when_the_next_is_due(age, failures, since, wait):
    found = Schedule(3600).wait(age=age, failures=failures, since_failure=since)
    assert found == wait


@given(st.none() | st.floats(-1e9, 1e9), st.integers(0, 10_000), st.floats(0, 1e9))
def test_the_wait_is_never_negative_and_never_longer_than_the_interval(age, failures, since):
    assert 0 <= Schedule(3600).wait(age=age, failures=failures, since_failure=since) <= 3600


# -- by a process beside


@pytest.fixture
def backups(tmp_path) -> Backups:
    file = awkward.make(tmp_path / "hub.sqlite")
    settings = DatabaseBackup(destination=str(tmp_path / "kept"), keep=1, keep_days=0.0)
    journal = Journal(tmp_path / "journal")
    return Backups(settings, f"sqlite:///{file}", "my hub", journal=journal)


async def test_a_snapshot_is_made_verified_and_the_newest(backups, tmp_path):
    assert (await backups.run_once())["problem"] == ""
    newest = await backups.newest_verified()
    assert newest is not None
    assert newest["verified"]
    assert newest["manifest"]["hub"] == "my hub"
    age = REGISTRY.get_sample_value("jhub_safety_snapshot_time_seconds")
    assert age == pytest.approx(datetime.fromisoformat(newest["made"]).timestamp())


async def test_old_ones_go_and_each_is_in_the_journal(backups, tmp_path):
    first = (await backups.run_once())["snapshot"]["name"]
    second = await backups.run_once()
    assert second["removed"] == [first]
    listed = (await backups.list())["snapshots"]
    assert [one["name"] for one in listed] == [second["snapshot"]["name"]]
    (line,) = (tmp_path / "journal").read_text().splitlines()
    assert json.loads(line)["name"] == first


@pytest.fixture
def on_a_small_volume(backups, monkeypatch) -> Backups:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    backups.settings.store_class = "tests.unit.store_doubles.RoomForTwo"
    return backups


def _failures() -> float:
    labels = {"outcome": "failed"}
    return REGISTRY.get_sample_value("jhub_safety_snapshots_total", labels) or 0.0


async def test_on_a_full_volume_old_ones_go_before_the_new_one_is_made(on_a_small_volume, tmp_path):
    """It was tidied after each new snapshot only, and so never again once there was no room."""
    backups, failed = on_a_small_volume, _failures()
    first, second = [(await backups.run_once(tidy=False))["snapshot"]["name"] for _ in range(2)]
    found = await backups.run_once()
    # The newest verified one stayed until there was another.
    assert found["removed"] == [second]
    journal = [json.loads(line) for line in (tmp_path / "journal").read_text().splitlines()]
    assert [line["name"] for line in journal] == [first, second]
    assert _failures() == failed
    assert [one["name"] for one in (await backups.list())["snapshots"]] == [
        found["snapshot"]["name"]
    ]


@pytest.mark.parametrize(
    ("tidy", "keep_days"),
    [pytest.param(True, 7.0, id="all are young"), pytest.param(False, 0.0, id="an operator's")],
)
async def test_where_nothing_may_go_a_full_volume_is_a_failure(on_a_small_volume, tidy, keep_days):
    backups, failed = on_a_small_volume, _failures()
    backups.settings.keep_days = keep_days
    before = [(await backups.run_once(tidy=False))["snapshot"]["name"] for _ in range(2)]
    with pytest.raises(NoRoom, match="full"):
        await backups.run_once(tidy=tidy)
    assert _failures() == failed + 1
    assert [one["name"] for one in (await backups.list())["snapshots"]] == before


async def test_of_a_database_that_cannot_be_read_no_snapshot_goes(on_a_small_volume, tmp_path):
    backups = on_a_small_volume
    for _ in range(2):
        await backups.run_once(tidy=False)
    (tmp_path / "hub.sqlite").unlink()
    with pytest.raises(Doubt, match="not there"):
        await backups.run_once()
    assert len((await backups.list())["snapshots"]) == 2


async def test_an_operators_snapshot_removes_nothing(backups):
    await backups.run_once()
    await backups.run_once(tidy=False)
    assert len((await backups.list())["snapshots"]) == 2


async def test_progress_tells_tables_and_rows(backups):
    told = []
    await backups.run_once(progress=lambda *one: told.append(one))
    assert ("users", awkward.ROWS) in told


async def test_errors_keep_their_kind_and_leave_earlier_snapshots(backups, tmp_path):
    await backups.run_once()
    (tmp_path / "hub.sqlite").unlink()
    failed = REGISTRY.get_sample_value("jhub_safety_snapshots_total", {"outcome": "failed"}) or 0
    with pytest.raises(Doubt, match="not there"):
        await backups.run_once()
    assert not (tmp_path / "hub.sqlite").exists()
    assert len((await backups.list())["snapshots"]) == 1
    now = REGISTRY.get_sample_value("jhub_safety_snapshots_total", {"outcome": "failed"})
    assert now == failed + 1


async def test_work_that_takes_too_long_is_ended_and_leaves_nothing(backups, tmp_path):
    with pytest.raises(Doubt, match="longer than"):
        await worker.run(backups.request("backup"), timeout=0.05)
    assert not (tmp_path / "kept").exists()


async def test_what_no_other_process_can_be_given_is_said_and_starts_none(tmp_path, monkeypatch):
    async def never(*_, **__):
        raise AssertionError("a process was started")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", never)
    settings = DatabaseBackup(destination=str(tmp_path))
    url, arguments = "postgresql://hub@host/hub", {"ssl": object()}
    with pytest.raises(ConfigError, match="Name files of certificates in connect_args"):
        await Backups(settings, url, "hub", connect_args=arguments).run_once()


DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(flush=True)
time.sleep(60)
"""


async def test_work_that_hears_no_signal_is_killed(monkeypatch):
    """In a driver's call, over a connection that is half open: it held schedule and lock."""
    monkeypatch.setattr(worker, "ENDING", 0.1)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DEAF, stdout=asyncio.subprocess.PIPE
    )
    await process.stdout.readline()
    await asyncio.wait_for(worker._ended(process), 20)
    assert process.returncode == -9


ENDED_TWICE = """
import os, signal
from jhub_safety.hubdb.__main__ import end_in_order
end_in_order()
try:
    os.kill(os.getpid(), signal.SIGINT)
    print("went on")
finally:
    os.kill(os.getpid(), signal.SIGTERM)
    print("undone")
"""


def test_ctrl_c_and_the_end_that_follows_leave_time_to_undo():
    """A restore that is cut off in its renames takes them back."""
    done = subprocess.run(
        [sys.executable, "-c", ENDED_TWICE], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("undone\n", "", 1)


async def test_passwords_and_keys_are_on_no_command_line(backups, monkeypatch):
    seen = []
    real = asyncio.create_subprocess_exec

    async def spy(*command, **options):
        seen.append((command, options))
        return await real(*command, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", spy)
    monkeypatch.setenv("JHUB_SAFETY_SNAPSHOT_KEYS", "k3y")
    request = backups.request("list") | {"db_url": "postgresql://hub:s3cret@nowhere/x"}
    with pytest.raises(SafetyError):
        await worker.run(request)
    assert seen
    assert "s3cret" not in str(seen)
    assert "k3y" not in str(seen)


async def test_an_error_shows_no_password(tmp_path):
    settings = DatabaseBackup(destination=str(tmp_path))
    url = "postgresql+psycopg://hub:s3cret@127.0.0.1:1/x"
    with pytest.raises(Doubt) as caught:
        await Backups(settings, url, "hub").run_once()
    assert "s3cret" not in str(caught.value)
    assert "***" in str(caught.value)


# -- on schedule


class Clock:
    """Sleeps at once, and ends the service after some of them."""

    def __init__(self, sleeps: int) -> None:
        self.slept: list[float] = []
        self._left = sleeps

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if len(self.slept) == self._left:
            raise asyncio.CancelledError


def scripted(*answers):
    """A worker that gives these, one a snapshot; an exception is raised."""
    left = list(answers)
    newest = {"name": "n", "made": (NOW - timedelta(seconds=600)).isoformat()}

    async def run(request, **_):
        if request["do"] == "list":
            return {"snapshots": [newest], "newest": "n"}
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return {
            "snapshot": {"made": NOW.isoformat(), "stored": {"size": 5}, "name": "m"},
            "removed": [],
            "problem": answer,
        }

    return run


async def test_failures_are_logged_and_tried_again_sooner(caplog):
    clock = Clock(5)
    settings = DatabaseBackup(destination="/kept", log=logging.getLogger("test"))
    backups = Backups(
        settings,
        "sqlite:////db",
        "hub",
        run=scripted("", Doubt("the server is away"), Doubt("still away"), ""),
        now=lambda: NOW,
        sleep=clock.sleep,
    )
    with pytest.raises(asyncio.CancelledError):
        await backups.serve()
    assert clock.slept == [3000, 3600, 60, 120, 3600]
    assert caplog.text.count("Earlier ones are kept") == 2


async def test_where_there_is_no_place_nothing_is_tried(caplog):
    settings = DatabaseBackup(log=logging.getLogger("test"))
    await Backups(settings, "postgresql://host/hub", "hub", run=scripted()).serve()
    assert "no snapshot of the hub database is made" in caplog.text


async def test_with_the_schedule_off_none_is_made():
    asked = []

    async def run(request, **_):
        asked.append(request["do"])
        raise Doubt("nothing is to be made")

    settings = DatabaseBackup(enabled=False, destination="/kept", log=logging.getLogger("test"))
    clock = Clock(3)
    await Backups(settings, "sqlite:////db", "hub", run=run, sleep=clock.sleep).serve()
    assert (asked, clock.slept) == ([], [])


# -- settings


def test_without_a_destination_snapshots_are_beside_sqlite_and_that_is_told():
    settings = DatabaseBackup()
    assert settings.where("sqlite:////srv/hub.sqlite") == "file:///srv/jhub-safety-snapshots"
    assert settings.where("postgresql://host/hub") == ""
    told = " ".join(settings.warnings("sqlite:////srv/hub.sqlite"))
    assert "on the volume of the database itself" in told
    assert "not encrypted" in told
    assert "no snapshot" in " ".join(settings.warnings("postgresql://host/hub"))


def test_another_volume_and_a_key_are_nothing_to_warn_of(monkeypatch, tmp_path):
    monkeypatch.setenv("JHUB_SAFETY_SNAPSHOT_KEYS", "k3y")
    monkeypatch.setattr("jhub_safety.hubdb.backup.same_volume", lambda *_: False)
    settings = DatabaseBackup(config=Config(DatabaseBackup={"destination": str(tmp_path)}))
    assert settings.warnings("sqlite:////srv/hub.sqlite") == []


async def test_two_at_once_are_made_one_after_the_other(backups):
    await asyncio.gather(backups.run_once(tidy=False), backups.run_once(tidy=False))
    found = (await backups.list())["snapshots"]
    assert [one["verified"] for one in found] == [True, True]
    with closing(sqlite3.connect(backups.request("")["db_url"].removeprefix("sqlite:///"))) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
