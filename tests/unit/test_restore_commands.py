"""``jhub-safety db restore``: what is asked, and who came back is listed to be looked through."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest
from click.testing import CliRunner
from jupyterhub import orm, roles

from jhub_safety.cli import cli
from jhub_safety.errors import SafetyError
from jhub_safety.hubdb.alone import alone
from jhub_safety.hubdb.review import SOME
from tests.unit.hub_database import add_user, opened, tables
from tests.unit.session_world import Running, refused, surroundings
from tests.unit.test_commands import HOSTILE, SPELLED_OUT

TOKENS = SOME + 3


@pytest.fixture
def world(monkeypatch):
    """No hub runs; a snapshot is kept of a database with administrators and tokens."""
    with surroundings(monkeypatch) as made:
        made.extra = "\nc.Authenticator.admin_users = {'ada'}\n"
        made.write_config()
        with opened(made.database) as db:
            for role in roles.get_default_roles():
                roles.create_role(db, role)
            db.add(orm.OAuthClient(identifier="jupyterhub"))
            for name in ("ada", "bob", HOSTILE):
                add_user(db, name)
                roles.assign_default_roles(db, entity=orm.User.find(db, name))
            for name in ("ada", HOSTILE):
                orm.User.find(db, name).admin = True
            for number in range(TOKENS):
                orm.User.find(db, "bob").new_api_token(note=f"script {number}")
            orm.User.find(db, HOSTILE).new_api_token(note=HOSTILE)
        assert run(made, "backup").exit_code == 0
        yield made


def run(world, *arguments: str, answer: str = ""):
    result = CliRunner().invoke(cli, ["db", *arguments], input=answer)
    if not isinstance(result.exception, (SafetyError, SystemExit, type(None))):
        raise result.exception
    return result


def lose(world) -> None:
    world.database.write_bytes(b"")


def shell(world, statement: str) -> None:
    with closing(sqlite3.connect(world.database)) as database:
        database.execute(statement)
        database.commit()


def hashes(world) -> set[str]:
    with closing(sqlite3.connect(world.database)) as database:
        return {row[0] for row in database.execute("SELECT hashed FROM api_tokens")}


def test_after_a_restore_administrators_and_tokens_are_listed_with_what_to_do(world):
    lose(world)
    result = run(world, "restore", "newest", "--yes")
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    assert "2 administrators, of whom 1 are in admin_users" in words
    assert f"{TOKENS + 1} tokens that people made, of which {TOKENS + 1} were not there" in words
    assert f"and {TOKENS + 1 - SOME} more" in words
    assert "curl -X PATCH" in words
    assert "curl -X DELETE" in words
    assert SPELLED_OUT[:9] in result.stdout
    assert "\x1b[2J" not in result.output


def test_json_has_all_of_them_and_no_hash(world):
    before = hashes(world)
    lose(world)
    result = run(world, "restore", "newest", "--yes", "--json")
    found = json.loads(result.stdout)
    assert {(one["name"], one["configured"]) for one in found["review"]["admins"]} == {
        ("ada", True),
        (HOSTILE, False),
    }
    notes = {(one["owner"], one["note"]) for one in found["review"]["tokens"]}
    assert notes == {("bob", f"script {n}") for n in range(TOKENS)} | {(HOSTILE, HOSTILE)}
    assert found["outcome"]["users"] == 3
    assert hashes(world) == before
    for one in before:
        assert one not in result.output
        assert one.rpartition(":")[2] not in result.output


def test_the_journal_names_them_beside_the_restore_alone(world):
    lose(world)
    run(world, "restore", "newest", "--yes")
    journal = world.directory / "state" / "jhub-safety" / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    [review] = [one["review"] for one in lines if "review" in one]
    assert [one["kind"] for one in lines if "review" in one] == ["restore-database"]
    assert {one["name"] for one in review["admins"]} == {"ada", HOSTILE}
    assert (len(review["tokens"]), review["tokens_in_all"]) == (SOME, TOKENS + 1)


def test_a_dry_run_lists_them_and_changes_nothing_while_a_hub_runs(world):
    shell(world, "DELETE FROM api_tokens WHERE note = 'script 1'")
    before = tables(world.database)
    with Running("sh", "-c", f"exec 3<{world.database}; echo; exec sleep 60"):
        assert "a hub is alive" in refused(run(world, "restore", "newest", "--yes", "--json"))
        result = run(world, "restore", "newest", "--dry-run", "--json")
    found = json.loads(result.stdout)["review"]["tokens"]
    assert [one["note"] for one in found if not one["was_there"]] == ["script 1"]
    assert tables(world.database) == before


def test_nothing_is_restored_without_a_yes(world):
    lose(world)
    assert run(world, "restore", "newest", answer="n\n").exit_code == 1
    assert world.database.read_bytes() == b""


def test_nothing_is_restored_while_another_process_makes_the_database_again(world):
    lose(world)
    with alone(f"sqlite:///{world.database}"):
        why = refused(run(world, "restore", "newest", "--yes"))
    assert why.startswith("another process is making the database again")
    assert "Nothing was changed" in why
    assert world.database.read_bytes() == b""
    assert run(world, "restore", "newest", "--yes").exit_code == 0


def test_nothing_is_restored_while_it_is_not_known_whether_another_process_does_so(world):
    lose(world)
    lock = world.database.with_name(f".{world.database.name}.jhub-safety-lock")
    # A link to itself: root cannot open it, either.
    lock.symlink_to(lock)
    why = refused(run(world, "restore", "newest", "--yes"))
    assert f"is not known: {lock} cannot be opened" in why
    assert why.endswith("Nothing was changed. How it stands shows: jhub-safety db status")
    assert world.database.read_bytes() == b""
