"""Whether the storage classes of a cluster can do what a hub's configuration asks of them.

Pure: what is wanted, what exists, and what follows. Codes are in :data:`CODES`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from jhub_safety import owner as marks
from jhub_safety import quantity
from jhub_safety.cluster.claims import Claim
from jhub_safety.cluster.storageclasses import StorageClass
from jhub_safety.errors import Doubt
from jhub_safety.finding import Finding, Severity
from jhub_safety.volumes.declared import ExtraVolume
from jhub_safety.volumes.growing import differences
from jhub_safety.volumes.names import NOWHERE, Place
from jhub_safety.volumes.selection import Entries, is_of_another

#: Each code and what it means, for docs/doctor.md.
CODES = {
    "class-in-order": "the class exists, and can do what is asked of it",
    "class-unknown": "a class is configured that the cluster does not have",
    "class-no-default": "no class is configured, and the cluster has no default one",
    "class-two-defaults": "no class is configured, and the cluster has more than one default",
    "class-cannot-grow": "volumes are to grow, and their class does not allow it",
    "class-deletes": "a note: whoever deletes a claim deletes the data",
    "class-binds-at-once": "a note: a volume is made before it is known on which node",
    "class-by-hand": "a note: nothing makes the volumes of this class",
    "classes-not-seen": "the storage classes could not be listed",
    "volume-differs": "claims have another class or other access modes than configured",
}
#: Of many, so many are named.
_NAMED = 3
#: A class whose volumes an administrator makes (storage/v1 documentation, "Local").
_BY_HAND = "kubernetes.io/no-provisioner"
_LIST = "kubectl get storageclass"


@dataclass(frozen=True, slots=True)
class Need:
    """Claims that will be made of a class, None for the cluster's default one.

    *grows*: why they are to grow, in words; "" when they are not. *volume*: the name of the
    entry of ``extra_pvcs``, "" for homes. *least*: the smallest capacity that anybody gets.
    """

    storage_class: str | None
    what: str
    grows: str = ""
    volume: str = ""
    least: str = ""


def needs(
    volumes: Iterable[ExtraVolume],
    *,
    homes: bool,
    home_class: str | None,
    home_capacity: str | None,
    grow_homes: bool,
) -> tuple[Need, ...]:
    """What the hub's configuration asks for; *homes*: KubeSpawner makes claims for them.

    A class that is the empty text means volumes that were made beforehand; nothing is asked.
    """
    found = []
    if homes and home_class != "":
        why = "grow_homes is on" if grow_homes else ""
        found.append(Need(home_class, "homes", why, least=home_capacity or ""))
    for volume in volumes:
        overrides = (*volume.users.values(), *volume.groups.values())
        capacities = {volume.capacity, *(one.capacity for one in overrides if one.capacity)}
        sizes = {quantity.storage(text) for text in capacities}
        why = "its overrides give several capacities" if len(sizes) > 1 else ""
        least = min(capacities, key=quantity.storage)
        classes = dict.fromkeys(one.storage_class or volume.storage_class for one in overrides)
        found.extend(
            Need(name, f"extra volume {volume.name}", why, volume.name, least)
            for name in dict.fromkeys((volume.storage_class, *classes))
        )
    return tuple(found)


def check(
    classes: Collection[StorageClass],
    wanted: Iterable[Need],
    claims: Iterable[Claim] = (),
    place: Place = NOWHERE,
) -> list[Finding]:
    """Every class that is asked for, and existing claims that are to grow.

    *claims*: those of the namespace where they were read, to find the ones that are smaller
    than configured; they grow by their own class, which need not be the configured one.
    """
    wanted = tuple(wanted)
    by_name = {one.name: one for one in classes}
    findings: list[Finding] = []
    for name in dict.fromkeys(need.storage_class for need in wanted):
        asked = tuple(need for need in wanted if need.storage_class == name)
        if name is None:
            findings.extend(_check_default(classes, asked))
        elif name in by_name:
            findings.extend(_check_class(by_name[name], asked))
        else:
            findings.append(_unknown(name, asked, by_name))
    findings.extend(_check_claims(by_name, wanted, claims, place))
    return findings


def _for(needs: Iterable[Need]) -> str:
    return ", ".join(dict.fromkeys(need.what for need in needs))


def _unknown(name: str, asked: tuple[Need, ...], by_name: Collection[str]) -> Finding:
    there = ", ".join(sorted(by_name)) or "none"
    return Finding(
        Severity.ERROR,
        "class-unknown",
        name,
        f"configured for {_for(asked)}, and the cluster has no such storage class (there: "
        f"{there}). New claims would wait for ever, and with them the servers of their users; "
        "existing ones are not concerned",
        _LIST,
    )


def _check_default(classes: Collection[StorageClass], asked: tuple[Need, ...]) -> Iterator[Finding]:
    never = datetime.min.replace(tzinfo=UTC)
    # The newest counts, of two the first by name (pkg/volume/util/storageclass.go, from 1.26 on).
    defaults = sorted((one for one in classes if one.default), key=lambda one: one.name)
    defaults.sort(key=lambda one: one.created or never, reverse=True)
    if not defaults:
        yield Finding(
            Severity.ERROR,
            "class-no-default",
            "default class",
            f"no class is configured for {_for(asked)}, and the cluster has no default one. New "
            "claims would wait for ever; existing ones are not concerned",
            _LIST,
        )
        return
    chosen = defaults[0]
    if len(defaults) > 1:
        names = ", ".join(sorted(one.name for one in defaults))
        yield Finding(
            Severity.WARNING,
            "class-two-defaults",
            "default class",
            f"no class is configured for {_for(asked)}, and the cluster has {len(defaults)} "
            f"default ones ({names}): new claims get {chosen.name}, the one made last",
            _LIST,
        )
    yield from _check_class(chosen, asked)


def _check_class(one: StorageClass, asked: tuple[Need, ...]) -> Iterator[Finding]:
    growing = [need for need in asked if need.grows]
    if growing and not one.expands:
        why = "; ".join(dict.fromkeys(f"{need.what}: {need.grows}" for need in growing))
        yield Finding(
            Severity.WARNING,
            "class-cannot-grow",
            one.name,
            f"its volumes cannot grow (allowVolumeExpansion is not set), and some are to: {why}. "
            "They keep their size, and servers start all the same",
            f"kubectl describe storageclass {one.name}",
        )
    else:
        yield Finding(
            Severity.OK,
            "class-in-order",
            one.name,
            f"for {_for(asked)}; {'can' if one.expands else 'cannot'} grow",
        )
    if one.reclaims == "Delete":
        yield Finding(
            Severity.OK,
            "class-deletes",
            one.name,
            "when a claim is deleted, by whomever, its volume and all data go with it "
            "(reclaimPolicy Delete). Backups are what brings them back",
        )
    if one.provisioner == _BY_HAND:
        yield Finding(
            Severity.OK,
            "class-by-hand",
            one.name,
            "nothing makes its volumes (provisioner kubernetes.io/no-provisioner): a new claim "
            "waits until an administrator has made one",
        )
    elif one.binding == "Immediate":
        yield Finding(
            Severity.OK,
            "class-binds-at-once",
            one.name,
            "a volume is made before it is known on which node its lab will run "
            "(volumeBindingMode Immediate). Where volumes belong to a zone, two of one user may "
            "be made in two zones, and no node can mount both",
        )


def _check_claims(
    by_name: dict[str, StorageClass],
    wanted: tuple[Need, ...],
    claims: Iterable[Claim],
    place: Place,
) -> Iterator[Finding]:
    """Claims that are smaller than anybody's is to be, of a class that cannot grow."""
    least = {need.volume: need for need in wanted if need.least and (need.volume or need.grows)}
    entries = Entries([name for name in least if name], place)
    stuck: dict[tuple[str, str], list[str]] = {}
    for claim in claims:
        volume = _volume_of(claim, entries)
        need = None if volume is None else least.get(volume)
        one = by_name.get(claim.storage_class)
        if need is not None and one is not None and not one.expands and _smaller(claim, need):
            stuck.setdefault((one.name, need.what), []).append(claim.name)
    for (name, what), names in stuck.items():
        yield Finding(
            Severity.WARNING,
            "class-cannot-grow",
            name,
            f"{len(names)} existing claim(s) of {what} are smaller than configured (such as "
            f"{min(names)}), and volumes of this class cannot grow",
            f"kubectl describe storageclass {name}",
        )


def _volume_of(claim: Claim, entries: Entries) -> str | None:
    """The entry of ``extra_pvcs``, "" for a home, None for what is neither for certain."""
    if (volume := entries.of(claim)) is not None or marks.VOLUME in claim.annotations:
        return volume
    return "" if claim.labels.get("component") == "singleuser-storage" else None


def _smaller(claim: Claim, need: Need) -> bool:
    try:
        return quantity.storage(claim.capacity) < quantity.storage(need.least)
    except ValueError:
        return False


def not_seen(doubt: Doubt) -> Finding:
    """The classes could not be listed; *doubt* says why."""
    if doubt.status == 403:
        story = (
            "this account may not list storage classes: they belong to the whole cluster, and the "
            "chart's hub has no right beyond its namespace. Run the command with rights of your "
            "own (KUBECONFIG), or bind the account to a ClusterRole with verbs get and list on "
            "storageclasses of storage.k8s.io. Servers are not concerned"
        )
    else:
        story = f"{doubt}. Servers are not concerned"
    return Finding(
        Severity.UNKNOWN, "classes-not-seen", "storage classes", story, "jhub-safety doctor"
    )


def unlike(
    claims: Iterable[Claim], volumes: Iterable[ExtraVolume], hub: str, place: Place = NOWHERE
) -> list[Finding]:
    """Claims of this hub that have another class or other access modes than configured.

    An edit in the values counts for claims that are made after it; these go on as they are.
    """
    by_name = {one.name: one for one in volumes}
    entries = Entries(by_name, place)
    found: dict[str, list[str]] = {}
    for claim in claims:
        # Adopted by a hub that may not patch claims it names no hub: only another's is left out.
        name = None if is_of_another(claim, hub) else entries.of(claim)
        if name is None:
            continue
        entry = by_name[name]
        given = (one.storage_class for one in (*entry.users.values(), *entry.groups.values()))
        if claim.storage_class in {one for one in given if one}:
            continue  # Meant for some, and who is in which group is the hub's to know.
        if differences(claim, entry.storage_class, entry.access_modes):
            found.setdefault(entry.name, []).append(claim.name)
    return [
        Finding(
            Severity.WARNING,
            "volume-differs",
            name,
            f"{len(names)} claims have another class or other access modes than configured "
            f"({', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''}). They are "
            "mounted as they are",
            "jhub-safety claims list --component extra-pvc",
        )
        for name, names in found.items()
    ]
