"""What is known of each claim, and which of them a filter chooses: pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction
from types import MappingProxyType

from jhub_safety import owner as marks
from jhub_safety import quantity
from jhub_safety.cluster.claims import Claim
from jhub_safety.owner import Owner, label_value
from jhub_safety.volumes.declared import ExtraVolume
from jhub_safety.volumes.names import Generation, Place
from jhub_safety.volumes.slugs import StyleName

#: What is written in the column of that name, and given to ``--component``.
HOME = "home"
EXTRA = "extra-pvc"
_HOME_LABEL = "singleuser-storage"
_STYLES: tuple[StyleName, StyleName] = ("safe", "escape")


@dataclass(frozen=True, slots=True)
class Known:
    """Whom a hub's database knows, and since when. There is none where it could not be read."""

    #: Also under names that they had before.
    users: frozenset[str]
    #: Claims that any server's saved state names as a home.
    homes: frozenset[str] = frozenset()
    #: Those that it names as extra volumes.
    volumes: frozenset[str] = frozenset()
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    #: When the first user that is still there was made, and the last thing that anybody did.
    oldest: datetime | None = None
    newest: datetime | None = None


@dataclass(frozen=True, slots=True)
class Configured:
    """What a hub's configuration says of sizes."""

    hub: str
    volumes: tuple[ExtraVolume, ...] = ()
    home: str = ""
    place: Place = field(default_factory=Place)


@dataclass(frozen=True, slots=True)
class Row:
    """A claim, and what follows from configuration, database and pods."""

    claim: Claim
    component: str
    user: str | None
    server: str = ""
    hub: str = ""
    #: The configured size; "" when none is configured, None when it is not known which counts.
    wanted: str | None = ""
    #: None: that is not known.
    orphaned: bool | None = None
    #: Pods; None when nobody looked.
    mounted_by: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        return self.claim.name

    @property
    def owner(self) -> str:
        if self.user is None:
            return "nobody"
        return f"{self.user}/{self.server}" if self.server else self.user

    @property
    def phase(self) -> str:
        return "Terminating" if self.claim.deleting else self.claim.phase

    @property
    def by(self) -> str:
        """What told whose it is."""
        annotations = self.claim.annotations
        if marks.RELEASED in annotations:
            return "released"
        if marks.USER in annotations:
            return annotations.get(marks.GENERATION, "jhub-safety")
        return "kubespawner" if marks.KUBESPAWNER_USER in annotations else ""


def component_of(claim: Claim) -> str:
    """``extra-pvc`` only when it says so itself; whatever may be a home is ``home``."""
    label = claim.labels.get("component", "")
    if label == _HOME_LABEL:
        return HOME
    if label == EXTRA or marks.VOLUME in claim.annotations:
        return EXTRA
    # Homes of some earlier generations have no label.
    return label or HOME


def hub_of(claim: Claim) -> str:
    return claim.annotations.get(marks.HUB) or claim.labels.get(marks.HUB_LABEL, "")


def is_of(claim: Claim, hub: str) -> bool:
    """It carries this hub's label, and nothing on it names another."""
    return claim.labels.get(marks.HUB_LABEL) == label_value(hub) and not is_of_another(claim, hub)


def is_of_another(claim: Claim, hub: str) -> bool:
    """Label or annotation name another hub."""
    label, named = claim.labels.get(marks.HUB_LABEL), claim.annotations.get(marks.HUB)
    return label not in (None, label_value(hub)) or named not in (None, hub)


def is_protected(claim: Claim) -> bool:
    """Commands on many claims leave it alone."""
    return claim.annotations.get(marks.PROTECT, "false") != "false"


def rows_of(
    claims: Iterable[Claim],
    configured: Configured,
    known: Known | None,
    mounts: Mapping[str, tuple[str, ...]] | None = None,
) -> tuple[Row, ...]:
    """One for each claim, by name. *known*: None without the hub's database."""
    sizes = _Sizes(configured, known)
    return tuple(
        _row(claim, configured.hub, sizes, known, mounts)
        for claim in sorted(claims, key=lambda one: one.name)
    )


def _row(
    claim: Claim,
    hub: str,
    sizes: _Sizes,
    known: Known | None,
    mounts: Mapping[str, tuple[str, ...]] | None,
) -> Row:
    annotations = claim.annotations
    user = annotations.get(marks.USER, annotations.get(marks.KUBESPAWNER_USER))
    component = component_of(claim)
    return Row(
        claim=claim,
        component=component,
        user=user,
        server=annotations.get(marks.SERVER, annotations.get(marks.KUBESPAWNER_SERVER, "")),
        hub=hub_of(claim),
        wanted="" if is_of_another(claim, hub) else sizes.of(claim, component, user),
        orphaned=_orphaned(claim, user, hub, known),
        mounted_by=None if mounts is None else mounts.get(claim.name, ()),
    )


def _orphaned(claim: Claim, user: str | None, hub: str, known: Known | None) -> bool | None:
    """Whether the hub knows nobody who goes by it. None where that cannot be said."""
    if known is None or user is None or is_of_another(claim, hub):
        return None
    if claim.name in known.homes or claim.name in known.volumes:
        return False
    return user not in known.users


class Entries:
    """Of which entry of ``extra_pvcs`` a claim is: by its annotation, or by user and name.

    2i2c's recipe writes only whose a claim is, and a hub that may not patch claims adds nothing.
    """

    def __init__(self, names: Iterable[str], place: Place) -> None:
        self._place = place
        self._rules = {
            name: tuple(Generation(name, name, style) for style in _STYLES) for name in names
        }

    def of(self, claim: Claim) -> str | None:
        """The entry's name, as it is configured; None where it is of none for certain."""
        annotations = claim.annotations
        if (said := annotations.get(marks.VOLUME)) is not None:
            return said if said in self._rules else None
        user = annotations.get(marks.USER, annotations.get(marks.KUBESPAWNER_USER))
        if user is None or component_of(claim) != EXTRA:
            return None
        server = annotations.get(marks.KUBESPAWNER_SERVER, "")
        for name, rules in self._rules.items():
            for rule in rules:
                owner = Owner("", user, server if rule.per_server else "")
                if rule.render(owner, place=self._place) == claim.name:
                    return name
        return None


class _Sizes:
    """What each claim is configured to have."""

    def __init__(self, configured: Configured, known: Known | None) -> None:
        self._home = configured.home
        self._groups = None if known is None else known.groups
        self._volumes = {one.name: one for one in configured.volumes}
        self._entries = Entries(self._volumes, configured.place)

    def of(self, claim: Claim, component: str, user: str | None) -> str | None:
        if component == HOME:
            return self._home
        if component != EXTRA or user is None:
            return ""
        name = self._entries.of(claim)
        if name is None:
            return ""
        entry = self._volumes[name]
        if self._groups is None and not _whatever_groups(entry, user):
            return None  # nobody knows in which groups they are
        groups = (self._groups or {}).get(user, ())
        return entry.for_user(user, groups).capacity or ""


def _whatever_groups(entry: ExtraVolume, user: str) -> bool:
    """What this user gets does not depend on their groups."""
    if not entry.groups:
        return True
    # In all of them, one may still be less than the entry's own where none matches.
    alone, all_of_them = entry.for_user(user, ()), entry.for_user(user, entry.groups)
    return user in entry.users and alone == all_of_them


@dataclass(frozen=True, slots=True)
class Filter:
    """What is asked for. An empty collection, None and "" choose everything."""

    components: Collection[str] = ()
    owners: Collection[str] = ()
    hubs: Collection[str] = ()
    classes: Collection[str] = ()
    phases: Collection[str] = ()
    orphaned: bool | None = None
    mounted: bool | None = None
    older_than: timedelta | None = None

    def __bool__(self) -> bool:
        return self != Filter()

    def takes(self, row: Row, now: datetime) -> bool:
        claim = row.claim
        return (
            (not self.components or row.component in self.components)
            and (not self.owners or row.user in self.owners or row.owner in self.owners)
            and (not self.hubs or row.hub in self.hubs)
            and (not self.classes or claim.storage_class in self.classes)
            and (not self.phases or row.phase.lower() in {one.lower() for one in self.phases})
            # What is not known is neither.
            and (self.orphaned is None or row.orphaned is self.orphaned)
            and (self.mounted is None or _is(row.mounted_by) is self.mounted)
            and (
                self.older_than is None
                or (claim.created is not None and now - claim.created > self.older_than)
            )
        )


def _is(mounted_by: tuple[str, ...] | None) -> bool | None:
    return None if mounted_by is None else bool(mounted_by)


@dataclass(frozen=True, slots=True)
class Total:
    """Of one storage class: how many claims, how much they ask for, how many say no size."""

    storage_class: str
    count: int = 0
    size: Fraction = Fraction(0)
    unreadable: int = 0


def totals(rows: Iterable[Row]) -> tuple[Total, ...]:
    """One for each class, by name."""
    found: dict[str, Total] = {}
    sizes: dict[str, Fraction | None] = {}
    for row in rows:
        name, text = row.claim.storage_class, row.claim.capacity
        if text not in sizes:
            sizes[text] = _size(text)
        before, size = found.get(name, Total(name)), sizes[text]
        found[name] = Total(
            name,
            before.count + 1,
            before.size + (size or 0),
            before.unreadable + (size is None),
        )
    return tuple(found[name] for name in sorted(found))


def _size(text: str) -> Fraction | None:
    try:
        return quantity.storage(text)
    except ValueError:
        return None


def in_words(size: Fraction) -> str:
    """Bytes, rounded, as Kubernetes writes them: ``1.5 Ti``."""
    for prefix, power in (("Pi", 5), ("Ti", 4), ("Gi", 3), ("Mi", 2), ("Ki", 1)):
        if size >= 1024**power:
            return f"{float(size / 1024**power):.1f}".removesuffix(".0") + f" {prefix}"
    return f"{int(size)} B"
