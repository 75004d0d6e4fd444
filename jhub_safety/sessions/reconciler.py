"""Compare sessions, routes and labs every few minutes, and mend what is certain."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Self

from traitlets import Bool, Enum, Float, Unicode
from traitlets.config import LoggingConfigurable
from traitlets.utils.importstring import import_item

from jhub_safety import metrics
from jhub_safety.collector import resting
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.journal import Journal
from jhub_safety.plan import Plan
from jhub_safety.sessions.absence import APART, Absences
from jhub_safety.sessions.act import UNCHANGED, Executor, Outcome
from jhub_safety.sessions.decide import decide
from jhub_safety.sessions.hub import Hub
from jhub_safety.sessions.inventory import Inventory
from jhub_safety.sessions.kubernetes import KubernetesInventory
from jhub_safety.sessions.model import (
    Judgement,
    LabState,
    Listing,
    Live,
    Observation,
    Rules,
    Server,
    Session,
    Verdict,
)
from jhub_safety.sessions.pause import FirstPass
from jhub_safety.sessions.report import Report, Since

#: Deletions of orphans within this many seconds count for the cap.
HOUR = 3600.0


class SessionReconciler(LoggingConfigurable):  # type: ignore[misc]
    """Keeps the hub's sessions, the proxy's routes and the labs in step (docs: Sessions)."""

    enabled = Bool(
        True,
        config=True,
        help="""
        Compare all sessions with all labs, at hub start and every ``interval`` seconds.

        Off, a session whose lab is gone is found by KubeSpawner's own polls, and a lab without a
        session when its user starts a server.

        .. versionadded:: 0.1
        """,
    )
    interval = Float(
        300.0,
        min=10.0,
        config=True,
        help="""
        Seconds between the end of one pass and the beginning of the next.

        A session counts as stale after two passes that are at least 60 seconds apart.

        .. versionadded:: 0.1
        """,
    )
    dry_run = Bool(
        False,
        config=True,
        help="""
        Report in the log and the metrics what would be done, and do nothing.

        The first pass after an upgrade of this library is dry by itself.

        .. versionadded:: 0.1
        """,
    )
    orphans = Enum(
        ["report", "relink", "delete"],
        "report",
        config=True,
        help="""
        What to do about a lab of this hub that no session names.

        ``report``: log it; its user's next start takes it up. ``relink``: make it their session
        again while it goes on running. ``delete``: delete it ``orphan_age`` seconds after it was
        first seen without a session.

        Danger: ``delete`` ends labs that may hold unsaved work; where a lost hub database was not
        made again (``DatabaseGuard.on_loss``), every lab is an orphan.

        .. versionadded:: 0.1
        """,
    )
    orphan_age = Float(
        86400.0,
        min=60.0,
        config=True,
        help="""
        Seconds for which this hub process must have seen a lab without a session, in every pass,
        before ``orphans = "delete"`` deletes it.

        .. versionadded:: 0.1
        """,
    )
    pending_limit = Float(
        3600.0,
        min=0.0,
        config=True,
        help="""
        Seconds after which a server whose lab is still Pending, and which no start is waiting
        for, is stopped. 0: never.

        Starts themselves end by ``start_timeout``.

        Danger: less than your slowest node takes to come up ends servers that would have run.

        .. versionadded:: 0.1
        """,
    )
    inventory_class = Unicode(
        "jhub_safety.sessions.kubernetes.KubernetesInventory",
        config=True,
        help="""
        Where labs are asked for: dotted path of a subclass of
        ``jhub_safety.sessions.inventory.Inventory``.

        .. versionadded:: 0.1
        """,
    )
    inventory_timeout = Float(
        30.0,
        min=0.1,
        config=True,
        help="""
        Seconds for one request for all labs; the pass is given up after that, and nothing is done.

        .. versionadded:: 0.1
        """,
    )

    control_socket = Unicode(
        "",
        config=True,
        help="""
        Unix socket through which ``jhub-safety sessions`` asks the running hub. Empty: one of
        the hub's name below the temporary directory.

        Danger: who can open it can end every session. It has mode 0600; its directory must not
        be writable by others, and must be on a file system that has sockets (NFS has none).

        .. versionadded:: 0.1
        """,
    )

    @property
    def on_kubernetes(self) -> bool:
        """False where labs are asked for elsewhere, and the spawner may be no KubeSpawner."""
        return issubclass(import_item(self.inventory_class), KubernetesInventory)

    #: The last pass that was whole.
    last: Report | None = None

    def attach(
        self,
        hub: Hub,
        inventory: Inventory,
        *,
        label: str,
        absences: Absences,
        journal: Journal,
        paused: Callable[[], Awaitable[str]],
        first_pass: FirstPass | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> Self:
        """Give it what it compares; before the first pass.

        Args:
            label: value of this hub's label on labs.
            paused: why nothing may be done just now, or "".
            first_pass: of each version of this library, which changes nothing; None: there is
                no such thing here.
            clock: seconds that only grow.
        """
        self._hub, self._inventory, self._label = hub, inventory, label
        self._absences = absences
        self._paused, self._first_pass = paused, first_pass
        self._clock = clock
        self._executor = Executor(hub, inventory, journal, self.log)
        self._pending = Since(clock)
        self._orphans = Since(clock)
        self._deleted: list[float] = []
        self._told: set[tuple[Server | None, str]] = set()
        self._one_at_a_time = asyncio.Lock()
        return self

    # -- a pass

    async def run(self) -> None:
        """Pass after pass, until cancelled. A pass that fails is logged, and the next one runs."""
        while True:
            try:
                await self.one_pass()
            except Doubt as doubt:
                self.log.warning("Sessions were not compared: %s. Nothing was changed.", doubt)
            except Exception:
                self.log.exception("Sessions were not compared. Nothing else is affected.")
            await asyncio.sleep(self.interval)

    async def one_pass(self, *, dry: str = "", everything: bool = False) -> Report:
        """Observe, decide, act. Passes wait for one another.

        Args:
            dry: why nothing is to be done; "" for a pass that acts.
            everything: list also the servers that are in step.

        Raises:
            Doubt: one of the records could not be read whole. Nothing was done.
        """
        async with self._one_at_a_time:
            started = self._clock()
            try:
                seen = await self.survey()
            except Doubt:
                metrics.SESSION_PASSES.labels(outcome="doubt").inc()
                raise
            judgement = await self.judge(seen, everything=everything)
            dry = dry or await self.why_dry()
            outcomes = () if dry else await self._act(judgement.plan)
            await self._first_pass_is_done()
            report = Report(datetime.now(UTC), self._clock() - started, judgement, dry, outcomes)
            self.last = report
            self._tell(report)
            return report

    async def judge(self, seen: Observation, *, everything: bool = False) -> Judgement:
        """In a thread: with 10,000 sessions it takes longer than a request may wait."""
        rules = self._rules(len(seen.sessions))

        def judge() -> Judgement:
            with resting():
                return decide(seen, rules, self._label, everything=everything)

        return await asyncio.to_thread(judge)

    async def survey(self, *, over_cap: bool = False, count: bool = True) -> Observation:
        """Read the three records.

        Sessions and labs at the same time, the hub's memory after them: what starts or stops
        meanwhile is pending there, or is missing once, which is no harm.

        *count*: what is missing counts as seen missing once more.

        Raises:
            Doubt: sessions or labs could not be read whole.
        """
        sessions, listing = await self._rows_and_labs()
        live = await self._hub.live()
        missing = await asyncio.to_thread(
            self._missing, sessions, listing, live, over_cap=over_cap, count=count
        )
        identities = await self._inventory.identify(_unnamed(sessions, listing))
        users = await self._hub.known_users(
            {one.server.user for one in identities.values() if one.server is not None}
        )
        routes = await self._hub.routes()
        unnamed = {(*key, one.uid) for key, one in identities.items()}
        pending = _pending(sessions, listing, live)
        return Observation(
            sessions,
            listing,
            live,
            routes,
            identities,
            users,
            due=missing,
            over_cap=self._absences.over_cap(len(sessions)),
            pending_for=self._pending.update(pending),
            orphan_for=self._orphans.update(unnamed),
        )

    async def believed(self) -> tuple[tuple[Session, ...], Mapping[Server, Live] | None]:
        """The hub's own records; no lab is asked for. Raises Doubt."""
        return await self._hub.sessions(), await self._hub.live()

    async def _rows_and_labs(self) -> tuple[tuple[Session, ...], Listing]:
        if not self._inventory.needs_sessions:
            rows = asyncio.ensure_future(self._hub.sessions())
            labs = asyncio.ensure_future(self._inventory.take(()))
            try:
                # No TaskGroup: it would wrap Doubt.
                return await asyncio.gather(rows, labs)
            finally:
                rows.cancel()
                labs.cancel()
        sessions = await self._hub.sessions()
        return sessions, await self._inventory.take(sessions)

    def _missing(
        self,
        sessions: tuple[Session, ...],
        listing: Listing,
        live: Mapping[Server, Live] | None,
        *,
        over_cap: bool,
        count: bool,
    ) -> frozenset[Server]:
        """Count what is missing; those that one more live answer may end."""
        there = listing.labs
        for key in self._absences.suspected():
            # Names are one hub's own; a lab of that name elsewhere is no proof of this one's end.
            if key.partition("/")[2] in there:
                self._absences.seen(key)
        due = set()
        for one in sessions:
            if one.lab in there or not one.lab:
                continue
            if live is not None and one.server in live and live[one.server].pending:
                continue  # the hub itself is looking, or there is no lab yet
            key = f"{one.namespace}/{one.lab}"
            if count:
                self._absences.missing(key)
            if over_cap or self._absences.is_due(key, len(sessions)):
                due.add(one.server)
        return frozenset(due)

    def _rules(self, sessions: int) -> Rules:
        now = self._clock()
        self._deleted = [at for at in self._deleted if now - at <= HOUR]
        cap = max(2, sessions // 10)
        return Rules(
            orphans=self.orphans,
            orphan_age=self.orphan_age,
            pending_limit=self.pending_limit,
            settled=APART,
            deletions=max(0, cap - len(self._deleted)),
        )

    async def why_dry(self) -> str:
        """Why a pass would change nothing just now; "" when it would."""
        if self.dry_run:
            return "SessionReconciler.dry_run is on"
        try:
            if why := await self._paused():
                return why
            if self._first_pass is not None and await self._first_pass.is_news():
                return "the first pass of this version of jhub-safety"
        except Doubt as doubt:
            # Somebody may have paused it.
            return f"whether it is paused is not known ({doubt})"
        return ""

    async def _first_pass_is_done(self) -> None:
        if self._first_pass is None:
            return
        try:
            await self._first_pass.done()
        except (Conflict, Doubt) as error:
            self.log.warning("The next pass changes nothing, either: %s", error)

    async def execute(self, plan: Plan) -> tuple[Outcome, ...]:
        """Carry out a plan on an operator's word.

        It does not wait for a pass: that may hang in the very stop that is to be given up. Each
        action reads its target again, and leaves what the hub is busy with.
        """
        return await self._act(plan)

    async def _act(self, plan: Plan) -> tuple[Outcome, ...]:
        outcomes = await self._executor.execute(plan)
        self._deleted += [
            self._clock()
            for one in outcomes
            if one.action.kind == "delete-lab" and not one.outcome.startswith(UNCHANGED)
        ]
        return outcomes

    def _tell(self, report: Report) -> None:
        judgement = report.judgement
        metrics.SESSION_PASSES.labels(outcome="dry" if report.dry else "done").inc()
        metrics.SESSION_PASS_SECONDS.set(report.seconds)
        for verdict in Verdict:
            metrics.SESSIONS.labels(verdict=str(verdict)).set(judgement.counts.get(verdict, 0))
        counts = ", ".join(f"{n} {verdict}" for verdict, n in sorted(judgement.counts.items()))
        self.log.info("Sessions compared in %.2f s: %s", report.seconds, counts or "none")
        told = set()
        for finding in judgement.findings:
            if finding.verdict in (Verdict.IN_STEP, Verdict.BUSY, Verdict.FOREIGN):
                continue
            told.add((finding.server, finding.why))
            # Once for each: what nobody acts on would be said every five minutes.
            known = (finding.server, finding.why) in self._told
            tell = self.log.debug if known else self.log.warning
            tell("Server %s: %s, %s", finding.server, finding.verdict, finding.why)
        self._told = told
        if report.dry and judgement.plan:
            self.log.warning("%d actions not taken: %s", len(judgement.plan.actions), report.dry)


def _unnamed(sessions: tuple[Session, ...], listing: Listing) -> list[Any]:
    named = {session.lab for session in sessions}
    return [lab for name, labs in listing.labs.items() if name not in named for lab in labs]


def _pending(
    sessions: tuple[Session, ...], listing: Listing, live: Mapping[Server, Live] | None
) -> set[Server]:
    waiting = {name for name, labs in listing.labs.items() if labs[0].state is LabState.PENDING}
    busy = {server for server, one in (live or {}).items() if one.pending}
    return busy | {one.server for one in sessions if one.lab in waiting} if waiting else busy
