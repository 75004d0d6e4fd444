"""The database is looked at while the hub runs; a hub that has lost it ends."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from jupyterhub import orm
from kubespawner.clients import shared_client
from sqlalchemy import event

from jhub_safety import metrics
from jhub_safety.errors import SafetyError
from jhub_safety.hub.guarded import GuardedHub
from jhub_safety.hub.recovering import RunningLab, relink
from jhub_safety.hub.rescuing import FileId, file_id, rescue
from jhub_safety.hub.running import RunningHub
from jhub_safety.hubdb import identity
from jhub_safety.hubdb.guard import DatabaseGuard
from jhub_safety.hubdb.guarding import (
    UNKNOWN,
    WAITING,
    Case,
    Decision,
    Fingerprint,
    Row,
    Verdict,
    decide,
    is_fewer,
)

#: Seconds after which a fingerprint is taken anew although nothing has changed.
OLD = 600.0
#: Seconds between two looks before a loss under a running hub is believed.
AGAIN = 5.0
#: Seconds after users were deleted until the next look: one that is killed soon after must not
#: find fewer users than known.
SOON = 2.0
#: Seconds for the last fingerprint of a hub that ends.
AT_THE_END = 5.0
#: What the process of a hub ends with whose database was lost under it.
LOST_UNDER_IT = 70


class Watch:
    """Of one hub process, from its start to its end."""

    def __init__(self, hub: GuardedHub) -> None:
        self._hub, self._app = hub, hub.app
        self._file: FileId | None = None
        #: Users that the hub itself has deleted since the last fingerprint.
        self._deleted = 0
        self._last: Fingerprint | None = None
        self._task: asyncio.Task[None] | None = None
        #: None: not known whether there are any.
        self._to_relink: tuple[RunningLab, ...] | None = None
        self._wake = asyncio.Event()
        self._rescued: Path | None = None

    def begin(self, to_relink: tuple[RunningLab, ...] | None = None) -> None:
        if self._hub.unguarded():
            return
        self._to_relink = to_relink
        event.listen(orm.User, "after_delete", self._count_deletion)
        self._file = file_id(self._app.db_url)
        self._task = asyncio.ensure_future(self._run())

    async def end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            if self._deleted:
                # The next hub would find fewer users than known.
                with suppress(SafetyError, TimeoutError):
                    async with asyncio.timeout(AT_THE_END):
                        await self._hub.with_guard(self._pass)

    def _count_deletion(self, *_: Any) -> None:
        self._deleted += 1
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._try(self._relink, "Running labs were not taken up")
            look = partial(self._hub.with_guard, self._pass)
            await self._try(look, "The hub's database could not be looked at")
            with suppress(TimeoutError):
                async with asyncio.timeout(self._hub.guard.interval):
                    await self._wake.wait()
                    await asyncio.sleep(SOON)
            self._wake.clear()

    async def _try(self, work: Callable[[], Awaitable[None]], failed: str) -> None:
        try:
            await work()
        except SafetyError as error:
            self._app.log.warning("%s: %s", failed, error)
        except Exception:
            self._app.log.exception("%s", failed)

    async def _relink(self) -> None:
        """Of a database that was made again; by this process, one that was killed, or a command."""
        if not identity.to_relink(self._app.db.connection()):
            return
        labs = self._to_relink
        if labs is None:
            labs = (await self._hub.gather()).labs
        hub = RunningHub(self._app, self._hub.inventory(shared_client("CoreV1Api")))
        done = await relink(hub, labs, self._app.log)
        identity.relinked(self._app.db.connection())
        self._app.db.commit()
        self._app.log.warning("%d of %d running labs are sessions again", done, len(labs))

    async def _look_while_running(self, guard: DatabaseGuard) -> tuple[Case, Decision, bool]:
        """With whether it is lost."""
        case, decision = await guard.look(thorough=False)
        if case.before is UNKNOWN and self._last is not None:
            # The cluster does not answer; what this process wrote itself is known all the same.
            case = replace(case, before=self._last)
            decision = decide(case, guard.on_loss)
        if decision.row in WAITING:
            # Not lost. This hub cannot write either, and says so; its labs' users go on working,
            # which they could not with a hub that holds.
            self._app.log.error("The hub's database (%s): %s", decision.row, decision.why)
            metrics.DATABASE_GUARD.labels(decision.row, "seen-while-running").inc()
        gone = decision.verdict in (Verdict.RECOVER, Verdict.HOLD)
        gone = gone and decision.row not in WAITING | {Row.UNKNOWN_BEFORE}
        return case, decision, gone or self._replaced()

    async def _pass(self, guard: DatabaseGuard) -> None:
        case, decision, lost = await self._look_while_running(guard)
        if lost and not self._explained(case, decision):
            await asyncio.sleep(AGAIN)
            case, decision, lost = await self._look_while_running(guard)
            if lost and not self._explained(case, decision):
                await self._lost(decision)
                return
        if decision.row is Row.UNKNOWN_BEFORE or decision.row in WAITING:
            return
        before = case.before if isinstance(case.before, Fingerprint) else None
        known = self._last or before
        now = case.condition
        same = known is not None and (known.users, known.highest_id, known.revision) == (
            now.users,
            now.highest_id,
            now.revision,
        )
        if not (same and self._last and self._age(self._last) < OLD):
            # Those that are deleted meanwhile count for the next one.
            deleted = self._deleted
            told = decision.row in (Row.AS_BEFORE, Row.FEWER_USERS, Row.NO_USERS)
            sure = before is not None and before.users > 0 and told and not now.renewed
            self._last = await guard.take(like=before if sure else None, deleted=deleted)
            self._deleted -= deleted

    @staticmethod
    def _age(fingerprint: Fingerprint) -> float:
        return (datetime.now(UTC) - datetime.fromisoformat(fingerprint.taken)).total_seconds()

    def _explained(self, case: Case, decision: Decision) -> bool:
        """Users are fewer since the hub deleted them."""
        before = case.before
        return (
            not self._replaced()
            and decision.row in (Row.FEWER_USERS, Row.NO_USERS)
            and isinstance(before, Fingerprint)
            and not is_fewer(case.condition.users + self._deleted, before.users)
        )

    def _replaced(self) -> bool:
        return self._file is not None and file_id(self._app.db_url) not in (self._file, None)

    async def _lost(self, decision: Decision) -> None:
        """The database went away under a hub that runs."""
        metrics.DATABASE_GUARD.labels(decision.row, "lost-while-running").inc()
        log = self._app.log
        if self._rescued is None:
            self._rescued = rescue(self._app, self._file)
        rescued = self._rescued
        kept = f" What this hub still had was written to {rescued}." if rescued else ""
        why = "its file was replaced" if decision.verdict is Verdict.SERVE else decision.why
        if self._hub.guard.on_loss == "ignore":
            log.error("The hub's database: %s.%s on_loss is ignore: going on", why, kept)
            return
        story = (
            f"The hub's database: {why}.{kept} This process ends, so that the next one looks at it "
            "before it serves; running labs are left alone"
        )
        log.critical("%s", story)
        self._hub.write("end-hub", replace(decision, why=why), "done", rescued=str(rescued or ""))
        await self._hub.tell("HubDatabaseLost", story)
        # Not the hub's own way out: it would stop and write by a database that is not its own.
        os._exit(LOST_UNDER_IT)
