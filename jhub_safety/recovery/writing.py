"""People put into a hub's database, in one transaction, beside what is there already.

By SQLAlchemy's Core, in batches: 100,000 users by JupyterHub's own classes take minutes, and users
without rows for their roles cost minutes more at the next start (189 s at 50,000).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from secrets import token_hex
from typing import Any, TypeVar

from sqlalchemy import Connection, MetaData, Table, insert, select

from jhub_safety.errors import Doubt
from jhub_safety.recovery.rebuild import Home, People

#: Rows of one statement; SQLite takes 32,766 parameters, older ones 999 of a row's six.
BATCH = 150
_Row = TypeVar("_Row")


@dataclass(frozen=True, slots=True)
class Written:
    """How many rows were added."""

    users: int
    servers: int
    roles: int


def write(
    connection: Connection,
    people: People,
    *,
    admins: Collection[str] = (),
    version: str,
    advance: Callable[[int], None] = lambda _: None,
) -> Written:
    """Add users, their roles, and what their servers' homes are. The caller commits.

    Nothing that is there is changed but a saved state without any claim. *version*: KubeSpawner's,
    without which it takes a state for one of an early release. *advance* is told of each batch.

    Raises:
        Doubt: these are no tables of a hub.
    """
    tables = MetaData()
    # Not what they refer to: one that is missing is told below, by name.
    tables.reflect(connection, only=lambda name, _: name in _NEEDED, resolve_fks=False)
    if missing := _NEEDED - set(tables.tables):
        raise Doubt(f"the database has no table {', '.join(sorted(missing))}")
    users = tables.tables["users"]
    known = {name: number for number, name in connection.execute(select(users.c.id, users.c.name))}
    new = sorted(people.users - known.keys())
    now = datetime.now(UTC).replace(tzinfo=None)
    for batch in _batches(new):
        rows = [_user(name, users, now, admin=name in admins) for name in batch]
        connection.execute(insert(users), rows)
        advance(len(batch))
    ids = {name: number for number, name in connection.execute(select(users.c.id, users.c.name))}
    roles = _add_roles(connection, tables, [ids[name] for name in new], ids, admins)
    servers = _add_servers(connection, tables.tables["spawners"], people.homes, ids, version)
    return Written(len(new), servers, roles)


_NEEDED = frozenset({"users", "spawners", "roles", "user_role_map"})


def _user(name: str, users: Table, now: datetime, *, admin: bool) -> dict[str, Any]:
    # As JupyterHub makes it (orm.py:309, 6.1.1): a cookie's id that nobody else has.
    row: dict[str, Any] = {
        "name": name,
        "admin": admin,
        "created": now,
        "cookie_id": token_hex(16),
        "state": "{}",
    }
    return {key: value for key, value in row.items() if key in users.c}


def _add_roles(
    connection: Connection,
    tables: MetaData,
    new: Sequence[int],
    ids: Mapping[str, int],
    admins: Collection[str],
) -> int:
    roles, pairs = tables.tables["roles"], tables.tables["user_role_map"]
    known = {name: number for number, name in connection.execute(select(roles.c.id, roles.c.name))}
    if "user" not in known:
        # A hub that has never started makes them itself, and then gives them to each user.
        return 0
    wanted = [(number, known["user"]) for number in new]
    if "admin" in known:
        fresh = set(new)
        wanted += [(ids[name], known["admin"]) for name in admins if ids.get(name) in fresh]
    extra = {"managed_by_auth": False} if "managed_by_auth" in pairs.c else {}
    for batch in _batches(wanted):
        rows = [{"user_id": user, "role_id": role, **extra} for user, role in batch]
        connection.execute(insert(pairs), rows)
    return len(wanted)


def _add_servers(
    connection: Connection,
    spawners: Table,
    homes: Mapping[tuple[str, str], Home],
    ids: Mapping[str, int],
    version: str,
) -> int:
    query = select(spawners.c.user_id, spawners.c.name, spawners.c.id, spawners.c.state)
    there = {
        (user, name or ""): (row, state) for user, name, row, state in connection.execute(query)
    }
    added = []
    for home in homes.values():
        state = {
            "pvc_name": home.claim,
            "namespace": home.namespace,
            "kubespawner_version": version,
        }
        found = there.get((ids[home.user], home.server))
        if found is None:
            added.append(
                {"user_id": ids[home.user], "name": home.server, "state": json.dumps(state)}
            )
        elif not _parsed(found[1]):
            row = spawners.c.id == found[0]
            connection.execute(spawners.update().where(row).values(state=json.dumps(state)))
    for batch in _batches(added):
        connection.execute(insert(spawners), list(batch))
    return len(added)


def _parsed(state: object) -> dict[str, Any]:
    if isinstance(state, dict):
        return state
    try:
        found = json.loads(state) if isinstance(state, str) else {}
    except ValueError:
        return {"unreadable": True}
    return found if isinstance(found, dict) else {}


def _batches(rows: Collection[_Row]) -> Iterator[list[_Row]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, BATCH)):
        yield batch
