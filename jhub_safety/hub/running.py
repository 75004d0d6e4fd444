"""The running hub, as sessions see it; and the hub's own ways to end a session.

Everything here is run by tests on JupyterHub 5.5 and 6.1: attributes with an underscore are the
application's private corners.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

from jupyterhub import orm
from jupyterhub.app import JupyterHub
from jupyterhub.user import User
from jupyterhub.utils import maybe_future, url_escape_path, url_path_join
from sqlalchemy import Engine, make_url
from sqlalchemy.exc import SQLAlchemyError

from jhub_safety.errors import Conflict
from jhub_safety.hub.abandoned import abandon
from jhub_safety.hub.logins import log_out
from jhub_safety.hub.relink import relink
from jhub_safety.sessions import records
from jhub_safety.sessions.inventory import Inventory
from jhub_safety.sessions.model import LabIdentity, Live, Server, Session
from jhub_safety.starts import StartsMixin

#: Sessions looked at before the loop gets its turn.
AT_A_TIME = 500
#: Seconds for an operation of the hub to end by itself, once it was given up.
LETTING_GO = 30.0
#: How often an operation is cancelled that did not let go, and the seconds that each is given.
CANCELS, CANCELLING = 3, 2.0
_FLAGS = ("_spawn_pending", "_start_pending", "_stop_pending", "_proxy_pending", "_check_pending")


class RunningHub:
    """Implements :class:`~jhub_safety.sessions.hub.Hub` on JupyterHub's application object."""

    def __init__(self, app: JupyterHub, inventory: Inventory) -> None:
        self._app = app
        self._inventory = inventory
        self._known: records.Known = {}
        self._engine: Engine | None = None

    # -- what it knows

    async def sessions(self) -> tuple[Session, ...]:
        url = make_url(self._app.db_url)
        if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
            return await self._sessions_in_memory()
        if self._engine is None:
            connect = self._app.db_kwargs.get("connect_args", {})
            self._engine = records.open_for_reading(self._app.db_url, connect_args=connect)
        return await asyncio.to_thread(
            records.read, self._engine, self._inventory.lab_of, self._known
        )

    async def _sessions_in_memory(self) -> tuple[Session, ...]:
        # Nobody else can open it. Its own connection, in small steps; the hub commits before it
        # awaits anything, so nothing is rolled back here. A commit closes the connection that its
        # session gave out before ("This Connection is closed", from 1,000 sessions on).
        found: list[Session] = []
        for step in records.steps(
            lambda: self._database().connection(),
            self._inventory.lab_of,
            self._known,
            end=False,
        ):
            found += step
            await asyncio.sleep(0)
        return tuple(found)

    async def session(self, server: Server) -> Session | None:
        return records.read_one(self._database().connection(), server, self._inventory.lab_of)

    async def known_users(self, names: Collection[str]) -> frozenset[str]:
        return records.known_users(self._database().connection(), names)

    async def live(self) -> Mapping[Server, Live]:
        found: dict[Server, Live] = {}
        for number, user in enumerate(list(self._app.users.values())):
            for name, spawner in list(user.spawners.items()):
                if spawner.active:
                    found[Server(user.name, name)] = Live(spawner.pending or "", spawner.ready)
            if number % AT_A_TIME == AT_A_TIME - 1:
                await asyncio.sleep(0)
        return found

    def pending(self, server: Server) -> str:
        spawner = self._spawner(server)
        return "" if spawner is None else spawner.pending or ""

    async def routes(self) -> Mapping[Server, str] | None:
        try:
            routes = await self._app.proxy.get_all_routes()
        except Exception as error:  # noqa: BLE001 - a proxy of any make
            self._app.log.warning("The proxy's routes are not known: %s", type(error).__name__)
            return None
        return {
            Server(route["data"]["user"], route["data"].get("server_name", "")): route["target"]
            for route in routes.values()
            if "user" in route["data"]
        }

    def _database(self) -> Any:
        """The hub's own session, such that it can be used."""
        if not self._app.db.is_active:
            # Somebody's commit failed. Without this nothing else can be read ("This Session's
            # transaction has been rolled back", PendingRollbackError), for the rest of a pass.
            self._app.db.rollback()
        return self._app.db

    def _user(self, name: str) -> User | None:
        found = orm.User.find(self._database(), name)
        return None if found is None else self._app.users[found]

    def _spawner(self, server: Server) -> Any:
        """The wrapper in memory, None when there is none; nothing is made."""
        user = self._user(server.user)
        return None if user is None else user.spawners.get(server.name)

    # -- ending a session

    async def clear(self, session: Session, why: str, *, ended: bool = False) -> None:
        # The spawner's own poll clears away a lab that has ended, as its settings say.
        await self._end(session, why, leave_lab=not ended)

    async def stop(self, session: Session, why: str) -> None:
        await self._end(session, why, leave_lab=False)

    async def _whose(self, session: Session) -> Any:
        """The spawner of this very session; None when it has ended.

        Raises:
            Conflict: its server has another session by now. The look at its lab takes up to three
                requests of 30 s, and a user who started anew meanwhile lost that server.
        """
        server = session.server
        user = self._user(server.user)
        if user is None or server.name not in user.orm_spawners:
            return None
        spawner = user.spawners[server.name]
        now = await self.session(server)
        if spawner.server is None or now is None:
            return None
        if (now.lab, now.namespace, now.started) != (
            session.lab,
            session.namespace,
            session.started,
        ):
            raise Conflict(f"{server} was started anew meanwhile; that session was left alone")
        return spawner

    async def _end(self, session: Session, why: str, *, leave_lab: bool) -> None:
        """As ``stop_single_user`` does it (handlers/base.py:1403, 6.1.1), without a request."""
        spawner = await self._whose(session)
        if spawner is None:
            return
        if spawner.pending == "check" and not leave_lab and isinstance(spawner, StartsMixin):
            # The hub's own check then goes on to stop it, cleanly.
            spawner.ended = why
            spawner.given_up.set()
            try:
                if not await self._lets_go(spawner):
                    raise Conflict(f"{spawner._log_name} is still being stopped")
            finally:
                spawner.given_up.clear()
            spawner = await self._whose(session)
            if spawner is None:
                return
            # The check came to its end just now, or it was a relink's: it is ended as any other.
        if spawner.pending:
            raise Conflict(f"{spawner._log_name} is pending {spawner.pending}")
        await self._end_now(spawner, session.server, why, leave_lab=leave_lab)

    async def _end_now(self, spawner: Any, server: Server, why: str, *, leave_lab: bool) -> None:
        user = spawner.user
        self._app.log.warning("Ending the session of %s: %s", server, why)
        callbacks = spawner._callbacks
        told = spawner.ended if isinstance(spawner, StartsMixin) else ""
        try:
            # Before anything is awaited: nobody starts or stops it meanwhile, nor does a poll that
            # finds the lab gone, which stopped the session a second time (spawner.py:1784).
            spawner._stop_pending = True
            spawner.stop_polling()
            spawner._callbacks = []
            if isinstance(spawner, StartsMixin):
                spawner.leave_lab = leave_lab
                spawner.ended = why
            # First of all, so that a hub that is killed half-way still tells the user.
            spawner.orm_spawner.state = {**(spawner.orm_spawner.state or {}), records.ENDED: why}
            self._app.db.commit()
            await self._app.proxy.delete_user(user, server.name)
            if leave_lab:
                # The row goes last: a hub that is killed in between does it all again.
                drop_tokens(self._app.db, user, server.name)
            if user.spawners.get(server.name) is spawner:
                await user.stop(server.name)
                drop_tokens(self._app.db, user, server.name)
        except BaseException as error:
            if isinstance(error, SQLAlchemyError):
                # It is locked, its disk is full: what was not written is not so.
                self._app.db.rollback()
            if _has_session(spawner):
                spawner.ended = told
                spawner._callbacks = callbacks
                spawner.start_polling()
            raise
        finally:
            # user.stop leaves it set when it cannot write. JupyterHub then answers "pending stop"
            # to whoever wants to start or stop that server, until it is restarted.
            spawner._stop_pending = False
            # When it failed (the proxy did not answer), polls look at the cluster again.
            spawner.leave_lab = False

    # -- what hangs

    async def unstick(self, server: Server) -> str:
        """End whatever the hub is doing about a server; it can be started then.

        A lab that runs is left alone: the next start takes it up. What this came to, in words.
        """
        spawner = self._spawner(server)
        if spawner is None or not spawner.pending:
            return "unchanged: the hub is not busy with it"
        pending = spawner.pending
        self._app.log.warning("Giving up pending %s of %s, as asked", pending, server)
        if isinstance(spawner, StartsMixin):
            # What is checked is left as it is; a start's own lab is stopped if that can be done.
            spawner.leave_lab = pending == "check"
            spawner.given_up.set()
            if await self._lets_go(spawner):
                if not self._goes_on(server, spawner):
                    return f"done: pending {pending} was given up"
                # Left as it was, its next poll ended the session without a word, and its lab was
                # an orphan; its next stop had no time.
                spawner.leave_lab = False
                spawner.given_up.clear()
                return f"unchanged: pending {pending} ended well just then, and the server runs"
        await self._abandon(server, spawner)
        return f"done: pending {pending} did not end by itself, and was taken off the hub's memory"

    def _goes_on(self, server: Server, spawner: Any) -> bool:
        user = self._user(server.user)
        return (
            user is not None
            and user.spawners.get(server.name) is spawner
            and spawner.server is not None
        )

    async def _lets_go(self, spawner: Any) -> bool:
        """What was given up goes over into a stop; that is waited for as well."""
        deadline = asyncio.get_running_loop().time() + LETTING_GO
        while spawner.pending:
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(0.2)
        return True

    async def _abandon(self, server: Server, spawner: Any) -> None:
        """Forget a server's operation that never ends, as a restart of the hub would."""
        user = self._user(server.user)
        if user is None:
            return
        spawner.stop_polling()
        row = spawner.orm_spawner
        session = row.server
        # Left to itself it would end some day, and then stop whatever runs under this name: a
        # failed start its user's next server (user.py:1065), a stop their next session.
        await _cancelled(spawner._spawn_future, getattr(spawner, "_stop_future", None))
        await self._app.proxy.delete_user(user, server.name)
        other = user.spawners.get(server.name)
        if other not in (None, spawner) and (other.pending or row.server is not session):
            return  # It has let go after all, and was started anew.
        if spawner.server is not None:
            spawner.server = None
        spawner.orm_spawner.started = None
        for client in self._app.db.query(orm.OAuthClient).filter_by(
            identifier=spawner.oauth_client_id
        ):
            self._app.db.delete(client)
        self._app.db.commit()
        drop_tokens(self._app.db, user, server.name)
        for flag in _FLAGS:
            setattr(spawner, flag, False)
        if isinstance(spawner, StartsMixin):
            # Nor are the tokens of whoever is called so then its to delete (run_post_stop_hook).
            spawner.leave_lab = True
        abandon(spawner)
        # The next one who asks gets a fresh one, made of the row.
        user.spawners.pop(server.name, None)

    # -- other changes

    async def relink(self, server: Server, name: str, identity: LabIdentity) -> None:
        user = self._user(server.user)
        if user is None:
            raise Conflict(f"the hub knows no user {server.user}")
        await relink(self._app, user, self._inventory, server, name, identity)

    def logout(self, user: str | None) -> dict[str, int]:
        """End the browser sessions of *user*, or of everybody.

        Here, in the hub's own session: changed from outside, new logins break until a restart.

        Raises:
            Doubt: there is no such user.
        """
        done = log_out(self._database(), user)
        return {"users": done.users, "tokens": done.tokens}

    async def check_routes(self) -> None:
        await self._app.proxy.check_routes(self._app.users, self._app._service_map)

    async def forget_user(self, name: str) -> None:
        """Remove a user's row, as the hub's API does, and none of their claims.

        Raises:
            Conflict: a server of theirs still has a session.
        """
        user = self._user(name)
        if user is None:
            return
        if any(spawner.server for spawner in user.orm_spawners.values()):
            raise Conflict(f"{name} still has a running server")
        for server in list(user.orm_spawners):
            spawner = user.spawners[server]
            # Whatever the hub's settings say: files are not this command's business.
            spawner.delete_pvc = False
        await maybe_future(self._app.authenticator.delete_user(user))
        await user.delete_spawners()
        self._app.users.delete(user)


def _has_session(spawner: Any) -> bool:
    try:
        return spawner.server is not None
    except SQLAlchemyError:
        # Nobody can tell: it is watched on.
        return True


async def _cancelled(*futures: asyncio.Future[Any] | None) -> None:
    """End what never ends; what it does at its own end (a hook that hangs, too) as well."""
    for _ in range(CANCELS):
        running = [one for one in futures if one is not None and not one.done()]
        if not running:
            return
        for one in running:
            one.cancel()
        await asyncio.wait(running, timeout=CANCELLING)


def drop_tokens(db: Any, user: User, server: str) -> None:
    """Delete the tokens of a lab that is gone.

    ``user.stop`` deletes the one it remembers; after a restart of the hub it remembers none
    (user.py:1166, 6.1.1), and the row would stay for ever.
    """
    base_url = url_path_join(user.base_url, url_escape_path(server), "/")
    notes = (f"Server at {base_url}", f"retrieved from spawner {server}")
    for token in user.orm_user.api_tokens:
        if token.note in notes:
            db.delete(token)
    db.commit()
