"""The hub's session rows, read in small steps by SQLAlchemy Core.

Small, since with SQLite's rollback journal a reader keeps the hub's own commits waiting: a single
SELECT of 10,000 sessions among 100,000 users holds the file for 0.3 s.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Integer,
    Text,
    Unicode,
    column,
    create_engine,
    make_url,
    select,
    table,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from jhub_safety.collector import resting
from jhub_safety.errors import Doubt
from jhub_safety.sessions.model import Server, Session

#: Key in a server's saved state: uid of the hub's mark in the namespace where it was started.
PLACE = "jhub_safety_place"
#: Key in a server's saved state: how its former lab ended, until its user was told.
ENDED = "jhub_safety_ended"
#: Rows of one step.
STEP = 1000

#: From a server's user, name and saved state to its lab's name and namespace; None: not told.
LabOf = Callable[[str, str, Mapping[str, Any]], tuple[str, str] | None]

# Not the hub's classes: their JSON column cannot be cached by SQLAlchemy 2.1. Same names in 5.5
# and 6.1.
_USERS = table("users", column("id", Integer), column("name", Unicode))
_SPAWNERS = table(
    "spawners",
    column("id", Integer),
    column("user_id", Integer),
    column("server_id", Integer),
    column("name", Unicode),
    column("state", Text),
    # Read as it is stored: only rows that are new are parsed.
    column("started", Text),
)
_SERVERS = table("servers", column("id", Integer), column("ip", Unicode), column("port", Integer))
_ACTIVE = (
    select(
        _SPAWNERS.c.id,
        _USERS.c.name,
        _SPAWNERS.c.name,
        _SPAWNERS.c.state,
        _SPAWNERS.c.started,
        _SERVERS.c.ip,
        _SERVERS.c.port,
    )
    .join_from(_SPAWNERS, _USERS, _SPAWNERS.c.user_id == _USERS.c.id)
    .join(_SERVERS, _SPAWNERS.c.server_id == _SERVERS.c.id)
    .order_by(_SPAWNERS.c.id)
)


def unpack(state: str | None) -> dict[str, Any]:
    """A server's saved state; what is no JSON object is empty."""
    try:
        value = json.loads(state or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


#: Sessions by the row they were made of. Most rows are those of the pass before; making 10,000
#: sessions anew, each with a JSON of its own, costs more than all the rest of a pass.
Known = dict[Any, Session]


def steps(
    connection: Connection | Callable[[], Connection],
    lab_of: LabOf,
    known: Known | None = None,
    *,
    step: int = STEP,
    end: bool = True,
) -> Iterator[list[Session]]:
    """Sessions of running servers, *step* rows at a time; each step is a statement of its own.

    *connection*: or what gives one for each step, where the last one may be closed by then.
    *known*: from the pass before; holds those of this one afterwards. *end*: also a transaction
    of its own, so that nothing is held between two steps.
    """
    former = dict(known or {})
    if known is not None:
        known.clear()
    last = 0
    while True:
        current = connection() if callable(connection) else connection
        rows = current.execute(_ACTIVE.where(_SPAWNERS.c.id > last).limit(step))
        # Comparing SQLAlchemy's own rows costs as much as reading them.
        found = [*map(tuple, rows.all())]
        if end:
            current.rollback()
        made = [former.get(row) or _session(row, lab_of) for row in found]
        if known is not None:
            known.update(zip(found, made, strict=True))
        yield made
        if len(found) < step:
            return
        last = found[-1][0]


def _session(row: Any, lab_of: LabOf) -> Session:
    _, user, name, packed, started, ip, port = row
    name = name or ""
    state = unpack(packed)
    lab, namespace = lab_of(user, name, state) or ("", "")
    place, claim = state.get(PLACE), state.get("pvc_name")
    # As in the proxy's routes (jupyterhub.objects.Server.host).
    host = f"[{ip}]" if ip and ":" in ip else ip
    return Session(
        server=Server(user, name),
        lab=lab,
        namespace=namespace,
        address=f"{host}:{port}" if ip else "",
        place=place if isinstance(place, str) else None,
        claim=claim if isinstance(claim, str) else None,
        started=_when(started),
    )


def _when(stored: object) -> datetime | None:
    """SQLite gives text, other databases a datetime; in UTC without saying so."""
    try:
        found = datetime.fromisoformat(stored) if isinstance(stored, str) else stored
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if isinstance(found, datetime) else None


def open_for_reading(url: str, **options: Any) -> Engine:
    """An engine to read from again and again; it keeps no connection, and makes no file.

    Raises:
        Doubt: nothing can be read at such a URL.
    """
    try:
        return create_engine(_read_only(make_url(url)), **{**options, "poolclass": NullPool})
    except (SQLAlchemyError, ImportError) as error:
        raise Doubt(f"the hub's database cannot be read: {type(error).__name__}") from error


def read(source: str | Engine, lab_of: LabOf, known: Known | None = None) -> tuple[Session, ...]:
    """Every session of the database at that URL; blocking, for a thread. *known*: as in steps.

    Raises:
        Doubt: the database could not be read.
    """
    engine = open_for_reading(source) if isinstance(source, str) else source
    try:
        with resting(), engine.connect() as connection:
            return tuple([one for step in steps(connection, lab_of, known) for one in step])
    except (SQLAlchemyError, ImportError) as error:
        # Its text may hold statements and parameters.
        raise Doubt(f"the hub's database cannot be read: {type(error).__name__}") from error


def check(url: str, connect_args: Mapping[str, Any] | None = None) -> None:
    """Raises Doubt when there is no hub's database at *url*; none is made. Blocking."""
    try:
        arguments = dict(connect_args or {})
        made = create_engine(_read_only(make_url(url)), poolclass=NullPool, connect_args=arguments)
        try:
            with made.connect() as connection:
                connection.execute(_ACTIVE.limit(1)).all()
        finally:
            made.dispose()
    except (SQLAlchemyError, ImportError) as error:
        raise Doubt(f"the hub's database cannot be read: {type(error).__name__}") from error


def known_users(connection: Connection, names: Collection[str]) -> frozenset[str]:
    """Those of these names that the hub has a user of."""
    wanted = sorted(names)
    found: set[str] = set()
    # SQLite takes 999 parameters at least.
    for first in range(0, len(wanted), 500):
        query = select(_USERS.c.name).where(_USERS.c.name.in_(wanted[first : first + 500]))
        found.update(connection.execute(query).scalars())
    return frozenset(found)


def _read_only(url: URL) -> URL:
    """Opened as usual, a SQLite file that is not there is made: an empty hub database."""
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return url
    if url.database.startswith("file:"):
        return url.update_query_dict({"mode": "ro"})
    return make_url(f"sqlite:///file:{quote(url.database)}?mode=ro&uri=true")


def read_one(connection: Connection, server: Server, lab_of: LabOf) -> Session | None:
    """The session of this server as it is now, or None when it has none."""
    query = _ACTIVE.where(_USERS.c.name == server.user, _SPAWNERS.c.name == server.name)
    found = connection.execute(query).first()
    return None if found is None else _session(found, lab_of)
