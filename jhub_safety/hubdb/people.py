"""Whom the hub's rows know, in which groups, and since when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from sqlalchemy import DateTime, Integer, Unicode, column, func, select, table

from jhub_safety.hubdb.records import opened

# Not the hub's own classes; see records.py. Same names in JupyterHub 5.5 and 6.1.
_USERS = table(
    "users",
    column("id", Integer),
    column("name", Unicode),
    column("created", DateTime),
    column("last_activity", DateTime),
)
_GROUPS = table("groups", column("id", Integer), column("name", Unicode))
_MEMBERS = table("user_group_map", column("user_id", Integer), column("group_id", Integer))


@dataclass(frozen=True)
class People:
    """Every user, the groups of those who are in one, and of which time the rows tell."""

    users: frozenset[str]
    groups: Mapping[str, tuple[str, ...]]
    #: When the first user that is still there was made.
    oldest: datetime | None
    #: The last time that anybody was made, or did anything.
    newest: datetime | None


def read(db_url: str, connect_args: Mapping[str, Any] | None = None) -> People:
    """Read a hub's database without changing it; the hub may be running. *connect_args*: as in
    ``JupyterHub.db_kwargs``.

    Raises:
        Doubt: it cannot be read.
    """
    with opened(db_url, connect_args) as connection:
        users = frozenset(connection.execute(select(_USERS.c.name)).scalars())
        oldest, made, active = connection.execute(
            select(
                func.min(_USERS.c.created),
                func.max(_USERS.c.created),
                func.max(_USERS.c.last_activity),
            )
        ).one()
        members = connection.execute(
            select(_USERS.c.name, _GROUPS.c.name)
            .select_from(_MEMBERS)
            .join(_USERS, _MEMBERS.c.user_id == _USERS.c.id)
            .join(_GROUPS, _MEMBERS.c.group_id == _GROUPS.c.id)
        )
        groups: dict[str, tuple[str, ...]] = {}
        for user, group in members:
            groups[user] = (*groups.get(user, ()), group)
    newest = max((_utc(one) for one in (made, active) if one is not None), default=None)
    return People(users, MappingProxyType(groups), _utc(oldest) if oldest else None, newest)


def _utc(moment: datetime) -> datetime:
    """JupyterHub stores UTC without saying so (orm.py, utcnow)."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
