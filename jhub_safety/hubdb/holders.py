"""Who has a file open on this machine, as far as this account may see."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
#: Of the first words of a command line: what a hub is called, and what we ourselves are.
_HUB, _OURS = "jupyterhub", ("jhub-safety", "jhub_safety", "jhub_safety.hubdb")


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has the file open. *ours*: a command of this library, or its work."""

    pid: int
    name: str
    uid: int
    hub: bool = False
    ours: bool = False

    def __str__(self) -> str:
        return f"process {self.pid} ({self.name})"


@dataclass(frozen=True, slots=True)
class Seen:
    """*unseen*: so many processes could not be looked into; they belong to other accounts."""

    holders: tuple[Holder, ...]
    unseen: int = 0


def others() -> Iterator[tuple[int, Path]]:
    """Every process but this one."""
    for directory in _PROC.glob("[0-9]*"):
        if directory.name != str(os.getpid()):
            yield int(directory.name), directory


def words(directory: Path) -> list[str]:
    """How a process was called: the last parts of its first words. Raises OSError."""
    found = (directory / "cmdline").read_bytes().split(b"\0")
    return [Path(os.fsdecode(one)).name for one in found[:5]]


def holders(file: Path) -> Seen:
    """Blocking. One of another account is seen by root alone, one of another machine by nobody."""
    try:
        wanted = file.stat()
    except OSError:
        return Seen(())
    found, unseen = [], 0
    for pid, directory in others():
        try:
            if any(_is(one, wanted) for one in (directory / "fd").iterdir()):
                found.append(_holder(pid, directory))
        except PermissionError:
            unseen += 1
        except OSError:
            # It has ended meanwhile.
            continue
    return Seen(tuple(found), unseen)


def _holder(pid: int, directory: Path) -> Holder:
    """Raises OSError."""
    called: list[str] = []
    with suppress(OSError):
        called = words(directory)
    return Holder(
        pid,
        (directory / "comm").read_text(errors="replace").strip(),
        directory.stat().st_uid,
        hub=_HUB in called[:3],
        ours=any(one in _OURS for one in called),
    )


def _is(descriptor: Path, wanted: os.stat_result) -> bool:
    try:
        return os.path.samestat(descriptor.stat(), wanted)
    except OSError:
        return False
