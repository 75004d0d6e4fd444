"""Where snapshots are kept: nothing is ever overwritten, and no list is a guess."""

from __future__ import annotations

import errno
import os
import shutil

import pytest

from jhub_safety.errors import ConfigError, Doubt, SafetyError
from jhub_safety.hubdb.stores import (
    ROOM,
    FolderStore,
    NoRoom,
    ObjectStore,
    SnapshotStore,
    open_store,
)


class InMemory(SnapshotStore):
    """A store of somebody's own."""

    def put(self, name, file): ...
    def get(self, name, file): ...
    def names(self):
        return []

    def delete(self, name): ...


@pytest.fixture(params=["folder", "obstore"])
def store(request, tmp_path) -> SnapshotStore:
    kept = tmp_path / "kept"
    if request.param == "folder":
        return FolderStore(kept.as_uri())
    kept.mkdir()
    # The code for buckets, on obstore's own store of files.
    return ObjectStore(kept.as_uri())


def test_what_was_put_is_listed_and_comes_back(store, put, get):
    contents = {"hub/b": b"two", "hub/a": b"", "other/c": bytes(range(256)) * 9000}
    for name, data in contents.items():
        put(name, data)
    assert store.names() == ["hub/a", "hub/b", "other/c"]
    assert {name: get(name) for name in contents} == contents


def test_a_name_that_is_taken_is_refused_and_keeps_its_content(store, put, get):
    put("hub/a", b"first")
    with pytest.raises(SafetyError, match="hub/a"):
        put("hub/a", b"second")
    assert get("hub/a") == b"first"


def test_what_is_not_there_is_doubt(store, put, get):
    put("hub/a", b"")
    with pytest.raises(Doubt):
        get("hub/b")


def test_deleting_twice_is_no_error_and_touches_nothing_else(store, put):
    put("hub/a", b"")
    put("hub/b", b"")
    store.delete("hub/a")
    store.delete("hub/a")
    assert store.names() == ["hub/b"]


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "hub/../../x", "", "a\0b"])
def test_a_name_never_leads_elsewhere(store, put, get, name):
    for call in (lambda: put(name, b"x"), lambda: get(name), lambda: store.delete(name)):
        with pytest.raises(SafetyError, match="no name of a snapshot"):
            call()


def test_a_folder_that_is_not_there_is_doubt_and_not_an_empty_one(tmp_path):
    with pytest.raises(Doubt, match="not mounted"):
        FolderStore(str(tmp_path / "kept")).names()


def test_a_part_that_cannot_be_listed_is_doubt(tmp_path, monkeypatch):
    store = FolderStore(str(tmp_path))
    (tmp_path / "hub").mkdir()

    def walk(_, onerror):
        onerror(PermissionError(13, "Permission denied"))
        return iter([(str(tmp_path), [], ["a"])])

    monkeypatch.setattr(os, "walk", walk)
    with pytest.raises(Doubt, match="Permission denied"):
        store.names()


def test_a_file_that_was_cut_off_is_not_left_behind(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    store = FolderStore(str(tmp_path / "kept"))
    (tmp_path / "in").write_bytes(b"x")
    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(SafetyError, match="No space left"):
        store.put("hub/a", tmp_path / "in")
    assert store.names() == []


@pytest.fixture
def free(monkeypatch):
    """Set how many bytes are free on every volume."""
    real = shutil.disk_usage(os.sep)

    def set_to(size):
        monkeypatch.setattr(shutil, "disk_usage", lambda _: real._replace(free=size))

    return set_to


@pytest.mark.parametrize("url", ["", "file://"], ids=["path", "file"])
def test_a_snapshot_that_would_fill_its_volume_is_not_kept(tmp_path, free, url):
    """Hourly ones beside the database filled its volume within a week, and the hub stood still."""
    store = FolderStore(f"{url}{tmp_path / 'kept'}")
    (tmp_path / "in").write_bytes(b"x" * 100)
    free(ROOM + 100)
    store.put("hub/a.zst", tmp_path / "in")
    free(ROOM + 99)
    with pytest.raises(NoRoom) as caught:
        store.put("hub/b.zst", tmp_path / "in")
    for word in ("DatabaseBackup.destination", "keep_days", "63 MiB", "64 MiB", "as they were"):
        assert word in str(caught.value)
    assert store.names() == ["hub/a.zst"]


def test_what_completes_a_snapshot_that_is_kept_is_always_let_through(tmp_path, free):
    """Without its manifest a snapshot counts for nothing; it is the large one that takes room."""
    store = FolderStore(str(tmp_path / "kept"))
    (tmp_path / "in").write_bytes(b"x")
    free(ROOM + 1)
    store.put("hub/a.zst", tmp_path / "in")
    free(ROOM)
    for name in ("hub/a.zst.json", "hub/a.zst.verified"):
        store.put(name, tmp_path / "in")
    assert len(store.names()) == 3


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, NoRoom), (errno.EDQUOT, NoRoom), (errno.EIO, SafetyError)],
    ids=["full", "quota", "another fault"],
)
def test_a_full_volume_is_told_from_other_faults(tmp_path, monkeypatch, number, kind):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    (tmp_path / "in").write_bytes(b"x")
    monkeypatch.setattr("shutil.copyfileobj", fail)
    with pytest.raises(SafetyError) as caught:
        FolderStore(str(tmp_path / "kept")).put("hub/a", tmp_path / "in")
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        pytest.param("/backups", FolderStore, id="path"),
        pytest.param("file:///backups", FolderStore, id="file"),
        pytest.param("s3://bucket/path", ObjectStore, id="s3"),
        pytest.param("gs://bucket/path", ObjectStore, id="gs"),
        pytest.param("az://container/path", ObjectStore, id="az"),
    ],
)
def test_the_scheme_chooses_the_store(url, kind, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    assert type(open_store(url)) is kind


@pytest.mark.parametrize(
    "url", ["ftp://host/path", "backups", "file://host/backups", "http://host/x"]
)
def test_what_is_no_destination_is_refused_by_name(url):
    with pytest.raises(ConfigError, match=r"DatabaseBackup\.destination"):
        open_store(url)


def test_a_store_of_ones_own_is_named_by_a_dotted_path():
    assert type(open_store("any://thing", f"{__name__}.InMemory")).__name__ == "InMemory"
    with pytest.raises(ConfigError, match="store_class"):
        open_store("any://thing", f"{__name__}.Missing")
