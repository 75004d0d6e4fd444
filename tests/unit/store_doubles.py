"""Places for snapshots with a fault. The worker imports them by name, so nothing else is in here.

From a module of tests each process of the worker imported pytest and JupyterHub as well: at the
lowest priority beside other tests that took up to 26 s of the 30 that a unit test has.
"""

from __future__ import annotations

from pathlib import Path

from jhub_safety.errors import Doubt
from jhub_safety.hubdb.stores import FolderStore, NoRoom


class RoomForTwo(FolderStore):
    """A small volume."""

    def put(self, name: str, file: Path) -> None:
        if name.endswith(".zst") and len([*self.folder.rglob("*.zst")]) >= 2:
            raise NoRoom("the volume is full")
        super().put(name, file)


class OutOfReach(FolderStore):
    """Lists what it has, and then does not answer."""

    def get(self, name: str, file: Path) -> None:
        if name.endswith(".zst"):
            raise Doubt("HTTP 503")
        super().get(name, file)
