"""One process at a time makes a database again: a hub, a second hub, or an operator's command.

Two at once: each finds the database lost, and the second would move aside what the first is just
making. The lock goes with the process that holds it: one that was killed is in nobody's way.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from jhub_safety.errors import Conflict, Doubt
from jhub_safety.hubdb.condition import open_engine, sqlite_path
from jhub_safety.hubdb.engines import cause
from jhub_safety.hubdb.exchange import like

#: File systems of networks without locks: it is as it was without this.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_BUSY = "another process is making the database again"
#: How a server locks: any number who look, or one who makes. PostgreSQL's lock is its
#: transaction's, which a pooler gives one connection (PgBouncer, pool_mode=transaction); one of a
#: session stayed with whatever connection it was given, and nobody could give it back. MySQL and
#: MariaDB have locks of sessions alone, and none of the first kind: who looks only asks.
_STATEMENTS = {
    ("postgresql", False): "pg_try_advisory_xact_lock(:key)",
    ("postgresql", True): "pg_try_advisory_xact_lock_shared(:key)",
    ("mysql", False): "get_lock(:key, 0)",
    ("mysql", True): "is_free_lock(:key)",
}


@dataclass(frozen=True, slots=True)
class Lock:
    """That is held.

    *handle*: of a SQLite file the descriptor that has it. A process that inherits that keeps it
    locked to its own end, also when this one is killed.
    """

    handle: int | None = None
    _ours: Callable[[], bool] = lambda: True
    #: On a server the number of the connection that has it: not one of others.
    client: int | None = None

    def require(self) -> None:
        """Right before what cannot be taken back: a lock on a server ends with its connection.

        Raises:
            Conflict: it is not ours any more.
        """
        if not self._ours():
            raise Conflict("the lock on the database was lost; another process may be at it by now")


@contextmanager
def alone(
    url: str, connect_args: Mapping[str, Any] | None = None, *, looking: bool = False
) -> Iterator[Lock]:
    """While the database at *url* is made again. *looking*: nobody is to do so meanwhile.

    Blocking, but never for another's lock. *connect_args*: as in the hub's ``db_kwargs``.

    Raises:
        Conflict: another process is at it. Nothing was changed.
        Doubt: that cannot be found out.
    """
    path = sqlite_path(url)
    with (
        _of_file(path, looking) if path is not None else _of_server(url, connect_args, looking)
    ) as lock:
        yield lock


def lock_state(url: str, connect_args: Mapping[str, Any] | None = None) -> tuple[str, str]:
    """``free``, ``held`` or ``unknown``, and why. Blocking; changes nothing."""
    try:
        with alone(url, connect_args, looking=True):
            return "free", ""
    except Conflict as error:
        return "held", str(error)
    except Doubt as error:
        return "unknown", str(error)


def _unknown(why: str) -> Doubt:
    return Doubt(f"whether another process is making the database again is not known: {why}")


@contextmanager
def _of_file(path: Path, looking: bool) -> Iterator[Lock]:
    name = path.with_name(f".{path.name}.jhub-safety-lock")
    try:
        handle = _open(name, path, looking)
    except OSError as error:
        raise _unknown(f"{name} cannot be opened: {error.strerror}") from error
    if handle is None:
        yield Lock()
        return
    with closing(os.fdopen(handle, "rb")) as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if looking else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(_BUSY) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise _unknown(f"{name} cannot be locked: {error.strerror}") from error
        yield Lock(handle, lambda: _is(handle, name))


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
    if not database.exists():
        # Nor does the folder's owner say who that is, where a volume's group does (fsGroup).
        _share(name, database.parent.stat().st_gid)
    return handle


def _share(name: Path, group: int) -> None:
    with suppress(OSError):
        if name.stat().st_gid != group:
            os.chown(name, -1, group)
        name.chmod(0o660)


def _is(handle: int, name: Path) -> bool:
    """Whether it is still what the others would lock."""
    try:
        return os.path.samestat(os.fstat(handle), name.stat())
    except OSError:
        return False


@contextmanager
def _of_server(url: str, connect_args: Mapping[str, Any] | None, looking: bool) -> Iterator[Lock]:
    try:
        connection = open_engine(url, connect_args).connect()
        if _engine(connection) == "mysql":
            # No transaction stays open, in which the new tables would not be seen.
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
    except (SQLAlchemyError, ImportError) as error:
        raise _unknown(_said(error, url)) from error
    key = _key(connection, make_url(url).database or "")
    with closing(connection):
        try:
            free = _locked(connection, key, looking)
        except SQLAlchemyError as error:
            raise _unknown(_said(error, url)) from error
        if not free:
            raise Conflict(_BUSY)
        try:
            yield Lock(None, lambda: _still_locked(connection, key), _number_of(connection))
        finally:
            # It would end with the connection, once the server has noticed that: a hub that made
            # its database again met its own lock a moment later.
            with suppress(SQLAlchemyError):
                _unlock(connection, key, looking)


def _said(error: Exception, url: str) -> str:
    """The error's own words: a server that answers, and has no such lock, was told of as silent."""
    words, made = f"{type(error).__name__}: {cause(error)}", make_url(url)
    for secret in (made.password, *(made.query[key] for key in made.query if "pass" in key)):
        words = words.replace(str(secret), "***") if secret else words
    return words


def _number_of(connection: Connection) -> int | None:
    """As the server's list of its clients has it; None where that is not said."""
    which = "pg_backend_pid" if _engine(connection) == "postgresql" else "connection_id"
    with suppress(SQLAlchemyError):
        return int(connection.execute(text(f"SELECT {which}()")).scalar() or 0)
    return None


def _locked(connection: Connection, key: Mapping[str, int | str], looking: bool) -> bool:
    if _engine(connection) == "postgresql":
        # The transaction is idle for as long as a snapshot takes to arrive.
        with suppress(SQLAlchemyError), connection.begin_nested():
            connection.execute(
                text("SELECT set_config('idle_in_transaction_session_timeout', '0', true)")
            )
    lock = _STATEMENTS[_engine(connection), looking]
    return bool(connection.execute(text(f"SELECT {lock}"), key).scalar())


def _still_locked(connection: Connection, key: Mapping[str, int | str]) -> bool:
    ours = "true"  # As long as the transaction lives.
    if _engine(connection) == "mysql":
        ours = "is_used_lock(:key) = connection_id()"
    try:
        return bool(connection.execute(text(f"SELECT {ours}"), key).scalar())
    except SQLAlchemyError:
        return False


def _unlock(connection: Connection, key: Mapping[str, int | str], looking: bool) -> None:
    if _engine(connection) == "postgresql":
        connection.rollback()
    elif not looking:
        connection.execute(text("SELECT release_lock(:key)"), key)


def _engine(connection: Connection) -> str:
    return "postgresql" if connection.dialect.name == "postgresql" else "mysql"


def _key(connection: Connection, database: str) -> dict[str, int | str]:
    """A number of 64 bits for PostgreSQL; a name, of the whole server, for the others."""
    name = hashlib.sha256(f"jhub-safety {database}".encode()).digest()
    if _engine(connection) == "postgresql":
        return {"key": int.from_bytes(name[:8], signed=True)}
    return {"key": f"jhub-safety-{name.hex()[:32]}"}
