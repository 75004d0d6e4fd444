"""What is known of the hub's database goes along with what an operator has put in its place.

Left where it was, the hub holds on the very database that was just restored: nearly every snapshot
is older than what is known.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jhub_safety.cli.connection import to_cluster
from jhub_safety.cli.dbguard import NEXT
from jhub_safety.cli.dbsite import DbSite
from jhub_safety.cluster.client import is_configured
from jhub_safety.cluster.notes import Note
from jhub_safety.errors import ConfigError, Doubt, SafetyError
from jhub_safety.hubdb.guard import DatabaseGuard
from jhub_safety.hubdb.guarding import Fingerprint, Verdict
from jhub_safety.hubdb.known import FiledKnown, Known, UnreachableKnown, had_homes, known_of
from jhub_safety.plan import Action

#: What moves it along by hand.
ACCEPT = "jhub-safety db accept"


@dataclass(frozen=True, slots=True)
class KnownHere:
    """*before*: what was known when the command began; *doubt*: why that could not be read."""

    guard: DatabaseGuard
    where: str
    before: Fingerprint | None = None
    doubt: str = ""

    @property
    def former(self) -> tuple[str, int] | None:
        """Which database the restored one goes on with, from its first moment."""
        return (self.before.identity, self.before.epoch) if self.before else None

    def action(self) -> Action | None:
        """For the plan; None where nothing is known, so that nothing has to go along."""
        if not self.guard.enabled or (self.before is None and not self.doubt):
            return None
        about = "what is known of it goes along: the hub serves on what was restored"
        if self.doubt:
            about = (
                f"what is known of it cannot be read ({self.doubt}): where the hub then holds, say "
                f"{ACCEPT}"
            )
        return Action("accept-database", "", self.where, about)

    async def go_along(self) -> tuple[str, str]:
        """Move it along. What came of it, for the journal, and what an operator is to do about it.

        The second is "" where the hub serves on what is there now.
        """
        outcome = "done"
        try:
            await self.guard.take()
        except SafetyError as error:
            outcome = f"failed: {error}"
        _, decision = await self.guard.look()
        if outcome != "done":
            return outcome, f"what is known of it was not moved along ({outcome}). Say: {ACCEPT}"
        if decision.verdict in (Verdict.SERVE, Verdict.ALARM):
            return outcome, ""
        return outcome, f"the hub will hold: {decision.why} ({decision.row}). {NEXT[decision.row]}"


@asynccontextmanager
async def known_here(site: DbSite) -> AsyncIterator[KnownHere]:
    """What is known of the database of *site*, and the way there as long as it is needed."""
    guard = DatabaseGuard(config=site.hub.everything)
    if not guard.enabled:
        yield KnownHere(guard, str(site.address))
        return
    file = guard.fingerprint_file
    async with AsyncExitStack() as stack:
        try:
            if not is_configured(site.options.context):
                raise Doubt("there is no cluster to ask")
            cluster = await stack.enter_async_context(to_cluster(site.options))
        except (ConfigError, Doubt) as error:
            doubt = Doubt(str(error).rstrip("."))
            known: Known = FiledKnown(Path(file)) if file else UnreachableKnown(doubt)
            homes = partial(_unknown, doubt)
        else:
            place = (cluster.api, site.namespace, site.hub.hub_name)
            known = known_of(file, partial(Note, *place))
            homes = partial(had_homes, *place)
        guard.attach(site.address.plain, known, homes, connect_args=site.connect_args)
        try:
            before, why = await known.read(), ""
        except Doubt as doubt:
            before, why = None, str(doubt)
        yield KnownHere(guard, str(site.address), before, why)


async def _unknown(doubt: Doubt) -> bool:
    raise doubt
