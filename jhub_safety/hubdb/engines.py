"""A hub's database, whatever its engine: what an address is, and how it is read without a trace."""

from __future__ import annotations

import os
import re
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import quote, unquote, urlsplit

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from jhub_safety.errors import Doubt, SafetyError

EngineName = Literal["sqlite", "postgresql", "mysql"]
#: Files that belong to a SQLite database and mean nothing without it.
COMPANIONS = ("-wal", "-journal", "-shm")
#: Seconds to wait for a lock that somebody else holds, before giving up.
LOCK_WAIT = 10
#: Seconds for a server to take a connection: while it hangs, no page says what is wrong. And the
#: drivers that call it so.
CONNECT = 10
_CONNECT = {"psycopg2", "psycopg", "pymysql", "mysqldb", "mariadbconnector"}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is. Printing one never shows its password."""

    url: URL
    engine: EngineName
    #: Of SQLite only.
    file: Path | None
    #: Of servers: as in ``JupyterHub.db_kwargs``, TLS for example. May hold secrets.
    connect_args: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def __str__(self) -> str:
        return name_of(self.url)

    def __repr__(self) -> str:
        return f"Address({self})"

    @property
    def plain(self) -> str:
        """With the password: for the engine, never for a person, a log or a command line."""
        return self.url.render_as_string(hide_password=False)


def name_of(url: str | URL) -> str:
    """An address for people, without a password wherever it stands.

    SQLAlchemy hides the one of the account; drivers take one in the query as well.
    """
    made = make_url(url)
    hidden = [key for key in made.query if _SECRET.search(key)]
    return made.difference_update_query(hidden).render_as_string(hide_password=True)


_SECRET = re.compile(r"pass|pwd|secret|token", re.IGNORECASE)


def address(url: str, connect_args: Mapping[str, Any] | None = None) -> Address:
    """Understand ``JupyterHub.db_url``; nothing is opened.

    *connect_args*: as in ``JupyterHub.db_kwargs``; of SQLite none are needed to read it.

    Raises:
        SafetyError: it is no URL, or names an engine that no hub runs on.
    """
    try:
        # A bare path, as JupyterHub takes it (app.py:1561, 6.1.1).
        made = make_url(url if "://" in url else f"sqlite:///{url}")
        name = made.get_backend_name()
    except (SQLAlchemyError, ValueError) as error:
        # Not the error's own text: it holds the address, password and all.
        raise SafetyError("the address of the database is no URL") from error
    if name == "sqlite":
        if made.get_driver_name() != "pysqlite":
            raise SafetyError(
                f"the database is in the hands of {made.get_driver_name()}; its file is nothing "
                "that can be read without it"
            )
        file = sqlite_file(made)
        if file is None:
            raise SafetyError("the hub's database is in its memory; without the hub there is none")
        return Address(made, "sqlite", file)
    if name == "postgresql":
        return Address(made, "postgresql", None, dict(connect_args or {}))
    if name in ("mysql", "mariadb"):
        return Address(made, "mysql", None, dict(connect_args or {}))
    raise SafetyError(f"{name} is no engine that JupyterHub runs on")


def sqlite_file(url: URL) -> Path | None:
    """The file of a SQLite URL, behind any link; None for other engines, for a database in memory,
    and for drivers that encrypt: to ours their file would look damaged."""
    name = url.database or ""
    if url.get_backend_name() != "sqlite" or url.get_driver_name() != "pysqlite":
        return None
    is_uri = str(url.query.get("uri", "")).lower() in ("true", "1", "yes", "on")
    # Without uri=true (sqlite.org/uri.html) it is a file of that very name.
    if is_uri and name.startswith("file:"):
        if url.query.get("mode") == "memory" or url.query.get("vfs"):
            return None
        name = unquote(urlsplit(name).path)
    if name in ("", ":memory:"):
        return None
    # A link that leads nowhere is a volume that is not mounted: its own folder proves nothing.
    return Path(name).resolve()


def same_volume(file: Path, other: Path) -> bool:
    """Whether two paths are lost together: one file system. Paths that do not exist count as their
    nearest folder that does."""
    return _device(file) == _device(other)


def _device(path: Path) -> int:
    for one in (path.absolute(), *path.absolute().parents):
        try:
            return one.stat().st_dev
        except OSError:
            continue
    return -1


# -- reading


@contextmanager
def reading(where: Address) -> Iterator[Connection]:
    """One consistent state of the whole database, for as long as the block lasts.

    Nobody waits for it: SQLite is copied first (:func:`copy_file`), servers give a snapshot.

    Raises:
        Doubt: it cannot be read. Never means that it is empty.
    """
    if where.file is not None:
        with tempfile.TemporaryDirectory(prefix="jhub-safety-") as folder:
            copy = Path(folder) / "copy.sqlite"
            copy_file(where.file, copy)
            with opened_file(copy) as connection:
                yield connection
        return
    with _server(where) as engine, _saying(where), engine.connect() as connection:
        if where.engine == "postgresql":
            begin = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
            connection.exec_driver_sql(begin)
            # The snapshot is taken by the first query, not by the line above.
            connection.exec_driver_sql("SELECT 1")
        else:
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            connection.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        try:
            yield connection
        finally:
            connection.rollback()


@contextmanager
def _saying(where: Address) -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        raise Doubt(f"the database {where} cannot be read: {cause(error)}") from error


def cause(error: BaseException) -> str:
    """The driver's own words, as far as they hold no value of a row: cookie ids are among them.

    SQLAlchemy's would add the statement and its values, PostgreSQL's second line the row.
    """
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig
    lines = str(error).strip().splitlines()
    return _VALUE.sub(" ...", lines[0]) if lines else type(error).__name__


#: What MySQL and PostgreSQL quote of a row.
_VALUE = re.compile(r"(?<=entry) '.*'(?= for)|(?<=value:) '.*'(?= for)|(?<=:) \".*\"$")


@contextmanager
def opened_file(file: Path) -> Iterator[Connection]:
    """A SQLite file, read only. A missing one is not made.

    Raises:
        Doubt: it is missing, or is no database.
    """
    engine = create_engine("sqlite://", creator=lambda: raw(file), poolclass=NullPool)
    try:
        try:
            with engine.connect() as connection:
                yield connection
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise Doubt(f"the database {file} cannot be read: {cause(error)}") from error
    finally:
        engine.dispose()


def raw(file: Path) -> sqlite3.Connection:
    """Opened as it is, read only.

    ``mode=ro``: plain opening makes an empty file where there is none, and a hub starts on it.
    Never ``immutable``: it reads past the write-ahead log, that is an older state.

    Raises:
        Doubt: it is not there, or cannot be opened.
    """
    if not file.exists():
        raise Doubt(f"the database {file} is not there")
    try:
        made = sqlite3.connect(
            f"file:{quote(str(file))}?mode=ro", uri=True, timeout=LOCK_WAIT, check_same_thread=False
        )
        # What is no UTF-8 is told by the checks before a move, not by an exception here.
        made.text_factory = _text
        return made
    except sqlite3.Error as error:
        raise Doubt(f"the database {file} cannot be opened: {error}") from error


def _text(value: bytes) -> str:
    return value.decode(errors="surrogateescape")


def copy_file(source: Path, target: Path) -> None:
    """Copy a SQLite database, also while it is written to, into one file that needs no other.

    All pages in one step: a copy in smaller ones starts again at each commit, and never ended
    under a busy writer. A writer waits meanwhile, unless the database is in WAL mode.

    Raises:
        Doubt: it cannot be read.
    """
    try:
        with closing(raw(source)) as reader, closing(sqlite3.connect(target)) as writer:
            target.chmod(0o600)
            reader.backup(writer, pages=-1)
            # WAL is written into the file's head; a copy in that mode cannot be opened where
            # nothing may be written.
            writer.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        hint = ""
        if source.with_name(source.name + "-journal").exists():
            hint = " (beside it is the journal of a write that was cut off; a hub's start mends it)"
        raise Doubt(f"the database {source} cannot be copied: {error}{hint}") from error


def journal_mode(where: Address) -> str:
    """``wal`` or ``delete`` for SQLite, "" for others. Raises Doubt."""
    if where.file is None:
        return ""
    with closing(raw(where.file)) as connection:
        try:
            return str(connection.execute("PRAGMA journal_mode").fetchone()[0]).lower()
        except sqlite3.Error as error:
            raise Doubt(f"the database {where.file} cannot be read: {error}") from error


# -- writing


def open_server(url: URL, connect_args: Mapping[str, Any] | None = None) -> Engine:
    """One that does not wait for a server for ever. Raises SQLAlchemyError, ImportError."""
    arguments = dict(connect_args or {})
    if url.get_driver_name() in _CONNECT:
        arguments.setdefault("connect_timeout", CONNECT)
    return create_engine(url, poolclass=NullPool, connect_args=arguments)


@contextmanager
def _server(where: Address) -> Iterator[Engine]:
    try:
        engine = open_server(where.url, where.connect_args)
    except (ImportError, SQLAlchemyError) as error:
        raise Doubt(f"the database {where} cannot be opened: {error}") from error
    if where.engine == "mysql":
        event.listen(engine, "connect", _mysql_session)
    try:
        yield engine
    finally:
        engine.dispose()


def _mysql_session(connection: Any, _record: Any) -> None:
    with closing(connection.cursor()) as cursor:
        # An id of 0 stays 0, and nothing is cut off or rounded without an error.
        cursor.execute(
            "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO,NO_ZERO_DATE,"
            "NO_ENGINE_SUBSTITUTION'"
        )
        cursor.execute("SET NAMES utf8mb4")
        cursor.execute(f"SET SESSION lock_wait_timeout = {LOCK_WAIT}")


@contextmanager
def server_writing(where: Address) -> Iterator[Connection]:
    """A connection to PostgreSQL or MySQL; the block commits, an exception rolls back.

    Raises:
        SafetyError: what was tried failed; with the server's own words.
    """
    with _server(where) as engine:
        try:
            with engine.connect() as connection:
                if where.engine == "postgresql":
                    connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_WAIT}s'"))
                yield connection
                connection.commit()
        except SQLAlchemyError as error:
            raise SafetyError(f"the database {where} did not take it: {cause(error)}") from error


def other_clients(where: Address, *, besides: int | None = None) -> tuple[str, ...]:
    """Who else is connected to this database on a server, as far as this account may see.

    *besides*: the number of a connection that is the asker's, too, such as that of a lock.

    Raises:
        Doubt: the server does not answer.
    """
    if where.engine == "sqlite":
        return ()
    query = (
        "SELECT concat(usename, '@', coalesce(client_addr::text, 'local'), ' ', application_name) "
        "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND backend_type = 'client backend' AND pid <> :besides"
        if where.engine == "postgresql"
        else "SELECT concat(user, '@', host) FROM information_schema.processlist "
        "WHERE db = database() AND id <> connection_id() AND id <> :besides"
    )
    with _server(where) as engine, _saying(where), engine.connect() as connection:
        rows = connection.execute(text(query), {"besides": besides or 0})
        return tuple(str(row[0]).strip() for row in rows)


def sync(path: Path) -> None:
    """Have the disk hold a file, or a folder's list of names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
