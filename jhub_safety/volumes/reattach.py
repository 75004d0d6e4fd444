"""Which claims of a file are made anew for their volumes, and which are left alone. Pure.

For each entry of the file, a claim and its volume, the first row that applies counts:

=============== ======= ================================================================
row             verdict seen
=============== ======= ================================================================
twice           refuse  another entry names this claim, this volume, or the same disk [1]
terminating     refuse  a claim of that name is being deleted
name-taken      refuse  a claim of that name has another volume, or none
owner           refuse  a claim of that name is another owner's, or another hub's
lost            refuse  it is there, and has lost its volume
done            nothing it is there, and bound to this volume
missing         refuse  the volume is not in the cluster, and ``--create-volumes`` was not given
recreate        act     it is not, and it was given: make the volume, then the claim
volume-deleting refuse  the volume is being deleted, or will be: it is Released, policy Delete
other-volume    refuse  a volume of that name is another disk
disk-in-use     refuse  another volume is the same disk [1]; also when this one is missing
differs         refuse  it is of another class or mode, has not the access modes, or is smaller
in-use          refuse  it is Bound to another claim
unusable        refuse  it is neither Released nor Available (Failed, or not known yet)
not-theirs      refuse  it was, or is reserved for, another claim than the exported one
wait            act     the claim is there, and the volume is for it: Kubernetes binds them
rebind          act     reserve the volume for the claim, make the claim
=============== ======= ================================================================

[1] Not where it is made for several at once (``ReadWriteMany``, ``ReadOnlyMany``), as on NFS.

A volume is *reserved* by a claimRef with namespace and name, and no uid: from then on Kubernetes
binds it to a claim of that name only (pkg/controller/volume/persistentvolume, 1.34).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from jhub_safety import owner as marks
from jhub_safety import quantity
from jhub_safety.cluster.claims import Claim
from jhub_safety.cluster.volumes import RETAIN, Volume
from jhub_safety.plan import Action, Kind, Plan, Refusal
from jhub_safety.volumes.exported import Entry, Export, handle, in_words
from jhub_safety.volumes.relation import owner_of
from jhub_safety.volumes.remake import REATTACHED, Target, request, size, wanted


class Row(StrEnum):
    """The rows of the table. The values are stable: docs and tests use them."""

    TWICE = "twice"
    TERMINATING = "terminating"
    NAME_TAKEN = "name-taken"
    OWNER = "owner"
    LOST = "lost"
    DONE = "done"
    MISSING = "missing"
    RECREATE = "recreate"
    VOLUME_DELETING = "volume-deleting"
    OTHER_VOLUME = "other-volume"
    DISK_IN_USE = "disk-in-use"
    DIFFERS = "differs"
    IN_USE = "in-use"
    UNUSABLE = "unusable"
    NOT_THEIRS = "not-theirs"
    WAIT = "wait"
    REBIND = "rebind"


_ACTS = frozenset({Row.RECREATE, Row.WAIT, Row.REBIND})


@dataclass(frozen=True, slots=True)
class Seen:
    """The claims of the target namespace and the volumes of the cluster: all of them, by name."""

    claims: Mapping[str, Claim] = field(default_factory=lambda: MappingProxyType({}))
    volumes: Mapping[str, Volume] = field(default_factory=lambda: MappingProxyType({}))
    #: Which volumes are which disk.
    disks: Mapping[str, Collection[str]] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def of(cls, claims: Mapping[str, Claim], volumes: Mapping[str, Volume]) -> Seen:
        disks: dict[str, list[str]] = {}
        for volume in volumes.values():
            disks.setdefault(handle(volume), []).append(volume.name)
        return cls(claims, volumes, disks)


@dataclass(frozen=True, slots=True)
class Decision:
    """What is done about one entry, by which row, and why."""

    entry: Entry
    row: Row
    why: str
    actions: tuple[Action, ...] = ()
    command: str = ""

    @property
    def refused(self) -> bool:
        return self.row not in _ACTS and self.row is not Row.DONE


@dataclass(frozen=True, slots=True)
class Reattachment:
    """The whole file decided."""

    export: Export
    target: Target
    decisions: tuple[Decision, ...]

    @property
    def plan(self) -> Plan:
        return Plan(
            f"reattach {sum(bool(one.actions) for one in self.decisions)} claim(s)",
            tuple(action for one in self.decisions for action in one.actions),
            tuple(
                Refusal(
                    one.row, f"{one.entry.claim.name} ({one.entry.owner})", one.why, one.command
                )
                for one in self.decisions
                if one.refused
            ),
        )


def decide_all(export: Export, target: Target, seen: Seen) -> Reattachment:
    """Every entry of the file, with what two of them have in common refused."""
    names = Counter(entry.claim.name for entry in export.entries)
    volumes = Counter(entry.volume.name for entry in export.entries)
    disks = Counter(handle(entry.volume) for entry in export.entries)
    decisions = []
    for entry in export.entries:
        same = [
            what
            for what, count in (
                (f"claim {entry.claim.name}", names[entry.claim.name]),
                (f"volume {entry.volume.name}", volumes[entry.volume.name]),
                (
                    f"disk {in_words(entry.volume)}",
                    0 if _is_shared(entry.volume) else disks[handle(entry.volume)],
                ),
            )
            if count > 1
        ]
        decisions.append(
            Decision(entry, Row.TWICE, f"{same[0]} is in the file more than once")
            if same
            else decide(export, entry, target, seen)
        )
    return Reattachment(export, target, tuple(decisions))


def decide(export: Export, entry: Entry, target: Target, seen: Seen) -> Decision:
    """One entry, by the table."""
    claim = seen.claims.get(entry.claim.name)
    volume = seen.volumes.get(entry.volume.name)
    if claim is not None and (found := _of_claim(export, entry, target, claim, volume)) is not None:
        return found
    if volume is None:
        return _without_volume(entry, target, seen, claim)
    if (problem := _of_volume(export, entry, target, claim, volume, seen)) is not None:
        return problem
    reserved = _is_for(volume, target.namespace, entry.claim.name, claim)
    reserve = () if reserved else (_action("reserve-volume", entry, target, volume.uid),)
    if claim is not None:
        bind = _action("bind-claim", entry, target, claim.uid)
        return Decision(entry, Row.WAIT, "the claim waits for its volume", (*reserve, bind))
    return Decision(
        entry,
        Row.REBIND,
        f"volume {volume.name} is {volume.phase}",
        (*reserve, *_make_claim(entry, target)),
    )


def _of_claim(
    export: Export, entry: Entry, target: Target, claim: Claim, volume: Volume | None
) -> Decision | None:
    name = claim.name
    if claim.deleting:
        return Decision(
            entry, Row.TERMINATING, f"claim {name} is being deleted; run this again when it is gone"
        )
    if claim.volume != entry.volume.name:
        has = f"has volume {claim.volume}" if claim.volume else "has no volume"
        return Decision(
            entry,
            Row.NAME_TAKEN,
            f"claim {name} ({owner_of(claim)}) exists and {has}, not {entry.volume.name}. If "
            "nothing in it is needed, delete it, and run this again",
            command=f"claims delete {name}",
        )
    if not _same_owner(claim, wanted(export, entry, target)):
        return Decision(
            entry, Row.OWNER, f"claim {name} exists and is {owner_of(claim)}'s, not {entry.owner}'s"
        )
    if claim.phase == "Lost":
        return Decision(
            entry,
            Row.LOST,
            f"claim {name} has lost its volume. Delete the claim, which has no data now, and run "
            "this again",
            command=f"claims delete {name}",
        )
    if claim.phase == "Bound" and volume is not None and volume.holder.get("uid") == claim.uid:
        return Decision(entry, Row.DONE, f"claim {name} is bound to {volume.name} already")
    return None


def _without_volume(entry: Entry, target: Target, seen: Seen, claim: Claim | None) -> Decision:
    name = entry.volume.name
    if not target.create_volumes:
        return Decision(
            entry,
            Row.MISSING,
            f"volume {name} is not in the cluster. If {in_words(entry.volume)} still exists, and "
            "no other cluster uses it, add --create-volumes",
        )
    if others := _others(entry, seen):
        return Decision(entry, Row.DISK_IN_USE, others)
    made = _action("create-volume", entry, target)
    after = (
        _make_claim(entry, target)
        if claim is None
        else (_action("bind-claim", entry, target, claim.uid),)
    )
    return Decision(
        entry,
        Row.RECREATE,
        f"volume {name} is made anew for {in_words(entry.volume)}",
        (made, *after),
    )


def _others(entry: Entry, seen: Seen) -> str:
    """Which volumes of the cluster are the same disk under another name, in words."""
    if _is_shared(entry.volume):
        return ""
    same = sorted(set(seen.disks.get(handle(entry.volume), ())) - {entry.volume.name})
    return f"{in_words(entry.volume)} is volume {', '.join(same)} of this cluster" if same else ""


def _is_shared(volume: Volume) -> bool:
    """Made for several at once, as on NFS: two volumes of one directory are no mistake."""
    return bool({"ReadWriteMany", "ReadOnlyMany"} & set(volume.spec.get("accessModes") or ()))


def _of_volume(
    export: Export, entry: Entry, target: Target, claim: Claim | None, volume: Volume, seen: Seen
) -> Decision | None:
    name = volume.name
    taken = volume.phase == "Bound" and not _is_for(
        volume, target.namespace, entry.claim.name, claim
    )
    usable = volume.phase in ("Released", "Available", "Pending", "Bound")
    differs = _difference(entry, volume)
    problems = (
        (volume.deleting, Row.VOLUME_DELETING, f"volume {name} is being deleted"),
        (_is_doomed(volume), Row.VOLUME_DELETING, _doom(volume)),
        (
            handle(volume) != handle(entry.volume),
            Row.OTHER_VOLUME,
            f"volume {name} is {in_words(volume)}, and was {in_words(entry.volume)}",
        ),
        (others := _others(entry, seen), Row.DISK_IN_USE, others),
        (differs, Row.DIFFERS, f"volume {name} {differs}"),
        (taken, Row.IN_USE, f"volume {name} is bound to claim {_holder(volume)}"),
        (not usable, Row.UNUSABLE, f"volume {name} is {volume.phase or 'in no phase'}"),
    )
    for found, row, why in problems:
        if found:
            return Decision(entry, row, why)
    if stranger := _stranger(export, entry, target, claim, volume):
        return Decision(entry, Row.NOT_THEIRS, stranger)
    return None


def _is_doomed(volume: Volume) -> bool:
    return volume.phase == "Released" and volume.reclaim != RETAIN


def _doom(volume: Volume) -> str:
    patch = '{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}'
    return (
        f"volume {volume.name} is Released with reclaim policy {volume.reclaim}: Kubernetes "
        f"deletes it, or has tried. If its data is there: kubectl patch pv {volume.name} -p "
        f"'{patch}'"
    )


def _difference(entry: Entry, volume: Volume) -> str:
    """What of the volume is not as the file has it. More room than there was is no harm."""
    then, now = entry.volume.spec, volume.spec
    class_then, class_now = entry.claim.storage_class, now.get("storageClassName") or ""
    if class_then != class_now:
        return f"is of class {class_now or 'none'}, and the claim was of {class_then or 'none'}"
    if entry.claim.volume_mode != (now.get("volumeMode") or "Filesystem"):
        return f"is of mode {now.get('volumeMode')}, and the claim was {entry.claim.volume_mode}"
    if missing := set(entry.claim.access_modes) - set(now.get("accessModes") or ()):
        return f"has not the access modes {', '.join(sorted(missing))}"
    size_then, size_now = size(then), size(now)
    if quantity.storage(size_now) < quantity.storage(size_then):
        return f"has {size_now}, and had {size_then}"
    return ""


def _stranger(
    export: Export, entry: Entry, target: Target, claim: Claim | None, volume: Volume
) -> str:
    """Whose the volume is instead, in words; "" when it was the exported claim's or nobody's."""
    holder, exported = volume.holder, entry.claim
    if not holder or _is_for(volume, target.namespace, exported.name, claim):
        return ""
    if (holder.get("namespace"), holder.get("name")) not in (
        (export.namespace, exported.name),
        (target.namespace, exported.name),
    ):
        return f"volume {volume.name} was claim {_holder(volume)}'s"
    uid = holder.get("uid")
    if not uid or uid == exported.uid or volume.annotations.get(REATTACHED) == exported.uid:
        return ""
    return (
        f"volume {volume.name} was bound to another claim {_holder(volume)} since the file "
        f"was made (uid {uid}, not {exported.uid}). When you are certain that it is "
        f"{entry.owner}'s, write that uid into the file"
    )


def _is_for(volume: Volume, namespace: str, name: str, claim: Claim | None) -> bool:
    """True when it is bound to, or reserved for, this claim, which may not exist yet."""
    holder = volume.holder
    uids = (None, "") if claim is None else (None, "", claim.uid)
    return (holder.get("namespace"), holder.get("name")) == (namespace, name) and holder.get(
        "uid"
    ) in uids


def _holder(volume: Volume) -> str:
    holder = volume.holder
    return f"{holder.get('name', '?')} in namespace {holder.get('namespace', '?')}"


def _same_owner(one: Claim, other: Claim) -> bool:
    def who(claim: Claim) -> tuple[str | None, str]:
        written = claim.annotations
        return (
            written.get(marks.USER, written.get(marks.KUBESPAWNER_USER)),
            written.get(marks.SERVER, written.get(marks.KUBESPAWNER_SERVER, "")),
        )

    pairs = [
        (one.annotations.get(marks.IDENTITY), other.annotations.get(marks.IDENTITY)),
        (one.annotations.get(marks.VOLUME), other.annotations.get(marks.VOLUME)),
        (one.labels.get(marks.HUB_LABEL), other.labels.get(marks.HUB_LABEL)),
    ]
    # A mark that only one of the two has was written, or not yet written, by an adoption.
    return who(one) == who(other) and all(a == b for a, b in pairs if a and b)


def _make_claim(entry: Entry, target: Target) -> tuple[Action, ...]:
    return (_action("create-claim", entry, target), _action("bind-claim", entry, target))


_WHY = {
    "create-volume": "for {source}, kept whatever happens to the claim",
    "reserve-volume": "for claim {claim}",
    "create-claim": "{owner}, {size}",
    "bind-claim": "to volume {volume}",
}


def _action(kind: Kind, entry: Entry, target: Target, uid: str = "") -> Action:
    name = entry.volume.name if kind.endswith("-volume") else entry.claim.name
    reason = _WHY[kind].format(
        source=in_words(entry.volume),
        claim=f"{entry.claim.name} in namespace {target.namespace}",
        owner=entry.owner,
        size=request(entry),
        volume=entry.volume.name,
    )
    return Action(kind, target.namespace, name, reason, uid=uid)
