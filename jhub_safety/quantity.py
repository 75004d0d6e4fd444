"""Kubernetes' quantities, exactly: ``1Gi``, ``1G``, ``1024Mi``, ``1e9``, ``0.5Gi``.

Floats will not do: 0.1Ei is no whole number of bytes, and two ways to write one size must compare
equal. Rules: apimachinery/pkg/api/resource/quantity.go (Kubernetes 1.34).
"""

from __future__ import annotations

import re
from fractions import Fraction

_FORM = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))"
    r"(?:(?P<suffix>[KMGTPE]i|[numkMGTPE])|[eE](?P<exponent>[+-]?[0-9]{1,3}))?"
)
_BINARY = {f"{prefix}i": Fraction(1024) ** power for power, prefix in enumerate("KMGTPE", 1)}
_DECIMAL = {prefix: Fraction(10) ** (3 * power) for power, prefix in enumerate("kMGTPE", 1)}
_SMALL = {"n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000)}
_FACTORS = {**_BINARY, **_DECIMAL, **_SMALL}


def parse(text: str) -> Fraction:
    """The number behind a quantity.

    Raises:
        ValueError: it has none of the forms.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        hint = " (did you mean Ki?)" if text.endswith("K") else ""
        raise ValueError(f"{text!r} is no quantity such as 10Gi{hint}")
    # Fraction() takes "1." and ".5" from 3.12 on only.
    whole, _, part = found["number"].lstrip("+-").partition(".")
    number = Fraction(int((whole or "0") + part), 10 ** len(part))
    if found["number"].startswith("-"):
        number = -number
    if found["suffix"]:
        return number * _FACTORS[found["suffix"]]
    return number * Fraction(10) ** int(found["exponent"] or 0)


def storage(text: str) -> Fraction:
    """Bytes of a volume.

    Raises:
        ValueError: no quantity, nothing or less, no whole bytes (``1500m``), or more than the
            2**63 - 1 that Kubernetes can count.
    """
    size = parse(text)
    if size <= 0:
        raise ValueError(f"{text!r} is no size of a volume: it must be more than 0")
    if size.denominator != 1:
        raise ValueError(f"{text!r} is no size of a volume: not a whole number of bytes")
    if size >= 2**63:
        raise ValueError(f"{text!r} is more than Kubernetes can count")
    return size
