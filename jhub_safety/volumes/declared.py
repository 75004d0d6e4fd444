"""What a hub declares of its extra volumes: checked when the hub starts, rendered for each user."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from jhub_safety import quantity
from jhub_safety.errors import ConfigError
from jhub_safety.volumes.names import Generation

_EMPTY: Mapping[str, Any] = MappingProxyType({})
_ACCESS_MODES = frozenset({"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"})
#: Keys of an entry, and of z2jh's ``custom.singleuser.extraPVCs`` (``accessModes``).
_KEYS = (
    "name",
    "class",
    "capacity",
    "access_modes",
    "labels",
    "annotations",
    "mount_path",
    "sub_path",
    "read_only",
    "overrides",
)
_ALSO = {"accessModes": "access_modes", "mountPath": "mount_path", "subPath": "sub_path"}
WHERE = "SafeKubeSpawner.extra_pvcs"


@dataclass(frozen=True, slots=True)
class Override:
    """What some users get instead. *storage_class* counts for claims that are made anew."""

    capacity: str | None = None
    storage_class: str | None = None


@dataclass(frozen=True, slots=True)
class ExtraVolume:
    """One entry of ``extra_pvcs``. Its *name* is a template, and what it is known by."""

    name: str
    capacity: str
    storage_class: str | None = None
    access_modes: tuple[str, ...] = ("ReadWriteOnce",)
    labels: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    annotations: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    mount_path: str = ""
    sub_path: str = ""
    read_only: bool = False
    users: Mapping[str, Override] = field(default_factory=lambda: _EMPTY)
    groups: Mapping[str, Override] = field(default_factory=lambda: _EMPTY)

    @classmethod
    def parse(cls, entry: object, where: str = WHERE) -> ExtraVolume:
        """From configuration.

        Raises:
            ConfigError: an unknown key, a value of the wrong form, a name that cannot be used.
        """
        if not isinstance(entry, Mapping):
            raise ConfigError(f"{where}: {entry!r} is no dictionary such as {_EXAMPLE}")
        known: dict[str, Any] = {
            _ALSO.get(str(key), str(key)): value for key, value in entry.items()
        }
        for key in known:
            if key not in _KEYS:
                near = get_close_matches(str(key), _KEYS, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ConfigError(f"{where}: {key!r} is not a key of an entry.{hint}")
        name = _text(known, "name", where)
        where = f"{where}[{name}]"
        _check_name(name, where)
        modes = known.get("access_modes", ("ReadWriteOnce",))
        if not isinstance(modes, Sequence) or not modes or set(map(str, modes)) - _ACCESS_MODES:
            raise ConfigError(
                f"{where}.access_modes: {modes!r}; wanted: a list out of {sorted(_ACCESS_MODES)}"
            )
        overrides = _mapping(known, "overrides", where)
        if wrong := set(overrides) - {"users", "groups"}:
            raise ConfigError(f"{where}.overrides: {sorted(wrong)!r}; wanted: users and groups")
        return cls(
            name=name,
            capacity=_capacity(_text(known, "capacity", where), where),
            storage_class=_text(known, "class", where) if known.get("class") else None,
            access_modes=tuple(modes),
            labels=MappingProxyType(_strings(known, "labels", where)),
            annotations=MappingProxyType(_strings(known, "annotations", where)),
            mount_path=_mount_path(known, where),
            sub_path=_text(known, "sub_path", where) if known.get("sub_path") else "",
            read_only=_flag(known, "read_only", where),
            users=_overrides(overrides, "users", where),
            groups=_overrides(overrides, "groups", where),
        )

    def for_user(self, user: str, groups: Collection[str]) -> Override:
        """What this user gets: the largest capacity of all overrides that match, and its class.

        Of several of one size the user's own counts, then the first group by name: the class must
        not depend on the order in which the hub's database gives the groups.
        """
        default = Override(self.capacity, self.storage_class)
        matching = [self.users[user]] if user in self.users else []
        matching += [self.groups[group] for group in sorted(set(groups) & set(self.groups))]
        found = [
            Override(one.capacity or self.capacity, one.storage_class or self.storage_class)
            for one in matching
        ]
        return max(found, key=_size, default=default)


_EXAMPLE = "{'name': 'data-{owner_slug}-{owner_hash}', 'capacity': '10Gi'}"


def _size(one: Override) -> Any:
    return quantity.storage(one.capacity or "0")


def parse_all(entries: Iterable[object], where: str = WHERE) -> tuple[ExtraVolume, ...]:
    """Every entry.

    Raises:
        ConfigError: one cannot be used, or two have the same name or the same place in the lab.
    """
    found = tuple(ExtraVolume.parse(entry, where) for entry in entries)
    names = [one.name for one in found]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{where}: two entries are called {name!r}")
    places: dict[str, str] = {}
    for one in found:
        if not one.mount_path:
            continue
        # The API server refuses the whole pod: "mountPath: must be unique".
        path = posixpath.normpath(one.mount_path)
        if path in places:
            raise ConfigError(
                f"{where}: {places[path]!r} and {one.name!r} are both mounted at {path}"
            )
        places[path] = one.name
    return found


def _check_name(name: str, where: str) -> None:
    try:
        generation = Generation(name, name, "safe")
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}".replace("pvc_name_template", "name")) from error
    if "userid" in generation.fields:
        raise ConfigError(
            f"{where}: {{userid}} is a number that every user gets anew when the hub database is "
            "lost, and with it an empty volume. Wanted: {owner_slug}-{owner_hash}, or {user_server}"
        )
    telling = ("username", "user_server", "owner_hash", "user_hash")  # also {escaped_username}
    if not any(field.endswith(telling) for field in generation.fields):
        raise ConfigError(
            f"{where}: the name is the same for every user. Wanted: one with {{owner_hash}}, "
            "{username} or {user_server}"
        )


def _text(entry: Mapping[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{where}.{key}: {value!r}; wanted: text")
    return value


def _flag(entry: Mapping[str, Any], key: str, where: str) -> bool:
    value = entry.get(key, False)
    if not isinstance(value, bool):
        raise ConfigError(f"{where}.{key}: {value!r}; wanted: true or false")
    return value


def _mapping(entry: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    value = entry.get(key) or {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}.{key}: {value!r}; wanted: a dictionary")
    return value


def _strings(entry: Mapping[str, Any], key: str, where: str) -> dict[str, str]:
    value = _mapping(entry, key, where)
    if any(not isinstance(part, str) for pair in value.items() for part in pair):
        raise ConfigError(f"{where}.{key}: {dict(value)!r}; wanted: text for text")
    return dict(value)


def _mount_path(entry: Mapping[str, Any], where: str) -> str:
    if not entry.get("mount_path"):
        return ""
    path = _text(entry, "mount_path", where)
    if not path.startswith("/") or ":" in path or ".." in path.split("/"):
        raise ConfigError(f"{where}.mount_path: {path!r}; wanted: an absolute path")
    return path


def _capacity(text: str, where: str) -> str:
    try:
        quantity.storage(text)
    except ValueError as error:
        raise ConfigError(f"{where}.capacity: {error}") from error
    return text


def _overrides(overrides: Mapping[str, Any], whose: str, where: str) -> Mapping[str, Override]:
    where = f"{where}.overrides.{whose}"
    found = {}
    for name, entry in _mapping(overrides, whose, where).items():
        whose = f"{where}[{name}]"
        if not isinstance(entry, Mapping) or set(entry) - {"capacity", "class"} or not entry:
            raise ConfigError(f"{whose}: {entry!r}; wanted: capacity, class, or both")
        found[str(name)] = Override(
            _capacity(_text(entry, "capacity", whose), whose) if "capacity" in entry else None,
            _text(entry, "class", whose) if "class" in entry else None,
        )
    return MappingProxyType(found)
