"""What a restored database lets in: administrators and tokens that came back, for a person.

A restore ends browser sessions. What it cannot end is what somebody made on purpose: a token in a
script, an administrator's rights. Of those that were taken away since the snapshot was made, the
snapshot knows nothing; so all that come back are listed. Neither a token nor its hash is in a list.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Boolean, Connection, column, func, inspect, or_, select, table, true
from sqlalchemy.exc import SQLAlchemyError

#: Lines of each list in a log, and entries of each in a journal's line; of the rest the number.
SOME = 20
#: Characters of a note in a log or journal: the column takes 1,023.
_NOTE = 80
#: JupyterHub's own client, for tokens that people make (orm.py:1239, 6.1.1).
_HUB = "jupyterhub"
#: The role that may do anything; what the flag of a user follows (app.py:2647, 6.1.1).
_ADMIN = "admin"

#: What to do about one of them, when the hub runs. Tokens have no page for administrators.
DEMOTE = (
    "At /hub/admin, or: curl -X PATCH -H 'Authorization: token ...' -d '{\"admin\": false}' "
    "https://HUB/hub/api/users/NAME"
)
REVOKE = (
    "Its owner at /hub/token, an administrator by: curl -X DELETE -H 'Authorization: token ...' "
    "https://HUB/hub/api/users/OWNER/tokens/ID"
)

# Without types: a value that is no time must not stop a restore.
_USERS = table("users", column("id"), column("name"), column("admin", Boolean))
_TOKENS = table(
    "api_tokens",
    *map(
        column,
        (
            *("id", "user_id", "service_id", "hashed", "session_id", "client_id"),
            *("note", "created", "last_activity", "expires_at"),
        ),
    ),
)
_SPAWNERS = table("spawners", column("user_id"), column("server_id"))
_SERVERS = table("servers", column("id"), column("base_url"))
_ROLES = table("roles", column("id"), column("name"))
_OF_USERS = table("user_role_map", column("user_id"), column("role_id"))
_GROUPS = table("groups", column("id"), column("name"))
_OF_GROUPS = table("group_role_map", column("group_id"), column("role_id"))
_MEMBERS = table("user_group_map", column("user_id"), column("group_id"))


@dataclass(frozen=True, slots=True)
class Admin:
    """*through*: groups whose members are administrators; none for one who is it themselves."""

    name: str
    through: tuple[str, ...] = ()
    #: Was one in the database that gave way, too.
    was_there: bool = False
    #: Stands in ``admin_users``: the hub makes them one at each start.
    configured: bool = False


@dataclass(frozen=True, slots=True)
class Token:
    """A user's that has not expired and is no browser's. Times: ISO 8601, UTC; "" for none."""

    #: As JupyterHub's API and token page count: ``a17``.
    id: str
    owner: str
    note: str = ""
    created: str = ""
    last_used: str = ""
    expires: str = ""
    #: "" for one that its owner asked the hub for; else the OAuth client that has it.
    client: str = ""
    was_there: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """Whom a database lets in before a restore. Tokens by their hashes, which go nowhere."""

    admins: frozenset[str] = frozenset()
    tokens: frozenset[str] = field(default=frozenset(), repr=False)


@dataclass(frozen=True, slots=True)
class Review:
    """What came back; those that the database did not have just before come first."""

    admins: tuple[Admin, ...] = ()
    tokens: tuple[Token, ...] = ()
    #: Tokens of labs that ran when the snapshot was made, and of services: not listed.
    labs: int = 0
    services: int = 0
    #: Why nothing is listed; "" when the lists are whole.
    problem: str = ""

    def record(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> Review:
        """Of what :meth:`record` gave, also after its way through JSON."""
        admins = (Admin(**{**one, "through": tuple(one["through"])}) for one in record["admins"])
        tokens = (Token(**one) for one in record["tokens"])
        return cls(**{**record, "admins": tuple(admins), "tokens": tuple(tokens)})

    def marked(self, configured: Collection[str]) -> Review:
        """With those administrators marked whom the configuration names."""
        found = (replace(one, configured=one.name in configured) for one in self.admins)
        # They would be administrators without the snapshot, too: last.
        return replace(self, admins=tuple(sorted(found, key=lambda one: one.configured)))

    def brief(self) -> dict[str, Any]:
        """For one line of a journal: :data:`SOME` of each list, and how many there are."""
        return {
            "admins": [asdict(one) for one in self.admins[:SOME]],
            "admins_in_all": len(self.admins),
            "tokens": [asdict(replace(one, note=_cut(one.note))) for one in self.tokens[:SOME]],
            "tokens_in_all": len(self.tokens),
            "labs": self.labs,
            "services": self.services,
            "problem": self.problem,
        }

    def lines(self, snapshot: str) -> tuple[str, ...]:
        """For a log: what a person should look through, and what to do about one of them."""
        whole = f"jhub-safety db restore {snapshot} --dry-run --json"
        if self.problem:
            return (f"Which administrators and tokens came back could not be read: {self.problem}",)
        said = [self.sum_up()]
        said += [f"Administrator {one.name!r}{_about(one)}" for one in self.admins[:SOME]]
        said += [
            f"Token {one.id} of {one.owner!r}: {_cut(one.note)!r}, made {one.created or 'once'}, "
            f"last used {one.last_used or 'never'}, expires {one.expires or 'never'}"
            for one in self.tokens[:SOME]
        ]
        if len(self.admins) > SOME or len(self.tokens) > SOME:
            said.append(f"All of them are listed by: {whole}")
        if self.admins:
            said.append(f"Who should not be an administrator: {DEMOTE}")
        if self.tokens:
            said.append(f"A token that should not be: {REVOKE}")
        return tuple(said)

    def sum_up(self) -> str:
        """In one sentence."""
        new = sum(not one.was_there for one in self.tokens)
        configured = sum(one.configured for one in self.admins)
        return (
            f"Comes with it, to be looked through: {len(self.admins)} administrators, of whom "
            f"{configured} are in admin_users, and {len(self.tokens)} tokens that people made, of "
            f"which {new} were not there before. Not listed: {self.labs} tokens of labs, "
            f"{self.services} of services"
        )


def _about(one: Admin) -> str:
    through = f", through group {', '.join(map(repr, one.through))}" if one.through else ""
    return f"{through}{', in admin_users' if one.configured else ''}"


def _cut(note: str) -> str:
    return note if len(note) <= _NOTE else f"{note[: _NOTE - 3]}..."


# -- reading


def read(snapshot: Connection, now: datetime, before: Held | None = None) -> Review:
    """What a snapshot's file brings back, beside what was there *before*. Changes nothing.

    It never raises: a list that cannot be made must not keep a database from coming back.
    """
    try:
        if missing := _missing(snapshot):
            return Review(problem=f"the snapshot has no {missing[0]}")
        tokens, labs = _tokens(snapshot, now, before or Held())
        return Review(_admins(snapshot, before or Held()), tokens, labs, _of_services(snapshot))
    except (SQLAlchemyError, ValueError, TypeError) as error:
        # Its kind alone: the words of the engine may show values.
        return Review(problem=f"{type(error).__name__} while it was read")


def held(connection: Connection) -> Held:
    """Whom a database lets in now, on any engine; nobody where its tables are not a hub's."""
    if _missing(connection):
        return Held()
    hashes = connection.execute(select(_TOKENS.c.hashed)).scalars()
    return Held(frozenset(_admin_names(connection)), frozenset(map(str, hashes)))


def _missing(connection: Connection) -> list[str]:
    """Tables and columns without which nothing can be said."""
    there = inspect(connection)
    wanted = (_USERS, _TOKENS, _SPAWNERS, _SERVERS, _ROLES, _OF_USERS, _GROUPS, _OF_GROUPS)
    names = set(there.get_table_names())
    found = []
    for one in (*wanted, _MEMBERS):
        if one.name not in names:
            found.append(f"table {one.name}")
            continue
        columns = {each["name"] for each in there.get_columns(one.name)}
        found += [f"column {one.name}.{each.name}" for each in one.c if each.name not in columns]
    return found


def _admin_names(connection: Connection) -> dict[str, tuple[str, ...]]:
    """Administrators, with the groups through which they are only that."""
    role = select(_ROLES.c.id).where(_ROLES.c.name == _ADMIN)
    by_role = select(_OF_USERS.c.user_id).where(_OF_USERS.c.role_id.in_(role))
    themselves = select(_USERS.c.name).where(
        or_(_USERS.c.admin.is_(true()), _USERS.c.id.in_(by_role))
    )
    found: dict[str, tuple[str, ...]] = {
        str(name): () for name in connection.execute(themselves).scalars()
    }
    through: defaultdict[str, list[str]] = defaultdict(list)
    members = connection.execute(
        select(_USERS.c.name, _GROUPS.c.name)
        .select_from(_MEMBERS)
        .join(_USERS, _MEMBERS.c.user_id == _USERS.c.id)
        .join(_GROUPS, _MEMBERS.c.group_id == _GROUPS.c.id)
        .join(_OF_GROUPS, _OF_GROUPS.c.group_id == _GROUPS.c.id)
        .where(_OF_GROUPS.c.role_id.in_(role))
    )
    for user, group in members:
        through[str(user)].append(str(group))
    return {name: tuple(sorted(groups)) for name, groups in through.items()} | found


def _admins(connection: Connection, before: Held) -> tuple[Admin, ...]:
    found = (
        Admin(name, through, was_there=name in before.admins)
        for name, through in _admin_names(connection).items()
    )
    return tuple(sorted(found, key=lambda one: (one.was_there, one.name)))


def _tokens(connection: Connection, now: datetime, before: Held) -> tuple[tuple[Token, ...], int]:
    """Those that people made, and the number of those that labs have.

    Left out: browsers' (the restore ends them), expired ones, and those without a client: the hub
    deletes both when they are used (orm.py:1180, 6.1.1).
    """
    query = (
        select(
            *(_TOKENS.c[name] for name in ("id", "hashed", "client_id", "note")),
            *(_TOKENS.c[name] for name in ("created", "last_activity", "expires_at")),
            _USERS.c.name.label("owner"),
        )
        .select_from(_TOKENS)
        .join(_USERS, _TOKENS.c.user_id == _USERS.c.id)
        .where(_TOKENS.c.session_id.is_(None), _TOKENS.c.client_id.is_not(None))
    )
    rows = [row for row in connection.execute(query) if not _expired(row.expires_at, now)]
    labs = _of_labs(connection, rows)
    tokens = (
        Token(
            f"a{row.id}",
            str(row.owner),
            str(row.note or ""),
            _when(row.created),
            _when(row.last_activity),
            _when(row.expires_at),
            "" if row.client_id == _HUB else str(row.client_id),
            was_there=str(row.hashed) in before.tokens,
        )
        for row in rows
        if row.id not in labs
    )
    return tuple(sorted(tokens, key=lambda one: (one.was_there, one.owner, one.created))), len(labs)


def _of_labs(connection: Connection, rows: Sequence[Any]) -> set[int]:
    """Tokens that labs have: told by the note alone, which users can write as well.

    So one counts as a lab's only where the lab ran, and when no other token of its owner has the
    same note: whoever wants to hide one behind it has both of them listed.
    """
    query = (
        select(_USERS.c.name, _SERVERS.c.base_url)
        .select_from(_SPAWNERS)
        .join(_USERS, _SPAWNERS.c.user_id == _USERS.c.id)
        .join(_SERVERS, _SPAWNERS.c.server_id == _SERVERS.c.id)
    )
    # As User.spawn writes it (user.py:853, 6.1.1).
    notes = {(user, f"Server at {url}") for user, url in connection.execute(query)}
    times = Counter((row.owner, row.note) for row in rows)
    return {
        row.id for row in rows if (row.owner, row.note) in notes and times[row.owner, row.note] == 1
    }


def _of_services(connection: Connection) -> int:
    query = select(func.count()).select_from(_TOKENS)
    count: int = connection.execute(query.where(_TOKENS.c.service_id.is_not(None))).scalar_one()
    return count


def _expired(value: object, now: datetime) -> bool:
    """Not when it cannot be told."""
    moment = _moment(value)
    return moment is not None and moment < now


def _when(value: object) -> str:
    moment = _moment(value)
    return moment.isoformat(timespec="seconds") if moment else ""


def _moment(value: object) -> datetime | None:
    """JupyterHub stores UTC without saying so (orm.py, utcnow)."""
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
