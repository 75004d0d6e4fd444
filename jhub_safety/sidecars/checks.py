"""What an entry of ``databases`` may say: forms of values, and what must not be overridden."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jhub_safety.errors import ConfigError
from jhub_safety.sidecars import resources

if TYPE_CHECKING:
    from jhub_safety.sidecars.server import DatabaseServer

#: Names of other things of ours in the pod, all of which begin with "jhub-safety-".
_TAKEN = re.compile("state|ownership|extra(-.*)?")
#: What an account and a database may be called: in shell, in SQL and in every server.
_ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
_NUMBERS = {
    "port": (1, 65535),
    "startup_deadline": (1, 86400),
    "stop_seconds": (1, 86400),
    "reserve_mib": (0, 1048576),
}
_CHOICES = {
    "mount_home": (True, False),
    "required": (True, False),
    "startup": ("auto", "native", "container"),
    "image_pull_policy": ("Always", "IfNotPresent", "Never"),
}


def check(server: DatabaseServer, where: str) -> None:
    """Raises ConfigError: a value that cannot be used."""
    _check_names(server, where)
    _check_forms(server, where)
    resources.check(server.resources, f"{where}.resources")
    _check_texts(server.env, f"{where}.env")
    _check_args(server.args, f"{where}.args")
    _check_kept(server, where)
    _check_loopback(server, where)


def _check_names(server: DatabaseServer, where: str) -> None:
    name: object = server.name
    if not _plain(name) or len(server.name) > 40:
        raise ConfigError(f"{where}.name: {name!r}; wanted: a-z, 0-9 and '-', up to 40")
    if _TAKEN.fullmatch(server.name):
        raise ConfigError(f"{where}.name: {name!r} is taken by this library itself")
    folder: object = server.folder
    plain = folder.replace("_", "").replace(".", "").lower() if isinstance(folder, str) else ""
    if not _plain(plain) or server.folder.startswith("."):
        raise ConfigError(f"{where}.folder: {folder!r}; wanted: the name of a folder")
    for key in ("user", "database"):
        value = getattr(server, key)
        if not isinstance(value, str) or not _ACCOUNT.fullmatch(value):
            raise ConfigError(
                f"{where}.{key}: {value!r}; wanted: a letter, then letters, digits, '_', '-' "
                "and '.', up to 32"
            )


def _check_forms(server: DatabaseServer, where: str) -> None:
    for key in ("image", "capacity", "claim", "storage_class"):
        value = getattr(server, key)
        empty = key in ("claim", "storage_class") and value in ("", None)
        if not empty and (not isinstance(value, str) or not value):
            raise ConfigError(f"{where}.{key}: {value!r}; wanted: text")
    for key, (least, most) in _NUMBERS.items():
        value = getattr(server, key)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ConfigError(f"{where}.{key}: {value!r}; wanted: a number from {least} to {most}")
    for key, choices in _CHOICES.items():
        value = getattr(server, key)
        if not any(value is one or (value == one and isinstance(value, str)) for one in choices):
            wanted = " or ".join(
                repr(one) if isinstance(one, str) else str(one).lower() for one in choices
            )
            raise ConfigError(f"{where}.{key}: {value!r}; wanted: {wanted}")
    uid = server.run_as
    numeric = isinstance(uid, int) and not isinstance(uid, bool)
    if not (numeric and int(uid) > 0) and uid not in ("lab", "image"):
        raise ConfigError(f"{where}.run_as: {uid!r}; wanted: a uid above 0, 'lab' or 'image'")


def _plain(text: object) -> bool:
    if not isinstance(text, str):
        return False
    return text.replace("-", "").isalnum() and text.isascii() and text == text.strip("-").lower()


def plain_option(name: str) -> str:
    """Servers take "--Listen-Addresses" for "listen_addresses"."""
    return name.strip().lower().replace("-", "_")


# Values of env and args may be passwords: they are not in the messages.


def _check_texts(value: object, where: str) -> None:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: of type {type(value).__name__}; wanted: a dictionary of texts")
    for name, one in value.items():
        if not isinstance(name, str) or not isinstance(one, str):
            raise ConfigError(
                f"{where}[{name!r}]: of type {type(one).__name__}; wanted: text for text"
            )


def _check_args(value: object, where: str) -> None:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigError(f"{where}: of type {type(value).__name__}; wanted: a list of texts")
    for number, one in enumerate(value):
        if not isinstance(one, str):
            raise ConfigError(f"{where}[{number}]: of type {type(one).__name__}; wanted: text")


def _check_kept(server: DatabaseServer, where: str) -> None:
    """What this library sets itself: another value would lose the data, or hide the server."""
    given = [("args", name) for name, _ in server.options(server.args)]
    given += [("env", name) for name in server.env]
    for key, name in given:
        if key == "env" and name.startswith("JHS_"):
            raise ConfigError(f"{where}.env: {name} is this library's own; leave it out")
        for pattern, field_name in server.keys_for.items():
            if not re.fullmatch(pattern, name):
                continue
            if field_name == "folder":
                raise ConfigError(
                    f"{where}.{key}: {name} would put the data outside of its claim, and it would "
                    "be lost when the lab stops. Leave it out"
                )
            raise ConfigError(
                f"{where}.{key}: {name} is set by this library; use the key {field_name!r}"
            )


def _check_loopback(server: DatabaseServer, where: str) -> None:
    """The server asks for no password: it may listen to nobody but the lab."""
    for name, value in server.options(server.args):
        for pattern, harmless in server.listens.items():
            if re.fullmatch(pattern, name) and value.strip("'\"").lower() not in harmless:
                raise ConfigError(
                    f"{where}.args: {name} would let others than the lab connect, and the server "
                    "asks for no password. Leave it out"
                )
