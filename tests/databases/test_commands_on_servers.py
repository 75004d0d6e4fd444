"""``jhub-safety db restore`` on real servers: the command's own lock is in nobody's way."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from jupyterhub import orm
from sqlalchemy import create_engine, text

from jhub_safety.cli import cli
from jhub_safety.errors import SafetyError
from jhub_safety.hubdb.alone import alone
from tests.databases.waiting import until_it_is
from tests.unit.session_world import closed_port

NAMES = ("ada", "bob")


@pytest.fixture(params=["postgresql", "mariadb"])
def url(request, new_database, tmp_path, monkeypatch) -> str:
    """A hub that is down, and no cluster; its configuration is in the working directory."""
    made = new_database(request.param)
    db = orm.new_session_factory(made)()
    db.add_all(orm.User(name=name) for name in NAMES)
    db.commit()
    db.close()
    db.get_bind().dispose()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setattr("jhub_safety.cli.dbsite.is_configured", lambda _: False)
    monkeypatch.setattr("jhub_safety.cli.dbknown.is_configured", lambda _: False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jupyterhub_config.py").write_text(
        "c = get_config()\n"
        f"c.JupyterHub.db_url = {made!r}\n"
        f"c.JupyterHub.hub_port = {closed_port()}\n"
        f"c.DatabaseBackup.destination = 'file://{tmp_path}/snapshots'\n"
        f"c.DatabaseGuard.fingerprint_file = '{tmp_path}/known.json'\n"
    )
    assert run("backup").exit_code == 0
    return made


def run(*words: str):
    result = CliRunner().invoke(cli, ["db", *words])
    if not isinstance(result.exception, (SafetyError, SystemExit, type(None))):
        raise result.exception
    return result


def users(url: str) -> set[str]:
    engine = create_engine(url)
    with engine.connect() as connection:
        found = set(connection.execute(text("SELECT name FROM users")).scalars())
    engine.dispose()
    return found


def test_it_is_restored_and_the_lock_is_not_taken_for_somebody_else(url):
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM users WHERE name = 'bob'"))
    engine.dispose()
    # The server may not have seen yet that those have gone.
    until_it_is(
        [], lambda: json.loads(run("restore", "newest", "--dry-run", "--json").stdout)["clients"]
    )
    result = run("restore", "newest", "--yes")
    assert result.exit_code == 0, (result.output, result.exception)
    assert users(url) == set(NAMES)


def test_others_are_told_and_nothing_is_changed(url):
    engine = create_engine(url)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        result = run("restore", "newest", "--yes")
    engine.dispose()
    assert "others are connected to the database" in str(result.exception)
    with alone(url):
        pass
