"""Databases of each engine, and how each is lost under a hub that runs."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from tools import databases
from tools.databases import Server

ENGINES = ("sqlite", "postgresql", "mariadb")


@dataclass(frozen=True)
class Database:
    """One of a hub. *server*: None for a SQLite file."""

    engine: str
    url: str
    server: Server | None = None

    def lose(self) -> str:
        """Empty it while the hub has it open; what was done, in words. Blocking."""
        if self.server is None:
            path = Path(make_url(self.url).database or "")
            return _save(path)
        name = make_url(self.url).database
        if self.server.engine == "postgresql":
            # WITH (FORCE): ends the hub's connections, as an administrator has to.
            self.server.run(f"DROP DATABASE {name} WITH (FORCE)")
        else:
            _drop_mariadb(self.server, str(name))
        self.server.run(f"CREATE DATABASE {name}")
        return "DROP DATABASE, CREATE DATABASE under the running hub"


def _save(path: Path) -> str:
    """What was typed in 2017: ``sqlite3``, and ``.save`` without an ATTACH before."""
    if shutil.which("sqlite3"):
        done = subprocess.run(
            ["sqlite3", "-cmd", ".timeout 30000", ":memory:", f".save {path}"],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode == 0 and not done.stderr:
            return "sqlite3: .save over the file of the running hub"
    with (
        closing(sqlite3.connect(":memory:")) as empty,
        closing(sqlite3.connect(path, timeout=30)) as target,
    ):
        empty.backup(target)
    return "SQLite's backup API, which .save uses, over the file of the running hub"


def _drop_mariadb(server: Server, name: str) -> None:
    # Waits for the hub's open transaction, which may be open for ever: it is ended first.
    try:
        server.run(f"SET STATEMENT lock_wait_timeout=1 FOR DROP DATABASE {name}")
    except SQLAlchemyError:
        server.run("KILL HARD USER hub@localhost")
        server.run(f"DROP DATABASE {name}")


@contextmanager
def database(engine: str, directory: Path) -> Iterator[Database]:
    """An empty one, with its server where it needs one.

    Raises:
        NoServers: the programs are not there, and cannot be had.
    """
    if engine == "sqlite":
        yield Database(engine, f"sqlite:///{directory / 'jupyterhub.sqlite'}")
        return
    programs = databases.ensure()
    start = databases.postgresql if engine == "postgresql" else databases.mariadb
    with start(programs) as server:
        url = server.new_database()
        if server.engine == "mysql":
            # Of its own, so that its connections can be ended and ours stay.
            server.run("CREATE USER hub@localhost IDENTIFIED BY ''")
            server.run("GRANT ALL ON *.* TO hub@localhost")
            url = make_url(url).set(username="hub").render_as_string(hide_password=False)
        yield Database(engine, url, server)
