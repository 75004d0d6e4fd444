"""What is wrong around a hub's database: its file, its volume, the cookie secret."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jhub_safety.finding import Finding, Severity
from jhub_safety.hubdb.condition import sqlite_path
from jhub_safety.hubdb.holders import Holder, holders

#: File systems on which SQLite's locks cannot be trusted.
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p", "ceph", "glusterfs"})
#: Bytes of a cookie secret: JupyterHub makes 32 (app.py:1873, 6.1.1).
_SECRET = 32

CODES = {
    "db-opened-twice": "others have the database's file open, too",
    "db-holders-unseen": "who has the database's file open could not be seen whole",
    "db-network": "SQLite on a network file system",
    "db-no-wal": "SQLite without write-ahead log",
    "secret-short": "the cookie secret is short",
    "secret-open": "others can read the cookie secret",
    "secret-beside": "the cookie secret lies on the database's volume",
}


def check_files(url: str, config: Any) -> list[Finding]:
    """*config*: the hub's. Blocking; reads no content but the secret's length."""
    path = sqlite_path(url)
    found = list(_file(path)) if path is not None else []
    return found + list(_secret(path, config))


def _file(path: Path) -> Iterator[Finding]:
    kind = file_system(path)
    if kind in _NETWORK:
        yield Finding(
            Severity.WARNING,
            "db-network",
            str(path),
            f"it is on a network file system ({kind}), where SQLite's locks may fail: two writers "
            "damage it",
            "jhub-safety db migrate --help",
        )
    mode = ""
    with suppress(sqlite3.Error):
        uri = f"file:{quote(str(path))}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    if mode not in ("wal", ""):
        yield Finding(
            Severity.OK,
            "db-no-wal",
            str(path),
            "it has no write-ahead log: whoever reads keeps the hub waiting (a snapshot of 100,000 "
            "users 0.24 s, with it 0.02 s)",
            f"sqlite3 {path} 'PRAGMA journal_mode = WAL'",
        )


def check_holders(path: Path, *, hub: bool = False) -> list[Finding]:
    """Who has the file open besides one hub. *hub*: this process is that one. Blocking.

    What is on another machine, as with a volume that two pods mount, is not seen from here.
    """
    seen = holders(path)
    hubs = [one for one in seen.holders if one.hub]
    strangers = [one for one in seen.holders if not one.hub and not one.ours]
    found = []
    if len(hubs) + hub > 1:
        found.append(
            Finding(
                Severity.ERROR,
                "db-opened-twice",
                str(path),
                f"{len(hubs) + hub} hubs have it open: {_told(hubs)}"
                f"{' and this one' if hub else ''}. Each undoes what the other does",
                _show(hubs),
            )
        )
    if strangers:
        found.append(
            Finding(
                Severity.WARNING,
                "db-opened-twice",
                str(path),
                f"{_told(strangers)} has it open: who writes there changes it under the hub",
                _show(strangers),
            )
        )
    if seen.unseen:
        found.append(
            Finding(
                Severity.UNKNOWN,
                "db-holders-unseen",
                str(path),
                f"{seen.unseen} processes of other accounts could not be looked at; nor can those "
                "of other machines",
            )
        )
    return found


def _told(some: Sequence[Holder]) -> str:
    return ", ".join(map(str, some))


def _show(some: Sequence[Holder]) -> str:
    return f"ps -fp {','.join(str(one.pid) for one in some)}"


def file_system(path: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """Type of the file system that *path* is on; "" where that cannot be told."""
    best, kind = "", ""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        words = line.split(" ")
        point = words[1].replace("\\040", " ")
        inside = point == "/" or str(path) == point or str(path).startswith(f"{point}/")
        if inside and len(point) >= len(best):
            best, kind = point, words[2]
    return kind


def _secret(path: Path | None, config: Any) -> Iterator[Finding]:
    hub = config.JupyterHub
    secret = hub.get("cookie_secret")
    if isinstance(secret, bytes) and secret:
        if len(secret) < _SECRET:
            yield _short(len(secret), "JupyterHub.cookie_secret")
        return
    if os.environ.get("JPY_COOKIE_SECRET"):
        return
    file = Path(hub.get("cookie_secret_file") or "jupyterhub_cookie_secret").absolute()
    try:
        status = file.stat()
    except OSError:
        return
    # Hexadecimal: two characters a byte.
    if status.st_size < 2 * _SECRET:
        yield _short(status.st_size // 2, str(file))
    if stat.S_IMODE(status.st_mode) & 0o077:
        yield Finding(
            Severity.ERROR,
            "secret-open",
            str(file),
            "others than the hub's account can read it: they can log in as anybody",
            f"chmod 0600 {file}",
        )
    if path is not None and path.exists() and path.stat().st_dev == status.st_dev:
        yield Finding(
            Severity.OK,
            "secret-beside",
            str(file),
            "it is on the database's volume: whoever loses one loses both, and everybody logs in "
            "anew",
        )


def _short(size: int, where: str) -> Finding:
    return Finding(
        Severity.WARNING,
        "secret-short",
        where,
        f"the cookie secret has {size} bytes; {_SECRET} are wanted",
        "openssl rand -hex 32",
    )
