"""What ``jhub-safety db`` prints for programs, and writes down of what it has changed."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest
from click.testing import CliRunner
from jupyterhub import orm

from jhub_safety.cli import cli
from jhub_safety.cli.dbjournal import account
from tests.unit.hub_database import opened, tables
from tests.unit.test_alone_commands import run, world
from tests.unit.test_restored import seen, take

__all__ = ["world"]
USERS = 30


def shell(world, *statements: str) -> None:
    with closing(sqlite3.connect(world.database)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def fewer(world) -> None:
    """It is known, and now has fewer users than were."""
    with opened(world.database) as db:
        db.add_all(orm.User(name=f"user-{number}") for number in range(USERS))
    take(world)
    shell(world, "DELETE FROM users WHERE name LIKE 'user-%'")


def journal(world) -> list[dict]:
    file = world.directory / "state" / "jhub-safety" / "journal.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize(
    "words",
    [
        ("backup",),
        ("list",),
        ("verify",),
        ("verify", "--all"),
        ("restore", "newest", "--yes"),
        ("restore", "newest", "--dry-run"),
        ("migrate", "--to=sqlite:///there.sqlite", "--yes"),
        ("migrate", "--to=sqlite:///there.sqlite", "--dry-run"),
        ("status",),
        ("accept", "--yes"),
        ("rebuild", "--yes"),
        ("check",),
        ("repair", "--yes"),
        ("logout", "ada", "--yes"),
        ("logout", "--all", "--yes"),
    ],
    ids=" ".join,
)
def test_json_is_all_that_is_printed(world, words):
    if words[0] == "accept":
        fewer(world)
    result = run((*words, "--json"))
    json.loads(result.stdout)
    assert result.exit_code == 0, result.output


def test_who_is_asked_has_been_shown_the_plan_also_with_json(world):
    result = run(("rebuild", "--json"), answer="n\n")
    assert result.stdout == ""
    words = " ".join(result.stderr.split())
    assert words.index("1 users, 1 homes that are theirs") < words.index("Go on?")


def test_verifying_all_of_nothing_is_no_success(world):
    for one in (world.directory / "jhub-safety-snapshots").rglob("*"):
        if one.is_file():
            one.unlink()
    result = run(("verify", "--all"))
    assert result.exit_code == 1
    assert "There is no snapshot to verify" in result.stderr
    result = run(("verify", "--all", "--json"))
    assert (result.exit_code, json.loads(result.stdout)) == (1, [])


# -- the journal


def test_what_is_accepted_is_written_down_with_what_it_overrode(world):
    fewer(world)
    assert seen(world)[0] == "fewer-users"
    assert run(("accept", "--yes")).exit_code == 0
    (line,) = journal(world)
    assert (line["kind"], line["outcome"], line["by"]) == ("accept-database", "done", account())
    assert (line["row"], line["users"]) == ("fewer-users", 1)
    assert line["overridden"]["users"] == str(USERS + 1)
    assert line["reason"].startswith("fewer-users: ")
    assert line["name"] == f"sqlite:///{world.database}"


def test_forgetting_what_was_known_is_written_down(world):
    take(world)
    shell(world, "DELETE FROM users")
    assert run(("accept", "--yes")).exit_code == 0
    (line,) = journal(world)
    assert (line["row"], line["users"], line["epoch"]) == ("no-users", 0, None)


def test_nothing_is_written_down_where_nothing_was_done(world):
    run(("rebuild",), answer="n\n")
    run(("repair",), answer="n\n")
    run(("logout", "--all"), answer="n\n")
    run(("accept", "--yes"))
    assert not (world.directory / "state" / "jhub-safety" / "journal.jsonl").exists()


def test_what_is_rebuilt_is_written_down(world):
    assert run(("rebuild", "--yes")).exit_code == 0
    (line,) = journal(world)
    assert (line["kind"], line["outcome"], line["by"]) == ("rebuild-database", "done", account())
    assert (line["users"], line["servers"]) == (1, 1)


def test_what_is_repaired_is_written_down(world):
    assert run(("repair", "--yes")).exit_code == 0
    (line,) = journal(world)
    assert (line["kind"], line["outcome"]) == ("repair-database", "done")
    assert line["rows"] == {"db-no-roles": 1}


def test_what_failed_is_written_down_too(world, monkeypatch):
    """The database changes between the plan and its execution."""
    monkeypatch.setattr("jhub_safety.cli.dbrepair.execute", None)

    async def change(*_) -> None:
        shell(
            world,
            "UPDATE users SET name = 'eve'",
            "INSERT INTO users (name, cookie_id) VALUES ('carol', 'c')",
        )

    monkeypatch.setattr("jhub_safety.cli.dbrepair.back_up_first", change)
    assert "has changed" in str(run(("repair", "--yes")).exception)
    (line,) = journal(world)
    assert line["outcome"].startswith("failed: the database has changed")


@pytest.mark.parametrize(("who", "user"), [("ada", "ada"), ("--all", None)])
def test_who_was_logged_out_is_written_down(world, who, user):
    before = tables(world.database)["users"]
    assert run(("logout", who, "--yes")).exit_code == 0
    assert tables(world.database)["users"] != before
    (line,) = journal(world)
    assert (line["kind"], line["outcome"], line["by"]) == ("log-out", "done", account())
    assert (line.get("user"), line["all"], line["users"]) == (user, user is None, 1)


# -- users that an operator has the hub forget while it is down


def test_users_who_were_forgotten_are_not_missing_at_the_next_start(world):
    with opened(world.database) as db:
        db.add_all(orm.User(name=f"user-{number}") for number in range(USERS))
    take(world)
    for number in range(22):
        words = ["sessions", "delete", f"user-{number}", "--forget-user", "--no-snapshot", "--yes"]
        result = CliRunner().invoke(cli, words)
        assert result.exit_code == 0, result.output
    assert len(tables(world.database)["users"]) == USERS + 1 - 22
    assert seen(world) == ("as-before", "serve")


def test_what_vanished_besides_is_noticed_all_the_same(world):
    fewer(world)
    with opened(world.database) as db:
        db.add(orm.User(name="eve"))
    words = ["sessions", "delete", "eve", "--forget-user", "--no-snapshot", "--yes"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    assert "was not moved along" in " ".join(result.stderr.split())
    assert seen(world) == ("fewer-users", "hold")
