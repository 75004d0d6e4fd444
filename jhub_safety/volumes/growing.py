"""Whether a claim grows: decided purely, since a claim that has grown never shrinks again."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from jhub_safety import quantity
from jhub_safety.cluster.claims import Claim
from jhub_safety.errors import Conflict, Doubt

#: What the API server's conditions on a claim mean to a person.
_CONDITIONS = {
    "Resizing": "is being enlarged by the storage",
    "FileSystemResizePending": "has grown; its file system grows when a lab mounts it",
    "ControllerResizeError": "could not be enlarged by the storage; it keeps its size",
    "NodeResizeError": "has grown, but its file system could not be enlarged",
    "ModifyVolumeError": "could not be changed by the storage",
}

#: What the API server says when it makes or enlarges no claim, what that means, what to run next,
#: and whether it passes without anybody doing anything. As seen of Kubernetes 1.34, all with HTTP
#: 403 but the last, which is a 422.
_REFUSALS = (
    (
        "cannot patch resource",
        "the hub may not change claims (examples/helm/rbac.yaml lets it)",
        "kubectl -n {namespace} apply -f examples/helm/rbac.yaml",
        False,
    ),
    (
        "exceeded quota",
        "a quota of the namespace leaves no room for it",
        "kubectl -n {namespace} describe resourcequota",
        False,
    ),
    (
        "storage usage per PersistentVolumeClaim is",
        "a limit of the namespace allows no claim of that size",
        "kubectl -n {namespace} describe limitrange",
        False,
    ),
    (
        "only dynamically provisioned pvc can be resized",
        "its storage class does not let volumes grow (ALLOWVOLUMEEXPANSION)",
        "kubectl get storageclass",
        False,
    ),
    (
        "spec is immutable after creation except resources.requests",
        "it has no volume yet, and grows at a start when it has one",
        "kubectl -n {namespace} describe pvc {claim}",
        True,
    ),
)


class Size(StrEnum):
    """The rows of the table."""

    AS_WANTED = "as wanted"
    GROW = "grow"
    #: Smaller is wanted: never applied.
    SMALLER = "smaller"
    #: So much more that it may be a slip: 1000Gi for 10Gi cannot be taken back.
    TOO_MUCH = "too much"
    #: The claim does not say its size in a way that can be compared.
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Growth:
    """What is to be done about a claim's size, and why."""

    size: Size
    capacity: str
    why: str = ""


def compare(claim: Claim, wanted: str, *, limit: float) -> Growth:
    """Compare a claim's request with the *wanted* capacity.

    *limit*: how many times larger at once; more is refused. 0: no limit.
    """
    try:
        now, then = quantity.storage(claim.capacity), quantity.storage(wanted)
    except ValueError as error:
        return Growth(Size.UNREADABLE, wanted, f"size of claim {claim.name}: {error}")
    if then == now:
        return Growth(Size.AS_WANTED, wanted)
    told = f"claim {claim.name} has {claim.capacity}, configured is {wanted}"
    if then < now:
        return Growth(Size.SMALLER, wanted, f"{told}: a volume cannot shrink, it stays as it is")
    # A quotient is compared exactly with a float; now * limit would be rounded.
    if limit and then / now > limit:
        return Growth(
            Size.TOO_MUCH,
            wanted,
            f"{told}: more than {limit:g} times as much, and that cannot be taken back. If it is "
            "meant, raise SafeKubeSpawner.max_growth",
        )
    return Growth(Size.GROW, wanted, told)


def differences(
    claim: Claim, storage_class: str | None, access_modes: Collection[str]
) -> tuple[str, ...]:
    """What of a claim is not as configured and cannot be changed, a sentence each."""
    found = []
    if storage_class is not None and claim.storage_class not in ("", storage_class):
        found.append(
            f"claim {claim.name} is of storage class {claim.storage_class}, configured is "
            f"{storage_class}: that counts for new claims only"
        )
    if claim.access_modes and set(claim.access_modes) != set(access_modes):
        found.append(
            f"claim {claim.name} has access modes {', '.join(claim.access_modes)}, configured are "
            f"{', '.join(sorted(access_modes))}: that counts for new claims only"
        )
    return tuple(found)


def conditions(claim: Claim) -> tuple[str, ...]:
    """What Kubernetes says of a claim's resizing, a sentence each."""
    return tuple(
        f"claim {claim.name} {_CONDITIONS[kind]}{f' ({message})' if message else ''}"
        for kind, message in claim.conditions
        if kind in _CONDITIONS
    )


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the API server did not make or enlarge a claim.

    *why*: in words, "" where only the server's own say it. *said*: those. *command*: to run next.
    *passes*: without anybody doing anything.
    """

    why: str
    said: str
    command: str
    passes: bool

    def story(self, what: str) -> str:
        """A sentence; *what* is such as "not enlarged"."""
        return f"{self.why}, so it was {what}: {self.said}" if self.why else f"{what}: {self.said}"


def refusal(error: Conflict | Doubt, namespace: str, claim: str) -> Refusal:
    """Understand why a claim was not made or enlarged, by the server's own words."""
    # Of a claim that cannot be changed the server adds what would differ, on lines of its own.
    said = " ".join(str(error).split())
    describe = f"kubectl -n {namespace} describe pvc {claim}"
    if isinstance(error, Conflict):
        why = "it was changed at the same time, and the next start tries again"
        return Refusal(why, said, describe, passes=True)
    for part, why, command, passes in _REFUSALS:
        if error.status in (403, 422) and part in said:
            # What was asked is in the sentence that this becomes part of.
            words = said[max(said.find("HTTP "), 0) :]
            return Refusal(why, words, command.format(namespace=namespace, claim=claim), passes)
    return Refusal("", said, describe, error.retryable)
