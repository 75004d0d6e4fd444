"""What is asked about a home, what was seen, and what was decided: frozen records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from jhub_safety.cluster.claims import Claim
from jhub_safety.owner import Owner
from jhub_safety.volumes.names import Generation, Place


class Verdict(StrEnum):
    MOUNT = "mount"
    ADOPT = "adopt"
    CREATE = "create"
    REFUSE = "refuse"


class Row(StrEnum):
    """The rows of the table. The values are stable: metrics, docs and tests use them."""

    KNOWN = "known"
    SUPERSEDED = "superseded"
    RENAMED = "renamed"
    SAVED_UNMARKED = "saved-unmarked"
    SINGLE = "single"
    NEW = "new"
    TERMINATING = "terminating"
    LOST = "lost"
    CONFLICT = "conflict"
    GONE = "gone"
    RELEASED = "released"
    TAKEN = "taken"
    UNPROVEN = "unproven"
    SEVERAL = "several"
    INCOMPLETE = "incomplete"
    NO_IDENTITY = "no-identity"


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen of the claims that may be an owner's home.

    *claims* holds each claim that was read, by name. *complete* is True when they are all
    those of the namespace that may concern this owner; False with a *fault* when a listing
    failed, or without one when a listing was not needed. *absent* are names that a read of
    their own found missing.
    """

    claims: Mapping[str, Claim] = field(default_factory=lambda: MappingProxyType({}))
    complete: bool = False
    fault: str = ""
    absent: frozenset[str] = frozenset()
    #: True when no claim in the whole listing names any owner: an empty namespace, or an
    #: empty answer.
    nobody: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """Whose home is looked for, and under which rules."""

    owner: Owner
    #: What a new claim would be called.
    own_name: str
    #: What it is called when our own annotations say that *own_name* was handed over.
    spare_names: tuple[str, ...] = field(default=(), kw_only=True)
    #: The claim that the hub's record of this server names, if any.
    saved: str | None
    place: Place
    #: Every generation by which the owner's claim may be called.
    known: tuple[Generation, ...]
    #: Those that the hub declared it really ran: only they can prove an unmarked claim.
    declared: tuple[Generation, ...] = ()
    #: False on a hub whose users share one home among their servers.
    per_server: bool = True
    #: Names the user had before; the hub remembers them until the claim carries the new one.
    former_users: tuple[str, ...] = ()
    #: An operator has recorded that the saved claim is gone for good (``claims forget``).
    forgotten: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, by which row, and why. *claims* are those that the row is about."""

    row: Row
    verdict: Verdict
    name: str
    why: str
    claim: Claim | None = None
    generation: str = ""
    claims: tuple[Claim, ...] = ()
    #: The arguments after ``jhub-safety`` of the one command to run next.
    command: str = ""
    retryable: bool = False
