"""Is a session's lab there? Every answer that is not positive is doubt."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

from jhub_safety import metrics
from jhub_safety.cluster.labs import Lab, LabsApi
from jhub_safety.errors import Doubt
from jhub_safety.sessions.absence import Absences


class Presence(StrEnum):
    """What the cluster positively said, or that it did not."""

    ALIVE = "alive"
    TERMINATING = "terminating"
    ENDED = "ended"
    GONE = "gone"
    DOUBT = "doubt"


@dataclass(frozen=True, slots=True)
class Sighting:
    """One look at one lab. *why* says what made it doubtful."""

    presence: Presence
    lab: Lab | None = None
    why: str = ""


def classify(lab: Lab) -> Presence:
    """What a lab that was read is. Terminating comes first: it ends by itself, wait for it."""
    if lab.deleting:
        return Presence.TERMINATING
    return Presence.ENDED if lab.ended else Presence.ALIVE


#: What Kubernetes' reasons mean to the person whose lab it was.
_MEANS = {
    "OOMKilled": "it used more memory than it may",
    "Evicted": "its node ran out of room",
    "DeadlineExceeded": "its time was up",
    "NodeShutdown": "its node was shut down",
    "Preempting": "its node was needed for something more urgent",
}


def ending(lab: Lab | None) -> str:
    """How a lab ended, for its user; None: it was not there any more."""
    if lab is None:
        return "it was deleted"
    reason = lab.reason or lab.phase
    code = f", exit code {lab.exit_code}" if lab.exit_code else ""
    return f"{_MEANS.get(reason, 'it ended')} ({reason}{code})"


async def look(
    name: str,
    labs: LabsApi,
    absences: Absences,
    *,
    place_is_proven: Callable[[], Awaitable[bool]],
    sessions: Callable[[], int],
) -> Sighting:
    """Read the lab live. A 404 is believed only as :class:`Absences` allows; never raises Doubt.

    *place_is_proven*: whether namespace and cluster are those in which the session began; asked
    only after a 404.
    """
    key = f"{labs.namespace}/{name}"
    try:
        lab = await labs.read(name)
        if lab is not None:
            absences.seen(key)
            return Sighting(classify(lab), lab)
        if not await place_is_proven():
            metrics.LAB_DOUBTS.inc()
            return Sighting(
                Presence.DOUBT,
                why=f"lab {name} was not found, but nothing proves that namespace "
                f"{labs.namespace} of this cluster is the one where it was started",
            )
    except Doubt as doubt:
        metrics.LAB_DOUBTS.inc()
        return Sighting(Presence.DOUBT, why=str(doubt))
    if absences.missed(key, sessions()):
        return Sighting(Presence.GONE)
    return Sighting(Presence.DOUBT, why=f"lab {name} was not found; looking again")
