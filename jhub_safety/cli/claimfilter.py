"""Which claims a command is about: the same options on each, and what is looked at for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any

import click

from jhub_safety.cli.connection import Connection, notes, shown
from jhub_safety.cluster import mounts
from jhub_safety.cluster.claims import Claim
from jhub_safety.errors import Doubt
from jhub_safety.hubdb import people
from jhub_safety.hubdb.records import VOLUMES, HubRecords, former_users
from jhub_safety.volumes.names import Place
from jhub_safety.volumes.selection import Configured, Filter, Known, Row, rows_of

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def _age(_context: Any, _option: Any, text: str | None) -> timedelta | None:
    """From 30d, 12w or 1d12h."""
    if text is None:
        return None
    parts = re.findall(r"([0-9]{1,6})([mhdw])", text)
    length = sum((timedelta(**{_UNITS[unit]: int(n)}) for n, unit in parts), timedelta())
    if not re.fullmatch(r"([0-9]{1,6}[mhdw])+", text) or not length:
        raise click.BadParameter(f"{text!r} is no age; write 180d, 12w or 36h")
    return length


def filter_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options, handed on as one :class:`Filter`."""

    @click.option(
        "--component", "components", multiple=True, help="home, extra-pvc; may be repeated."
    )
    @click.option("--owner", "owners", multiple=True, help="USER, or USER/SERVER; may be repeated.")
    @click.option("--class", "classes", multiple=True, help="Storage class; may be repeated.")
    @click.option("--phase", "phases", multiple=True, help="Bound, Pending, Lost, Terminating.")
    @click.option("--orphaned", is_flag=True, help="Whose owner the hub's database does not know.")
    @click.option("--older-than", callback=_age, help="Made longer ago than that: 180d, 12w, 36h.")
    @click.option(
        "--mounted/--unmounted", default=None, help="Whether a pod uses it now (reads pods)."
    )
    @wraps(function)
    def command(
        components: tuple[str, ...],
        owners: tuple[str, ...],
        classes: tuple[str, ...],
        phases: tuple[str, ...],
        orphaned: bool,
        older_than: timedelta | None,
        mounted: bool | None,
        **arguments: Any,
    ) -> Any:
        chosen = Filter(
            components=components,
            owners=owners,
            classes=classes,
            phases=phases,
            orphaned=orphaned or None,
            older_than=older_than,
            mounted=mounted,
        )
        return function(chosen=chosen, **arguments)

    return command


@dataclass(frozen=True, slots=True)
class Seen:
    """All claims of the namespace, and what is known of each."""

    claims: Mapping[str, Claim]
    rows: tuple[Row, ...]
    known: Known | None
    now: datetime


async def look(connection: Connection, *, pods: bool) -> Seen:
    """Claims first, then the database: who has a claim by then has been a user before."""
    claims = await connection.claims.list()
    using = await who_mounts(connection) if pods else None
    known = known_to(connection)
    rows = rows_of(claims.values(), configured(connection), known, using)
    return Seen(claims, rows, known, datetime.now(UTC))


async def who_mounts(connection: Connection) -> Mapping[str, tuple[str, ...]]:
    """Raises Doubt."""
    return await mounts.read(connection.cluster.api, connection.claims.namespace)


def configured(connection: Connection) -> Configured:
    """Raises ConfigError."""
    hub = connection.hub
    return Configured(
        hub.hub_name,
        hub.settings.extra_volumes(),
        hub.storage_capacity,
        Place(connection.claims.namespace, hub.namespace),
    )


def known_to(connection: Connection) -> Known | None:
    """Whom the hub's database knows; None, said on stderr, when it cannot be read."""
    records = connection.records()
    if records is None:
        return None
    found = people_of(connection)
    return None if found is None else knowing(records, found)


def people_of(connection: Connection) -> people.People | None:
    """The hub's users and groups; None, said on stderr, when they cannot be read."""
    url = connection.options.db_url or connection.hub.db_url
    try:
        return people.read(url, connection.hub.connect_args)
    except Doubt as doubt:
        notes.print(f"[yellow]Without the hub's users and groups[/]: {shown(doubt)}")
        return None


def knowing(records: HubRecords, found: people.People) -> Known:
    states = tuple(records.states.values())
    former = {name for state in states for name in former_users(dict(state))}
    extras = [state.get(VOLUMES) for state in states]
    return Known(
        users=found.users | set(records.users) | former,
        homes=frozenset(_texts(state.get("pvc_name") for state in states)),
        volumes=frozenset(
            _texts(name for one in extras if isinstance(one, dict) for name in one.values())
        ),
        groups=found.groups,
        oldest=found.oldest,
        newest=found.newest,
    )


def _texts(values: Any) -> set[str]:
    return {value for value in values if isinstance(value, str)}
