"""A snapshot becomes the hub's database again: whole or not at all, the old one kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, column, delete, func, select, table, update

from jhub_safety.errors import Conflict, Doubt, SafetyError
from jhub_safety.hubdb import content, review, snapshot
from jhub_safety.hubdb.copying import (
    Afterwards,
    change_file,
    check_file,
    write_server,
)
from jhub_safety.hubdb.engines import (
    COMPANIONS,
    Address,
    opened_file,
    reading,
)
from jhub_safety.hubdb.exchange import beside, replace_file
from jhub_safety.hubdb.identity import Identity, renew
from jhub_safety.hubdb.logout import logout
from jhub_safety.hubdb.manifest import Manifest
from jhub_safety.hubdb.snapshot import Progress, Shelf
from jhub_safety.plan import Action, Plan, Refusal

#: Names that are listed in full; of the others there is a number.
NAMES = 20


def _quiet(_what: str, _done: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Current:
    """What is where the snapshot is to go. *state*: missing, empty, damaged, a hub's, foreign."""

    state: str
    users: frozenset[str] = frozenset()
    tokens: int = 0
    servers: int = 0
    #: Changes whenever the database does, as far as that can be told quickly.
    identity: str = ""
    problem: str = ""
    #: Whom it lets in.
    held: review.Held = field(default_factory=review.Held)


@dataclass(frozen=True, slots=True)
class Difference:
    """What a restore would change."""

    current: Current
    users_before: int
    users_after: int
    lost: tuple[str, ...]
    back: tuple[str, ...]
    tokens_before: int
    tokens_after: int
    servers_before: int
    servers_after: int
    admins_before: int = 0
    admins_after: int = 0

    def record(self) -> dict[str, Any]:
        return {
            "current": self.current.state,
            "problem": self.current.problem,
            "users": [self.users_before, self.users_after],
            "users_lost": list(self.lost),
            "users_back": list(self.back),
            "tokens": [self.tokens_before, self.tokens_after],
            "servers": [self.servers_before, self.servers_after],
            "admins": [self.admins_before, self.admins_after],
        }


@dataclass(frozen=True, slots=True)
class Proposal:
    """What is shown, and then done."""

    plan: Plan
    difference: Difference
    manifest: Manifest = field(repr=False)
    #: What a person should look through afterwards.
    review: review.Review = field(default_factory=review.Review, repr=False)

    def record(self) -> dict[str, Any]:
        return {
            "plan": self.plan.record(),
            "difference": self.difference.record(),
            "identity": self.difference.current.identity,
            "snapshot": self.manifest.name,
            "review": self.review.record(),
        }


# -- look


_USERS = table("users", column("id"), column("name"))
_TOKENS = table("api_tokens", column("id"), column("session_id"))
_SPAWNERS = table("spawners", column("id"), column("server_id"))
_SERVERS = table("servers", column("id"))


def look(where: Address) -> Current:
    """What the target holds now; never changed by it.

    Raises:
        Doubt: a server does not answer. (A SQLite file that cannot be read is "damaged".)
    """
    if where.file is not None:
        return _look_at_file(where, where.file)
    with reading(where) as connection:
        return _look_inside(connection, "")


def _look_at_file(where: Address, file: Path) -> Current:
    try:
        size = file.stat().st_size
    except FileNotFoundError:
        return Current("missing", identity="missing")
    except OSError as error:
        raise Doubt(f"the database {file} cannot be looked at: {error.strerror}") from error
    identity = _identity(file)
    if size == 0 and not any(beside(file, end).exists() for end in COMPANIONS):
        return Current("empty", identity=identity)
    try:
        if damage := check_file(file).damage:
            return Current("damaged", identity=identity, problem=damage[0])
        with reading(where) as connection:
            return _look_inside(connection, identity)
    except Doubt as doubt:
        return Current("damaged", identity=identity, problem=str(doubt))


def _identity(file: Path) -> str:
    """Of the file and what belongs to it: a commit changes one of them."""
    found = []
    for end in ("", "-wal", "-journal"):
        try:
            now = beside(file, end).stat()
        except FileNotFoundError:
            continue
        if end and not now.st_size:
            # Whoever reads a database in WAL mode leaves an empty one: nothing was written.
            continue
        found.append(f"{end}{now.st_ino}:{now.st_size}:{now.st_mtime_ns}")
    return " ".join(found) or "missing"


def _look_inside(connection: Connection, identity: str) -> Current:
    names = content.table_names(connection)
    if not names:
        return Current("empty", identity=identity or "empty")
    if not {"users", "spawners", "api_tokens"} <= set(names):
        return Current("foreign", identity=identity or "foreign", problem=", ".join(names[:5]))
    users = frozenset(str(one) for one in connection.execute(select(_USERS.c.name)).scalars())
    counts = _counts(connection)
    highest = content.highest_user_id(connection)
    made = identity or f"{len(users)}:{highest}:{counts}:{content.schema_revision(connection)}"
    return Current("hub", users, counts[0], counts[1], made, held=review.held(connection))


def _counts(connection: Connection) -> tuple[int, int]:
    """Tokens that are nobody's browser session, and servers that count as running."""
    tokens = select(func.count()).select_from(_TOKENS).where(_TOKENS.c.session_id.is_(None))
    servers = select(func.count()).select_from(_SPAWNERS).where(_SPAWNERS.c.server_id.is_not(None))
    return connection.execute(tokens).scalar_one(), connection.execute(servers).scalar_one()


def propose(
    target: Address,
    shelf: Shelf,
    name: str,
    *,
    afterwards: Sequence[str] = (),
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    progress: Progress = _quiet,
) -> Proposal:
    """Compare the snapshot with what is there. Nothing is changed.

    Raises:
        Damaged: the snapshot is not as it was written. Doubt: one of the two cannot be read.
    """
    changes(afterwards)
    current = look(target)
    with (
        snapshot.opened(shelf, name, progress=progress) as (manifest, file),
        opened_file(file) as connection,
    ):
        found = _look_inside(connection, "")
        came = review.read(connection, now(), current.held)
    difference = Difference(
        current,
        len(current.users),
        len(found.users),
        tuple(sorted(current.users - found.users)),
        tuple(sorted(found.users - current.users)),
        current.tokens,
        found.tokens,
        current.servers,
        0 if "stop-servers" in afterwards else found.servers,
        len(current.held.admins),
        len(found.held.admins),
    )
    plan = decide(target, manifest, difference, afterwards)
    return Proposal(plan, difference, manifest, came)


def decide(
    target: Address, manifest: Manifest, difference: Difference, afterwards: Sequence[str]
) -> Plan:
    """What will be done, in order. Pure."""
    title = f"Restore {target} from {manifest.name}"
    current = difference.current
    if current.state == "foreign":
        why = f"it holds tables of something else ({current.problem})"
        return Plan(
            title,
            refusals=(Refusal("foreign", str(target), why, "jhub-safety db restore --db-url ..."),),
        )
    actions = []
    if current.state != "missing":
        if target.file is not None:
            kept = f"renamed to {target.file.name}.before-..., with what belongs to it"
            actions.append(_action("keep-database", str(target), kept))
        elif current.state == "hub":
            kept = "a verified snapshot of it as it is now"
            actions.append(_action("back-up-database", str(target), kept))
    reason = f"{difference.users_after} users, made {manifest.made:%Y-%m-%d %H:%M:%S} UTC"
    actions.append(_action("restore-database", manifest.name, reason, current.identity))
    actions += [_action("change-database", one, AFTERWARDS[one].about) for one in afterwards]
    return Plan(title, tuple(actions))


def _action(kind: Any, name: str, reason: str, uid: str = "") -> Action:
    return Action(kind, "", name, reason, uid)


# -- what may be done to the restored tables before anybody sees them


@dataclass(frozen=True, slots=True)
class Change:
    """Made in what is restored, before it is in place."""

    about: str
    run: Afterwards


def stop_servers(connection: Connection) -> None:
    """No server counts as running.

    A row with a server and the id of a process that is another one's by now made a hub kill that
    one at its start (app.py:3110, JupyterHub 6.1.1). The state stays: it names the user's home.
    """
    rows = select(_SPAWNERS.c.server_id).where(_SPAWNERS.c.server_id.is_not(None))
    servers = list(connection.execute(rows).scalars())
    connection.execute(update(_SPAWNERS).values(server_id=None))
    for start in range(0, len(servers), 500):
        some = servers[start : start + 500]
        connection.execute(delete(_SERVERS).where(_SERVERS.c.id.in_(some)))


def log_out(connection: Connection) -> None:
    """Whoever has a copy of the snapshot has the logins that were in it."""
    logout(connection)


#: By the name under which a caller asks for it.
AFTERWARDS: dict[str, Change] = {
    "stop-servers": Change("no server counts as running", stop_servers),
    "log-out": Change("everybody logs in anew", log_out),
}


def changes(names: Sequence[str]) -> list[Afterwards]:
    """Raises SafetyError for a name that is not known."""
    unknown = [one for one in names if one not in AFTERWARDS]
    if unknown:
        raise SafetyError(f"{unknown[0]!r} is nothing that can be done after a restore")
    return [AFTERWARDS[one].run for one in names]


# -- do


@dataclass(frozen=True, slots=True)
class Restored:
    """*aside*: where the old database is now, as a path or the name of a snapshot; "" for none."""

    snapshot: str
    users: int
    aside: str

    def record(self) -> dict[str, Any]:
        return {"snapshot": self.snapshot, "users": self.users, "aside": self.aside}


def execute(
    target: Address,
    shelf: Shelf,
    name: str,
    *,
    identity: str,
    afterwards: Sequence[str] = (),
    former: Identity | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    progress: Progress = _quiet,
) -> Restored:
    """Carry out what :func:`propose` showed. No hub may be running: that is the caller's to know.

    *identity*: of the database as it was then. *former*: which database it goes on with, for the
    guard: it was made again, and is no older copy that somebody put back.

    Raises:
        Conflict: it has changed since. SafetyError, Doubt: it could not be done. In each case the
            database is as it was.
    """
    wanted = changes(afterwards)
    if former is not None:
        wanted.append(partial(renew, former=former))
    current = look(target)
    if current.identity != identity:
        raise Conflict(
            f"the database {target} has changed since it was looked at. Nothing was done"
        )
    if current.state == "foreign":
        raise SafetyError(f"the database {target} holds tables of something else")
    with snapshot.opened(shelf, name, progress=progress) as (manifest, file):
        progress("restore", 0)
        if target.file is not None:
            aside = replace_file(target.file, file, manifest, wanted, now())
        else:
            aside = ""
            if current.state == "hub":
                made = snapshot.take(
                    target, shelf, purpose=snapshot.BEFORE_RESTORE, progress=progress
                )
                aside = made.name
            # In the copy: MySQL would have its tables in place before they are changed, and a
            # restore that is killed in between would leave everybody's logins as they were.
            change_file(file, wanted)
            with opened_file(file) as source:
                expected = content.measure(source) if wanted else manifest.tables
                write_server(source, target, replace=True, expected=expected, progress=progress)
    return Restored(manifest.name, manifest.users, aside)
