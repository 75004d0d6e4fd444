"""What the hub's rows say of claims and of renamed users."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from jupyterhub import orm
from sqlalchemy import (
    Connection,
    Integer,
    Text,
    Unicode,
    column,
    create_engine,
    false,
    func,
    make_url,
    or_,
    select,
    table,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from jhub_safety.errors import Doubt
from jhub_safety.hubdb.engines import name_of, sqlite_file

#: Key in a server's saved state: user names under which its claim may still be annotated.
FORMER_USERS = "jhub_safety_former_users"
#: Key in a server's saved state: its user's folder on the claim that all homes share.
FOLDER = "jhub_safety_folder"
#: Key in a server's saved state: claim by extra volume.
VOLUMES = "jhub_safety_volumes"
#: Key in a server's saved state: when each claim on record was made, by extra volume ("": home).
CLAIMS_MADE = "jhub_safety_claims_made"


@dataclass(frozen=True, slots=True)
class Record:
    """A server's row that names a claim."""

    user: str
    server: str

    def __str__(self) -> str:
        return f"{self.user}/{self.server}" if self.server else self.user


@dataclass(frozen=True, slots=True)
class Kept:
    """A claim on a server's record."""

    claim: str
    #: None where the record does not say it.
    made: datetime | None = None
    #: Names of the user for which it may still be annotated.
    former: tuple[str, ...] = ()


# Not the hub's own classes: their JSON column makes SQLAlchemy 2.1 warn at each query that it
# cannot be cached, and all that is wanted of it is text. Same names in 5.5 and 6.1.
_USERS = table("users", column("id", Integer), column("name", Unicode))
_SERVERS = table(
    "spawners", column("user_id", Integer), column("name", Unicode), column("state", Text)
)
_STATES = select(_USERS.c.name, _SERVERS.c.name, _SERVERS.c.state).join_from(
    _SERVERS, _USERS, _SERVERS.c.user_id == _USERS.c.id
)


def _unpack(state: str | None) -> dict[str, Any]:
    try:
        value = json.loads(state or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def servers_naming(db: Session, claim: str) -> tuple[Record, ...]:
    """Every server whose saved state names *claim*.

    Scans the spawners' states (text): 3 ms at 1,000 rows. Asked only when a claim was found
    by its annotations or name alone, so once in the life of a user.
    """
    quoted = f'"{claim}"'  # the state is JSON; a claim's name holds nothing that is escaped
    rows = db.execute(_STATES.where(_SERVERS.c.state.contains(quoted, autoescape=True)))
    return tuple(
        Record(user, server or "")
        for user, server, state in rows
        if _unpack(state).get("pvc_name") == claim
    )


def servers_with_volumes(db: Session, claims: Iterable[str]) -> dict[str, list[Record]]:
    """Every server on whose record one of *claims* is an extra volume, by claim.

    A scan as above; asked only of a start without a record of its own.
    """
    wanted = set(claims)
    matches = [_SERVERS.c.state.contains(f'"{one}"', autoescape=True) for one in sorted(wanted)]
    found: dict[str, list[Record]] = {}
    for user, server, state in db.execute(_STATES.where(or_(false(), *matches))):
        volumes = _unpack(state).get(VOLUMES)
        names = volumes.values() if isinstance(volumes, dict) else ()
        for claim in wanted.intersection(name for name in names if isinstance(name, str)):
            found.setdefault(claim, []).append(Record(user, server or ""))
    return found


def claims_kept(db: Session, user: str, volume: str = "") -> dict[str, Kept]:
    """The claim that each server of *user* has on record, by server.

    *volume*: for this extra volume; "" for the home.
    """
    found = {}
    for _, server, packed in db.execute(_STATES.where(_USERS.c.name == user)):
        state = _unpack(packed)
        volumes = state.get(VOLUMES) if volume else {"": state.get("pvc_name")}
        claim = volumes.get(volume) if isinstance(volumes, dict) else None
        if isinstance(claim, str):
            found[server or ""] = Kept(claim, when_made(state, volume), former_users(state))
    return found


def when_made(state: Mapping[str, Any], volume: str = "") -> datetime | None:
    """When the claim on record was made, as far as this saved state says it."""
    times = state.get(CLAIMS_MADE)
    try:
        made = datetime.fromisoformat(times[volume]) if isinstance(times, dict) else None
    except (KeyError, TypeError, ValueError):
        return None
    return made if made is not None and made.tzinfo is not None else None


def servers_in_folders(db: Session, folders: Iterable[str]) -> dict[str, list[Record]]:
    """Every server whose saved state names one of *folders*, by folder. A scan as above."""
    wanted = set(folders)
    # As the JSON has it; a folder's name may hold what is escaped there.
    texts = [json.dumps(folder) for folder in sorted(wanted)]
    matches = [_SERVERS.c.state.contains(text, autoescape=True) for text in texts]
    found: dict[str, list[Record]] = {}
    for user, server, state in db.execute(_STATES.where(or_(false(), *matches))):
        if (folder := _unpack(state).get(FOLDER)) in wanted:
            found.setdefault(folder, []).append(Record(user, server or ""))
    return found


def folders_of(db: Session, user: str) -> dict[str, str]:
    """The folder that each server of *user* has on record, by server."""
    rows = db.execute(_STATES.where(_USERS.c.name == user))
    found = {server or "": _unpack(state).get(FOLDER) for _, server, state in rows}
    return {server: folder for server, folder in found.items() if isinstance(folder, str)}


def users_named(db: Session, names: Iterable[str]) -> set[str]:
    """Those of *names* that users of the hub have."""
    return set(db.execute(select(_USERS.c.name).where(_USERS.c.name.in_(list(names)))).scalars())


def has_server(db: Session, user: str, server: str) -> bool:
    """Whether *user* has had a server of that name."""
    rows = db.execute(_STATES.where(_USERS.c.name == user, _SERVERS.c.name == server))
    return rows.first() is not None


def users_with(db: Session, part: str) -> tuple[str, ...]:
    """Every user whose name holds *part*, in lower case. A scan in the database itself."""
    lower = func.lower(_USERS.c.name)
    rows = db.execute(select(_USERS.c.name).where(lower.contains(part, autoescape=True)))
    return tuple(rows.scalars())


def same_home(record: Record, user: str, server: str, *, per_server: bool) -> bool:
    """True when *record* and this server go by one home."""
    return record.user == user and (record.server == server or not per_server)


@dataclass(frozen=True)
class HubRecords:
    """Every user of a hub, and what its servers' saved states say."""

    users: tuple[str, ...]
    #: The saved state of each server that was ever started.
    states: Mapping[Record, Mapping[str, Any]]

    def claim_of(self, user: str, server: str) -> str | None:
        """The claim that the record of this server names."""
        name = self.states.get(Record(user, server), {}).get("pvc_name")
        return name if isinstance(name, str) else None

    def volumes_of(self, user: str, server: str) -> Mapping[str, str]:
        """Claim by extra volume, as the record of this server has them."""
        found = self.states.get(Record(user, server), {}).get(VOLUMES)
        if not isinstance(found, dict):
            return {}
        return {volume: name for volume, name in found.items() if isinstance(name, str)}

    def with_volume(self, claim: str) -> tuple[Record, ...]:
        """Every server on whose record *claim* is an extra volume."""
        return tuple(self._by_volume.get(claim, ()))

    def names(self, claim: str) -> bool:
        """Whether the record of any server names *claim*."""
        return claim in self._by_claim

    def others_naming(self, claim: str, user: str, server: str, *, per_server: bool) -> str:
        """Another server whose record names *claim*, or ""."""
        for record in self._by_claim.get(claim, ()):
            if not same_home(record, user, server, per_server=per_server):
                return str(record)
        return ""

    @cached_property
    def _by_claim(self) -> dict[str, list[Record]]:
        found: dict[str, list[Record]] = {}
        for record, state in self.states.items():
            if isinstance(state.get("pvc_name"), str):
                found.setdefault(state["pvc_name"], []).append(record)
        return found

    @cached_property
    def _by_volume(self) -> dict[str, list[Record]]:
        found: dict[str, list[Record]] = {}
        for record in self.states:
            for claim in set(self.volumes_of(record.user, record.server).values()):
                found.setdefault(claim, []).append(record)
        return found


def read(db_url: str, connect_args: Mapping[str, Any] | None = None) -> HubRecords:
    """Read a hub's database without changing it; the hub may be running. *connect_args*: as in
    ``JupyterHub.db_kwargs``.

    Raises:
        Doubt: it cannot be read. A SQLite file that is not there is not made.
    """
    with opened(db_url, connect_args) as connection:
        names = tuple(connection.execute(select(_USERS.c.name).order_by(_USERS.c.name)).scalars())
        states = {
            Record(user, server or ""): MappingProxyType(_unpack(state))
            for user, server, state in connection.execute(_STATES)
        }
    return HubRecords(names, MappingProxyType(states))


@contextmanager
def opened(db_url: str, connect_args: Mapping[str, Any] | None = None) -> Iterator[Connection]:
    """A connection that only reads.

    Raises:
        Doubt: it cannot be read. A SQLite file that is not there is not made.
    """
    try:
        url = make_url(db_url)
    except SQLAlchemyError as error:
        raise Doubt("the hub's database cannot be read: its address is no URL") from error
    shown = name_of(url)
    arguments = dict(connect_args or {})
    if (file := sqlite_file(url)) is not None:
        # mode=ro: opening a missing file would make an empty one, which a hub then starts on.
        url = make_url(f"sqlite:///file:{quote(str(file))}?mode=ro&uri=true")
    try:
        engine = create_engine(url, connect_args=arguments)
        try:
            with engine.connect() as connection:
                yield connection
        finally:
            engine.dispose()
    except ImportError as error:
        raise Doubt(f"the hub's database {shown} cannot be read: {error}") from error
    except SQLAlchemyError as error:
        # The driver's own words; SQLAlchemy's would add the statement and a link.
        cause = getattr(error, "orig", None) or error
        raise Doubt(f"the hub's database {shown} cannot be read: {cause}") from error


def former_users(state: dict[str, Any] | None) -> tuple[str, ...]:
    """Names that the user of this server had before, whose claim was not handed over yet."""
    names = (state or {}).get(FORMER_USERS, ())
    return tuple(name for name in names if isinstance(name, str))


def remember_former_user(servers: Iterable[orm.Spawner], name: str) -> list[orm.Spawner]:
    """Write into the state of each server that has a claim that its user was called *name*.

    Also of one whose home is no claim of its own and that has extra volumes: whoever is called
    *name* next must not get those.

    Returns those servers. A new dict each time: SQLAlchemy does not see a changed one.
    """
    changed = []
    for server in servers:
        state = server.state or {}
        if state.get("pvc_name") or state.get(VOLUMES):
            names = [*former_users(state), name]
            server.state = {**state, FORMER_USERS: list(dict.fromkeys(names))}
            changed.append(server)
    return changed
