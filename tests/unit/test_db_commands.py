"""``jhub-safety db``: what an operator sees of the guard, says to it, and has mended."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest
from click.testing import CliRunner
from jupyterhub import orm, roles

from jhub_safety.cli import cli
from jhub_safety.errors import SafetyError
from tests.unit.hub_database import opened, tables
from tests.unit.session_world import refused, surroundings

USERS = 50


@pytest.fixture
def world(monkeypatch):
    """No hub runs; its database is known, with fifty users who have roles."""
    with surroundings(monkeypatch) as made:
        known = str(made.directory / "known.json")
        made.extra = f"\nc.DatabaseGuard.fingerprint_file = {known!r}\n"
        made.write_config()
        with opened(made.database) as db:
            for role in roles.get_default_roles():
                roles.create_role(db, role)
            for number in range(USERS):
                user = orm.User(name=f"user-{number}")
                db.add(user)
                db.commit()
                roles.assign_default_roles(db, entity=user)
        yield made


def run(world, *arguments: str, answer: str = ""):
    url = f"--db-url=sqlite:///{world.database}"
    result = CliRunner().invoke(cli, ["db", *arguments, url], input=answer)
    if not isinstance(result.exception, (SafetyError, SystemExit, type(None))):
        raise result.exception
    return result


def know(world, epoch: int = 1) -> None:
    """As the hub writes it down."""
    with closing(sqlite3.connect(world.database)) as database:
        database.execute("CREATE TABLE jhub_safety (key VARCHAR(64) PRIMARY KEY, value VARCHAR)")
        database.execute(
            "INSERT INTO jhub_safety VALUES ('identity', ?), ('epoch', ?)", ("a" * 32, str(epoch))
        )
        database.commit()
    record = {
        "identity": "a" * 32,
        "epoch": str(epoch),
        "revision": "",
        "users": str(USERS),
        "highest_id": str(USERS),
        "taken": "2026-11-21T12:00:00.000+00:00",
    }
    (world.directory / "known.json").write_text(json.dumps(record))


def shell(world, statement: str) -> None:
    with closing(sqlite3.connect(world.database)) as database:
        database.execute(statement)
        database.commit()


def status(world) -> tuple[str, str, int]:
    result = run(world, "status", "--json")
    told = json.loads(result.stdout)
    return told["row"], told["verdict"], result.exit_code


def test_status_says_what_the_hub_would_do_and_changes_nothing(world):
    know(world)
    before = tables(world.database)
    assert status(world) == ("as-before", "serve", 0)
    shell(world, "DELETE FROM users WHERE id <= 21")
    assert status(world) == ("fewer-users", "hold", 1)
    result = run(world, "status")
    assert "jhub-safety db accept" in " ".join(result.output.split())
    assert len(before["users"]) - len(tables(world.database)["users"]) == 21


def test_what_is_accepted_is_what_counts_from_then_on(world):
    know(world)
    shell(world, "DELETE FROM users WHERE id <= 21")
    result = run(world, "accept", "--yes")
    assert result.exit_code == 0, result.output
    assert "29 users" in result.output
    assert status(world) == ("as-before", "serve", 0)


def test_nothing_is_accepted_without_a_yes(world):
    know(world)
    shell(world, "DELETE FROM users WHERE id <= 21")
    assert run(world, "accept", answer="n\n").exit_code == 1
    assert status(world)[0] == "fewer-users"


def test_an_empty_one_can_be_accepted_by_forgetting_what_was_known(world):
    know(world)
    shell(world, "DELETE FROM users")
    assert run(world, "accept", "--yes").exit_code == 0
    assert not (world.directory / "known.json").exists()


def test_there_is_nothing_to_accept_of_one_that_is_as_known(world):
    know(world)
    before = (world.directory / "known.json").read_text()
    result = run(world, "accept", "--yes")
    assert result.exit_code == 0
    assert "nothing to accept" in result.output
    assert (world.directory / "known.json").read_text() == before


def test_one_in_which_logins_could_cross_is_not_accepted_but_repaired(world):
    know(world)
    shell(world, "CREATE TABLE by_hand AS SELECT * FROM users")
    shell(world, "DROP TABLE users")
    shell(world, "ALTER TABLE by_hand RENAME TO users")
    shell(world, "UPDATE users SET cookie_id = 'same'")
    assert status(world) == ("unsafe", "hold", 1)
    result = run(world, "accept", "--yes")
    assert "jhub-safety db check" in str(result.exception)
    result = run(world, "check")
    assert result.exit_code == 1
    assert "jhub-safety db repair" in " ".join(result.output.split())
    # A table that was made by hand lacks what others refer to: no snapshot can be made of that.
    assert "--no-snapshot" in str(run(world, "repair", "--yes").exception)
    result = run(world, "repair", "--yes", "--json", "--no-snapshot")
    assert json.loads(result.stdout[result.stdout.index("{") :]) == {"db-cookie-missing": USERS}
    assert status(world) == ("as-before", "serve", 0)


def snapshots(world) -> list[str]:
    return [one.name for one in world.directory.rglob("*.verified")]


def test_what_is_repaired_was_copied_before(world):
    shell(world, "UPDATE users SET cookie_id = '' WHERE id = 1")
    result = run(world, "repair", "--yes")
    assert result.exit_code == 0, result.output
    (name,) = snapshots(world)
    assert name.removesuffix(".verified") in result.output.replace("\n", "")


def test_what_cannot_be_copied_before_is_not_repaired_unless_told(world):
    shell(world, "UPDATE users SET cookie_id = '' WHERE id = 1")
    world.extra += f"\nc.DatabaseBackup.destination = 'file://{world.database}/in-a-file'\n"
    world.write_config()
    before = tables(world.database)
    why = str(run(world, "repair", "--yes").exception)
    assert "Nothing was changed" in why
    assert "jhub-safety db repair --no-snapshot" in why
    assert tables(world.database) == before
    result = run(world, "repair", "--yes", "--no-snapshot")
    assert result.exit_code == 0, result.output
    assert tables(world.database) != before
    assert snapshots(world) == []


@pytest.mark.parametrize(
    ("arguments", "made"),
    [
        pytest.param(["--yes"], 1, id="as asked"),
        pytest.param(["--yes", "--no-snapshot"], 0, id="without a snapshot"),
        pytest.param(["--yes", "--rehearse"], 0, id="a rehearsal"),
        pytest.param(["--dry-run"], 0, id="a dry run"),
    ],
)
def test_what_is_moved_was_copied_before(world, arguments, made):
    there = world.directory / "there.sqlite"
    result = run(world, "migrate", f"--to=sqlite:///{there}", *arguments)
    assert result.exit_code == 0, result.output
    assert len(snapshots(world)) == made
    assert there.exists() is ("--dry-run" not in arguments)


def test_what_cannot_be_copied_before_is_not_moved(world):
    world.extra += f"\nc.DatabaseBackup.destination = 'file://{world.database}/in-a-file'\n"
    world.write_config()
    there = world.directory / "there.sqlite"
    why = refused(run(world, "migrate", f"--to=sqlite:///{there}", "--yes"))
    assert "jhub-safety db migrate --no-snapshot" in why
    assert not there.exists()


def test_there_is_nothing_to_repair_in_one_that_is_in_order(world):
    before = tables(world.database)
    result = run(world, "repair", "--yes")
    assert result.exit_code == 0
    assert "nothing that can be mended" in result.output
    assert tables(world.database) == before
    assert json.loads(run(world, "repair", "--yes", "--json").stdout) == {}


def test_logging_out_needs_to_know_whom(world):
    assert run(world, "logout").exit_code == 2
    assert run(world, "logout", "ada", "--all").exit_code == 2


def test_logging_out_while_the_hub_is_down_is_done_in_its_database(world):
    before = tables(world.database)["users"]
    result = run(world, "logout", "user-7", "--yes", "--json")
    assert result.exit_code == 0, result.output
    assert len(before - tables(world.database)["users"]) == 1


# -- what is to be run next


def lose(world, how: str) -> None:
    if how == "missing":
        world.database.unlink()
    else:
        world.database.write_bytes(b"" if how == "zero-bytes" else b"\xff" * 9000)


@pytest.mark.parametrize("how", ["zero-bytes", "corrupt"])
def test_the_next_step_after_a_loss_is_the_snapshot_that_is_kept(world, how):
    """Made again from the cluster alone it lacks groups, tokens, and users without a claim."""
    know(world)
    assert run(world, "backup").exit_code == 0
    lose(world, how)
    told = json.loads(run(world, "status", "--json").stdout)
    assert told["row"] == how
    assert told["next"].startswith(f"jhub-safety db restore newest ({USERS} users, 20")
    assert told["next"].endswith("jhub-safety db rebuild")
    words = " ".join(run(world, "status").output.split())
    assert f"Next: {told['next']}" in words


@pytest.mark.parametrize("how", ["zero-bytes", "corrupt"])
def test_the_next_step_without_a_snapshot_is_to_rebuild(world, how):
    know(world)
    lose(world, how)
    assert json.loads(run(world, "status", "--json").stdout)["next"] == "jhub-safety db rebuild"


def test_both_are_named_where_it_is_not_known_whether_one_is_kept(world):
    know(world)
    world.extra += f"\nc.DatabaseBackup.destination = 'file://{world.directory}/not-mounted'\n"
    world.write_config()
    lose(world, "zero-bytes")
    told = json.loads(run(world, "status", "--json").stdout)["next"]
    assert told.startswith("jhub-safety db restore newest. Whether one is kept is not known (")
    assert told.endswith("If none is: jhub-safety db rebuild")


def test_nothing_is_to_be_run_where_the_hub_serves(world):
    know(world)
    assert json.loads(run(world, "status", "--json").stdout)["next"] == ""
