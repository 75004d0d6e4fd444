"""The hub's session rows, read in small steps by SQLAlchemy Core.

Small, since with SQLite's rollback journal a reader keeps the hub's own commits waiting: a single
SELECT of 10,000 sessions among 100,000 users holds the file for 0.3 s.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    Connection,
    DateTime,
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
    column("started", DateTime),
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


def steps(
    connection: Connection, lab_of: LabOf, *, step: int = STEP, end: bool = True
) -> Iterator[list[Session]]:
    """Sessions of running servers, *step* rows at a time; each step is a statement of its own.

    *end*: also a transaction of its own, so that nothing is held between two steps.
    """
    last = 0
    while True:
        found = connection.execute(_ACTIVE.where(_SPAWNERS.c.id > last).limit(step)).all()
        if end:
            connection.rollback()
        yield [_session(row, lab_of) for row in found]
        if len(found) < step:
            return
        last = found[-1][0]


def _session(row: Any, lab_of: LabOf) -> Session:
    _, user, name, packed, started, ip, port = row
    name = name or ""
    state = unpack(packed)
    lab, namespace = lab_of(user, name, state) or ("", "")
    place, claim = state.get(PLACE), state.get("pvc_name")
    return Session(
        server=Server(user, name),
        lab=lab,
        namespace=namespace,
        address=f"{ip}:{port}" if ip else "",
        place=place if isinstance(place, str) else None,
        claim=claim if isinstance(claim, str) else None,
        started=started.replace(tzinfo=UTC) if isinstance(started, datetime) else None,
    )


def read(url: str, lab_of: LabOf, **engine: Any) -> tuple[Session, ...]:
    """Every session of the database at *url*; blocking, for a thread.

    Raises:
        Doubt: the database could not be read.
    """
    try:
        # SQLite would make a file that is not there.
        made = create_engine(make_url(url), **{**engine, "poolclass": NullPool})
        try:
            with made.connect() as connection:
                return tuple(one for step in steps(connection, lab_of) for one in step)
        finally:
            made.dispose()
    except SQLAlchemyError as error:
        # Its text may hold statements and parameters.
        raise Doubt(f"the hub's database cannot be read: {type(error).__name__}") from error


def read_one(connection: Connection, server: Server, lab_of: LabOf) -> Session | None:
    """The session of this server as it is now, or None when it has none."""
    query = _ACTIVE.where(_USERS.c.name == server.user, _SPAWNERS.c.name == server.name)
    found = connection.execute(query).first()
    return None if found is None else _session(found, lab_of)
