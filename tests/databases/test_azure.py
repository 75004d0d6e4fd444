"""Snapshots on az://, by the real client against Microsoft's emulator of Azure Blob Storage."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jhub_safety.errors import Doubt, SafetyError
from jhub_safety.hubdb import content, restore, snapshot, worker
from jhub_safety.hubdb.engines import address, opened_file
from jhub_safety.hubdb.packing import Damaged
from jhub_safety.hubdb.snapshot import Shelf
from jhub_safety.hubdb.stores import SnapshotStore, open_store
from tests import awkward
from tools import azurite
from tools.azurite import NoAzurite

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def emulator() -> Iterator[str]:
    """Its address."""
    try:
        with azurite.running() as found:
            yield found
    except NoAzurite as error:
        pytest.skip(f"NO AZURITE, snapshots on az:// are not tested: {error}")


@pytest.fixture
def url(emulator, monkeypatch) -> str:
    """A place in a container of its own."""
    for name, value in azurite.environment(emulator).items():
        monkeypatch.setenv(name, value)
    container = f"backups-{secrets.token_hex(4)}"
    azurite.make_container(emulator, container)
    return f"az://{container}/hubs"


@pytest.fixture
def store(url) -> SnapshotStore:
    return open_store(url)


def test_what_was_put_is_listed_and_comes_back(store, put, get):
    contents = {"hub/b": b"two", "hub/a": b"", "other/c": bytes(range(256)) * 90_000}
    assert store.names() == []
    for name, data in contents.items():
        put(name, data)
    assert store.names() == sorted(contents)
    assert {name: get(name) for name in contents} == contents


@pytest.mark.parametrize("size", [5, 20 << 20], ids=["small", "in several parts"])
def test_a_name_that_is_taken_is_refused_and_keeps_its_content(put, get, size):
    first = b"1" * size
    put("hub/a", first)
    with pytest.raises(SafetyError, match="hub/a was not written"):
        put("hub/a", b"2" * size)
    assert get("hub/a") == first


def test_what_is_not_there_is_doubt_and_so_is_a_container(put, get, url):
    put("hub/a", b"")
    with pytest.raises(Doubt):
        get("hub/b")
    with pytest.raises(Doubt):
        open_store("az://no-such-container/hubs").names()


def test_deleting_twice_is_no_error_and_touches_nothing_else(store, put):
    put("hub/a", b"")
    put("hub/b", b"")
    store.delete("hub/a")
    store.delete("hub/a")
    assert store.names() == ["hub/b"]


def test_an_error_never_holds_the_key(store, monkeypatch, put):
    put("hub/a", b"")
    with pytest.raises(SafetyError) as refused:
        put("hub/a", b"")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "bm90LXRoZS1rZXktYnV0LWEtc2VjcmV0LXRvbw==")
    with pytest.raises(SafetyError) as denied:
        open_store(store.url).names()
    for error in (refused, denied):
        assert azurite.KEY not in str(error.value)
        assert "bm90LXRoZS1rZXkt" not in str(error.value)


async def test_a_snapshot_is_made_listed_verified_and_put_back_by_the_hubs_own_way(url, tmp_path):
    """Through the process that does it for the hub, which gets nothing but the URL."""
    file = awkward.make(tmp_path / "hub.sqlite", nul=True)
    before = _measured(file)
    asked = {
        "db_url": f"sqlite:///{file}",
        "destination": url,
        "store_class": "",
        "keys": [],
        "hub": "hub",
        "prefix": "hub",
    }
    made = await worker.run({"do": "backup", **asked})
    name = made["snapshot"]["name"]
    found = await worker.run({"do": "list", **asked})
    assert [(one["name"], one["verified"]) for one in found["snapshots"]] == [(name, True)]
    assert found["newest"] == name
    await worker.run({"do": "verify", "snapshot": name, **asked})
    file.write_bytes(b"")
    how = {"snapshot": name, "afterwards": []}
    proposal = await worker.run({"do": "propose-restore", **how, **asked})
    await worker.run({"do": "restore", **how, "identity": proposal["identity"], **asked})
    assert _measured(file) == before


def test_a_flipped_bit_in_the_container_is_found(store, tmp_path):
    shelf = Shelf(store, "hub", "hub")
    name = snapshot.take(address(str(awkward.make(tmp_path / "hub.sqlite"))), shelf).name
    store.get(name, tmp_path / "kept")
    data = bytearray((tmp_path / "kept").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "kept").write_bytes(data)
    store.delete(name)
    store.put(name, tmp_path / "kept")
    with pytest.raises(Damaged):
        snapshot.verify(shelf, name)
    with closing(sqlite3.connect(tmp_path / "hub.sqlite")) as connection:
        connection.execute("DELETE FROM users_info")
        connection.commit()
    current = _measured(tmp_path / "hub.sqlite")
    with pytest.raises(Damaged):
        restore.propose(address(str(tmp_path / "hub.sqlite")), shelf, name)
    assert _measured(tmp_path / "hub.sqlite") == current


def _measured(file: Path):
    with opened_file(file) as connection:
        return content.measure(connection)
