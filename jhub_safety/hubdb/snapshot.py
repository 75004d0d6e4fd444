"""A snapshot: a SQLite file that a hub can be started on, whatever the source, and its manifest."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection

from jhub_safety.errors import Doubt, SafetyError
from jhub_safety.hubdb import content, identity
from jhub_safety.hubdb.content import Content
from jhub_safety.hubdb.copying import check_file, write_file
from jhub_safety.hubdb.engines import Address, copy_file, journal_mode, opened_file, reading
from jhub_safety.hubdb.manifest import Manifest
from jhub_safety.hubdb.packing import Damaged, OtherKey, pack, sum_of, unpack
from jhub_safety.hubdb.retention import Kept
from jhub_safety.hubdb.stores import SnapshotStore

#: Told what is being done, and how many rows or bytes of it since.
Progress = Callable[[str, int], None]
#: Of what a restore replaced on a server. Never the newest one: a restore that was cut off and is
#: run again would put back what it was to replace.
BEFORE_RESTORE = "before-restore"
#: Objects of a snapshot beside its database. One that was found damaged is not verified any more.
MANIFEST, VERIFIED, DAMAGED = ".json", ".verified", ".damaged"
_NAME = re.compile(r"(?:[^/]+/)?(\d{8}T\d{6}\.\d{6})Z-[0-9a-f]{8}\.sqlite\.zst(?:\.fernet)?")
#: A manifest of a thousand tables is far smaller.
_LARGEST_MANIFEST = 1 << 22


def _quiet(_what: str, _done: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where one hub's snapshots are kept, and how."""

    store: SnapshotStore
    hub: str
    #: Folder of this hub's.
    prefix: str
    #: The first one encrypts, all decrypt; none: not encrypted.
    keys: tuple[str, ...] = field(default=(), repr=False)


# -- taking one


def take(
    source: Address,
    shelf: Shelf,
    *,
    purpose: str = "",
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    progress: Progress = _quiet,
) -> Manifest:
    """Copy the database, keep the copy, and open what was kept (:func:`verify`).

    Raises:
        Doubt: the database cannot be read, or is damaged.
        SafetyError: it is no hub's, the copy could not be kept, or what was kept is not it.
    """
    with tempfile.TemporaryDirectory(prefix="jhub-safety-") as folder:
        raw, packed = Path(folder) / "raw", Path(folder) / "packed"
        made = now().astimezone(UTC)
        tables, engine, mode = _copy(source, raw, progress)
        soundness = check_file(raw)
        if soundness.damage:
            raise Doubt(
                f"the database {source} is damaged ({soundness.damage[0]}); no snapshot was made "
                "of it, and earlier ones are kept. See them with: jhub-safety db list"
            )
        if "users" not in tables:
            raise SafetyError(f"the database {source} has no table users; it is no hub's")
        with opened_file(raw) as connection:
            revision = content.schema_revision(connection)
            highest = content.highest_user_id(connection)
            whose = identity_in(connection)
        progress("compress", 0)
        pack(raw, packed, shelf.keys)
        end = ".sqlite.zst.fernet" if shelf.keys else ".sqlite.zst"
        manifest = Manifest(
            name=f"{shelf.prefix}/{made:%Y%m%dT%H%M%S.%f}Z-{secrets.token_hex(4)}{end}",
            hub=shelf.hub,
            made=made,
            engine=engine,
            revision=revision,
            highest_user_id=highest,
            raw=sum_of(raw),
            stored=sum_of(packed),
            tables=MappingProxyType(tables),
            journal_mode=mode,
            references=soundness.references,
            purpose=purpose,
            identity=whose,
        )
        progress("store", manifest.stored.size)
        shelf.store.put(manifest.name, packed)
        # Last: what has no manifest is no snapshot.
        _put(shelf.store, manifest.name + MANIFEST, manifest.encode(), Path(folder))
    verify(shelf, manifest.name, progress=progress)
    return manifest


def identity_in(connection: Connection) -> str:
    """Which database this is; "" for one that was never marked."""
    found = identity.read(connection)
    return found.identity if found is not None else ""


def _copy(source: Address, raw: Path, progress: Progress) -> tuple[dict[str, Content], str, str]:
    if source.file is None:
        with reading(source) as connection:
            return write_file(connection, raw, progress=progress), source.engine, ""
    mode = journal_mode(source)
    copy_file(source.file, raw)
    with opened_file(raw) as connection:
        return content.measure(connection, progress=progress), source.engine, mode


def _put(store: SnapshotStore, name: str, data: bytes, folder: Path) -> None:
    file = folder / "small"
    file.write_bytes(data)
    store.put(name, file)


# -- looking at those that are kept


def read_manifest(store: SnapshotStore, name: str) -> Manifest:
    """Raises Doubt when it is not there, Damaged when it is not as it was written."""
    if not _NAME.fullmatch(name):
        raise SafetyError(f"{name!r} is no name of a snapshot; see them with: jhub-safety db list")
    with tempfile.TemporaryDirectory(prefix="jhub-safety-") as folder:
        file = Path(folder) / "manifest"
        store.get(name + MANIFEST, file)
        if file.stat().st_size > _LARGEST_MANIFEST:
            raise Damaged(f"the manifest of {name} is not as it was written")
        return Manifest.decode(file.read_bytes(), name)


@contextmanager
def opened(
    shelf: Shelf, name: str, *, progress: Progress = _quiet
) -> Iterator[tuple[Manifest, Path]]:
    """The snapshot's file, proven to hold what was read from the source when it was made.

    One that is not is marked: it was listed as verified, and came before the good ones.

    Raises:
        Damaged: a single byte of it, or of its manifest, is not as it was written.
        Doubt: it cannot be read.
    """
    manifest = read_manifest(shelf.store, name)
    with tempfile.TemporaryDirectory(prefix="jhub-safety-") as folder:
        try:
            raw = _fetch(shelf, manifest, Path(folder), progress)
        except OtherKey:
            raise
        except Damaged:
            with suppress(SafetyError):
                _mark(shelf.store, manifest, DAMAGED)
            raise
        yield manifest, raw


def _fetch(shelf: Shelf, manifest: Manifest, folder: Path, progress: Progress) -> Path:
    """Bring it into *folder*, and prove it."""
    packed, raw, name = folder / "packed", folder / "snapshot.sqlite", manifest.name
    progress("fetch", manifest.stored.size)
    shelf.store.get(name, packed)
    _require(sum_of(packed) == manifest.stored, name, "size or checksum of what is kept")
    if manifest.encrypted and not shelf.keys:
        raise SafetyError(
            f"{name} is encrypted; give the key in the environment: JHUB_SAFETY_SNAPSHOT_KEYS"
        )
    progress("decompress", 0)
    try:
        unpack(packed, raw, manifest.raw.size, shelf.keys if manifest.encrypted else ())
    except Damaged as error:
        # It is the very bytes that were written.
        kind = OtherKey if manifest.encrypted else Damaged
        raise kind(f"snapshot {name}: {error}") from error
    packed.unlink()
    _require(sum_of(raw) == manifest.raw, name, "size or checksum of the database")
    soundness = check_file(raw)
    _require(not soundness.damage, name, "SQLite's own check")
    _require(soundness.references == manifest.references, name, "references between tables")
    with opened_file(raw) as connection:
        found = content.measure(connection, progress=progress)
        different = content.differences(found, manifest.tables)
        _require(not different, name, "; ".join(different))
        _require(content.schema_revision(connection) == manifest.revision, name, "revision")
        highest = content.highest_user_id(connection)
        _require(highest == manifest.highest_user_id, name, "highest user id")
        noted = manifest.identity is not None
        _require(not noted or identity_in(connection) == manifest.identity, name, "identity")
    return raw


def _require(fine: bool, name: str, what: str) -> None:
    if not fine:
        raise Damaged(f"snapshot {name} is not as it was written: {what}")


def verify(shelf: Shelf, name: str, *, progress: Progress = _quiet) -> Manifest:
    """Open what is kept, compare all of it with the manifest, and note that it was good.

    Raises:
        Damaged: it is not as it was written. Doubt: it cannot be read.
    """
    with opened(shelf, name, progress=progress) as (manifest, _):
        pass
    names = shelf.store.names()
    if name + VERIFIED not in names:
        _mark(shelf.store, manifest, VERIFIED)
    if name + DAMAGED in names:
        # What gave other bytes then gives the right ones now: it was on the way.
        shelf.store.delete(name + DAMAGED)
    return manifest


def _mark(store: SnapshotStore, manifest: Manifest, end: str) -> None:
    with tempfile.TemporaryDirectory(prefix="jhub-safety-") as folder:
        mark = {"time": datetime.now(UTC).isoformat(), "manifest": _digest(manifest)}
        _put(store, manifest.name + end, json.dumps(mark).encode(), Path(folder))


def _digest(manifest: Manifest) -> str:
    return hashlib.sha256(manifest.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Listed:
    """A snapshot that is kept. Without a manifest: cut off, or its manifest is damaged."""

    name: str
    made: datetime
    verified: bool
    manifest: Manifest | None = None
    #: Why there is no manifest, "" when there is one.
    problem: str = ""
    #: It was good once.
    damaged: bool = False
    #: Every object that belongs to it.
    objects: tuple[str, ...] = field(default=())

    def kept(self) -> Kept:
        about = self.manifest
        if about is None:
            return Kept(self.name, self.made, self.verified, None)
        return Kept(self.name, self.made, self.verified, about.users, about.identity)

    def record(self) -> dict[str, Any]:
        about = {} if self.manifest is None else self.manifest.record()
        about.pop("tables", None)
        return {
            "name": self.name,
            "made": self.made.isoformat(),
            "verified": self.verified,
            "damaged": self.damaged,
            "problem": self.problem,
            "manifest": about or None,
        }


def listing(shelf: Shelf) -> list[Listed]:
    """Every snapshot of the hub, oldest first.

    Raises:
        Doubt: not all could be listed.
    """
    names = set(shelf.store.names())
    found = []
    for name in sorted(names):
        match = _NAME.fullmatch(name)
        if match is None or not name.startswith(f"{shelf.prefix}/"):
            continue
        # The last one is removed first: what is left of one that is damaged stays that.
        belonging = (name, name + DAMAGED, name + MANIFEST, name + VERIFIED)
        objects = tuple(one for one in belonging if one in names)
        made = datetime.strptime(match[1], "%Y%m%dT%H%M%S.%f").replace(tzinfo=UTC)
        once, damaged = name + VERIFIED in names, name + DAMAGED in names
        one = Listed(name, made, once and not damaged, damaged=damaged, objects=objects)
        if name + MANIFEST not in names:
            found.append(replace(one, verified=False, problem="cut off while it was written"))
            continue
        try:
            found.append(replace(one, manifest=read_manifest(shelf.store, name)))
        except Damaged as damage:
            found.append(replace(one, verified=False, damaged=damaged or once, problem=str(damage)))
    return found


def newest_verified(listed: Sequence[Listed]) -> Listed | None:
    """The one to restore: the newest verified one that holds users, else the newest verified.

    One that a restore made of what it replaced only where there is no other of its kind: an empty
    one must not come before the last that knows the users.
    """
    good = [(one, one.manifest) for one in listed if one.verified and one.manifest is not None]
    ranked = [
        (manifest.users > 0, manifest.purpose != BEFORE_RESTORE, place, one)
        for place, (one, manifest) in enumerate(good)
    ]
    return max(ranked, key=lambda one: one[:3])[3] if ranked else None


def remove(shelf: Shelf, one: Listed) -> None:
    """The database itself last: cut off before that, what is left is listed, and goes next time.

    Raises:
        SafetyError: it is still there, or a part of it.
    """
    for name in reversed(one.objects):
        shelf.store.delete(name)
