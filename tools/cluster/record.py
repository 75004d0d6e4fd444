"""The record of an instance: what was started and chosen, so that a later run finds it again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .paths import Instance, runs_dir


@dataclass(frozen=True)
class Process:
    """A process that was started here: a pid alone would be somebody else's after a while.

    started: the kernel's start time in clock ticks since boot (/proc/PID/stat, field 22).
    boot: the kernel's id of that boot, as start times repeat after a reboot.
    """

    component: str
    pid: int
    started: int
    boot: str


@dataclass
class Record:
    """What cluster.json holds. `images` maps a tag to the key of the archive last imported."""

    name: str
    kind: str
    address: str = ""
    ports: dict[str, int] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)
    images: dict[str, str] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)

    def save(self, instance: Instance) -> None:
        """Write it in one piece: a reader sees the old or the new record, never half of one."""
        instance.root.mkdir(parents=True, exist_ok=True)
        unfinished = instance.record.with_suffix(f".{os.getpid()}.part")
        unfinished.write_text(json.dumps(asdict(self), indent=2) + "\n")
        unfinished.rename(instance.record)


def load(instance: Instance) -> Record | None:
    """The record of an instance; None when there is none or it cannot be read."""
    return _read(instance.record)


def _read(path: Path) -> Record | None:
    try:
        data = json.loads(path.read_text())
        data["processes"] = [Process(**entry) for entry in data["processes"]]
        return Record(**data)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def every() -> Iterator[Record]:
    """The records of all instances of this cache."""
    if runs_dir().is_dir():
        for path in sorted(runs_dir().glob("*/cluster.json")):
            record = _read(path)
            if record is not None:
                yield record
