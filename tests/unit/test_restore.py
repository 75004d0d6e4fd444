"""Restoring a SQLite database: whole or not at all, the old one kept."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from jhub_safety.errors import Conflict, Doubt, SafetyError
from jhub_safety.hubdb import content, exchange, identity, restore, snapshot
from jhub_safety.hubdb.engines import address, opened_file
from jhub_safety.hubdb.identity import Identity
from jhub_safety.hubdb.packing import Damaged
from jhub_safety.hubdb.snapshot import Shelf
from jhub_safety.hubdb.stores import FolderStore
from tests import awkward


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return awkward.make(tmp_path_factory.mktemp("source") / "hub.sqlite", nul=True)


@pytest.fixture(scope="module")
def kept(original, tmp_path_factory) -> tuple[Shelf, str]:
    where = Shelf(FolderStore(str(tmp_path_factory.mktemp("kept"))), "hub", "hub")
    return where, snapshot.take(address(str(original)), where).name


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "db" / "hub.sqlite"


@pytest.fixture
def put_back(kept, file):
    """Propose and execute; a function in between may change things."""

    def run(*afterwards: str, meanwhile=lambda: None, name: str = ""):
        where, newest = kept
        found = restore.propose(address(str(file)), where, name or newest, afterwards=afterwards)
        meanwhile()
        return restore.execute(
            address(str(file)),
            where,
            name or newest,
            identity=found.difference.current.identity,
            afterwards=afterwards,
        )

    return run


def measured(file: Path):
    with opened_file(file) as connection:
        return content.measure(connection)


def files(file: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in file.parent.iterdir()}


def in_use(original: Path, file: Path) -> None:
    shutil.copyfile(original, file)


def in_wal(original: Path, file: Path) -> None:
    """Ended without closing: the last commit is in the write-ahead log alone."""
    live = file.with_name("live")
    shutil.copyfile(original, live)
    with closing(sqlite3.connect(live)) as hub:
        hub.execute("PRAGMA journal_mode=WAL")
        hub.execute("DELETE FROM users_info")
        hub.commit()
        for end in ("", "-wal"):
            shutil.copyfile(f"{live}{end}", f"{file}{end}")
    for one in file.parent.glob("live*"):
        one.unlink()


CASES = [
    pytest.param(lambda original, file: None, 0, id="missing"),
    pytest.param(lambda original, file: file.touch(), 1, id="zero bytes"),
    pytest.param(in_use, 1, id="a whole one"),
    pytest.param(lambda original, file: file.write_bytes(b"x" * 9999), 1, id="rubbish"),
    pytest.param(in_wal, 2, id="with a write-ahead log"),
]


@pytest.mark.parametrize(("before", "aside"), CASES)
def test_the_snapshot_is_there_and_the_old_one_beside_it(original, file, put_back, before, aside):
    file.parent.mkdir()
    before(original, file)
    old = files(file)
    outcome = put_back()
    assert measured(file) == measured(original)
    assert not file.with_name("hub.sqlite-wal").exists()
    left = {name: data for name, data in files(file).items() if name != "hub.sqlite"}
    stamp = Path(outcome.aside).name.removeprefix("hub.sqlite") if outcome.aside else ""
    # SQLite may make the -shm of a database in WAL mode anew while it is only read.
    left = {name: data for name, data in left.items() if not name.endswith("-shm")}
    assert left == {name.replace("hub.sqlite", f"hub.sqlite{stamp}"): d for name, d in old.items()}
    assert len(left) == aside


def test_a_database_kept_aside_can_be_used_as_it_was(original, file, put_back):
    file.parent.mkdir()
    in_wal(original, file)
    aside = Path(put_back().aside)
    with closing(sqlite3.connect(aside)) as connection:
        assert connection.execute("SELECT count(*) FROM users_info").fetchone() == (0,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_link_stays_a_link_and_what_it_leads_to_is_replaced(original, kept, file, tmp_path):
    """The link was replaced: the database was on the hub's own disk from then on."""
    file.parent.mkdir()
    in_use(original, file)
    link = tmp_path / "link.sqlite"
    link.symlink_to(file)
    where, _ = kept
    target = address(f"sqlite:///{link}")
    name = snapshot.take(target, where).name
    outcome = restore.execute(target, where, name, identity=restore.look(target).identity)
    assert link.readlink() == file
    assert measured(file) == measured(Path(outcome.aside))
    assert {one.parent for one in (file, Path(outcome.aside))} == {file.parent}


@pytest.mark.parametrize("epoch", [3, 9], ids=["known before the copy was made", "known after it"])
def test_it_goes_on_as_the_database_that_is_known(original, kept, file, epoch):
    """A hub that was killed right after a restore took its database for an older copy."""
    file.parent.mkdir()
    in_use(original, file)
    engine = create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        for _ in range(6):
            known = identity.advance(connection)
    engine.dispose()
    where, _ = kept
    target = address(str(file))
    name = snapshot.take(target, where).name
    restore.execute(
        target,
        where,
        name,
        identity=restore.look(target).identity,
        former=Identity(known.identity, epoch),
    )
    with opened_file(file) as connection:
        assert identity.read(connection) == Identity(known.identity, max(6, epoch), renewed=True)


def test_one_in_wal_mode_that_was_closed_in_order_is_replaced_at_once(original, file, put_back):
    """Looking at it leaves an empty log beside it; that is no change."""
    file.parent.mkdir()
    in_use(original, file)
    with closing(sqlite3.connect(file)) as hub:
        hub.execute("PRAGMA journal_mode=WAL")
        hub.execute("DELETE FROM users_info")
        hub.commit()
    assert list(files(file)) == ["hub.sqlite"]
    put_back()
    assert measured(file) == measured(original)


def test_a_hub_in_wal_mode_gets_one_in_wal_mode(original, kept, file):
    file.parent.mkdir()
    in_wal(original, file)
    where, _ = kept
    name = snapshot.take(address(str(file)), where).name
    file.unlink()
    now = restore.look(address(str(file))).identity
    restore.execute(address(str(file)), where, name, identity=now)
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("step", ["change_file", "_measured", "like", "_exchange", "require_equal"])
@pytest.mark.parametrize(("before", "aside"), CASES)
def test_a_failure_at_any_step_leaves_everything_as_it_was(
    original, file, put_back, monkeypatch, before, aside, step
):
    file.parent.mkdir()
    before(original, file)
    old = files(file)

    def full(*_):
        raise (
            OSError(28, "No space left on device") if step != "require_equal" else SafetyError("x")
        )

    monkeypatch.setattr(exchange, step, full)
    with pytest.raises(SafetyError):
        put_back()
    assert {name: d for name, d in files(file).items() if not name.endswith("-shm")} == old


@pytest.mark.parametrize(
    ("folder", "wanted"),
    [
        pytest.param(0o2775, 0o660, id="its group is the hub's"),
        pytest.param(0o755, 0o600, id="it is its owner's alone"),
    ],
)
def test_what_root_restores_where_none_is_left_can_be_opened_by_the_hub(
    tmp_path, monkeypatch, folder, wanted
):
    place = tmp_path / "volume"
    place.mkdir()
    place.chmod(folder)
    new = place / "new"
    new.touch(0o600)
    given = []
    monkeypatch.setattr(exchange.os, "geteuid", lambda: 0)
    monkeypatch.setattr(exchange.os, "chown", lambda *one: given.append(one))
    exchange.like(new, place / "hub.sqlite")
    assert new.stat().st_mode & 0o777 == wanted
    assert given == [(new, place.stat().st_uid, place.stat().st_gid)]


def no_second_names(monkeypatch):
    def hardlink_to(self, target):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", hardlink_to)


@pytest.mark.parametrize("before", [in_use, in_wal], ids=["alone", "with a write-ahead log"])
@pytest.mark.parametrize(
    ("call", "of"),
    [
        pytest.param("hardlink_to", ".before-", id="a second name"),
        pytest.param("unlink", "hub.sqlite-wal", id="what belongs to the old one goes"),
        pytest.param("replace", ".restoring-", id="the new one comes"),
    ],
)
def test_an_exchange_that_is_cut_off_is_taken_back(
    original, file, put_back, monkeypatch, before, call, of
):
    file.parent.mkdir()
    before(original, file)
    old = files(file)
    real = getattr(Path, call)
    done = []

    def failing(self, *arguments, **named):
        if of in self.name and not done:
            done.append(self)
            # As when it is told to end, right after it was done.
            real(self, *arguments, **named)
            raise SystemExit(1)
        return real(self, *arguments, **named)

    monkeypatch.setattr(Path, call, failing)
    with pytest.raises(SystemExit):
        put_back()
    assert done
    left = {name: d for name, d in files(file).items() if not name.endswith("-shm")}
    # A second name of something that is in place takes nothing away.
    assert {name: d for name, d in left.items() if ".before-" not in name} == old


@pytest.mark.parametrize(("before", "aside"), CASES)
def test_where_a_file_has_one_name_only_it_is_renamed(
    original, file, put_back, monkeypatch, before, aside
):
    no_second_names(monkeypatch)
    file.parent.mkdir()
    before(original, file)
    outcome = put_back()
    assert measured(file) == measured(original)
    kept = [one for one in files(file) if ".before-" in one and not one.endswith("-shm")]
    assert (len(kept), bool(outcome.aside)) == (aside, aside > 0)


def test_a_rename_that_fails_half_way_is_taken_back(original, file, put_back, monkeypatch):
    no_second_names(monkeypatch)
    file.parent.mkdir()
    in_wal(original, file)
    old = files(file)
    rename = Path.rename

    def failing(self, target):
        if self.name.endswith("-wal") and ".before-" in str(target):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(SafetyError, match="was not replaced: Input/output error"):
        put_back()
    assert {name: d for name, d in files(file).items() if not name.endswith("-shm")} == old


def test_a_damaged_snapshot_is_never_restored(original, kept, file, put_back, tmp_path):
    file.parent.mkdir()
    in_use(original, file)
    old = files(file)
    where, name = kept
    stored = where.store.folder / name
    data = stored.read_bytes()
    try:
        with pytest.raises(Damaged):
            put_back(meanwhile=lambda: stored.write_bytes(data[:-1]))
    finally:
        stored.write_bytes(data)
    assert files(file) == old


def test_a_database_that_changed_after_it_was_looked_at_is_left_alone(original, file, put_back):
    file.parent.mkdir()
    in_use(original, file)

    def hub_writes():
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("DELETE FROM users_info")
            connection.commit()

    with pytest.raises(Conflict, match="changed"):
        put_back(meanwhile=hub_writes)
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT count(*) FROM users_info").fetchone() == (0,)
    assert list(files(file)) == ["hub.sqlite"]


def test_tables_of_something_else_are_never_replaced(kept, file, put_back):
    file.parent.mkdir()
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE invoices (id INTEGER)")
    where, name = kept
    found = restore.propose(address(str(file)), where, name)
    assert [one.code for one in found.plan.refusals] == ["foreign"]
    assert not found.plan
    old = files(file)
    with pytest.raises(SafetyError, match="something else"):
        put_back()
    assert files(file) == old


def test_the_plan_says_who_would_be_lost_and_who_comes_back(original, kept, file):
    file.parent.mkdir()
    in_use(original, file)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE users SET name = 'newcomer' WHERE name = 'alice'")
        connection.commit()
    where, name = kept
    found = restore.propose(address(str(file)), where, name)
    assert found.difference.lost == ("newcomer",)
    assert found.difference.back == ("alice",)
    assert [one.kind for one in found.plan.actions] == ["keep-database", "restore-database"]


def test_with_stop_servers_no_server_counts_as_running_and_nothing_else_changes(
    original, file, put_back
):
    file.parent.mkdir()
    put_back("stop-servers")
    with closing(sqlite3.connect(file)) as connection:
        running = connection.execute(
            "SELECT count(*) FROM spawners WHERE server_id IS NOT NULL"
        ).fetchone()
        states = connection.execute("SELECT id, state FROM spawners").fetchall()
    with closing(sqlite3.connect(original)) as connection:
        assert connection.execute("SELECT id, state FROM spawners").fetchall() == states
        assert connection.execute(
            "SELECT count(*) FROM spawners WHERE server_id IS NOT NULL"
        ).fetchone() != (0,)
    assert running == (0,)
    same = measured(original)
    changed = {name for name, one in measured(file).items() if one != same[name]}
    # Here services have the same servers, as they never have; they must not name what is gone.
    assert changed == {"spawners", "servers", "services"}
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def test_what_is_not_known_is_not_done_afterwards(file, put_back):
    file.parent.mkdir()
    with pytest.raises(SafetyError, match="dance"):
        put_back("dance")
    assert files(file) == {}


def test_an_unreadable_folder_is_doubt_and_not_a_missing_database(kept, tmp_path):
    target = tmp_path / "file" / "hub.sqlite"
    (tmp_path / "file").touch()
    with pytest.raises(Doubt):
        restore.look(address(str(target)))


def test_what_was_kept_aside_before_is_never_taken_away(original, file):
    """Its name is taken: no second name is given, and the one who has it keeps it."""
    file.parent.mkdir()
    in_use(original, file)
    aside = file.with_name("hub.sqlite.before")
    aside.write_bytes(b"somebody's")
    before = files(file)
    assert not exchange._give_second_names(file, aside, [""])
    assert files(file) == before
