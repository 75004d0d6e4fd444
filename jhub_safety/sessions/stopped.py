"""The database of a hub that is down, as sessions see it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from jupyterhub import orm
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session as Database

from jhub_safety.errors import Conflict, Doubt
from jhub_safety.sessions import records
from jhub_safety.sessions.inventory import Inventory
from jhub_safety.sessions.model import LabIdentity, Live, Server, Session
from jhub_safety.sessions.presence import Presence


@contextmanager
def database_of(url: str, connect_args: Mapping[str, Any] | None = None) -> Iterator[Database]:
    """One transaction on a hub's database. *connect_args*: as in ``JupyterHub.db_kwargs``.

    Raises:
        Doubt: the database cannot be used.
    """
    # JupyterHub makes a whole database where there is none; a hub would start on the empty one.
    records.check(url, connect_args)
    # None of one's own where none are given: JupyterHub has some for SQLite.
    more = {"connect_args": dict(connect_args)} if connect_args else {}
    try:
        made = orm.new_session_factory(url, **more)()
        try:
            yield made
            made.commit()
        finally:
            made.close()
            made.get_bind().dispose()
    except (SQLAlchemyError, orm.DatabaseSchemaMismatch) as error:
        raise Doubt(f"the hub's database cannot be used: {type(error).__name__}") from error


class StoppedHub:
    """Implements :class:`~jhub_safety.sessions.hub.Hub` without a hub.

    Whoever makes one has made sure that no hub runs on this database. Routes are left to the
    hub: it removes dead ones when it starts. *forgotten* is called after a user's row has gone.
    """

    def __init__(
        self,
        url: str,
        inventory: Inventory,
        connect_args: Mapping[str, Any] | None = None,
        forgotten: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._url, self._inventory = url, inventory
        self._connect_args, self._forgotten = connect_args, forgotten

    async def _run(self, work: Callable[[Database], Any]) -> Any:
        def run() -> Any:
            with database_of(self._url, self._connect_args) as database:
                return work(database)

        return await asyncio.to_thread(run)

    async def sessions(self) -> tuple[Session, ...]:
        return await asyncio.to_thread(records.read, self._url, self._inventory.lab_of)

    async def session(self, server: Server) -> Session | None:
        found: Session | None = await self._run(
            lambda database: records.read_one(database.connection(), server, self._inventory.lab_of)
        )
        return found

    async def known_users(self, names: Collection[str]) -> frozenset[str]:
        found: frozenset[str] = await self._run(
            lambda database: records.known_users(database.connection(), names)
        )
        return found

    async def live(self) -> Mapping[Server, Live] | None:
        return None

    def pending(self, _server: Server) -> str:
        return ""

    async def routes(self) -> Mapping[Server, str] | None:
        return None

    async def clear(self, session: Session, why: str, *, ended: bool = False) -> None:  # noqa: ARG002
        # What is left of a lab that has ended is cleared away by the next start.
        await self._run(lambda database: clear(database, session.server, why))

    async def stop(self, session: Session, why: str) -> None:
        sighting = await self._inventory.look(session)
        if sighting.presence is Presence.DOUBT:
            raise Doubt(f"{sighting.why}. Nothing was changed")
        if sighting.lab is not None:
            identity = LabIdentity(sighting.lab.uid, session.namespace, session.server)
            await self._inventory.delete(identity, session.lab)
        await self.clear(session, why)

    async def relink(self, server: Server, name: str, _identity: LabIdentity) -> None:
        raise Conflict(f"lab {name} of {server} can be taken up by a running hub only")

    async def check_routes(self) -> None:
        """The hub does it when it starts."""

    async def unstick(self, _server: Server) -> str:
        return "unchanged: no hub runs, so nothing is pending"

    async def forget_user(self, name: str) -> None:
        def forget(database: Database) -> bool:
            user = orm.User.find(database, name)
            if user is None:
                return False
            if any(spawner.server for spawner in user.orm_spawners.values()):
                raise Conflict(f"{name} still has a running server")
            database.delete(user)
            return True

        if await self._run(forget) and self._forgotten is not None:
            await self._forgotten()


def clear(database: Database, server: Server, why: str) -> None:
    """What ``User.stop`` leaves behind (user.py:1150, JupyterHub 6.1.1), in one transaction."""
    user = orm.User.find(database, server.user)
    spawner = None if user is None else user.orm_spawners.get(server.name)
    if user is None or spawner is None or spawner.server is None:
        return
    base_url = spawner.server.base_url
    database.delete(spawner.server)
    spawner.server = None
    spawner.started = None
    spawner.state = {**(spawner.state or {}), records.ENDED: why}
    for token in user.api_tokens:
        if token.note in (f"Server at {base_url}", f"retrieved from spawner {server.name}"):
            database.delete(token)
    identifier = f"jupyterhub-user-{quote(user.name)}"
    if server.name:
        identifier += f"-{quote(server.name)}"
    for client in database.query(orm.OAuthClient).filter_by(identifier=identifier):
        database.delete(client)
