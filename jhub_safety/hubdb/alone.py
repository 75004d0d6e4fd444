"""One process at a time makes a database again: a hub, a second hub, or an operator's command.

Two at once: each finds the database lost, and the second would move aside what the first is just
making. The lock goes with the process that holds it: one that was killed is in nobody's way.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from jhub_safety.errors import Conflict, Doubt
from jhub_safety.hubdb.condition import open_engine, sqlite_path
from jhub_safety.hubdb.exchange import like

#: File systems of networks without locks: it is as it was without this.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_BUSY = "another process is making the database again"
#: How a server locks and unlocks: any number who look, or one who makes. MySQL and MariaDB have no
#: lock of the first kind: who looks only asks.
_STATEMENTS = {
    ("postgresql", False): ("pg_try_advisory_lock", "pg_advisory_unlock"),
    ("postgresql", True): ("pg_try_advisory_lock_shared", "pg_advisory_unlock_shared"),
    ("mysql", False): ("get_lock", "release_lock"),
    ("mysql", True): ("is_free_lock", ""),
}


@contextmanager
def alone(
    url: str, connect_args: Mapping[str, Any] | None = None, *, looking: bool = False
) -> Iterator[None]:
    """While the database at *url* is made again. *looking*: nobody is to do so meanwhile.

    Blocking, but never for another's lock. *connect_args*: as in the hub's ``db_kwargs``.

    Raises:
        Conflict: another process is at it. Nothing was changed.
        Doubt: that cannot be found out.
    """
    path = sqlite_path(url)
    with _of_file(path, looking) if path is not None else _of_server(url, connect_args, looking):
        yield


def _unknown(why: str) -> Doubt:
    return Doubt(f"whether another process is making the database again is not known: {why}")


@contextmanager
def _of_file(path: Path, looking: bool) -> Iterator[None]:
    name = path.with_name(f".{path.name}.jhub-safety-lock")
    try:
        handle = _open(name, path, looking)
    except OSError as error:
        raise _unknown(f"{name} cannot be opened: {error.strerror}") from error
    if handle is None:
        yield
        return
    with closing(os.fdopen(handle, "rb")) as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if looking else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(_BUSY) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise _unknown(f"{name} cannot be locked: {error.strerror}") from error
        yield


def _open(name: Path, database: Path, looking: bool) -> int | None:
    """None: nobody has locked it yet. It is never deleted: whoever has opened it before would hold
    a lock on nothing."""
    try:
        return os.open(name, os.O_RDONLY if looking else os.O_RDWR)
    except FileNotFoundError:
        # Not made by who only looks: the folder may be read-only.
        if looking:
            return None
    handle = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
    # What root's command has made, the hub must be able to open.
    like(name, database)
    return handle


@contextmanager
def _of_server(url: str, connect_args: Mapping[str, Any] | None, looking: bool) -> Iterator[None]:
    try:
        engine = open_engine(url, connect_args)
        # No transaction stays open, in which the new tables would not be seen.
        connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    except (SQLAlchemyError, ImportError) as error:
        raise _unknown(f"its server does not answer: {type(error).__name__}") from error
    database = make_url(url).database or ""
    with closing(connection):
        try:
            free = _locked(connection, database, looking)
        except SQLAlchemyError as error:
            raise _unknown(f"its server does not answer: {type(error).__name__}") from error
        if not free:
            raise Conflict(_BUSY)
        try:
            yield
        finally:
            # It would end with the connection, once the server has noticed that: a hub that made
            # its database again met its own lock a moment later.
            with suppress(SQLAlchemyError):
                _unlock(connection, database, looking)


def _locked(connection: Connection, database: str, looking: bool) -> bool:
    lock, _ = _STATEMENTS[_engine(connection), looking]
    wait = ", 0" if lock == "get_lock" else ""
    return bool(
        connection.execute(text(f"SELECT {lock}(:key{wait})"), _key(connection, database)).scalar()
    )


def _unlock(connection: Connection, database: str, looking: bool) -> None:
    _, unlock = _STATEMENTS[_engine(connection), looking]
    if unlock:
        connection.execute(text(f"SELECT {unlock}(:key)"), _key(connection, database))


def _engine(connection: Connection) -> str:
    return "postgresql" if connection.dialect.name == "postgresql" else "mysql"


def _key(connection: Connection, database: str) -> dict[str, int | str]:
    """A number of 64 bits for PostgreSQL; a name, of the whole server, for the others."""
    name = hashlib.sha256(f"jhub-safety {database}".encode()).digest()
    if _engine(connection) == "postgresql":
        return {"key": int.from_bytes(name[:8], signed=True)}
    return {"key": f"jhub-safety-{name.hex()[:32]}"}
