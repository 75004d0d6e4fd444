"""Carry out ``claims reattach``: volumes reserved or made, claims made, bound or told why not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from jhub_safety.cluster.claims import Claim, ClaimsApi
from jhub_safety.cluster.volumes import VolumesApi
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.journal import Journal
from jhub_safety.plan import Action
from jhub_safety.volumes.adopt import Outcome
from jhub_safety.volumes.reattach import Decision, Reattachment, Seen, decide
from jhub_safety.volumes.remake import (
    REATTACHED,
    claim_manifest,
    claim_ref,
    volume_manifest,
    wanted,
)

#: What an operator's account must be allowed to; said with every 403.
RIGHTS = (
    "an operator's account needs get, list and patch of persistentvolumes (create with "
    "--create-volumes), and get, list and create of persistentvolumeclaims"
)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long claims are waited for. *limit*: seconds in which none of them becomes Bound."""

    limit: float = 60.0
    pause: float = 1.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class _Changed(Exception):
    """The object is no longer as it was when the plan was made."""


async def execute(
    planned: Reattachment,
    seen: Seen,
    claims: ClaimsApi,
    volumes: VolumesApi,
    journal: Journal,
    *,
    patience: Patience | None = None,
    progress: Callable[[Outcome], None] = lambda _: None,
) -> tuple[Outcome, ...]:
    """Carry out the very plan that was shown; one outcome for each action that was begun.

    Before each write claim and volume are read and decided about again, so that it may be run
    again after it was interrupted anywhere: what is done already is left as it is. An entry that
    fails is left there, and the others go on.
    """
    outcomes: list[Outcome] = []

    def ended(action: Action, result: str, *, wrote: bool = True) -> None:
        journal.write(action, result if wrote or result != "done" else "unchanged")
        outcomes.append(Outcome(action, result))
        progress(outcomes[-1])

    waiting: dict[str, Action] = {}
    for decision in planned.decisions:
        for action in decision.actions:
            if action.kind == "bind-claim":
                waiting[action.name] = action
                break
            try:
                wrote = await _execute_one(planned, decision, action, seen, claims, volumes)
            except (_Changed, Conflict, Doubt) as error:
                ended(action, f"failed: {told(error)}")
                break
            ended(action, "done", wrote=wrote)
    async for action, result in _bound(waiting, planned, claims, patience or Patience()):
        ended(action, result)
    return tuple(outcomes)


async def _execute_one(
    planned: Reattachment,
    decision: Decision,
    action: Action,
    seen: Seen,
    claims: ClaimsApi,
    volumes: VolumesApi,
) -> bool:
    """False when there was nothing left to do. Raises _Changed, Conflict, Doubt."""
    entry, target = decision.entry, planned.target
    claim = await claims.read(entry.claim.name)
    volume = await volumes.read(entry.volume.name)
    now = decide(
        planned.export,
        entry,
        target,
        Seen(
            {} if claim is None else {claim.name: claim},
            {} if volume is None else {volume.name: volume},
            seen.disks,
        ),
    )
    if now.refused:
        raise _Changed(now.why)
    left = {one.kind for one in now.actions}
    if action.kind not in left:
        return False
    if action.kind == "create-claim":
        if left & {"create-volume", "reserve-volume"}:
            # Without a volume that is reserved for it Kubernetes could bind nothing, or another's.
            raise _Changed(f"volume {entry.volume.name} is no longer reserved for it")
        await claims.create(claim_manifest(wanted(planned.export, entry, target)))
    elif volume is None:
        if action.kind != "create-volume":
            raise _Changed(f"volume {entry.volume.name} is gone")
        await volumes.create(volume_manifest(entry, target))
    else:
        if volume.uid != action.uid:
            raise _Changed(f"volume {entry.volume.name} is not the one that was planned for")
        await volumes.patch(
            volume,
            # A merge patch: what the former claim left there is taken away by name.
            {"claimRef": {**claim_ref(entry, target), "uid": None, "resourceVersion": None}},
            f"reserving volume {volume.name}",
            {REATTACHED: entry.claim.uid},
        )
    return True


async def _bound(
    waiting: dict[str, Action], planned: Reattachment, claims: ClaimsApi, patience: Patience
) -> AsyncIterator[tuple[Action, str]]:
    """Each action with its outcome, as the claims become Bound; the rest when patience ends."""
    volumes = {one.entry.claim.name: one.entry.volume.name for one in planned.decisions}
    last = patience.clock()
    found: dict[str, Claim] = {}
    fault = ""
    while waiting:
        try:
            found, fault = await claims.list(), ""
        except Doubt as doubt:
            # They may be bound or not; asked again while there is time.
            fault = told(doubt)
        for name, action in list(waiting.items()):
            claim = found.get(name)
            if claim is not None and (claim.phase, claim.volume) == ("Bound", volumes[name]):
                del waiting[name]
                last = patience.clock()
                yield action, "done"
        if waiting and patience.clock() - last >= patience.limit:
            break
        if waiting:
            await patience.sleep(patience.pause)
    for name, action in waiting.items():
        state = fault or (found[name].phase if name in found else "gone")
        why = (
            f"not bound to volume {volumes[name]} within {patience.limit:g} s ({state}); nothing "
            f"is lost. See: kubectl -n {action.namespace} describe pvc {name}"
        )
        yield action, f"failed: {why}"


def told(error: Exception) -> str:
    """The error's words, with the rights that are missing when it is about rights."""
    # A quota that is exceeded is a 403, too; that is no matter of rights.
    refused = isinstance(error, Doubt) and error.status == 403 and " cannot " in str(error)
    return f"{error}: {RIGHTS}" if refused else str(error)
