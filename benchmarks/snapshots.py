"""Snapshots of 100,000 users: how long, how the hub's loop and a writer fare meanwhile.

No cluster is needed. Servers are real ones, as processes of ours (tools/databases.py).
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import create_engine, text

from benchmarks import database
from benchmarks.measuring import watched
from jhub_safety.hubdb import worker
from jhub_safety.hubdb.backup import Backups, DatabaseBackup
from jhub_safety.hubdb.engines import address
from tools import databases
from tools.databases import NoServers

#: Seconds between two commits of the writer: a hub with about 1,000 active users.
_PAUSE = 0.005


@dataclass
class Writer:
    """Commits one row again and again, as a hub does with activity; each wait in seconds."""

    url: str
    waits: list[float] = field(default_factory=list)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        stop = threading.Event()
        engine = create_engine(self.url)
        statement = text("UPDATE users SET last_activity = '2026-01-01 00:00:00' WHERE id = :id")

        def run() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                begin = time.perf_counter()
                with engine.begin() as connection:
                    connection.execute(statement, {"id": number % 1000 + 1})
                self.waits.append(time.perf_counter() - begin)
                time.sleep(_PAUSE)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            time.sleep(0.5)
            self.waits.clear()
            yield
        finally:
            stop.set()
            thread.join()
            engine.dispose()


async def run() -> None:
    """Print one line a case."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "hub.sqlite"
        url = database.make(file, [], {})
        size = file.stat().st_size / 1e6
        print(f"\nSnapshots of {size:.0f} MB, 100,000 users, {os.cpu_count()} cores")
        for mode in ("delete", "wal"):
            engine = create_engine(url)
            with engine.connect() as connection:
                connection.execute(text(f"PRAGMA journal_mode={mode}"))
            engine.dispose()
            await _snapshot(f"SQLite, journal_mode={mode}", url, folder)
        try:
            programs = databases.ensure()
        except NoServers as error:
            print(f"  servers left out: {error}")
            return
        with databases.postgresql(programs) as server:
            await _moved("PostgreSQL", url, server.new_database(), folder)
        with databases.mariadb(programs) as server:
            await _moved("MariaDB", url, server.new_database(), folder)


async def _at_rest() -> float:
    """How long the loop is held when nothing is done: other programs of this machine."""
    async with watched() as stall:
        await asyncio.sleep(5)
    return stall.longest


async def _moved(name: str, source: str, target: str, folder: str) -> None:
    begin = time.perf_counter()
    moved = Backups(DatabaseBackup(destination=folder), source, "bench")
    await worker.run(moved.request("migrate", target=address(target).plain))
    print(f"  {name}: moved there and compared in {time.perf_counter() - begin:.1f} s")
    await _snapshot(name, target, folder)


async def _snapshot(name: str, url: str, folder: str) -> None:
    idle = Writer(url)
    with idle.at_work():
        time.sleep(3)  # noqa: ASYNC251 - nothing else runs
    backups = Backups(DatabaseBackup(destination=f"{folder}/kept"), url, "bench")
    # One for the loop, one for the writer, who is a thread of this very process.
    async with watched() as stall:
        begin = time.perf_counter()
        found = await backups.run_once(tidy=False)
        seconds = time.perf_counter() - begin
    busy = Writer(url)
    with busy.at_work():
        await backups.run_once(tidy=False)
    size = found["snapshot"]["stored"]["size"] / 1e6
    print(f"  {name}: {seconds:.1f} s with its check, {size:.1f} MB")
    print(
        f"    the loop was held for {stall.longest * 1000:.0f} ms at most "
        f"(without a snapshot {await _at_rest() * 1000:.0f} ms)"
    )
    print(
        f"    {len(busy.waits)} commits waited {max(busy.waits) * 1000:.0f} ms at most "
        f"(without a snapshot {max(idle.waits) * 1000:.0f} ms)"
    )
