"""What of a hub's database can be mended safely: a plan first, then that and no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

from sqlalchemy import (
    Connection,
    MetaData,
    and_,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    text,
    update,
)

from jhub_safety.hubdb import checks

#: Rows of one statement.
BATCH = 300


@dataclass(frozen=True, slots=True)
class Repair:
    """*code* is the finding's that it mends; *rows*: how many are concerned."""

    code: str
    what: str
    rows: int


def plan(connection: Connection) -> list[Repair]:
    """What would be changed, and how many rows. Changes nothing; [] where no hub's tables are."""
    if "users" not in _reflected(connection).tables:
        return []
    return [
        made
        for code, (what, find, _) in _REPAIRS.items()
        if (made := _one(connection, code, what, find))
    ]


def _one(
    connection: Connection, code: str, what: str, find: Callable[[Connection, MetaData], list[Any]]
) -> Repair | None:
    rows = find(connection, _reflected(connection))
    wanted = bool(rows) or (code == "db-collation" and bool(checks.loose_collation(connection)))
    return Repair(code, what, len(rows)) if wanted else None


def execute(connection: Connection, repair: Repair) -> int:
    """Do one repair; how many rows were changed. The caller commits."""
    _, find, change = _REPAIRS[repair.code]
    tables = _reflected(connection)
    rows = find(connection, tables)
    change(connection, tables, rows)
    return len(rows)


def settle(connection: Connection) -> None:
    """What is to be put right in tables that were made just now; the caller commits.

    JupyterHub makes them with the server's default collation, and MySQL's is a loose one.
    """
    for one in plan(connection):
        if one.code == "db-collation":
            execute(connection, one)


def _reflected(connection: Connection) -> MetaData:
    tables = MetaData()
    tables.reflect(connection, resolve_fks=False)
    return tables


def _users_without_cookie(connection: Connection, tables: MetaData) -> list[Any]:
    """Those with none, and all of those that share one: nobody knows whose it was."""
    users = tables.tables["users"]
    if "cookie_id" not in users.c:
        return []
    cookie = users.c.cookie_id
    empty = or_(cookie.is_(None), func.length(cookie) == 0)
    found = list(connection.execute(select(users.c.id).where(empty)).scalars())
    several = select(cookie).where(func.length(cookie) > 0)
    several = several.group_by(cookie).having(func.count() > 1)
    shared = connection.execute(select(users.c.id).where(cookie.in_(several))).scalars()
    return sorted({*found, *shared})


def _give_cookies(connection: Connection, tables: MetaData, rows: list[Any]) -> None:
    users = tables.tables["users"]
    for number in rows:
        change = update(users).where(users.c.id == number)
        connection.execute(change.values(cookie_id=token_hex(16)))


def _users_without_role(connection: Connection, tables: MetaData) -> list[Any]:
    roles, pairs = tables.tables.get("roles"), tables.tables.get("user_role_map")
    # A hub that has never started makes both itself.
    if roles is None or pairs is None or _role(connection, tables) is None:
        return []
    users = tables.tables["users"]
    has = exists().where(pairs.c.user_id == users.c.id)
    return list(connection.execute(select(users.c.id).where(~has)).scalars())


def _role(connection: Connection, tables: MetaData) -> int | None:
    roles = tables.tables["roles"]
    query = select(roles.c.id).where(roles.c.name == "user")
    found: int | None = connection.execute(query).scalar()
    return found


def _give_role(connection: Connection, tables: MetaData, rows: list[Any]) -> None:
    pairs, role = tables.tables["user_role_map"], _role(connection, tables)
    extra = {"managed_by_auth": False} if "managed_by_auth" in pairs.c else {}
    for first in range(0, len(rows), BATCH):
        batch = rows[first : first + BATCH]
        connection.execute(
            insert(pairs), [{"user_id": number, "role_id": role, **extra} for number in batch]
        )


def _lost_sessions(connection: Connection, tables: MetaData) -> list[Any]:
    spawners, servers = tables.tables.get("spawners"), tables.tables.get("servers")
    if spawners is None or servers is None:
        return []
    there = exists().where(servers.c.id == spawners.c.server_id)
    lost = and_(spawners.c.server_id.is_not(None), ~there)
    return list(connection.execute(select(spawners.c.id).where(lost)).scalars())


def _end_sessions(connection: Connection, tables: MetaData, rows: list[Any]) -> None:
    spawners = tables.tables["spawners"]
    for number in rows:
        connection.execute(update(spawners).where(spawners.c.id == number).values(server_id=None))


def _tokens_twice(connection: Connection, tables: MetaData) -> list[Any]:
    tokens = tables.tables.get("api_tokens")
    if tokens is None or "hashed" not in tokens.c:
        return []
    several = select(tokens.c.hashed).group_by(tokens.c.hashed).having(func.count() > 1)
    return list(connection.execute(several).scalars())


def _delete_tokens(connection: Connection, tables: MetaData, rows: list[Any]) -> None:
    """Of two owners nobody knows whose it was. Where it is one's, one row stays."""
    tokens = tables.tables["api_tokens"]
    crossed = set(connection.execute(checks.crossed(tokens)).scalars())
    for hashed in rows:
        its = tokens.c.hashed == hashed
        if hashed in crossed:
            connection.execute(delete(tokens).where(its))
            continue
        number = connection.execute(select(func.count()).select_from(tokens).where(its)).scalar()
        # A table without a key may have the very same row twice.
        statement = _ONE_STAYS.get(connection.dialect.name, _ONE_STAYS["mysql"])
        bound = {"hashed": hashed, "more": (number or 1) - 1}
        connection.execute(text(statement), bound if ":more" in statement else {"hashed": hashed})


#: Where two rows are the same in every column, each engine has its own way to tell them apart.
_ONE_STAYS = {
    "sqlite": "DELETE FROM api_tokens WHERE hashed = :hashed AND rowid <> "
    "(SELECT rowid FROM api_tokens WHERE hashed = :hashed LIMIT 1)",
    "postgresql": "DELETE FROM api_tokens WHERE hashed = :hashed AND ctid <> "
    "(SELECT ctid FROM api_tokens WHERE hashed = :hashed LIMIT 1)",
    "mysql": "DELETE FROM api_tokens WHERE hashed = :hashed LIMIT :more",
}


def _users_compared_loosely(connection: Connection, tables: MetaData) -> list[Any]:
    if not checks.loose_collation(connection):
        return []
    return list(connection.execute(select(tables.tables["users"].c.id)).scalars())


def _compare_exactly(connection: Connection, _: MetaData, __: list[Any]) -> None:
    # MySQL commits by itself before and after; the column is JupyterHub's (orm.py:284, 6.1.1).
    connection.execute(
        text("ALTER TABLE users MODIFY name VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
    )


_Find = Callable[[Connection, MetaData], list[Any]]
_Change = Callable[[Connection, MetaData, list[Any]], None]
_REPAIRS: dict[str, tuple[str, _Find, _Change]] = {
    "db-cookie-missing": (
        "give users without a cookie_id, or with one that others have, new ones; they log in again",
        _users_without_cookie,
        _give_cookies,
    ),
    "db-no-roles": ("give users without a role the role 'user'", _users_without_role, _give_role),
    "db-session-lost": (
        "end sessions whose server's row is missing; their labs are found by the next pass",
        _lost_sessions,
        _end_sessions,
    ),
    "db-tokens-shared": (
        "delete tokens that two owners have, who make new ones; of one's that is twice, one stays",
        _tokens_twice,
        _delete_tokens,
    ),
    # Last, as it cannot be taken back together with others.
    "db-collation": (
        "compare users' names letter by letter (ALTER TABLE users ... COLLATE utf8mb4_bin)",
        _users_compared_loosely,
        _compare_exactly,
    ),
}
