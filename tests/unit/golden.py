"""The claim names that earlier KubeSpawner releases really gave, and who gave them here.

``tests/golden/kubespawner-*.json`` was made by running those releases (tools/golden).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jhub_safety.owner import Owner
from jhub_safety.volumes.names import BUILT_IN, Generation
from jhub_safety.volumes.slugs import StyleName

FOLDER = Path(__file__).parents[1] / "golden"

_ESCAPE = ("0.14.1", "0.16.1", "1.1.2", "3.0.2", "4.3.0", "6.2.0")
_SAFE = ("7.0.0", "7.1.0")


def _templated(template: str, style: StyleName) -> Generation:
    """What a hub declares in ``earlier_pvc_name_templates``."""
    return Generation(f"{template} ({style})", template, style)


_LEGACY_USERID = _templated("claim-{legacy_escape_username}-{userid}", "escape")

#: (release, variant of the golden file) -> the generation that stands for it.
COVERED: dict[tuple[str, str], Generation] = {
    ("0.5.1", "default"): BUILT_IN["2017"],
    ("0.6.0", "default"): BUILT_IN["no-servers"],
    ("0.6.0", "userid-2017"): _templated("claim-{username}-{userid}", "escape"),
    ("0.6.0", "legacy-userid"): _LEGACY_USERID,
    **{
        (release, variant): BUILT_IN[key]
        for release, key in (
            ("0.7.1", "kubespawner-0.7"),
            ("0.8.1", "kubespawner-0.7"),
            ("0.10.1", "kubespawner-0.10"),
            ("0.11.1", "kubespawner-0.11"),
        )
        for variant in ("default", "chart")
    },
    **{(release, "default"): BUILT_IN["kubespawner-6"] for release in _ESCAPE},
    **{(release, "chart"): BUILT_IN["z2jh-3"] for release in _ESCAPE},
    **{
        (release, "legacy-userid"): _LEGACY_USERID
        for release in ("0.7.1", "0.8.1", "0.10.1", "0.11.1", *_ESCAPE)
    },
    **{
        (release, variant): generation
        for release in _SAFE
        for variant, generation in {
            "default": BUILT_IN["kubespawner-7"],
            "chart": _templated("claim-{username}{servername}", "safe"),
            "double-dash": _templated("claim-{username}--{servername}", "safe"),
            "escape": BUILT_IN["kubespawner-7-escape"],
            "escape-chart": BUILT_IN["z2jh-3"],
            "escape-double-dash": BUILT_IN["kubespawner-6"],
        }.items()
    },
}


@dataclass(frozen=True)
class Vector:
    """One name that one release gave."""

    owner: Owner
    userid: str
    name: str


def _load(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


@cache
def tables() -> dict[str, Any]:
    """Release -> its golden file."""
    loaded = (_load(path.name) for path in sorted(FOLDER.glob("kubespawner-*.json")))
    return {table["header"]["release"]: table for table in loaded}


def vectors(release: str, variant: str) -> Iterator[Vector]:
    """What *release* named under *variant*; what it could not name at all is left out."""
    for record in tables()[release]["records"]:
        made = record["claims"][variant]
        if "error" not in made:
            owner = Owner("hub", record["user"], record["server"])
            yield Vector(owner, str(record["userid"]), made["pvc"])


def variants() -> Iterator[tuple[str, str]]:
    """Every (release, variant) in which that release made any name."""
    for release, table in tables().items():
        for variant in table["header"]["templates"]:
            if any(True for _ in vectors(release, variant)):
                yield release, variant


def collisions() -> list[dict[str, Any]]:
    """Pairs of owners with one name, within or across releases."""
    pairs: list[dict[str, Any]] = _load("collisions.json")["pairs"]
    return pairs


def made_by(side: dict[str, Any]) -> set[Generation]:
    """The generations that stand for the releases which gave this owner the name."""
    return {COVERED[tuple(maker.split("/"))] for maker in side["made_by"]}  # type: ignore[index]
