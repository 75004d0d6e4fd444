"""``DatabaseGuard``: whether the hub may serve on its database, and what is known of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from traitlets import Bool, Enum, Float, Unicode
from traitlets.config import LoggingConfigurable

from jhub_safety.errors import Doubt
from jhub_safety.hubdb import condition, identity
from jhub_safety.hubdb.condition import Condition, State
from jhub_safety.hubdb.guarding import (
    UNKNOWN,
    Case,
    Decision,
    Fingerprint,
    Unknown,
    decide,
    is_fewer,
)
from jhub_safety.hubdb.known import Known


class DatabaseGuard(LoggingConfigurable):  # type: ignore[misc]
    """Compares the hub's database with what is known of it, before the hub opens it and after."""

    enabled = Bool(
        True,
        config=True,
        help="""
        Look at the database before the hub opens it, and while it runs.

        Danger: without it a hub whose database was lost serves an empty one without a word.

        .. versionadded:: 0.1
        """,
    )

    on_loss = Enum(
        ["recover", "hold", "ignore"],
        "recover",
        config=True,
        help="""
        What to do when the database is lost beyond doubt: missing from its own volume, without
        content, tables or users, or damaged.

        ``recover``: put back the newest verified snapshot, then what the cluster knows of users,
        homes and running labs; where that cannot be done, ``hold``. The damaged file is kept.
        ``hold``: serve nobody, leave running labs alone, and say what to run.
        ``ignore``: say it, and serve all the same.

        A database that is merely older, smaller or another hub's is never overwritten: with
        ``recover`` and ``hold`` the hub holds until an operator says which is the right one.

        .. versionadded:: 0.1
        """,
    )

    interval = Float(
        60.0,
        min=5.0,
        config=True,
        help="""
        Seconds between two looks at the database of a hub that runs.

        .. versionadded:: 0.1
        """,
    )

    fingerprint_file = Unicode(
        "",
        config=True,
        help="""
        File for what is known of the database, for hubs without a cluster. It must not be on the
        database's own volume. Empty: two Secrets in the hub's namespace.

        .. versionadded:: 0.1
        """,
    )

    def attach(
        self,
        url: str,
        known: Known,
        homes: Callable[[], Awaitable[bool]],
        *,
        connect_args: Mapping[str, Any] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """*homes* says whether the cluster has homes of this hub, or raises Doubt.

        *connect_args*: what the hub's ``db_kwargs`` has of that name; without, say, TLS settings
        a server in good order would count as unreachable.
        """
        self.url, self.known = url, known
        self._connect_args = connect_args
        self._homes, self._now = homes, now

    async def look(self, *, thorough: bool = True) -> tuple[Case, Decision]:
        """What is there, and what is to be done. Changes nothing; raises nothing.

        *thorough*: also look for damage and unsafe rows, which a hub that runs would feel.
        """
        now = await asyncio.to_thread(
            partial(condition.look, self.url, thorough=thorough, connect_args=self._connect_args)
        )
        before: Fingerprint | Unknown | None
        homes: bool | Unknown = UNKNOWN
        try:
            before = await self.known.read()
        except Doubt as doubt:
            self.log.warning("What is known of the hub's database cannot be read: %s", doubt)
            before = UNKNOWN
        if before is None and (now.state is not State.USABLE or not now.users):
            try:
                homes = await self._homes()
            except Doubt as doubt:
                self.log.warning("Whether there are homes cannot be found out: %s", doubt)
        case = Case(now, before, homes)
        return case, decide(case, self.on_loss)

    async def take(self, *, like: Fingerprint | None = None, deleted: int = 0) -> Fingerprint:
        """Take a fingerprint of the database as it is, and keep it.

        *like*: only when it still is the database of that fingerprint, with about as many users
        but for *deleted* ones. It may have been emptied since it was looked at; a fingerprint of
        that would make the loss the new normal.

        Raises:
            Doubt: the database or the place of fingerprints cannot be used. The former one stays.
        """
        known = await self.known.read()
        fingerprint = await asyncio.to_thread(self._take, known, like, deleted)
        await self.known.write(fingerprint)
        return fingerprint

    def _take(
        self, known: Fingerprint | None, like: Fingerprint | None, deleted: int
    ) -> Fingerprint:
        try:
            # The hub has made it by now, or an operator has named it: it is not made here.
            engine = condition.open_engine(self.url, self._connect_args)
            try:
                with engine.begin() as connection:
                    found = condition.count(connection)
                    if found.state is not State.USABLE:
                        raise Doubt(f"the hub's database is not usable: {found.why}")
                    if like is not None and (
                        found.identity != like.identity
                        or is_fewer(found.users + deleted, like.users)
                    ):
                        raise Doubt("the hub's database has changed since it was looked at")
                    mark = identity.advance(connection, known.epoch if known else 0)
            finally:
                engine.dispose()
        except (SQLAlchemyError, ImportError) as error:
            raise Doubt(f"the hub's database cannot be used: {type(error).__name__}") from error
        if (path := condition.sqlite_path(self.url)) is not None:
            try:
                condition.mark_volume(path, mark.identity)
            except OSError as error:
                self.log.warning("The database's volume cannot be marked: %s", error)
        return self._fingerprint(found, mark)

    def _fingerprint(self, found: Condition, mark: identity.Identity) -> Fingerprint:
        return Fingerprint(
            mark.identity,
            mark.epoch,
            found.revision,
            found.users,
            found.highest_id,
            self._now().isoformat(timespec="milliseconds"),
            condition.address(self.url),
        )

    def record(self, case: Case, decision: Decision) -> dict[str, Any]:
        """JSON-ready: for commands, journal and page."""
        before = case.before
        return {
            **decision.record(),
            "state": case.condition.state,
            "users": case.condition.users,
            "known_users": before.users if isinstance(before, Fingerprint) else None,
            "known_since": before.taken if isinstance(before, Fingerprint) else None,
        }
