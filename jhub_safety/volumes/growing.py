"""Whether a claim grows: decided purely, since a claim that has grown never shrinks again."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from jhub_safety import quantity
from jhub_safety.cluster.claims import Claim

#: What the API server's conditions on a claim mean to a person.
_CONDITIONS = {
    "Resizing": "is being enlarged by the storage",
    "FileSystemResizePending": "has grown; its file system grows when a lab mounts it",
    "ControllerResizeError": "could not be enlarged by the storage; it keeps its size",
    "NodeResizeError": "has grown, but its file system could not be enlarged",
    "ModifyVolumeError": "could not be changed by the storage",
}


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
