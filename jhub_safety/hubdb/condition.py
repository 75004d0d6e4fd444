"""In which condition the hub's database is, found out without opening it as the hub does.

Opened as usual, a file that is not there is made: an empty hub database, on which the hub then
serves. Nothing here makes or changes anything, but for a transaction that was cut off, which
SQLite takes back whoever looks first.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import (
    Connection,
    Engine,
    create_engine,
    func,
    inspect,
    make_url,
    select,
    table,
    text,
)
from sqlalchemy import column as sql_column
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from jhub_safety.hubdb import checks, identity
from jhub_safety.hubdb.engines import name_of, open_server, sqlite_file

#: Seconds for a write that a server neither takes nor refuses.
WAIT = 5
#: Bytes without which SQLite cannot commit a page.
_ROOM = 1 << 20
_USERS = table("users", sql_column("id"))
_REVISION = table("alembic_version", sql_column("version_num"))


class State(StrEnum):
    """What was found."""

    USABLE = "usable"
    MISSING = "missing"
    ZERO_BYTES = "zero bytes"
    NO_TABLES = "no tables"
    CORRUPT = "corrupt"
    UNREACHABLE = "unreachable"
    READ_ONLY = "read-only"
    FULL = "no room"


@dataclass(frozen=True, slots=True)
class Condition:
    """Of one database at one moment. Counts are 0 where there was nothing to count."""

    state: State
    why: str = ""
    identity: str | None = None
    epoch: int = 0
    revision: str = ""
    users: int = 0
    highest_id: int = 0
    #: Why nobody should log in here: one login could reach another's account. Looked at only
    #: when the hub is not running.
    unsafe: str = ""
    #: Identity in the mark on the file's volume; None: no mark, or no file at all.
    volume: str | None = None
    #: Where it is, without account and password.
    address: str = ""
    #: It was made again from the cluster, and that is not over yet.
    renewed: bool = False
    #: As :class:`jhub_safety.hubdb.identity.Identity` has it.
    unfinished: str = ""


def sqlite_path(url: str) -> Path | None:
    """The file of a SQLite URL; None where there is none, as :func:`engines.sqlite_file` says."""
    return sqlite_file(make_url(url))


def address(url: str) -> str:
    """Where the database is: engine, host, port and name, or the file."""
    made = make_url(url)
    path = sqlite_path(url)
    if path is not None:
        return f"sqlite {path}"
    port = f":{made.port}" if made.port else ""
    return f"{made.get_backend_name()} {(made.host or '').lower()}{port} {made.database or ''}"


def look(
    url: str, *, thorough: bool = True, connect_args: Mapping[str, Any] | None = None
) -> Condition:
    """Blocking. *thorough* takes 0.5 s at 100,000 users, in which a hub that runs on SQLite
    without a write-ahead log could not commit. *connect_args*: as in the hub's ``db_kwargs``."""
    path = sqlite_path(url)
    if path is None:
        found = _counted(url, None, thorough, connect_args)
    else:
        found = _look_at_file(path, thorough)
    return replace(found, address=address(url))


def open_engine(url: str, connect_args: Mapping[str, Any] | None = None) -> Engine:
    """One that makes no SQLite file, and does not wait for a server for ever.

    Raises SQLAlchemyError, ImportError.
    """
    path = sqlite_path(url)
    if path is not None:
        return create_engine(f"sqlite:///{_uri(path)}&uri=true", poolclass=NullPool)
    return open_server(make_url(url), connect_args)


def _uri(path: Path) -> str:
    # Not mode=ro: what a killed hub left half-written is taken back first, as the hub would.
    return f"file:{quote(str(path))}?mode=rw"


def mark_volume(path: Path, mark: str) -> None:
    """Write the mark beside the file. Raises OSError."""
    target = mark_file(path)
    temporary = target.with_name(f"{target.name}.new")
    temporary.write_text(mark)
    temporary.replace(target)


def mark_file(path: Path) -> Path:
    """Beside a SQLite file, with the database's identity: its volume is the mounted one.

    Named after the file: two hubs may keep theirs in one folder.
    """
    return path.with_name(f".{path.name}.jhub-safety")


def _mark_beside(path: Path) -> str | None:
    try:
        return mark_file(path).read_text().strip() or None
    except (OSError, ValueError):
        return None


def _look_at_file(path: Path, thorough: bool) -> Condition:
    volume = _mark_beside(path)
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return Condition(State.MISSING, f"{path} is not there", volume=volume)
    except OSError as error:
        return Condition(State.UNREACHABLE, f"{path}: {error.strerror}", volume=volume)
    if size == 0:
        return Condition(State.ZERO_BYTES, f"{path} has no content", volume=volume)
    if not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        return Condition(State.READ_ONLY, f"{path} or its folder cannot be written", volume=volume)
    try:
        with closing(sqlite3.connect(_uri(path), uri=True, timeout=5)) as connection:
            pragma = "quick_check(1)" if thorough else "schema_version"
            (verdict,) = connection.execute(f"PRAGMA {pragma}").fetchone()
    except sqlite3.OperationalError as error:
        return Condition(State.UNREACHABLE, f"{path}: {error}", volume=volume)
    except sqlite3.DatabaseError as error:
        return Condition(State.CORRUPT, f"{path}: {error}", volume=volume)
    if thorough and verdict != "ok":
        return Condition(State.CORRUPT, f"{path}: {verdict}", volume=volume)
    if shutil.disk_usage(path.parent).free < _ROOM:
        return Condition(State.FULL, f"no room on the volume of {path}", volume=volume)
    return _counted(f"sqlite:///{path}", volume, thorough)


def _counted(
    url: str,
    volume: str | None,
    thorough: bool,
    connect_args: Mapping[str, Any] | None = None,
) -> Condition:
    try:
        engine = open_engine(url, connect_args)
        try:
            with engine.connect() as connection:
                found = count(connection, volume)
                if thorough and found.users:
                    found = replace(found, unsafe=checks.unsafe(connection))
                return found
        finally:
            engine.dispose()
    except (SQLAlchemyError, ImportError) as error:
        # A driver's text may hold the address with its password.
        name = name_of(url)
        story = f"{name} cannot be read: {type(error).__name__}"
        return Condition(State.UNREACHABLE, story, volume=volume)


def _takes_writes(connection: Connection) -> bool:
    if connection.dialect.name == "postgresql":
        return connection.execute(text("SHOW transaction_read_only")).scalar() != "on"
    if connection.dialect.name not in ("mysql", "mariadb"):
        return True
    # MariaDB knows the first one alone; to some accounts neither of them applies.
    asked = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('read_only', 'super_read_only')"
    if all(value in ("OFF", "0") for _, value in connection.execute(text(asked))):
        return True
    try:
        # One that is locked as a whole (FLUSH TABLES WITH READ LOCK) lets writes wait for a day.
        connection.execute(text(f"SET SESSION lock_wait_timeout = {WAIT}"))
        # Refused as any write is, and changes nothing.
        connection.execute(text("UPDATE users SET id = id WHERE 1 = 0"))
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        return False
    return True


def count(connection: Connection, volume: str | None = None) -> Condition:
    """What an open database says of itself."""
    tables = set(inspect(connection).get_table_names())
    if "users" not in tables:
        return Condition(State.NO_TABLES, "it has no table of users", volume=volume)
    if not _takes_writes(connection):
        return Condition(State.READ_ONLY, "the server takes no writes", volume=volume)
    users, highest = connection.execute(
        select(func.count(_USERS.c.id), func.max(_USERS.c.id))
    ).one()
    revision = ""
    if "alembic_version" in tables:
        revision = connection.execute(select(_REVISION.c.version_num)).scalars().first() or ""
    mark = identity.read(connection)
    return Condition(
        State.USABLE,
        identity=mark.identity if mark else None,
        epoch=mark.epoch if mark else 0,
        renewed=mark is not None and mark.renewed,
        unfinished=mark.unfinished if mark else "",
        revision=revision,
        users=users,
        highest_id=highest or 0,
        volume=volume,
    )
