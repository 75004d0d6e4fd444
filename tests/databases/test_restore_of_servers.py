"""A snapshot of one engine becomes the database on another: whole or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text

from jhub_safety.errors import Conflict, SafetyError
from jhub_safety.hubdb import content, copying, migrate, restore, snapshot
from jhub_safety.hubdb.engines import address, other_clients, reading
from jhub_safety.hubdb.snapshot import Shelf
from jhub_safety.hubdb.stores import FolderStore
from tests import awkward
from tests.databases.waiting import until_it_is

SERVERS = ("postgresql", "mariadb")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return awkward.make(tmp_path_factory.mktemp("source") / "hub.sqlite")


@dataclass
class Case:
    """A database on a server, and snapshots."""

    url: str
    shelf: Shelf
    name: str = ""

    def run(self, *statements: str) -> None:
        engine = create_engine(self.url)
        with engine.begin() as connection:
            for one in statements:
                connection.execute(text(one))
        engine.dispose()

    def measured(self):
        with reading(address(self.url)) as connection:
            return content.measure(connection)

    def put_back(self, *afterwards: str, meanwhile=lambda: None):
        at = address(self.url)
        found = restore.propose(at, self.shelf, self.name, afterwards=afterwards)
        meanwhile()
        identity = found.difference.current.identity
        return restore.execute(at, self.shelf, self.name, identity=identity, afterwards=afterwards)


@pytest.fixture(params=SERVERS)
def case(request, source, new_database, tmp_path) -> Case:
    """A hub's database on a server, with a snapshot of it, and then changed."""
    made = Case(new_database(request.param), Shelf(FolderStore(str(tmp_path / "k")), "hub", "hub"))
    migrate.execute(address(str(source)), address(made.url))
    made.name = snapshot.take(address(made.url), made.shelf).name
    made.run("DELETE FROM api_tokens", "DELETE FROM users_info", "CREATE TABLE extra (id INTEGER)")
    return made


def test_a_snapshot_of_a_server_holds_what_the_source_held(case, source):
    assert (
        content.differences(
            snapshot.read_manifest(case.shelf.store, case.name).tables, _measured(source)
        )
        == ()
    )


def _measured(file: Path):
    with reading(address(str(file))) as connection:
        return content.measure(connection)


def test_a_restore_puts_every_table_back_and_keeps_what_was_there(case, source):
    changed = case.measured()
    outcome = case.put_back()
    assert content.differences(case.measured(), _measured(source)) == ()
    before = snapshot.verify(case.shelf, outcome.aside)
    assert content.differences(before.tables, changed) == ()


def test_it_can_be_restored_again_and_again(case, source):
    for _ in range(2):
        case.put_back()
        assert content.differences(case.measured(), _measured(source)) == ()


def test_into_an_empty_database(case, source, new_database):
    engine = "mariadb" if case.url.startswith("mysql") else "postgresql"
    case.url = new_database(engine)
    assert case.put_back().aside == ""
    assert content.differences(case.measured(), _measured(source)) == ()


@pytest.mark.parametrize("when", ["while copying", "while comparing", "afterwards"])
def test_a_restore_that_fails_leaves_the_tables_as_they_were(case, monkeypatch, when):
    before = case.measured()

    def fail(*_, **__):
        raise SafetyError("cut off")

    if when == "while copying":
        writer = copying._writer

        def failing(target, made, source):
            # Not the snapshot of the old one, which is written to SQLite.
            mine = made.name.endswith("users") and target.dialect.name != "sqlite"
            return fail if mine else writer(target, made, source)

        monkeypatch.setattr(copying, "_writer", failing)
    elif when == "while comparing":
        monkeypatch.setattr(copying, "require_equal", fail)
    else:
        monkeypatch.setitem(restore.AFTERWARDS, "stop-servers", restore.Change("fails", fail))
    with pytest.raises(SafetyError, match="cut off"):
        case.put_back("stop-servers")
    monkeypatch.undo()
    assert case.measured() == before
    assert {"id"} == {one["name"] for one in _columns(case, "extra")}


def _columns(case: Case, table: str):
    engine = create_engine(case.url)
    found = inspect(engine).get_columns(table)
    engine.dispose()
    return found


def test_stop_servers_is_part_of_the_restore(case):
    case.put_back("stop-servers")
    with reading(address(case.url)) as connection:
        running = connection.execute(
            text("SELECT count(*) FROM spawners WHERE server_id IS NOT NULL")
        )
        assert running.scalar() == 0


def test_a_database_that_changed_meanwhile_is_left_alone(case):
    with pytest.raises(Conflict):
        case.put_back(meanwhile=lambda: case.run("UPDATE spawners SET server_id = NULL"))
    assert case.measured()["users_info"].rows == 0


def test_who_else_is_connected_is_told(case):
    at = address(case.url)
    # Whoever filled it has gone, and the server may not have seen it.
    until_it_is(0, lambda: len(other_clients(at)))
    engine = create_engine(case.url)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        until_it_is(1, lambda: len(other_clients(at)))
    engine.dispose()


def test_a_snapshot_of_sqlite_is_restored_to_a_server(case, source):
    case.name = snapshot.take(address(str(source)), case.shelf).name
    case.put_back()
    assert content.differences(case.measured(), _measured(source)) == ()
