"""Carries out a plan of upgrades: a pod for each claim, watched to its end.

The pod does the work and needs nobody: a command that is killed leaves it running, and the next
one finds it by its name and waits for it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from jhub_safety.cluster.claims import ClaimsApi
from jhub_safety.cluster.pods import Pod, PodsApi
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.journal import Journal
from jhub_safety.plan import Action, Plan
from jhub_safety.sidecars import upgrade
from jhub_safety.sidecars.upgrade import Lab, Told, Wanted

#: Seconds for a pod's containers to come to run: nodes may be made for them, images pulled.
TO_RUN = 600.0
#: How old a listing of pods may be when a claim is begun; the lock on the volume holds beyond it.
FRESH = 15.0
LOOK = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one claim ended. *result*: ``done: ...``, ``unchanged: ...`` or ``failed: ...``."""

    action: Action
    result: str
    told: Told | None = None

    @property
    def failed(self) -> bool:
        return self.result.startswith("failed")

    def record(self) -> dict[str, object]:
        """JSON-ready."""
        return {
            "user": self.action.user,
            "server": self.action.server,
            "claim": self.action.name,
            "code": self.told.code if self.told else None,
            "result": self.result,
        }


class Mover:
    """*hub*: its name. *sleep* and *clock* are for tests."""

    def __init__(
        self,
        wanted: Wanted,
        claims: ClaimsApi,
        pods: PodsApi,
        lab: Lab,
        hub: str,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wanted, self._claims, self._pods = wanted, claims, pods
        self._lab, self._hub = lab, hub
        self._sleep, self._clock = sleep, clock
        self._users: dict[str, tuple[str, ...]] = {}
        self._seen_at: float | None = None
        self._looking = asyncio.Lock()

    async def execute(
        self,
        plan: Plan,
        journal: Journal,
        progress: Callable[[Outcome], None] = lambda _: None,
        at_once: int = 1,
    ) -> tuple[Outcome, ...]:
        """Every action of the very plan that was shown; one that fails stops no other."""
        places = asyncio.Semaphore(at_once)

        async def one(action: Action) -> Outcome:
            async with places:
                outcome = await self._one(action)
                journal.write(action, outcome.result)
                progress(outcome)
                return outcome

        return tuple(await asyncio.gather(*map(one, plan.actions)))

    async def _one(self, action: Action) -> Outcome:
        try:
            claim = await self._claims.read(action.name)
            if claim is None or claim.uid != action.uid or claim.deleting:
                return Outcome(
                    action, f"failed: claim {action.name} is not the one that was planned for"
                )
            if pods := await self._in_use(action.name):
                return Outcome(action, f"failed: {upgrade.in_use(action.name, pods)}", Told("busy"))
            told = await self._move(action, self._lab.uid, self._lab.gid)
            if told.code == "owner" and told.word(0) not in ("0", "?"):
                # Known only from within the volume; the next one's is most likely the same.
                uid, gid = int(told.word(0)), int(told.word(1))
                self._lab = replace(self._lab, uid=uid, gid=gid)
                told = await self._move(action, uid, gid)
        except (Conflict, Doubt, ValueError) as error:
            return Outcome(action, f"failed: {error}. Nothing is lost; run this again")
        return Outcome(action, told.sentence if told.done else f"failed: {told.sentence}", told)

    async def _in_use(self, claim: str) -> tuple[str, ...]:
        async with self._looking:
            if self._seen_at is None or self._clock() - self._seen_at > FRESH:
                self._users = upgrade.users_of_claims(await self._pods.list())
                self._seen_at = self._clock()
        return self._users.get(claim, ())

    async def _move(self, action: Action, uid: int, gid: int) -> Told:
        pod = await self._begin(action, uid, gid)
        told = await self._await_end(pod)
        # A failed one stays for its log, and holds no volume; the next run clears it away.
        if told.done or told.code in ("owner", "pull", "late"):
            await self._clear(pod)
        return told

    async def _begin(self, action: Action, uid: int, gid: int) -> Pod:
        made = upgrade.manifest(self._wanted, action, self._lab, self._hub, uid, gid)
        name = made["metadata"]["name"]
        there = await self._pods.read(name)
        if there is not None and not there.ended and not there.deleting:
            if there.annotations.get(upgrade.ANNOTATION) != made["metadata"]["annotations"].get(
                upgrade.ANNOTATION
            ):
                about = there.annotations.get(upgrade.ANNOTATION, "")
                with suppress(ValueError):
                    about = " ".join(f"{key} {text}" for key, text in json.loads(about).items())
                raise Conflict(f"pod {name} is at another upgrade of this claim ({about})")
            return there
        if there is not None:
            await self._clear(there)
        return await self._pods.create(made)

    async def _clear(self, pod: Pod) -> None:
        await self._pods.delete(pod)
        while (there := await self._pods.read(pod.name)) is not None and there.uid == pod.uid:
            await self._sleep(LOOK)

    async def _await_end(self, pod: Pod) -> Told:
        deadline = self._clock() + TO_RUN
        while True:
            there = await self._pods.read(pod.name)
            if there is None or there.uid != pod.uid:
                return Told("killed", ("deleted",))
            told = upgrade.told(there.status)
            if told is not None:
                return told
            if upgrade.is_running(there.status):
                deadline = float("inf")
            elif self._clock() > deadline:
                return upgrade.waits_for(there.status)
            await self._sleep(LOOK)
