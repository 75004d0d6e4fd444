"""The database is looked at before the hub opens it: served, made again, or held on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import wraps
from math import inf
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
    finished,
    former_identity,
    rebuild,
    set_aside,
)
from jhub_safety.hub.settling import SETTLED, Settling, Sight, sight
from jhub_safety.hub.snapshots import backups_of, restore_newest, restored_for_review
from jhub_safety.hub.watching import Watch
from jhub_safety.hubdb import repair
from jhub_safety.hubdb.alone import Lock, alone, lock_state
from jhub_safety.hubdb.guarding import Case, Decision, Fingerprint, Row, Verdict
from jhub_safety.hubdb.identity import CLUSTER
from jhub_safety.hubdb.records import read
from jhub_safety.recovery.rebuild import Unclear

#: Seconds between two looks of a hub that holds.
HOLDING = 5.0
#: Seconds between two attempts to make the database again.
RETRY = 60.0
#: Claims that are told one by one; of the others there is a number.
UNCLEAR = 20


@dataclass(slots=True)
class Attempt:
    """To make a database again, or to finish that. Under the lock."""

    case: Case
    decision: Decision
    seen: Sight
    gathered: Gathered
    lock: Lock
    #: Where what was left of the lost one is.
    aside: object = ""
    begun: bool = False


class HubGuard:
    """The guard of one hub process until it opens its database."""

    def __init__(self, hub: GuardedHub, clock: Callable[[], float] = time.monotonic) -> None:
        self.hub, self._app = hub, hub.app
        self._told = ("", "")
        self._clock = clock
        self._tried = -inf
        self._settling = Settling(clock)
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
                settled = self._settling.seen(sight(self._app.db_url, case.condition))
                metrics.DATABASE_GUARD.labels(decision.row, decision.verdict).inc()
                if decision.verdict is Verdict.RECOVER and held is not None and not settled:
                    # Somebody may be putting the right one back, as they were asked to.
                    self._say_wait(decision)
                elif decision.verdict is Verdict.RECOVER or self._to_finish(case, decision):
                    if self._clock() - self._tried >= RETRY:
                        self._tried = self._clock()
                        problem = self._recover(case, decision)
                        if problem is None:
                            continue
                        held = self._say_hold(
                            decision, f"{decision.why}. Not recovered: {problem}", held
                        )
                elif decision.verdict in (Verdict.SERVE, Verdict.ALARM):
                    at_work = self._at_work(decision)
                    if not at_work:
                        self._first = decision.row is Row.FIRST_START
                        self._serve(decision, held)
                        return
                    if held is None or decision.row != held.row:
                        held = self._say_hold(decision, f"{at_work}. Nothing was changed", held)
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

    def _to_finish(self, case: Case, decision: Decision) -> bool:
        """Whether it was made again by a process that ended, or failed, before it was done."""
        serves = decision.verdict in (Verdict.SERVE, Verdict.ALARM)
        return serves and bool(case.condition.unfinished) and self.hub.guard.on_loss != "ignore"

    def _recover(self, case: Case, decision: Decision) -> str | None:
        """Why it was not; None: it was made again, or is not as it was. To be looked at anew."""
        seen = sight(self._app.db_url, case.condition)
        try:
            gathered = apart(self.hub.gather)
            with alone(self._app.db_url, self._connect_args) as lock:
                return self._try(Attempt(case, decision, seen, gathered, lock))
        except SafetyError as error:
            self.hub.write("recover-database", decision, f"failed: {error}")
            return f"{error}. Nothing was changed"

    @property
    def _connect_args(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self._app.db_kwargs.get("connect_args")
        return found

    def _at_work(self, decision: Decision) -> str:
        """Why a database is not served on yet that could be; "" when it is."""
        state, why = lock_state(self._app.db_url, self._connect_args)
        if state == "free":
            return ""
        # One that is in order is not the half of one that another process is making: they exchange
        # files by a rename and write users in one transaction, MySQL renames its tables in one
        # statement, and one without what the cluster knows is told by its mark. So it is served
        # although the lock never works; one that is empty, or whose past is not known, is not.
        served = decision.verdict is Verdict.SERVE or self.hub.guard.on_loss == "ignore"
        if state == "held" or not served:
            return why
        metrics.DATABASE_GUARD.labels(decision.row, Verdict.ALARM).inc()
        self._alarm(decision, why)
        return ""

    def _try(self, attempt: Attempt) -> str | None:
        decision = attempt.decision
        try:
            # Another hub, or a person, may have made it good meanwhile, or be at it.
            now, again = self._look()
            if again != decision or sight(self._app.db_url, now.condition) != attempt.seen:
                self._tried = -inf
                return None
            if decision.verdict is Verdict.RECOVER:
                self._make_again(attempt)
            else:
                self._finish(attempt)
        except SafetyError as error:
            aside = str(attempt.aside)
            self.hub.write("recover-database", decision, f"failed: {error}", aside=aside)
            if aside:
                return f"{error}. What was left of it is {aside}"
            return f"{error}. Nothing was {'deleted' if attempt.begun else 'changed'}"
        return None

    def _make_again(self, attempt: Attempt) -> None:
        decision, people = attempt.decision, attempt.gathered.people
        attempt.lock.require()
        attempt.begun = True
        restored = apart(lambda: self._restore(attempt))
        if restored is None and not people.users:
            raise Doubt("no claim and no lab in the cluster names a user")
        if restored is not None:
            attempt.aside = restored["aside"]
        attempt.lock.require()
        if restored is None and decision.row is not Row.NO_USERS:
            attempt.aside = set_aside(self._app.db_url) or ""
        done = self._add(attempt, restored["snapshot"] if restored else CLUSTER)
        done["restored_users"] = restored["users"] if restored else 0
        admins = configured_admins(self._app.config)
        review = restored_for_review(restored, admins) if restored else None
        brief = {"review": review.brief()} if review is not None else {}
        self._done(attempt, {**done, **brief}, _story(decision, done))
        for line in review.lines(str(done["snapshot"])) if review is not None else ():
            self._app.log.warning("%s", line)
        self._is_over(people.unclear)

    def _finish(self, attempt: Attempt) -> None:
        """What was to be done after the snapshot was in its place, or the users written."""
        attempt.lock.require()
        attempt.begun = True
        done = self._add(attempt, attempt.case.condition.unfinished)
        # How many users it had.
        done["restored_users"] = attempt.case.condition.users
        self._done(attempt, done, _story_of_rest(done))
        if done["snapshot"]:
            self._app.log.warning(
                "Administrators and tokens that came back with snapshot %s are to be looked "
                "through. The journal has them (restore-database, begun); all are listed by: "
                "jhub-safety db restore %s --dry-run --json",
                done["snapshot"],
                done["snapshot"],
            )
        self._is_over(attempt.gathered.people.unclear)

    def _add(self, attempt: Attempt, source: str) -> dict[str, Any]:
        """What the cluster knows. *source*: as :class:`Identity` has it, until all is over."""
        gathered = attempt.gathered
        former = former_identity(attempt.case)
        written = rebuild(
            self._app.db_url,
            gathered.people,
            admins=configured_admins(self._app.config),
            db_kwargs=self._app.db_kwargs,
            former=former and replace(former, unfinished=source),
        )
        apart(lambda: self.hub.with_guard(lambda guard: guard.take()))
        self.to_relink = gathered.labs
        return {
            "seconds": round(self._clock() - self._tried, 1),
            "aside": str(attempt.aside),
            "snapshot": "" if source == CLUSTER else source,
            "restored_users": 0,
            "users": written.users,
            "servers": written.servers,
            "labs": len(gathered.labs),
        }

    def _done(self, attempt: Attempt, done: dict[str, Any], story: str) -> None:
        self.hub.write("recover-database", attempt.decision, "done", **done)
        metrics.DATABASE_GUARD.labels(attempt.decision.row, "recovered").inc()
        self._app.log.warning("%s", story)
        self._tell("HubDatabaseRecovered", story)

    def _is_over(self, unclear: tuple[Unclear, ...]) -> None:
        """Told in full; until then the next start would do it again."""
        self._say_unclear(unclear)
        finished(self._app.db_url, self._connect_args)

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

    async def _restore(self, attempt: Attempt) -> dict[str, Any] | None:
        before = attempt.case.before
        assert isinstance(before, Fingerprint)  # noqa: S101 - nothing is recovered without one
        backups = backups_of(self._app, self.hub.hub_name, self.hub.journal)

        def about_to(come: Mapping[str, Any]) -> None:
            # It took a while to fetch it.
            attempt.lock.require()
            # Who comes back is written down first: nobody would learn of it from a process that
            # is killed right after.
            review = restored_for_review(come, configured_admins(self._app.config)).brief()
            told = {"snapshot": come["snapshot"], "passed": come["passed"], "review": review}
            self.hub.write("restore-database", attempt.decision, "begun", **told)
            if come["passed"]:
                self._app.log.warning("Snapshots that were passed over: %s", come["passed"])

        handle = attempt.lock.handle
        keeping = () if handle is None else (handle,)
        return await restore_newest(
            backups, self._app.db_url, before, about_to=about_to, keeping=keeping
        )

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
        self._alarm(decision, decision.why)

    def _alarm(self, decision: Decision, why: str) -> None:
        story = (
            f"The hub's database ({decision.row}): {why}. The hub serves all the same; "
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

    def _say_wait(self, decision: Decision) -> None:
        if self._told[0] != decision.row:
            self._app.log.warning(
                "The hub's database (%s): %s. Somebody may be putting it back: it is made again "
                "once it has looked the same for %.0f s",
                decision.row,
                decision.why,
                SETTLED,
            )

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


def _story_of_rest(done: dict[str, Any]) -> str:
    source = f"snapshot {done['snapshot']}" if done["snapshot"] else "the cluster"
    return (
        f"The hub's database was made again from {source} by a process that ended before all was "
        f"done. The rest was done in {done['seconds']} s, from the cluster: {done['users']} users "
        f"more, {done['servers']} of their servers, {done['labs']} labs that run"
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
