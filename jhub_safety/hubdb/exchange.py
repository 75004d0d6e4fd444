"""A SQLite database's file gives way to another: whole or not at all, and is kept."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path

from jhub_safety.errors import SafetyError
from jhub_safety.hubdb import content
from jhub_safety.hubdb.copying import Afterwards, change_file, require_equal
from jhub_safety.hubdb.engines import COMPANIONS, opened_file, sync
from jhub_safety.hubdb.manifest import Manifest
from jhub_safety.hubdb.packing import sum_of

#: In the name of what is not in place yet.
_RESTORING = ".restoring-"


def replace_file(
    target: Path, source: Path, manifest: Manifest, wanted: Sequence[Afterwards], now: datetime
) -> str:
    """Put a copy of *source*, as *manifest* has it, in the place of *target*.

    Written beside it first, then renamed: at no time is there a half of anything. Returns where the
    old file is now, with what belonged to it; "" when there was none.

    Raises:
        SafetyError: it failed; *target* is as it was.
    """
    stamp = f"{now:%Y%m%dT%H%M%S.%f}"
    new = target.with_name(f"{target.name}{_RESTORING}{stamp}")
    aside = target.with_name(f"{target.name}.before-{stamp}")
    try:
        new.touch(mode=0o600, exist_ok=False)
        shutil.copyfile(source, new)
        sync(new)
        if sum_of(new) != manifest.raw:
            raise SafetyError(f"{new} was not written whole")
        change_file(new, wanted)
        before = _measured(new)
        like(new, target)
        if manifest.journal_mode == "wal":
            _use_wal(new)
        kept = _exchange(target, new, aside)
        try:
            require_equal(_measured(target), before)
        except BaseException:
            _exchange_back(target, aside if kept else None)
            raise
        _remove_leftovers(target)
    except OSError as error:
        raise SafetyError(f"{target} was not replaced: {error.strerror or error}") from error
    finally:
        for end in ("", *COMPANIONS):
            beside(new, end).unlink(missing_ok=True)
    return str(aside) if kept else ""


def _measured(file: Path) -> Mapping[str, content.Content]:
    with opened_file(file) as connection:
        return content.measure(connection)


def like(new: Path, old: Path) -> None:
    """The hub must be able to write what root restored."""
    model = old if old.exists() else old.parent
    of = model.stat()
    if old.exists():
        new.chmod(of.st_mode & 0o777)
    if os.geteuid() == 0:
        os.chown(new, of.st_uid, of.st_gid)
        if not old.exists() and of.st_mode & 0o020:
            # The folder is root's, and its group is what the hub has (fsGroup).
            new.chmod(0o660)


def _exchange(target: Path, new: Path, aside: Path) -> bool:
    """Put *new* in the place of *target*; True when there was an old one, now *aside*.

    All of the old one gets a second name first, so that it is whole under one of them at any time.
    Where nothing belongs to it, one step is left. Else it goes before what belongs to it: a
    write-ahead log beside another database than its own would be played into that one, and one
    without its log is an older state; a database that is missing is noticed.
    """
    parts = [end for end in ("", *COMPANIONS) if beside(target, end).exists()]
    by_itself = _is_whole_by_itself(target)
    if "" not in parts or not _give_second_names(target, aside, [""] if by_itself else parts):
        return _exchange_by_renaming(target, new, aside)
    try:
        if not by_itself:
            target.unlink()
        for end in COMPANIONS:
            beside(target, end).unlink(missing_ok=True)
        new.replace(target)
    except BaseException:
        _take_back(target, aside)
        raise
    sync(target.parent)
    return True


def _take_back(target: Path, aside: Path) -> None:
    """As it was before its parts had second names; the database last."""
    for end in reversed(("", *COMPANIONS)):
        here, kept = beside(target, end), beside(aside, end)
        if kept.exists() and here.exists() and here.samefile(kept):
            kept.unlink()
        elif kept.exists():
            kept.rename(here)


def _exchange_by_renaming(target: Path, new: Path, aside: Path) -> bool:
    """On file systems with one name for a file; and where there is no old one."""
    moved: list[tuple[Path, Path]] = []
    try:
        for end in ("", *COMPANIONS):
            old, kept = beside(target, end), beside(aside, end)
            if old.exists():
                old.rename(kept)
                moved.append((old, kept))
        if target.exists():
            raise SafetyError(f"{target} was made anew meanwhile: a hub is running")
        new.rename(target)
    except BaseException:
        # Also when it is told to end.
        for old, kept in reversed(moved):
            kept.rename(old)
        raise
    sync(target.parent)
    return bool(moved)


def _is_whole_by_itself(file: Path) -> bool:
    """Whoever looks at a database in WAL mode leaves an empty log, and an index of that."""
    logs = [beside(file, end) for end in COMPANIONS if end != "-shm"]
    return file.exists() and not any(one.exists() and one.stat().st_size for one in logs)


def _give_second_names(target: Path, aside: Path, parts: Sequence[str]) -> bool:
    """False where the file system has one name for a file only, as some of networks have."""
    given: list[Path] = []
    try:
        for end in parts:
            beside(aside, end).hardlink_to(beside(target, end))
            given.append(beside(aside, end))
    except OSError:
        # Only those: what has such a name already is somebody's database, kept aside.
        for one in given:
            one.unlink()
        return False
    sync(target.parent)
    return True


def _exchange_back(target: Path, aside: Path | None) -> None:
    """*aside*: None when there was no old one."""
    companions = [end for end in COMPANIONS if aside and beside(aside, end).exists()]
    for end in COMPANIONS:
        beside(target, end).unlink(missing_ok=True)
    if companions or aside is None:
        target.unlink(missing_ok=True)
    if aside is not None:
        for end in (*companions, ""):
            beside(aside, end).rename(beside(target, end))
    sync(target.parent)


def _remove_leftovers(target: Path) -> None:
    """Copies of snapshots that restores left behind which were killed: they hold logins."""
    for one in list(target.parent.iterdir()):
        if one.name.startswith(f"{target.name}{_RESTORING}"):
            with suppress(OSError):
                one.unlink(missing_ok=True)


def _use_wal(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


def beside(file: Path, end: str) -> Path:
    return file.with_name(file.name + end)
