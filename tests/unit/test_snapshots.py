"""A snapshot holds what the database held, and a single byte that changed is found."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from jhub_safety.errors import Doubt, SafetyError
from jhub_safety.hubdb import content, snapshot
from jhub_safety.hubdb.engines import address, opened_file, reading
from jhub_safety.hubdb.packing import Damaged
from jhub_safety.hubdb.snapshot import MANIFEST, VERIFIED, Manifest, Shelf
from jhub_safety.hubdb.stores import FolderStore
from tests import awkward

pytestmark = pytest.mark.filterwarnings("error")
KEY, OTHER = Fernet.generate_key().decode(), Fernet.generate_key().decode()


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    return awkward.make(tmp_path_factory.mktemp("source") / "hub.sqlite", nul=True)


def shelf(folder: Path, *keys: str) -> Shelf:
    return Shelf(FolderStore(str(folder)), "the hub", "hub", keys)


def take(database: Path, where: Shelf, **more) -> Manifest:
    return snapshot.take(address(f"sqlite:///{database}"), where, **more)


@pytest.fixture(
    scope="module", params=[pytest.param((), id="plain"), pytest.param((KEY,), id="encrypted")]
)
def taken(request, database, tmp_path_factory) -> tuple[Shelf, Manifest]:
    where = shelf(tmp_path_factory.mktemp("snapshots"), *request.param)
    return where, take(database, where)


def test_a_snapshot_is_a_database_with_every_table_of_the_source(database, taken):
    where, manifest = taken
    with reading(address(f"sqlite:///{database}")) as connection:
        before = content.measure(connection)
    with snapshot.opened(where, manifest.name) as (_, file), opened_file(file) as connection:
        assert content.differences(content.measure(connection), before) == ()
    assert {"users_info", "odd table", "alembic_version"} <= before.keys()


def test_the_manifest_says_what_is_in_it_and_names_nobody(database, taken):
    where, manifest = taken
    kept = (where.store.folder / (manifest.name + MANIFEST)).read_bytes()
    found = json.loads(kept)
    with closing(sqlite3.connect(database)) as connection:
        users = connection.execute("SELECT count(*), max(id) FROM users").fetchone()
        revision = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        names = [one[0] for one in connection.execute("SELECT name FROM users")]
    assert (found["users"], found["highest_user_id"]) == users
    assert found["revision"] == revision[0]
    assert (found["engine"], found["hub"]) == ("sqlite", "the hub")
    assert not [name for name in names if len(name) > 4 and name.encode() in kept]


def test_files_are_readable_for_their_owner_alone(taken):
    where, _ = taken
    for file in where.store.folder.rglob("*"):
        assert file.stat().st_mode & 0o077 == 0, file


def test_an_encrypted_snapshot_opens_with_its_key_alone(database, tmp_path):
    where = shelf(tmp_path / "kept", KEY)
    manifest = take(database, where)
    assert b"cookie_id" not in (where.store.folder / manifest.name).read_bytes()
    with pytest.raises(Damaged, match="another key"):
        snapshot.verify(shelf(tmp_path / "kept", OTHER), manifest.name)
    with pytest.raises(SafetyError, match="JHUB_SAFETY_SNAPSHOT_KEYS"):
        snapshot.verify(shelf(tmp_path / "kept"), manifest.name)
    # A new key goes in front; what the former one closed still opens.
    assert snapshot.verify(shelf(tmp_path / "kept", OTHER, KEY), manifest.name) == manifest


# -- damage


@pytest.fixture(scope="module")
def damaged(taken, tmp_path_factory):
    """Gives a function that changes one kept file of a copy, and verifies that."""
    where, manifest = taken
    folder = tmp_path_factory.mktemp("damaged")
    copy = shelf(folder, *where.keys)
    shutil.copytree(where.store.folder, folder, dirs_exist_ok=True)

    def verify(end: str, change) -> None:
        file = folder / (manifest.name + end)
        before = file.read_bytes()
        try:
            file.write_bytes(change(before))
            snapshot.verify(copy, manifest.name)
        finally:
            file.write_bytes(before)

    return verify


PARTS = [pytest.param("", id="database"), pytest.param(MANIFEST, id="manifest")]


@pytest.mark.parametrize("end", PARTS)
@given(data=st.data())
def test_a_flipped_bit_anywhere_is_found(damaged, end, data):
    def flip(before: bytes) -> bytes:
        at = data.draw(st.integers(0, len(before) - 1))
        changed = bytearray(before)
        changed[at] ^= 1 << data.draw(st.integers(0, 7))
        return bytes(changed)

    with pytest.raises(Damaged):
        damaged(end, flip)


@pytest.mark.parametrize("end", PARTS)
@given(data=st.data())
def test_a_tail_that_is_missing_is_found(damaged, end, data):
    with pytest.raises(Damaged):
        damaged(end, lambda before: before[: data.draw(st.integers(0, len(before) - 1))])


@pytest.mark.parametrize("end", PARTS)
def test_a_byte_too_many_is_found(damaged, end):
    with pytest.raises(Damaged):
        damaged(end, lambda before: before + b"\n")


def test_another_snapshot_under_the_same_name_is_found(database, tmp_path):
    where = shelf(tmp_path)
    one, other = take(database, where), take(database, where)
    for end in ("", MANIFEST):
        shutil.copyfile(tmp_path / (other.name + end), tmp_path / (one.name + end))
    with pytest.raises(Damaged):
        snapshot.verify(where, one.name)


def test_a_manifest_that_was_sealed_anew_over_other_values_is_found(taken, tmp_path):
    """The rows are compared as well, not only the file with its checksum."""
    where, manifest = taken
    shutil.copytree(where.store.folder, tmp_path, dirs_exist_ok=True)
    users = manifest.tables["users"]
    tables = {**manifest.tables, "users": content.Content(users.columns, users.rows, "0" * 64)}
    forged = Manifest(**{**{k: getattr(manifest, k) for k in manifest.__slots__}, "tables": tables})
    (tmp_path / (manifest.name + MANIFEST)).write_bytes(forged.encode())
    with pytest.raises(Damaged, match="users holds other values"):
        snapshot.verify(shelf(tmp_path, *where.keys), manifest.name)


# -- sources that are none


def test_a_missing_database_is_doubt_and_stays_missing(tmp_path):
    with pytest.raises(Doubt, match="not there"):
        take(tmp_path / "hub.sqlite", shelf(tmp_path / "kept"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(lambda file: file.touch(), "no tables", id="zero bytes"),
        pytest.param(
            lambda file: file.write_bytes(b"SQLite format 3\0" + b"x" * 5000),
            "hub.sqlite",
            id="rubbish",
        ),
        pytest.param(
            lambda file: sqlite3.connect(file).execute("CREATE TABLE dogs (id INTEGER)").close(),
            "no hub's",
            id="another program's",
        ),
    ],
)
def test_what_is_no_hubs_database_gives_no_snapshot(tmp_path, make, words):
    file = tmp_path / "hub.sqlite"
    make(file)
    before = file.read_bytes()
    with pytest.raises(SafetyError, match=words):
        take(file, shelf(tmp_path / "kept"))
    assert file.read_bytes() == before
    assert not (tmp_path / "kept").exists()


def test_a_damaged_database_gives_no_snapshot(database, tmp_path):
    file = tmp_path / "hub.sqlite"
    data = bytearray(database.read_bytes())
    data[8192 * 2 : 8192 * 3] = b"\xff" * 8192
    file.write_bytes(data)
    with pytest.raises(Doubt):
        take(file, shelf(tmp_path / "kept"))
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_source_in_use_is_copied_with_all_that_was_committed_and_not_changed(
    database, tmp_path, mode
):
    file = tmp_path / "hub.sqlite"
    shutil.copyfile(database, file)
    where = shelf(tmp_path / "kept")
    with closing(sqlite3.connect(file)) as hub:
        hub.execute(f"PRAGMA journal_mode={mode}")
        hub.execute("DELETE FROM users_info")
        hub.commit()
        hub.execute("BEGIN")
        hub.execute("SELECT count(*) FROM users").fetchone()
        before = file.read_bytes()
        manifest = take(file, where)
        assert file.read_bytes() == before
    assert manifest.tables["users_info"].rows == 0
    assert manifest.journal_mode == mode


# -- those that are kept


def test_names_sort_by_time_and_two_of_one_moment_differ(database, tmp_path):
    where = shelf(tmp_path)
    moments = [datetime(2026, 1, 2, 3, 4, 5, n, tzinfo=UTC) for n in (7, 7, 8)]
    names = [take(database, where, now=lambda moment=moment: moment).name for moment in moments]
    assert len(set(names)) == 3
    listed = snapshot.listing(where)
    assert [one.made for one in listed] == moments
    assert [one.name for one in listed] == sorted(names)
    assert all(one.verified for one in listed)


def without_users(file: Path) -> Path:
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript("DELETE FROM users; DELETE FROM spawners;")
    return file


def test_the_newest_that_holds_users_is_the_one_to_restore(database, tmp_path):
    """The newest of a database that was emptied is good, and of no use."""
    where = shelf(tmp_path / "kept")
    file = tmp_path / "hub.sqlite"
    shutil.copyfile(database, file)
    good = take(file, where)
    emptied = take(without_users(file), where)
    listed = snapshot.listing(where)
    assert [one.name for one in listed] == [good.name, emptied.name]
    newest = snapshot.newest_verified(listed)
    assert newest is not None
    assert newest.name == good.name


def test_what_a_restore_replaced_is_never_the_newest_one_to_restore(database, tmp_path):
    """A restore that was cut off and is run again would put back what it was to replace."""
    where = shelf(tmp_path)
    replaced = snapshot.take(address(str(database)), where, purpose=snapshot.BEFORE_RESTORE)
    (only,) = snapshot.listing(where)
    assert snapshot.newest_verified([only]) == only
    good = take(database, where)
    later = snapshot.take(address(str(database)), where, purpose=snapshot.BEFORE_RESTORE)
    listed = snapshot.listing(where)
    assert [one.name for one in listed] == [replaced.name, good.name, later.name]
    newest = snapshot.newest_verified(listed)
    assert newest is not None
    assert newest.name == good.name


def test_one_without_users_never_comes_before_the_last_that_knows_them(database, tmp_path):
    """Also where only a restore has made one that does, of what it replaced."""
    where = shelf(tmp_path / "kept")
    replaced = snapshot.take(address(str(database)), where, purpose=snapshot.BEFORE_RESTORE)
    file = tmp_path / "hub.sqlite"
    shutil.copyfile(database, file)
    emptied = take(without_users(file), where)
    listed = snapshot.listing(where)
    assert [one.name for one in listed] == [replaced.name, emptied.name]
    newest = snapshot.newest_verified(listed)
    assert newest is not None
    assert newest.name == replaced.name


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        pytest.param(lambda f, n: (f / (n + MANIFEST)).unlink(), "cut off", id="no manifest"),
        pytest.param(
            lambda f, n: (f / (n + MANIFEST)).write_bytes(b"{}"), "manifest", id="other manifest"
        ),
        pytest.param(lambda f, n: (f / (n + VERIFIED)).unlink(), "", id="never verified"),
    ],
)
def test_what_is_not_whole_is_listed_and_never_the_one_to_restore(
    database, tmp_path, spoil, problem
):
    where = shelf(tmp_path)
    name = take(database, where).name
    spoil(tmp_path, name)
    (one,) = snapshot.listing(where)
    assert not one.verified
    assert problem in one.problem
    assert snapshot.newest_verified([one]) is None


def test_other_files_and_other_hubs_snapshots_are_not_ours(database, tmp_path):
    where = shelf(tmp_path)
    ours = take(database, where)
    take(database, Shelf(where.store, "other", "hub2"))
    (tmp_path / "hub" / "notes.txt").write_text("mine")
    assert [one.name for one in snapshot.listing(where)] == [ours.name]


def test_removing_one_leaves_all_others(database, tmp_path):
    where = shelf(tmp_path)
    kept = [take(database, where).name for _ in range(3)]
    snapshot.remove(where, snapshot.listing(where)[1])
    assert [one.name for one in snapshot.listing(where)] == [min(kept), max(kept)]
    assert len(where.store.names()) == 6
