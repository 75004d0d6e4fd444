"""Where fingerprints are kept: outside of the database's volume."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from kubernetes_asyncio import client as kube

from jhub_safety.cluster import landmark
from jhub_safety.cluster.claims import ClaimsApi
from jhub_safety.cluster.notes import Note
from jhub_safety.errors import Doubt
from jhub_safety.hubdb.guarding import Fingerprint

#: Notes are replaced by deleting and making them. Of two, one is always whole.
ABOUT = ("database-a", "database-b")


class Known(Protocol):
    """What was last known of the hub's database."""

    async def read(self) -> Fingerprint | None:
        """None: nothing was ever known. Raises Doubt: that could not be found out."""

    async def write(self, fingerprint: Fingerprint) -> None:
        """Raises Doubt."""

    async def forget(self) -> None:
        """Raises Doubt."""


def known_of(file: str, note: Callable[[str], Note]) -> Known:
    """In *file*, or, where that is "", in the notes that *note* gives by what they are about."""
    if file:
        return FiledKnown(Path(file))
    first, second = map(note, ABOUT)
    return NotedKnown((first, second))


async def had_homes(api: kube.CoreV1Api, namespace: str, hub: str) -> bool:
    """Whether the cluster has, or is known to have had, homes of this hub. Raises Doubt."""
    if await landmark.uid(api, namespace, hub, landmark.HOMES) is not None:
        return True
    claims = ClaimsApi(api, namespace, patience=10)
    return bool(await claims.list("component=singleuser-storage"))


class UnreachableKnown:
    """In a place to which there is no way just now."""

    def __init__(self, doubt: Doubt) -> None:
        self._doubt = doubt

    async def read(self) -> Fingerprint | None:
        raise self._doubt

    async def write(self, fingerprint: Fingerprint) -> None:  # noqa: ARG002 - as Known has it
        raise self._doubt

    async def forget(self) -> None:
        raise self._doubt


class NotedKnown:
    """In two Secrets, of which the later counts."""

    def __init__(self, notes: tuple[Note, Note]) -> None:
        self._notes = notes

    async def _all(self) -> list[tuple[Note, Fingerprint | None]]:
        found = []
        for note in self._notes:
            text = await note.read()
            try:
                found.append((note, Fingerprint.parse(text) if text else None))
            except ValueError as error:
                raise Doubt(f"secret {note.name}: {error}") from error
        return found

    async def read(self) -> Fingerprint | None:
        known = [one for _, one in await self._all() if one is not None]
        # Epochs only grow, also when an older or another database was accepted. Not by time:
        # of a machine whose clock was ahead an old one counted for as long.
        return max(known, key=lambda one: one.epoch, default=None)

    async def write(self, fingerprint: Fingerprint) -> None:
        oldest, _ = min(await self._all(), key=lambda pair: pair[1].epoch if pair[1] else -1)
        await oldest.write(fingerprint.record())

    async def forget(self) -> None:
        for note in self._notes:
            await note.delete()


class FiledKnown:
    """In a file, where there is no cluster."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self) -> Fingerprint | None:
        def read() -> Fingerprint | None:
            try:
                return Fingerprint.parse(json.loads(self._path.read_text()))
            except FileNotFoundError:
                return None
            except (OSError, ValueError, TypeError) as error:
                raise Doubt(f"{self._path} cannot be read: {error}") from error

        return await asyncio.to_thread(read)

    async def write(self, fingerprint: Fingerprint) -> None:
        def write() -> None:
            temporary = self._path.with_name(f"{self._path.name}.new")
            try:
                temporary.write_text(json.dumps(fingerprint.record()))
                temporary.replace(self._path)
            except OSError as error:
                raise Doubt(f"{self._path} cannot be written: {error}") from error

        await asyncio.to_thread(write)

    async def forget(self) -> None:
        try:
            await asyncio.to_thread(self._path.unlink, missing_ok=True)
        except OSError as error:
            raise Doubt(f"{self._path} cannot be removed: {error}") from error
