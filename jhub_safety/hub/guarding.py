"""The database is looked at before the hub opens it: served, made again, or held on."""

from __future__ import annotations

import time
from functools import wraps
from typing import Any
from urllib.parse import urlsplit

from jupyterhub.app import JupyterHub

from jhub_safety import metrics
from jhub_safety.errors import Doubt, SafetyError
from jhub_safety.hub.apart import apart
from jhub_safety.hub.guarded import GuardedHub
from jhub_safety.hub.holding import Hold
from jhub_safety.hub.recovering import (
    Gathered,
    RunningLab,
    configured_admins,
    former_identity,
    rebuild,
    set_aside,
)
from jhub_safety.hub.snapshots import backups_of, restore_newest, restored_for_review
from jhub_safety.hub.watching import Watch
from jhub_safety.hubdb import repair
from jhub_safety.hubdb.alone import alone
from jhub_safety.hubdb.guarding import Case, Decision, Row, Verdict
from jhub_safety.hubdb.identity import Identity
from jhub_safety.hubdb.records import read
from jhub_safety.recovery.rebuild import Unclear

#: Seconds between two looks of a hub that holds.
HOLDING = 5.0
#: Seconds between two attempts to make the database again.
RETRY = 60.0
#: Claims that are told one by one; of the others there is a number.
UNCLEAR = 20


class HubGuard:
    """The guard of one hub process until it opens its database."""

    def __init__(self, hub: GuardedHub) -> None:
        self.hub, self._app = hub, hub.app
        self._told = ("", "")
        self._tried = -RETRY
        self._first = False
        #: Running labs, when the database was made again by this process.
        self.to_relink: tuple[RunningLab, ...] | None = None

    def before_database(self) -> None:
        """Returns when the hub may open its database."""
        if why := self.hub.unguarded():
            self._app.log.info("The hub's database is not guarded: %s", why)
            return
        hold: Hold | None = None
        held: Decision | None = None
        try:
            while True:
                case, decision = self._look()
                metrics.DATABASE_GUARD.labels(decision.row, decision.verdict).inc()
                if decision.verdict in (Verdict.SERVE, Verdict.ALARM):
                    at_work = self._at_work()
                    if not at_work:
                        self._first = decision.row is Row.FIRST_START
                        self._serve(decision, held)
                        return
                    if held is None or decision.row != held.row:
                        held = self._say_hold(decision, f"{at_work}. Nothing was changed", held)
                elif decision.verdict is Verdict.RECOVER:
                    if time.monotonic() - self._tried >= RETRY:
                        self._tried = time.monotonic()
                        problem = self._recover(case, decision)
                        if problem is None:
                            continue
                        held = self._say_hold(
                            decision, f"{decision.why}. Not recovered: {problem}", held
                        )
                elif held is None or decision.row != held.row:
                    held = self._say_hold(decision, f"{decision.why}. Nothing was changed", held)
                self._told = (decision.row, "jhub-safety db status")
                hold = hold or self._page()
                time.sleep(HOLDING)
        finally:
            if hold is not None:
                hold.close()

    def _look(self) -> tuple[Case, Decision]:
        return apart(lambda: self.hub.with_guard(lambda guard: guard.look()))

    def _recover(self, case: Case, decision: Decision) -> str | None:
        """Why it was not; None: it was made again, or is not as it was. To be looked at anew."""
        try:
            gathered = apart(self.hub.gather)
            with alone(self._app.db_url, self._connect_args):
                return self._make_again(case, decision, gathered)
        except SafetyError as error:
            self.hub.write("recover-database", decision, f"failed: {error}")
            return f"{error}. Nothing was changed"

    @property
    def _connect_args(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self._app.db_kwargs.get("connect_args")
        return found

    def _at_work(self) -> str:
        """Why a database that is in order is not served on yet: it may be the half of one."""
        try:
            with alone(self._app.db_url, self._connect_args, looking=True):
                return ""
        except SafetyError as error:
            return str(error)

    def _make_again(self, case: Case, decision: Decision, gathered: Gathered) -> str | None:
        aside: object = ""
        begun_to_change = False
        try:
            # Another hub, or a person, may have made it good meanwhile.
            if self._look()[1] != decision:
                self._tried = -RETRY
                return None
            former = former_identity(case)
            begun_to_change = True
            restored = apart(lambda: self._restore(former))
            if restored is None and not gathered.people.users:
                raise Doubt("no claim and no lab in the cluster names a user")
            if restored is not None:
                aside = restored["aside"]
            elif decision.row is not Row.NO_USERS:
                aside = set_aside(self._app.db_url) or ""
            written = rebuild(
                self._app.db_url,
                gathered.people,
                admins=configured_admins(self._app.config),
                db_kwargs=self._app.db_kwargs,
                former=former,
            )
            apart(lambda: self.hub.with_guard(lambda guard: guard.take()))
        except SafetyError as error:
            self.hub.write("recover-database", decision, f"failed: {error}", aside=str(aside))
            if aside:
                return f"{error}. What was left of it is {aside}"
            return f"{error}. Nothing was {'deleted' if begun_to_change else 'changed'}"
        self.to_relink = gathered.labs
        done = {
            "seconds": round(time.monotonic() - self._tried, 1),
            "aside": str(aside),
            "snapshot": restored["snapshot"] if restored else "",
            "restored_users": restored["users"] if restored else 0,
            "users": written.users,
            "servers": written.servers,
            "labs": len(gathered.labs),
        }
        admins = configured_admins(self._app.config)
        review = restored_for_review(restored, admins) if restored else None
        self.hub.write(
            "recover-database",
            decision,
            "done",
            **done,
            **({"review": review.brief()} if review is not None else {}),
        )
        metrics.DATABASE_GUARD.labels(decision.row, "recovered").inc()
        story = _story(decision, done)
        self._app.log.warning("%s", story)
        self._tell("HubDatabaseRecovered", story)
        for line in review.lines(str(done["snapshot"])) if review is not None else ():
            self._app.log.warning("%s", line)
        self._say_unclear(gathered.people.unclear)
        return None

    def _say_unclear(self, unclear: tuple[Unclear, ...]) -> None:
        """Claims that name nobody. What a snapshot brought back may know whose they are."""
        try:
            records = read(self._app.db_url)
        except Doubt as doubt:
            self._app.log.warning("%s", doubt)
            return
        left = [one for one in unclear if not records.names(one.claim)]
        for one in left[:UNCLEAR]:
            self._app.log.warning("Claim %s: %s; nobody was made for it", one.claim, one.why)
        if len(left) > UNCLEAR:
            self._app.log.warning(
                "%d more claims name nobody; they are listed, with the hub stopped, by: "
                "jhub-safety db rebuild --unclear FILE",
                len(left) - UNCLEAR,
            )

    async def _restore(self, former: Identity | None) -> dict[str, Any] | None:
        backups = backups_of(self._app, self.hub.hub_name, self.hub.journal)
        return await restore_newest(backups, self._app.db_url, former)

    def _page(self) -> Hold | None:
        address = _address(self._app)
        try:
            hold = Hold(address, self._app.base_url, lambda: self._told)
        except OSError as error:
            self._app.log.warning("No page while the hub holds, at %s: %s", address, error)
            return None
        self._app.log.warning("The hub holds, and says so at http://%s:%s", *address)
        return hold

    # -- what is said

    def _serve(self, decision: Decision, held: Decision | None) -> None:
        if held is not None:
            self.hub.write("hold-hub", held, "ended", row=decision.row)
        if decision.verdict is Verdict.SERVE:
            self._app.log.info("The hub's database: %s", decision.why)
            return
        story = (
            f"The hub's database ({decision.row}): {decision.why}. The hub serves all the same; "
            "homes that exist are adopted, none is made new in their place. "
            "Run: jhub-safety db status"
        )
        self._app.log.error("%s", story)
        self._tell("HubDatabaseAlarm", story)

    def _say_hold(self, decision: Decision, why: str, held: Decision | None) -> Decision:
        story = (
            f"The hub's database ({decision.row}): {why}. Nobody can log in; homes and running "
            "labs are left alone. Run where the hub runs: jhub-safety db status"
        )
        self._app.log.critical("%s", story)
        if held is None or held.row != decision.row:
            self.hub.write("hold-hub", decision, "done")
            self._tell("HubDatabaseHeld", story)
        return decision

    def _tell(self, reason: str, story: str) -> None:
        apart(lambda: self.hub.tell(reason, story))

    def settle(self) -> None:
        """Of a database that the hub has made just now; at its next start it would hold on it."""
        if self._first:
            repair.settle(self._app.db.connection())
            self._app.db.commit()


def _story(decision: Decision, done: dict[str, Any]) -> str:
    snapshot = f" from snapshot {done['snapshot']} ({done['restored_users']} users)"
    return (
        f"The hub's database ({decision.row}): {decision.why}. It was made again in "
        f"{done['seconds']} s{snapshot if done['snapshot'] else ''}, and from the cluster: "
        f"{done['users']} users more, {done['servers']} of their servers, {done['labs']} labs that "
        f"run" + (f". What was left of it is {done['aside']}" if done["aside"] else "")
    )


def _address(app: JupyterHub) -> tuple[str, int]:
    """Where the hub would listen (app.py:1250, 6.1.1)."""
    parts = urlsplit(app.hub_bind_url) if app.hub_bind_url else None
    if parts is not None and parts.scheme in ("http", "https"):
        return (parts.hostname or "").replace("*", ""), parts.port or 8081
    return app.hub_ip.replace("*", ""), app.hub_port


def wire(app: JupyterHub, spawner_class: type | None) -> HubGuard:
    """Look before the database is opened, and while the hub runs, from its start to its end."""
    hub = GuardedHub(app, spawner_class)
    made, watch = HubGuard(hub), Watch(hub)
    start, cleanup = app.start, app.cleanup

    @wraps(start)
    async def started() -> None:
        made.settle()
        await start()
        if app._start_future.done():
            watch.begin(made.to_relink)

    @wraps(cleanup)
    async def cleaned_up() -> None:
        try:
            await watch.end()
        finally:
            await cleanup()

    app.start, app.cleanup = started, cleaned_up
    return made
