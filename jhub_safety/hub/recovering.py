"""A database that was lost beyond doubt is made again before the hub opens it.

First what the cluster knows is read whole; nothing is touched before that. Then the damaged file
is moved aside, and a database is made with every user whom a claim or a running lab names. Running
labs become sessions again once the hub serves.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kubespawner
from jupyterhub import orm, roles
from sqlalchemy.exc import SQLAlchemyError
from traitlets.config import Config
from traitlets.config.loader import LazyConfigValue

from jhub_safety.cluster.claims import ClaimsApi
from jhub_safety.errors import Conflict, Doubt, SafetyError
from jhub_safety.hubdb import condition, identity, repair
from jhub_safety.hubdb.condition import sqlite_path
from jhub_safety.hubdb.guarding import Case, Fingerprint
from jhub_safety.hubdb.identity import Identity
from jhub_safety.owner import label_value
from jhub_safety.recovery.rebuild import People, people
from jhub_safety.recovery.writing import Written, write
from jhub_safety.sessions.hub import Hub
from jhub_safety.sessions.kubernetes import KubernetesInventory
from jhub_safety.sessions.model import LabIdentity, LabState, Server

#: Labs that are taken up at the same time.
AT_ONCE = 10
#: SQLite's files beside the database's own; one of another database must not stay.
_BESIDE = ("", "-journal", "-wal", "-shm")


@dataclass(frozen=True, slots=True)
class RunningLab:
    """A lab of this hub that runs."""

    name: str
    identity: LabIdentity
    server: Server


@dataclass(frozen=True, slots=True)
class Gathered:
    """What the cluster knows of a hub's users."""

    people: People
    labs: tuple[RunningLab, ...]


async def gather(
    inventory: KubernetesInventory,
    claims: ClaimsApi,
    hub: str,
    *,
    told: Mapping[str, tuple[str, str]] | None = None,
) -> Gathered:
    """All of it. A lab whose user could not be read counts as missing, until it is gone.

    Raises:
        Doubt: a listing failed or was cut off, or whose lab one is could not be read. Nothing may
            be decided on a part.
    """
    listed = await claims.list()
    for unread in range(2):
        labs = [lab for some in (await inventory.take(())).labs.values() for lab in some]
        there = [lab for lab in labs if lab.state is not LabState.ENDED]
        known = await inventory.identify(there)
        missing = sorted({lab.name for lab in there} - {name for _, name in known})
        if not missing:
            break
        if unread:
            raise Doubt(f"whose lab {missing[0]} is, could not be read (of {len(missing)} such)")
    running = {lab.name for lab in there if lab.state is LabState.RUNNING}
    found = [
        RunningLab(name, lab, lab.server)
        for (_, name), lab in known.items()
        if lab.server is not None and lab.hub in (None, label_value(hub))
    ]
    servers = {(one.server.user, one.server.name) for one in found}
    return Gathered(
        people(listed.values(), hub, labs=servers, told=told),
        tuple(one for one in found if one.name in running),
    )


def set_aside(url: str) -> Path | None:
    """Rename a SQLite database, with what belongs to it; None where there is no file.

    Raises:
        Conflict: the new name is taken, or the file cannot be renamed.
    """
    path = sqlite_path(url)
    if path is None:
        return None
    ending = f".lost-{time.strftime('%Y%m%dT%H%M%S')}"
    moved = None
    # The database last: a hub that was killed in between still finds it lost.
    for suffix in reversed(_BESIDE):
        part = path.with_name(path.name + suffix)
        target = path.with_name(f"{path.name}{ending}{suffix}")
        # Nothing to keep of zero bytes: tried again and again, as with a full disk, they pile up.
        if not part.exists() or (not suffix and part.stat().st_size == 0):
            continue
        if target.exists():
            raise Conflict(f"{target} is there already; nothing was moved")
        try:
            part.rename(target)
        except OSError as error:
            raise Conflict(f"{part} cannot be moved aside: {error.strerror}") from error
        moved = target
    return moved


def rebuild(
    url: str,
    found: People,
    *,
    admins: Collection[str],
    db_kwargs: Mapping[str, Any],
    former: Identity | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Written:
    """Write *found* into the hub's database at *url*, which is made where there is none. Blocking.

    *former*: the identity that is known, and goes on with a database that has none. In the same
    transaction: a hub that was killed right after it took its own database for another one.

    Raises:
        Doubt: the database cannot be used; nothing of *found* was written.
    """
    try:
        database = orm.new_session_factory(url, **db_kwargs)()
        try:
            identity.make_table(database.connection())
            database.commit()
            if database.query(orm.Role).first() is None:
                # The hub makes them at its start, and then gives them to each user: minutes.
                for role in roles.get_default_roles():
                    roles.create_role(database, role)
                repair.settle(database.connection())
                database.commit()
            done = write(
                database.connection(),
                found,
                admins=admins,
                version=kubespawner.__version__,
                advance=advance,
            )
            identity.renew(database.connection(), former)
            database.commit()
            return done
        finally:
            database.close()
            database.get_bind().dispose()
    except (SQLAlchemyError, orm.DatabaseSchemaMismatch, OSError) as error:
        raise Doubt(f"the hub's database cannot be used: {type(error).__name__}") from error


def finished(url: str, connect_args: Mapping[str, Any] | None = None) -> None:
    """A recovery is over, but for running labs, which the hub takes up once it serves. Blocking.

    Raises:
        Doubt: that could not be noted; the next start does it once more.
    """
    try:
        engine = condition.open_engine(url, connect_args)
        try:
            with engine.begin() as connection:
                identity.finished(connection)
        finally:
            engine.dispose()
    except (SQLAlchemyError, ImportError) as error:
        raise Doubt(f"the hub's database cannot be used: {type(error).__name__}") from error


def former_identity(case: Case) -> Identity | None:
    """Of the database that was known before."""
    before = case.before
    return Identity(before.identity, before.epoch) if isinstance(before, Fingerprint) else None


def configured_admins(config: Config) -> frozenset[str]:
    """``admin_users`` of whatever section: the authenticator is not made yet.

    Names count in lower case too, as authenticators normalize them. The hub itself makes those of
    them administrators that are (app.py:2330, 6.1.1); this spares it the roles.
    """
    found: set[str] = set()
    for section in config.values():
        names = section.get("admin_users") if isinstance(section, Config) else None
        if isinstance(names, LazyConfigValue):
            # admin_users.add("ada"), as people write it.
            names = names.get_value(set())
        if isinstance(names, (set, frozenset, list, tuple)):
            found |= {str(name) for name in names}
    return frozenset(found | {name.lower() for name in found})


async def relink(hub: Hub, labs: Collection[RunningLab], log: logging.Logger) -> int:
    """Make running labs sessions again; how many. One that cannot be is told and left alone."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(lab: RunningLab) -> bool:
        async with limit:
            try:
                await hub.relink(lab.server, lab.name, lab.identity)
            except SafetyError as error:
                log.warning("Lab %s of %s was not taken up: %s", lab.name, lab.server, error)
                return False
            return True

    return sum(await asyncio.gather(*map(one, labs)))
