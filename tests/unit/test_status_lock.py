"""``db status``: whether another process makes the database again, or that is not known."""

from __future__ import annotations

import json
import sqlite3
from contextlib import ExitStack, closing

import pytest
from click.testing import CliRunner

from jhub_safety.cli import cli
from jhub_safety.hubdb.alone import alone
from tests.unit.hub_database import add_user, opened
from tests.unit.session_world import surroundings


@pytest.fixture
def world(monkeypatch):
    """No hub runs; its database has never been looked at."""
    with surroundings(monkeypatch) as made:
        known = str(made.directory / "known.json")
        made.extra = f"\nc.DatabaseGuard.fingerprint_file = {known!r}\n"
        made.write_config()
        with opened(made.database) as db:
            add_user(db, "ada")
        yield made


def status(world, *arguments: str):
    return CliRunner().invoke(
        cli, ["db", "status", f"--db-url=sqlite:///{world.database}", *arguments]
    )


def held(world, stack: ExitStack) -> None:
    stack.enter_context(alone(f"sqlite:///{world.database}"))


def unknown(world, _stack: ExitStack) -> None:
    # A link to itself: root cannot open it, either.
    lock = world.database.with_name(f".{world.database.name}.jhub-safety-lock")
    lock.symlink_to(lock)


@pytest.mark.parametrize(
    ("make", "state", "words", "code"),
    [
        pytest.param(lambda *_: None, "free", "Lock: free", 0, id="free"),
        pytest.param(held, "held", "Lock: another process is making the database", 1, id="held"),
        pytest.param(unknown, "unknown", "is not known: ", 1, id="it does not work"),
    ],
)
def test_the_lock_is_told_and_counts_for_the_exit_code(world, make, state, words, code):
    """It said "serve" and nothing else while the hub held for ever."""
    with ExitStack() as stack:
        make(world, stack)
        found = status(world, "--json")
        assert (json.loads(found.stdout)["lock"], found.exit_code) == (state, code)
        found = status(world)
        assert words in " ".join(found.output.split())
        assert found.exit_code == code


def test_a_recovery_that_is_not_over_is_told(world):
    assert "A recovery of it is not over" not in status(world).output
    with closing(sqlite3.connect(world.database)) as database:
        database.executescript(
            "CREATE TABLE jhub_safety (key VARCHAR(64) PRIMARY KEY, value VARCHAR);"
            "INSERT INTO jhub_safety VALUES ('identity', 'a'), ('epoch', '1'), "
            "('renewed', 'yes'), ('unfinished', 'cluster');"
        )
    assert "A recovery of it is not over" in status(world).output
