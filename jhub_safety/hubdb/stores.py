"""Where snapshots are kept: create, list, get, delete, and nothing is ever overwritten."""

from __future__ import annotations

import errno
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from traitlets.utils.importstring import import_item

from jhub_safety.errors import ConfigError, Doubt, SafetyError
from jhub_safety.hubdb.engines import sync

#: Schemes that obstore knows (extra "snapshots").
_REMOTE = ("s3", "gs", "az")
#: Bytes that stay free where a folder is: the database itself may be beside it, and a hub whose
#: database cannot grow stands still.
ROOM = 64 << 20


class NoRoom(SafetyError):
    """It would not fit, or leave too little; nothing was kept."""


class SnapshotStore(ABC):
    """Where snapshots are kept. Names are plain text with ``/``; they are given by the caller.

    For a place of your own: subclass it, and name the class in ``DatabaseBackup.store_class``.
    It is used in a process of its own; calls may take their time.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    #: The folder on this machine; None where it is elsewhere. For warnings only.
    folder: Path | None = None

    @abstractmethod
    def put(self, name: str, file: Path) -> None:
        """Keep the content of *file* under *name*, durably. Never overwrites.

        Raises:
            SafetyError: the name is taken, or it could not be kept whole. NoRoom: there is too
                little room; where old ones may go, they do, and it is tried once more.
        """

    @abstractmethod
    def get(self, name: str, file: Path) -> None:
        """Write what is kept under *name* into *file*.

        Raises:
            Doubt: it could not be read, or is not there.
        """

    @abstractmethod
    def names(self) -> list[str]:
        """All names, sorted. Empty only when it is known that nothing is kept.

        Raises:
            Doubt: they could not be listed, or not all of them.
        """

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove one; no error when it is gone already.

        Raises:
            SafetyError: it could not be removed.
        """


def open_store(url: str, store_class: str = "") -> SnapshotStore:
    """``file:///backups``, ``/backups``, ``s3://bucket/path``, ``gs://...``, ``az://...``.

    Raises:
        ConfigError: no such scheme or class, or a package is missing.
    """
    if store_class:
        try:
            return import_item(store_class)(url)  # type: ignore[no-any-return]
        except ImportError as error:
            raise ConfigError(f"DatabaseBackup.store_class {store_class!r}: {error}") from error
    scheme = urlsplit(url).scheme
    if scheme in ("", "file"):
        return FolderStore(url)
    if scheme in _REMOTE:
        return ObjectStore(url)
    known = ", ".join(f"{one}://" for one in ("file", *_REMOTE))
    raise ConfigError(f"DatabaseBackup.destination: {scheme}:// is not known; known are {known}")


class FolderStore(SnapshotStore):
    """A folder of this machine, most often of a mounted volume.

    Not through obstore: it writes files that others may read, and does not wait for the disk.
    Files are 0600, folders 0700.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        parts = urlsplit(url)
        path = Path(unquote(parts.path)) if parts.scheme else Path(url)
        if parts.netloc not in ("", "localhost") or not path.is_absolute():
            raise ConfigError(
                f"DatabaseBackup.destination: {url!r} names no folder; write file:///path/to/folder"
            )
        self.folder: Path = path

    def put(self, name: str, file: Path) -> None:
        target = self._path(name)
        with _saying(f"{target} was not written"):
            self._make(target.parent)
            self._require_room(target, file.stat().st_size)
            # Cut off half-way it has no manifest, which comes last: it counts for nothing.
            handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with file.open("rb") as source, os.fdopen(handle, "wb") as stream:
                    shutil.copyfileobj(source, stream, 1 << 20)
                    stream.flush()
                    os.fsync(stream.fileno())
            except BaseException:
                target.unlink(missing_ok=True)
                raise
            sync(target.parent)

    def _require_room(self, target: Path, size: int) -> None:
        """Raises NoRoom."""
        if target.with_suffix("").exists():
            # What belongs to one that is kept, such as its manifest: it is small, and the large
            # one counts for nothing without it.
            return
        left = shutil.disk_usage(target.parent).free - size
        if left < ROOM:
            raise NoRoom(
                f"{target} was not written: {max(0, left) >> 20} MiB would be left on its volume, "
                f"and {ROOM >> 20} MiB must stay free. The database and earlier snapshots are as "
                "they were. Set DatabaseBackup.destination to another place, or a smaller "
                "DatabaseBackup.keep_days; what is kept: jhub-safety db list"
            )

    def _make(self, folder: Path) -> None:
        """Like mkdir -p: what is made is for its owner alone."""
        missing = [one for one in (folder, *folder.parents) if not one.exists()]
        for one in reversed(missing):
            one.mkdir(mode=0o700, exist_ok=True)

    def get(self, name: str, file: Path) -> None:
        with _saying(f"{self._path(name)} cannot be read", Doubt):
            file.touch(mode=0o600, exist_ok=True)
            shutil.copyfile(self._path(name), file)

    def names(self) -> list[str]:
        failed: list[OSError] = []
        found = []
        with _saying(f"{self.folder} cannot be listed", Doubt):
            if not self.folder.exists():
                # A volume that is not mounted looks the same.
                raise Doubt(
                    f"{self.folder} is not there: no snapshot was made yet, or its volume is not "
                    "mounted. To make one: jhub-safety db backup"
                )
            for root, _, files in os.walk(self.folder, onerror=failed.append):
                found += [(Path(root) / one).relative_to(self.folder).as_posix() for one in files]
            if failed:
                raise failed[0]
        return sorted(found)

    def delete(self, name: str) -> None:
        with _saying(f"{self._path(name)} was not deleted"):
            self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / _plain(name)


class ObjectStore(SnapshotStore):
    """A bucket, through obstore. Credentials: as the provider's own tools find them."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        try:
            from obstore.store import from_url
        except ImportError as error:
            raise ConfigError(
                f"snapshots on {urlsplit(url).scheme}:// need obstore: "
                "pip install 'jhub-safety[snapshots]'"
            ) from error
        try:
            self._store: Any = from_url(url)  # type: ignore[call-overload]
        except Exception as error:
            raise ConfigError(
                f"DatabaseBackup.destination cannot be used: {_first_line(error)}"
            ) from error

    def put(self, name: str, file: Path) -> None:
        self._call("was not written", SafetyError, "put", _plain(name), file, mode="create")

    def get(self, name: str, file: Path) -> None:
        found = self._call("cannot be read", Doubt, "get", _plain(name))
        file.touch(mode=0o600, exist_ok=True)
        with file.open("wb") as stream, _any_error(f"{name} cannot be read", Doubt):
            for part in found.stream(min_chunk_size=1 << 20):
                stream.write(part)

    def names(self) -> list[str]:
        with _any_error("the snapshots cannot be listed", Doubt):
            return sorted(one["path"] for part in self._store.list() for one in part)

    def delete(self, name: str) -> None:
        try:
            self._store.delete(_plain(name))
        except FileNotFoundError:
            return
        except Exception as error:
            raise SafetyError(f"{name} was not deleted: {_first_line(error)}") from error

    def _call(
        self,
        what: str,
        error: type[SafetyError],
        method: str,
        name: str,
        *more: Any,
        **how: Any,
    ) -> Any:
        call: Callable[..., Any] = getattr(self._store, method)
        with _any_error(f"{name} {what}", error):
            return call(name, *more, **how)


def _plain(name: str) -> str:
    """Raises SafetyError for a name that leads elsewhere."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name:
        raise SafetyError(f"{name!r} is no name of a snapshot")
    return name


@contextmanager
def _saying(what: str, error: type[SafetyError] = SafetyError) -> Iterator[None]:
    try:
        yield
    except OSError as reason:
        full = error is SafetyError and reason.errno in (errno.ENOSPC, errno.EDQUOT)
        raise (NoRoom if full else error)(f"{what}: {reason.strerror or reason}") from reason


@contextmanager
def _any_error(what: str, error: type[SafetyError]) -> Iterator[None]:
    try:
        yield
    except Exception as reason:
        # obstore's errors share no base with anything; their first line says what happened.
        raise error(f"{what}: {_first_line(reason)}") from reason


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
