"""Values of a file that is not trusted: each in the form that is wanted, or an error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from jhub_safety import quantity
from jhub_safety.errors import SafetyError

_MODES = frozenset({"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"})
VOLUME_MODES = frozenset({"Filesystem", "Block"})
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
UID = re.compile(r"[A-Za-z0-9-]{1,64}")
_KEY = re.compile(r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")


class Part:
    """An object in the file. Every error names where in the file, and the form that is wanted."""

    def __init__(self, where: str, body: dict[str, Any]) -> None:
        self.where = where
        self.body = body

    def wrong(self, key: str, wanted: str) -> SafetyError:
        found = brief(self.body[key]) if key in self.body else "missing"
        return SafetyError(
            f"{self.where}: {key} must be {wanted}, and is {found}; nothing was changed"
        )

    def only(self, *keys: str) -> None:
        if more := sorted(set(self.body) - set(keys)):
            raise SafetyError(f"{self.where}: unknown key {brief(more[0])}; nothing was changed")

    def text(self, key: str) -> str:
        value = self.body.get(key)
        if not isinstance(value, str) or not is_unicode(value):
            raise self.wrong(key, "text")
        return value

    def name(self, key: str, *, most: int = 253, empty: bool = False) -> str:
        value = self.text(key)
        if empty and not value:
            return value
        if len(value) > most or not _NAME.fullmatch(value):
            raise self.wrong(key, "a name as Kubernetes takes it")
        return value

    def one_of(self, key: str, known: frozenset[str]) -> str:
        value = self.text(key)
        if value not in known:
            raise self.wrong(key, f"one of {', '.join(sorted(known))}")
        return value

    def size(self, key: str) -> str:
        value = self.text(key)
        try:
            quantity.storage(value)
        except ValueError as error:
            raise self.wrong(key, "a size such as 10Gi") from error
        return value

    def strings(self, key: str) -> tuple[str, ...]:
        value = self.body.get(key)
        if not isinstance(value, list) or not all(
            isinstance(one, str) and is_unicode(one) for one in value
        ):
            raise self.wrong(key, "a list of texts")
        return tuple(value)

    def modes(self, key: str) -> tuple[str, ...]:
        value = self.strings(key)
        if not value or not set(value) <= _MODES:
            raise self.wrong(key, f"a list of {', '.join(sorted(_MODES))}")
        return value

    def texts(self, key: str, *, labels: bool = False) -> Mapping[str, str]:
        value = self.body.get(key)
        form = _LABEL_VALUE if labels else re.compile(r"(?s).*")
        if not isinstance(value, dict) or not all(
            _KEY.fullmatch(name)
            and isinstance(one, str)
            and is_unicode(one)
            and form.fullmatch(one)
            for name, one in value.items()
        ):
            raise self.wrong(key, f"{key} as Kubernetes takes them")
        return MappingProxyType(dict(value))

    def part(self, key: str) -> Part:
        value = self.body.get(key)
        if not isinstance(value, dict):
            raise self.wrong(key, "an object")
        return Part(f"{self.where}: {key}", value)

    def parts(self, key: str) -> list[Part]:
        value = self.body.get(key)
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise self.wrong(key, "a list of objects")
        return [Part(f"{self.where}: {key}[{n}]", one) for n, one in enumerate(value)]


def is_unicode(text: str) -> bool:
    """False with halves of surrogate pairs: the API server takes none."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def brief(value: Any) -> str:
    """For a message: never a whole file in it."""
    shown = ascii(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."
