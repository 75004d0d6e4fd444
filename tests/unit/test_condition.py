"""What is found of a hub's database without opening it as the hub does, on real files."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from jupyterhub import orm
from sqlalchemy import create_engine

from jhub_safety.hubdb import condition, identity
from jhub_safety.hubdb.condition import State, address, look, mark_file, mark_volume, sqlite_path
from tests.unit.hub_database import add_user, opened

SECRET = "s3cr3t-Pa55"


@pytest.fixture
def file(tmp_path) -> Path:
    """A hub's database with three users."""
    made = tmp_path / "jupyterhub.sqlite"
    with opened(made) as db:
        for name in ("ada", "bob", "zoë"):
            add_user(db, name)
    return made


def url(file: Path) -> str:
    return f"sqlite:///{file}"


def shell(file: Path, *statements: str) -> None:
    with closing(sqlite3.connect(file)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


@contextmanager
def transaction(file: Path):
    engine = create_engine(url(file))
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def names(folder: Path) -> set[str]:
    return {one.name for one in folder.iterdir()}


def test_a_database_in_use_tells_what_is_in_it(file):
    found = look(url(file))
    assert (found.state, found.users, found.highest_id) == (State.USABLE, 3, 3)
    assert found.revision
    assert (found.identity, found.epoch, found.unsafe, found.volume) == (None, 0, "", None)


def test_its_mark_is_read(file):
    with transaction(file) as connection:
        first = identity.advance(connection)
        second = identity.advance(connection)
    mark_volume(file, second.identity)
    found = look(url(file))
    assert first.identity == second.identity
    assert (found.identity, found.epoch) == (first.identity, 2)
    assert found.volume == first.identity


# -- lost


def test_a_missing_file_is_not_made_by_looking(tmp_path):
    found = look(url(tmp_path / "jupyterhub.sqlite"))
    assert (found.state, found.volume) == (State.MISSING, None)
    assert names(tmp_path) == set()


def test_a_missing_file_on_its_own_volume_is_told_by_the_mark(tmp_path):
    file = tmp_path / "jupyterhub.sqlite"
    mark_volume(file, "a" * 32)
    assert look(url(file)).volume == "a" * 32
    # Another hub's, in the same folder.
    assert look(url(tmp_path / "other.sqlite")).volume is None


def test_a_mark_that_cannot_be_read_is_none(tmp_path):
    file = tmp_path / "jupyterhub.sqlite"
    mark_file(file).write_bytes(b"\xff\xfe")
    assert look(url(file)).volume is None


def test_a_link_that_leads_nowhere_is_looked_for_where_it_leads(tmp_path):
    """The volume that it leads to is not mounted; the link's own folder proves nothing."""
    link = tmp_path / "jupyterhub.sqlite"
    link.symlink_to(tmp_path / "volume" / "hub.sqlite")
    mark_volume(link, "a" * 32)
    found = look(url(link))
    assert (found.state, found.volume) == (State.MISSING, None)


def test_a_link_to_a_database_is_that_database(file, tmp_path):
    link = tmp_path / "link.sqlite"
    link.symlink_to(file)
    assert look(url(link)) == look(url(file))


def _truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2 + 100)


def _flip_page(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[4096:8192] = bytes(one ^ 0xFF for one in content[4096:8192])
    file.write_bytes(content)


def _directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    ("damage", "state"),
    [
        pytest.param(lambda file: file.write_bytes(b""), State.ZERO_BYTES, id="zero bytes"),
        pytest.param(lambda file: file.write_bytes(b"x"), State.NO_TABLES, id="one byte"),
        pytest.param(
            lambda file: file.write_text("sorry, moved to the new server\n" * 200),
            State.CORRUPT,
            id="a text file",
        ),
        pytest.param(_truncate, State.CORRUPT, id="truncated"),
        pytest.param(_flip_page, State.CORRUPT, id="a page of nonsense"),
        pytest.param(
            lambda file: file.write_bytes(bytes(file.stat().st_size)), State.CORRUPT, id="all zeros"
        ),
        pytest.param(_directory, State.UNREACHABLE, id="a folder"),
        pytest.param(
            lambda file: (file.unlink(), shell(file, "CREATE TABLE t (a)")),
            State.NO_TABLES,
            id="somebody's tables",
        ),
        pytest.param(
            lambda file: (file.unlink(), shell(file, "CREATE TABLE t (a)", "DROP TABLE t")),
            State.NO_TABLES,
            id="tables dropped",
        ),
    ],
)
def test_each_damage_has_its_state_and_the_file_stays_as_it_is(file, damage, state):
    damage(file)
    before = file.read_bytes() if file.is_file() else None
    found = look(url(file))
    assert (found.state, found.users) == (state, 0), found.why
    assert (file.read_bytes() if file.is_file() else None) == before
    assert names(file.parent) == {file.name}


def test_the_save_of_2017_leaves_no_tables(file):
    """``sqlite3`` without a file name, then ``.save jupyterhub.sqlite``: an empty one over it."""
    with closing(sqlite3.connect(":memory:")) as empty, closing(sqlite3.connect(file)) as target:
        empty.backup(target)
    assert look(url(file)).state in (State.NO_TABLES, State.ZERO_BYTES)


# -- left by a hub that was killed

_WRITER = """
import os, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute(f"PRAGMA journal_mode = {sys.argv[2]}")
database.execute("PRAGMA cache_size = 1")
database.execute("PRAGMA cache_spill = 1")
if sys.argv[2] == "WAL":
    database.execute("PRAGMA wal_autocheckpoint = 0")
    database.execute("INSERT INTO users (name, cookie_id) VALUES ('committed', 'c')")
database.execute("BEGIN")
for number in range(5000):
    row = (f"u{number}", f"c{number}")
    database.execute("INSERT INTO users (name, cookie_id) VALUES (?, ?)", row)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    ("mode", "users", "beside"),
    [
        pytest.param("DELETE", 3, "-journal", id="rollback journal"),
        pytest.param("WAL", 4, "-wal", id="write-ahead log"),
    ],
)
def test_a_transaction_that_was_cut_off_is_taken_back_as_the_hub_would(file, mode, users, beside):
    killed = subprocess.run([sys.executable, "-c", _WRITER, str(file), mode], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert file.with_name(file.name + beside).stat().st_size > 0
    found = look(url(file))
    assert (found.state, found.users) == (State.USABLE, users), found.why


def test_a_database_that_somebody_keeps_locked_is_not_taken_for_damaged(file, monkeypatch):
    connect = sqlite3.connect
    # Not five seconds.
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **{**k, "timeout": 0.1}))
    with closing(connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert look(url(file)).state is State.UNREACHABLE
        other.execute("ROLLBACK")
    assert look(url(file)).state is State.USABLE


# -- in the way


@pytest.mark.skipif(os.getuid() != 0, reason="needs another account to become")
@pytest.mark.parametrize("closed", ["file", "folder"])
def test_what_the_hubs_account_may_not_write_is_read_only(file, closed):
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "jupyterhub.sqlite"
        shutil.copy(file, copy)
        Path(folder).chmod(0o777 if closed == "file" else 0o755)
        copy.chmod(0o444 if closed == "file" else 0o666)
        assert _as_nobody(copy) == State.READ_ONLY
        Path(folder).chmod(0o777)
        copy.chmod(0o666)
        assert _as_nobody(copy) == State.USABLE


def _as_nobody(file: Path) -> str:
    """Root may write everything; so a child that is not root looks."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgid(65534)
            os.setuid(65534)
            os.write(write, str(look(url(file)).state).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return told


def test_a_volume_without_room_is_told_before_the_hub_fails_on_it(file, monkeypatch):
    used = shutil.disk_usage(file.parent)
    monkeypatch.setattr(condition.shutil, "disk_usage", lambda _: used._replace(free=4096))
    assert look(url(file)).state is State.FULL


@pytest.mark.parametrize(
    "address_of",
    [
        pytest.param("postgresql://hub:{}@127.0.0.1:1/hub", id="postgresql"),
        pytest.param("postgresql+psycopg2://hub:{}@127.0.0.1:1/hub", id="psycopg2"),
        pytest.param("mysql+pymysql://hub:{}@127.0.0.1:1/hub", id="mysql"),
        pytest.param("mariadb+pymysql://hub:{}@127.0.0.1:1/hub?charset=utf8mb4", id="mariadb"),
        pytest.param("oracle://hub:{}@127.0.0.1:1/hub", id="no such driver"),
    ],
)
def test_a_server_that_does_not_answer_is_unreachable_and_its_password_is_not_told(address_of):
    found = look(address_of.format(SECRET))
    assert found.state is State.UNREACHABLE
    assert "127.0.0.1" in found.why
    assert SECRET not in repr(found)


# -- unsafe


def test_rows_that_let_logins_cross_are_told_before_the_hub_runs_only(file):
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE made_by_hand AS SELECT * FROM users")
        database.execute("DROP TABLE users")
        database.execute("ALTER TABLE made_by_hand RENAME TO users")
        database.execute("UPDATE users SET cookie_id = ''")
        database.commit()
    assert "3 users have no cookie_id" in look(url(file)).unsafe
    assert look(url(file), thorough=False).unsafe == ""


# -- addresses


@pytest.mark.parametrize(
    ("spelling", "path"),
    [
        pytest.param("sqlite:///hub.sqlite", "{cwd}/hub.sqlite", id="relative"),
        pytest.param("sqlite:///./data/hub.sqlite", "{cwd}/data/hub.sqlite", id="with a dot"),
        pytest.param("sqlite:////srv/hub.sqlite", "/srv/hub.sqlite", id="absolute"),
        pytest.param("sqlite+pysqlite:////srv/hub.sqlite", "/srv/hub.sqlite", id="driver named"),
        pytest.param("sqlite:////srv/hub.sqlite?timeout=20", "/srv/hub.sqlite", id="with query"),
        pytest.param(
            "sqlite:///file:/srv/a%20b.sqlite?mode=rwc&uri=true", "/srv/a b.sqlite", id="file URI"
        ),
        pytest.param("sqlite:///file:hub.sqlite?uri=true", "{cwd}/hub.sqlite", id="relative URI"),
        pytest.param("sqlite:///file:hub.sqlite", "{cwd}/file:hub.sqlite", id="odd file name"),
        pytest.param("sqlite:////srv/100%.sqlite", "/srv/100%.sqlite", id="percent sign"),
        pytest.param("sqlite://", None, id="memory, short"),
        pytest.param("sqlite:///:memory:", None, id="memory"),
        pytest.param("sqlite:///file::memory:?cache=shared&uri=true", None, id="memory, URI"),
        pytest.param("sqlite:///file:x?mode=memory&uri=true", None, id="memory, mode"),
        # Its file is encrypted: to plain SQLite it looks damaged.
        pytest.param("sqlite+pysqlcipher://:key@//srv/hub.sqlite", None, id="encrypted"),
        pytest.param("postgresql://db/hub", None, id="a server"),
    ],
)
def test_every_spelling_of_a_file_is_understood(spelling, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = sqlite_path(spelling)
    assert found == (None if path is None else Path(path.format(cwd=tmp_path)))


@pytest.mark.parametrize("spelling", ["sqlite:///{}", "sqlite:///file:{}?uri=true&mode=rwc"])
@pytest.mark.parametrize("name", ["a b.sqlite", "100%25.sqlite", "zoë.sqlite", "a&b=c.sqlite"])
def test_the_file_that_jupyterhub_makes_is_the_one_that_is_looked_at(spelling, name, tmp_path):
    made = spelling.format(tmp_path / name)
    db = orm.new_session_factory(made)()
    db.add(orm.User(name="ada"))
    db.commit()
    db.close()
    db.get_bind().dispose()
    assert look(made).users == 1


@pytest.mark.parametrize(
    ("spelling", "told"),
    [
        pytest.param(
            f"postgresql+psycopg2://hub:{SECRET}@DB.example:5432/hub?sslmode=require",
            "postgresql db.example:5432 hub",
            id="without account, password and driver",
        ),
        pytest.param("mysql+pymysql://u@db/hub", "mysql db hub", id="default port"),
        pytest.param("postgresql://", "postgresql  ", id="all by environment"),
        pytest.param("sqlite:////srv/hub.sqlite", "sqlite /srv/hub.sqlite", id="a file"),
    ],
)
def test_an_address_says_where_and_not_how(spelling, told):
    assert address(spelling) == told


# -- the identity


def test_an_accepted_older_copy_passes_the_epoch_that_is_known(file):
    with transaction(file) as connection:
        assert identity.advance(connection, 9).epoch == 10
        assert identity.advance(connection, 3).epoch == 11


def test_one_that_is_made_again_keeps_its_identity_and_says_so_until_labs_are_back(file):
    former = identity.Identity("a" * 32, 5)
    with transaction(file) as connection:
        identity.renew(connection, former)
    assert look(url(file)).renewed
    with transaction(file) as connection:
        made = identity.advance(connection, 5)
        assert (made.identity, made.epoch) == (former.identity, 6)
        assert identity.to_relink(connection)
        identity.relinked(connection)
        assert not identity.to_relink(connection)
    assert identity_of(file) == identity.Identity(former.identity, 6)


def test_one_that_is_added_to_stays_itself(file):
    with transaction(file) as connection:
        mine = identity.advance(connection)
        identity.renew(connection, identity.Identity("b" * 32, 50))
    assert identity_of(file) == identity.Identity(mine.identity, 1, renewed=True)


def test_one_out_of_an_older_snapshot_is_no_older_copy(file):
    with transaction(file) as connection:
        mine = identity.advance(connection)
        identity.renew(connection, identity.Identity(mine.identity, 50))
    assert identity_of(file) == identity.Identity(mine.identity, 50, renewed=True)


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("DELETE FROM jhub_safety WHERE key = 'identity'", id="no identity"),
        pytest.param("UPDATE jhub_safety SET value = 'x' WHERE key = 'epoch'", id="odd epoch"),
        pytest.param("DELETE FROM jhub_safety", id="empty"),
    ],
)
def test_a_mark_that_is_not_whole_is_none(file, statement):
    with transaction(file) as connection:
        identity.advance(connection)
    shell(file, statement)
    assert identity_of(file) is None


def identity_of(file: Path) -> identity.Identity | None:
    with transaction(file) as connection:
        return identity.read(connection)
