"""Commands that make a hub's database again: alone from the first look to the last change."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from jupyterhub import orm, roles

from jhub_safety.cli import cli
from jhub_safety.errors import Conflict, SafetyError
from jhub_safety.hubdb.alone import alone
from tests.unit import session_world
from tests.unit.hub_database import add_user, opened, tables
from tests.unit.session_world import surroundings
from tests.unit.test_hub_access import pod
from tests.unit.test_rebuild_commands import Claims, claim

ROOT = Path(__file__).parents[2]
#: Each with what it needs to go through.
COMMANDS = {
    "restore": ("restore", "newest"),
    "rebuild": ("rebuild",),
    "repair": ("repair",),
    "migrate": ("migrate", "--to=sqlite:///there.sqlite"),
}


@pytest.fixture
def world(monkeypatch):
    """No hub runs; a user of its database has no role, and a claim names another one."""
    monkeypatch.setattr(session_world, "ClusterDouble", Claims)
    monkeypatch.setattr(Claims, "there", {})
    with surroundings(monkeypatch) as made:
        made.extra = (
            f"\nc.DatabaseGuard.fingerprint_file = {str(made.directory / 'known.json')!r}\n"
        )
        made.write_config()
        claim("claim-eve", "eve")
        with opened(made.database) as db:
            for role in roles.get_default_roles():
                roles.create_role(db, role)
            db.add(orm.OAuthClient(identifier="jupyterhub"))
            add_user(db, "ada")
        assert run(("backup",)).exit_code == 0
        yield made


def run(words: tuple[str, ...], answer: str = ""):
    result = CliRunner().invoke(cli, ["db", *words], input=answer)
    if not isinstance(result.exception, (SafetyError, SystemExit, type(None))):
        raise result.exception
    return result


def left_alone(world, before) -> bool:
    return tables(world.database) == before and not (world.directory / "there.sqlite").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_it_goes_through_where_nothing_is_in_the_way(world, command):
    before = tables(world.database)
    result = run((*COMMANDS[command], "--yes"))
    assert result.exit_code == 0, result.output
    assert not left_alone(world, before) or command == "restore"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_hub_that_is_started_after_the_plan_is_not_written_behind_its_back(world, command):
    """Also with --yes, where nobody is asked in between."""
    before = tables(world.database)
    world.cluster.pods = [[], [pod("hub-77f9")]]
    result = run((*COMMANDS[command], "--yes"))
    assert "a hub is alive: pod hub-77f9 is Running" in str(result.exception)
    assert "Nothing was changed" in str(result.exception)
    assert left_alone(world, before)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_hub_that_is_started_while_a_person_reads_holds(world, monkeypatch, command):
    seen = []

    def confirm(*_, **__):
        with pytest.raises(Conflict), alone(f"sqlite:///{world.database}", looking=True):
            pass
        seen.append(True)
        raise click.Abort

    monkeypatch.setattr(click, "confirm", confirm)
    run(COMMANDS[command])
    assert seen == [True]
    with alone(f"sqlite:///{world.database}"):
        pass


@pytest.mark.parametrize("command", COMMANDS)
def test_one_at_a_time(world, command):
    before = tables(world.database)
    with alone(f"sqlite:///{world.database}"):
        result = run((*COMMANDS[command], "--yes"))
    assert "another process is making the database again" in str(result.exception)
    assert left_alone(world, before)


@pytest.mark.parametrize("how", ["--dry-run", "--rehearse"])
def test_what_changes_nothing_here_needs_no_lock(world, how):
    with alone(f"sqlite:///{world.database}"):
        assert run((*COMMANDS["migrate"], "--yes", how)).exit_code == 0


#: In the process that does the work: kill the command when the new file is to be put in its place,
#: and go on when somebody writes to the pipe.
SITECUSTOMIZE = """
import os, signal, sys
if "jhub_safety.hubdb" in sys.orig_argv:
    done = []
    def hook(event, arguments):
        if event == "os.rename" and ".restoring-" in str(arguments[0]) and not done:
            done.append(True)
            os.kill(os.getppid(), signal.SIGKILL)
            open(os.environ["GO_ON"]).read()
    sys.addaudithook(hook)
"""


def test_the_lock_lives_as_long_as_the_process_that_does_the_work(world, tmp_path):
    world.database.write_bytes(b"")
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE)
    pipe = tmp_path / "go-on"
    os.mkfifo(pipe)
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    command = [sys.executable, "-m", "jhub_safety", "db", "restore", "newest", "--yes"]
    found = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": path, "GO_ON": str(pipe)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=25,
        check=False,
    )
    assert found.returncode == -signal.SIGKILL
    with pytest.raises(Conflict), alone(f"sqlite:///{world.database}"):
        pass
    pipe.write_text("")
    for _ in range(500):
        try:
            with alone(f"sqlite:///{world.database}"):
                break
        except Conflict:
            time.sleep(0.01)
    else:
        pytest.fail("the lock outlives the work")
    assert "ada" in {dict(row)["name"] for row in tables(world.database)["users"]}
