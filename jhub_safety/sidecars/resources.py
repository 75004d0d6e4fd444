"""What a server's container may take of its node: an entry's amounts, laid over its kind's."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from jhub_safety import quantity
from jhub_safety.errors import ConfigError

#: As in a pod: amounts by "requests" and "limits", then by "memory", "cpu" and the like.
Resources = Mapping[str, Mapping[str, str | float]]

_SECTIONS = ("requests", "limits")


def laid_over(default: Resources, given: Any, where: str) -> Resources:
    """*default*, with what *given* says: amount by amount, None takes an amount or a section away.

    With limits alone Kubernetes would reserve as much as the limit for each lab. A request above
    its limit is refused with the pod, at every start: a default gives way to what is given.

    Raises:
        ConfigError: *given* has another form.
    """
    _check(given, where, or_none=True)
    said: Mapping[str, Any] = given
    merged: dict[str, dict[str, Any]] = {}
    for section in _SECTIONS:
        amounts = said.get(section, {})
        both = {} if amounts is None else {**default.get(section, {}), **amounts}
        merged[section] = {name: one for name, one in both.items() if one is not None}
    requests, limits = merged["requests"], merged["limits"]
    for name in requests.keys() & limits.keys():
        if _amount(requests[name]) > _amount(limits[name]):
            if name in (said.get("limits") or {}):
                requests[name] = limits[name]
            else:
                limits[name] = requests[name]
    return {section: amounts for section, amounts in merged.items() if amounts}


def check(value: object, where: str) -> None:
    """Raises ConfigError: no such amounts, or a request above its limit."""
    _check(value, where, or_none=False)


def _check(value: object, where: str, *, or_none: bool) -> None:
    # The API server drops keys that it does not know, here without a word.
    if not isinstance(value, Mapping) or set(value) - set(_SECTIONS):
        raise ConfigError(f"{where}: {value!r}; wanted: requests, limits, or both")
    for section, amounts in value.items():
        if amounts is None and or_none:
            continue
        if not isinstance(amounts, Mapping) or not all(
            isinstance(name, str) and ((one is None and or_none) or _is_amount(one))
            for name, one in amounts.items()
        ):
            raise ConfigError(
                f"{where}.{section}: {amounts!r}; wanted: such as {{'memory': '512Mi', 'cpu': '1'}}"
            )
    requests, limits = (value.get(section) or {} for section in _SECTIONS)
    for name in sorted(requests.keys() & limits.keys()):
        least, most = requests[name], limits[name]
        if None not in (least, most) and _amount(least) > _amount(most):
            raise ConfigError(f"{where}.requests: {name} {least!r} is more than its limit {most!r}")


def _is_amount(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return False
    try:
        return _amount(value) >= 0
    except ValueError:
        return False


def _amount(value: str | float) -> Fraction:
    return quantity.parse(str(value))
