"""What a hub still has open of a SQLite file that was replaced or deleted under it."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

from jupyterhub.app import JupyterHub

from jhub_safety.hubdb.condition import sqlite_path

#: Device and inode: the file itself, whatever it is called.
FileId = tuple[int, int]


def file_id(url: str) -> FileId | None:
    """None: no SQLite file, or there is none now."""
    path = sqlite_path(url)
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def rescue(app: JupyterHub, file: FileId | None) -> Path | None:
    """Write what the hub's own connection has to a new file beside the database; its path.

    One that was deleted on its own volume is put back as well: nothing is overwritten by that.
    None: there is nothing to rescue (as after ``.save``, which empties the very file), or no way.
    """
    path = sqlite_path(app.db_url)
    if path is None or file is None or file_id(app.db_url) == file:
        return None
    target = path.with_name(f"{path.name}.rescued-{time.strftime('%Y%m%dT%H%M%S')}")
    try:
        app.db.rollback()
        raw = app.db.connection().connection.driver_connection
        if not isinstance(raw, sqlite3.Connection):
            return None
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.close(handle)
        with closing(sqlite3.connect(target)) as copy:
            raw.backup(copy)
    except Exception as error:  # noqa: BLE001 - the hub ends anyway; this is a last service
        app.log.warning("What the hub still had could not be written: %s", error)
        return None
    if file_id(app.db_url) is None and target.stat().st_dev == file[0]:
        with suppress(OSError):
            os.link(target, path)
    return target
