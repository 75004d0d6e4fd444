"""A snapshot: a SQLite file that a hub can be started on, whatever the source, and its manifest."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jhub_safety import __version__
from jhub_safety.errors import Doubt, SafetyError
from jhub_safety.hubdb import content
from jhub_safety.hubdb.content import Content
from jhub_safety.hubdb.copying import check_file, write_file
from jhub_safety.hubdb.engines import Address, copy_file, journal_mode, opened_file, reading
from jhub_safety.hubdb.packing import Damaged, Sum, pack, sum_of, unpack
from jhub_safety.hubdb.retention import Kept
from jhub_safety.hubdb.stores import SnapshotStore

#: Told what is being done, and how many rows or bytes of it since.
Progress = Callable[[str, int], None]
FORMAT = 1
#: Of what a restore replaced on a server. Never the newest one: a restore that was cut off and is
#: run again would put back what it was to replace.
BEFORE_RESTORE = "before-restore"
MANIFEST, VERIFIED = ".json", ".verified"
_NAME = re.compile(r"(?:[^/]+/)?(\d{8}T\d{6}\.\d{6})Z-[0-9a-f]{8}\.sqlite\.zst(?:\.fernet)?")
#: A manifest of a thousand tables is far smaller.
_LARGEST_MANIFEST = 1 << 22


def _quiet(_what: str, _done: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a snapshot must hold. It names no user."""

    name: str
    hub: str
    made: datetime
    #: Of the source: ``sqlite``, ``postgresql``, ``mysql``.
    engine: str
    #: Schema revision of JupyterHub (alembic's).
    revision: str
    highest_user_id: int | None
    raw: Sum
    stored: Sum
    tables: Mapping[str, Content]
    journal_mode: str = ""
    #: References that were broken in the source already.
    references: tuple[str, ...] = ()
    #: Why it was made; "" for one of the schedule, or of an operator.
    purpose: str = ""
    library: str = __version__

    @property
    def users(self) -> int:
        return self.tables["users"].rows

    @property
    def encrypted(self) -> bool:
        return self.name.endswith(".fernet")

    def record(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "name": self.name,
            "hub": self.hub,
            "made": self.made.isoformat(),
            "engine": self.engine,
            "revision": self.revision,
            "users": self.users,
            "highest_user_id": self.highest_user_id,
            "raw": self.raw.record(),
            "stored": self.stored.record(),
            "tables": {name: one.record() for name, one in sorted(self.tables.items())},
            "journal_mode": self.journal_mode,
            "references": list(self.references),
            "library": self.library,
            **({"purpose": self.purpose} if self.purpose else {}),
        }

    def encode(self) -> bytes:
        """JSON that ends in its own checksum. Every byte of it counts."""
        record = self.record()
        record["seal"] = _seal(record)
        return (json.dumps(record, indent=1) + "\n").encode()

    @classmethod
    def decode(cls, data: bytes, name: str) -> Manifest:
        """Raises Damaged when a single byte is not as it was written, or *name* is another's."""
        try:
            record = json.loads(data)
            tables = {
                key: Content(tuple(one["columns"]), one["rows"], one["digest"])
                for key, one in record["tables"].items()
            }
            made = cls(
                name=record["name"],
                hub=record["hub"],
                made=datetime.fromisoformat(record["made"]),
                engine=record["engine"],
                revision=record["revision"],
                highest_user_id=record["highest_user_id"],
                raw=Sum(**record["raw"]),
                stored=Sum(**record["stored"]),
                tables=MappingProxyType(tables),
                journal_mode=record["journal_mode"],
                references=tuple(record["references"]),
                purpose=record.get("purpose", ""),
                library=record["library"],
            )
            if record["format"] != FORMAT:
                raise Damaged(f"the manifest of {name} is of a newer version of this library")
            same = made.encode() == data and made.name == name
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Damaged(f"the manifest of {name} cannot be read") from error
        if not same:
            raise Damaged(f"the manifest of {name} is not as it was written")
        return made


def _seal(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


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
        )
        progress("store", manifest.stored.size)
        shelf.store.put(manifest.name, packed)
        # Last: what has no manifest is no snapshot.
        _put(shelf.store, manifest.name + MANIFEST, manifest.encode(), Path(folder))
    verify(shelf, manifest.name, progress=progress)
    return manifest


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

    Raises:
        Damaged: a single byte of it, or of its manifest, is not as it was written.
        Doubt: it cannot be read.
    """
    manifest = read_manifest(shelf.store, name)
    with tempfile.TemporaryDirectory(prefix="jhub-safety-") as folder:
        packed, raw = Path(folder) / "packed", Path(folder) / "snapshot.sqlite"
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
            raise Damaged(f"snapshot {name}: {error}") from error
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
        yield manifest, raw


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
    if name + VERIFIED not in shelf.store.names():
        with tempfile.TemporaryDirectory(prefix="jhub-safety-") as folder:
            mark = {"time": datetime.now(UTC).isoformat(), "manifest": _digest(manifest)}
            _put(shelf.store, name + VERIFIED, json.dumps(mark).encode(), Path(folder))
    return manifest


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
    #: Every object that belongs to it.
    objects: tuple[str, ...] = field(default=())

    def kept(self) -> Kept:
        return Kept(
            self.name, self.made, self.verified, self.manifest.users if self.manifest else None
        )

    def record(self) -> dict[str, Any]:
        about = {} if self.manifest is None else self.manifest.record()
        about.pop("tables", None)
        return {
            "name": self.name,
            "made": self.made.isoformat(),
            "verified": self.verified,
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
        objects = tuple(one for one in (name, name + MANIFEST, name + VERIFIED) if one in names)
        made = datetime.strptime(match[1], "%Y%m%dT%H%M%S.%f").replace(tzinfo=UTC)
        one = Listed(name, made, verified=name + VERIFIED in names, objects=objects)
        if name + MANIFEST not in names:
            found.append(replace(one, verified=False, problem="cut off while it was written"))
            continue
        try:
            found.append(replace(one, manifest=read_manifest(shelf.store, name)))
        except Damaged as damage:
            found.append(replace(one, verified=False, problem=str(damage)))
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
