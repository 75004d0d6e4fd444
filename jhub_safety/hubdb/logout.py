"""End browser sessions for real. Labs go on running, and keep their own tokens.

With the hub stopped, or by the hub itself in its own ORM session: cookie_ids that are changed from
outside under a running hub break new logins, too, until it is restarted (stale identity map).
"""

from __future__ import annotations

from dataclasses import dataclass
from secrets import token_hex

from sqlalchemy import Connection, MetaData, bindparam, delete, func, select, update

from jhub_safety.errors import Doubt


@dataclass(frozen=True, slots=True)
class LoggedOut:
    """How many users got a new cookie_id, and how many login tokens went."""

    users: int
    tokens: int


def logout(connection: Connection, user: str | None = None) -> LoggedOut:
    """*user*, or everybody. The caller commits.

    A browser's session is the cookie_id and the OAuth tokens that were given to it, which carry
    its session_id; the tokens of labs and those that people made themselves have none, and stay.

    Raises:
        Doubt: there is no such user, or these are no tables of a hub.
    """
    tables = MetaData()
    tables.reflect(connection)
    try:
        users, tokens = tables.tables["users"], tables.tables["api_tokens"]
        codes = tables.tables["oauth_codes"]
    except KeyError as error:
        raise Doubt(f"the database has no table {error}") from error
    query = select(users.c.id)
    if user is not None:
        query = query.where(users.c.name == user)
    found = list(connection.execute(query).scalars())
    if user is not None and not found:
        raise Doubt(f"the database has no user {user}")
    if not found:
        return LoggedOut(0, 0)
    change = update(users).where(users.c.id == bindparam("number"))
    change = change.values(cookie_id=bindparam("cookie"))
    connection.execute(change, [{"number": one, "cookie": token_hex(16)} for one in found])
    mine = tokens.c.session_id.is_not(None)
    of_code = codes.c.id.is_not(None)
    if user is not None:
        mine &= tokens.c.user_id == found[0]
        of_code &= codes.c.user_id == found[0]
    gone = connection.execute(select(func.count()).select_from(tokens).where(mine)).scalar() or 0
    connection.execute(delete(tokens).where(mine))
    connection.execute(delete(codes).where(of_code))
    return LoggedOut(len(found), gone)
