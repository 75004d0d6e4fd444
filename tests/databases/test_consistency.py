"""A snapshot is one state of the database, however busy that is meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import create_engine, text

from jhub_safety.hubdb import migrate, snapshot
from jhub_safety.hubdb.engines import address, opened_file
from jhub_safety.hubdb.snapshot import Shelf
from jhub_safety.hubdb.stores import FolderStore
from tests import awkward

#: In one transaction, in two tables that are copied one after the other: first and last by name.
WRITES = (
    "UPDATE servers SET port = port + 1 WHERE id = 1",
    "UPDATE oauth_clients SET description = :number WHERE id = 1",
    "UPDATE servers SET base_url = :number WHERE id = 1",
)
LOOK = """
SELECT (SELECT base_url FROM servers WHERE id = 1),
       (SELECT description FROM oauth_clients WHERE id = 1)
"""


@contextmanager
def hammering(url: str) -> Iterator[list[int]]:
    """Commits as fast as it can; gives the numbers of its commits."""
    engine = create_engine(url)
    stop, done = threading.Event(), [0]

    def write() -> None:
        while not stop.is_set():
            with engine.begin() as connection:
                for one in WRITES:
                    number = {"number": str(done[-1] + 1)} if ":number" in one else {}
                    connection.execute(text(one), number)
            done.append(done[-1] + 1)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()
        engine.dispose()


@pytest.mark.parametrize("engine", ["delete", "wal", "postgresql", "mariadb"])
def test_a_snapshot_under_a_busy_writer_is_one_state(tmp_path, new_database, engine):
    url = f"sqlite:///{awkward.make(tmp_path / 'hub.sqlite')}"
    if engine in ("delete", "wal"):
        database = create_engine(url)
        with database.connect() as connection:
            connection.execute(text(f"PRAGMA journal_mode={engine}"))
        database.dispose()
    else:
        there = new_database(engine)
        migrate.execute(address(url), address(there))
        url = there
    where = Shelf(FolderStore(str(tmp_path / "kept")), "hub", "hub")
    with hammering(url) as commits:
        while len(commits) < 3:
            time.sleep(0.01)
        for _ in range(3):
            before = commits[-1]
            name = snapshot.take(address(url), where).name
            with snapshot.opened(where, name) as (_, file), opened_file(file) as connection:
                server, client = connection.execute(text(LOOK)).one()
            assert server == client
            assert int(server) >= before
        assert commits[-1] > before
