"""Snapshots on a schedule, inside the hub, by a process beside it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from traitlets import Bool, Float, Int, Unicode
from traitlets.config import LoggingConfigurable

from jhub_safety import metrics
from jhub_safety.errors import SafetyError
from jhub_safety.hubdb import worker
from jhub_safety.hubdb.engines import address, same_volume
from jhub_safety.hubdb.stores import NoRoom, open_store
from jhub_safety.journal import Journal
from jhub_safety.owner import label_value
from jhub_safety.plan import Action

#: Keys to encrypt snapshots with, separated by ";". In the environment as JupyterHub's own are:
#: configuration files are read by more people.
KEYS = "JHUB_SAFETY_SNAPSHOT_KEYS"
#: Beside a SQLite database, where nothing else is configured.
FOLDER = "jhub-safety-snapshots"
#: Seconds after the first failure; doubled with each further one.
RETRY = 60.0

Run = Callable[..., Awaitable[dict[str, Any]]]


class DatabaseBackup(LoggingConfigurable):  # type: ignore[misc]
    """Verified snapshots of the hub database (docs: Snapshots)."""

    enabled = Bool(
        True,
        config=True,
        help="""
        Make a snapshot every ``interval`` seconds while the hub runs.

        Off, snapshots are made by ``jhub-safety db backup`` alone.

        .. versionadded:: 0.1
        """,
    )
    destination = Unicode(
        "",
        config=True,
        help="""
        Where snapshots are kept: ``file:///backups``, ``s3://bucket/path``, ``gs://bucket/path``
        or ``az://container/path``. Credentials are found as the provider's own tools find them.
        All but ``file`` need ``pip install 'jhub-safety[snapshots]'``.

        Empty: the folder ``jhub-safety-snapshots`` beside a SQLite database. For a database on a
        server there is none, and no snapshot is made.

        Danger: on the database's own volume they are lost together with it. Snapshots hold what
        logs people in: who can read them must be as trusted as the hub's administrators.

        .. versionadded:: 0.1
        """,
    )
    interval = Float(
        3600.0,
        min=60.0,
        config=True,
        help="""
        Seconds from one snapshot to the next, also across restarts of the hub: what happened since
        the last one is what a restore loses.

        .. versionadded:: 0.1
        """,
    )
    keep = Int(
        24,
        min=1,
        config=True,
        help="""
        How many of the newest snapshots stay, however old they are. The last verified one that
        holds users is never removed.

        .. versionadded:: 0.1
        """,
    )
    keep_days = Float(
        7.0,
        min=0.0,
        config=True,
        help="""
        Days for which every snapshot stays. A week of hourly ones is 169 of them: look at the size
        of one (``jhub-safety db list``), and at the room where they are kept. A folder always
        keeps 64 MiB of its volume free: a snapshot that would take of that is not made.

        .. versionadded:: 0.1
        """,
    )
    timeout = Float(
        1800.0,
        min=10.0,
        config=True,
        help="""
        Seconds after which a snapshot that is not done is given up, and tried again later.

        .. versionadded:: 0.1
        """,
    )
    store_class = Unicode(
        "",
        config=True,
        help="""
        Dotted path of a ``SnapshotStore`` of your own, for places that no URL names.

        .. versionadded:: 0.1
        """,
    )

    def keys(self) -> list[str]:
        """The keys of the environment; the first one encrypts, all decrypt."""
        return [one for one in os.environ.get(KEYS, "").split(";") if one]

    def where(self, db_url: str) -> str:
        """The destination; "" when there is none."""
        file = address(db_url).file
        if self.destination or file is None:
            return str(self.destination)
        return (file.parent / FOLDER).as_uri()

    def warnings(self, db_url: str) -> list[str]:
        """What an operator should change, in sentences. Touches no network.

        Raises:
            ConfigError: the destination cannot be used.
        """
        found = []
        where = self.where(db_url)
        if not where:
            return [
                "DatabaseBackup.destination is not set: no snapshot of the hub database is made."
            ]
        folder, file = open_store(where, self.store_class).folder, address(db_url).file
        if folder is not None and file is not None and same_volume(folder, file):
            found.append(
                f"Snapshots are kept in {folder}, on the volume of the database itself: they are "
                "lost together with it. Set DatabaseBackup.destination to another place."
            )
        if not self.keys():
            found.append(
                f"Snapshots hold what logs people in, and are not encrypted ({KEYS} is not set)."
            )
        return found


@dataclass(frozen=True, slots=True)
class Schedule:
    """When the next snapshot is due. Pure."""

    interval: float

    def wait(self, *, age: float | None, failures: int, since_failure: float) -> float:
        """Seconds to wait from now.

        *age*: of the newest verified snapshot, None without one; so a hub that restarts often
        neither makes one each time nor never. *failures* in a row, the last *since_failure* ago.
        """
        if failures:
            pause = min(RETRY * float(2 ** min(failures - 1, 16)), self.interval)
            return max(0.0, pause - since_failure)
        if age is None or age < 0:
            # None yet; or one of the future: somebody's clock was wrong.
            return 0.0
        return max(0.0, self.interval - age)


class Backups:
    """What the hub asks for: a snapshot now, the newest good one, one every so often."""

    def __init__(
        self,
        settings: DatabaseBackup,
        db_url: str,
        hub: str,
        *,
        connect_args: Mapping[str, Any] | None = None,
        journal: Journal | None = None,
        run: Run = worker.run,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.settings, self.hub = settings, hub
        self._db_url = db_url
        #: As in ``JupyterHub.db_kwargs``: TLS towards a server, for example.
        self._connect_args = dict(connect_args or {})
        self._journal = journal
        self._run, self._now, self._sleep = run, now, sleep
        # A snapshot that an operator asks for waits for the one under way.
        self._one_at_a_time = asyncio.Lock()

    @property
    def prefix(self) -> str:
        return label_value(self.hub) or "hub"

    def request(self, do: str, **more: Any) -> dict[str, Any]:
        """For the worker. Holds the password and the keys: for nobody else."""
        return {
            "do": do,
            "db_url": self._db_url,
            "connect_args": self._connect_args,
            "destination": self.settings.where(self._db_url),
            "store_class": self.settings.store_class,
            "keys": self.settings.keys(),
            "hub": self.hub,
            "prefix": self.prefix,
            **more,
        }

    async def run_once(
        self, *, tidy: bool = True, progress: Callable[[str, int], None] = lambda *_: None
    ) -> dict[str, Any]:
        """Make a snapshot, verify it, then with *tidy* remove what may go; where there is no room
        for it, before.

        Returns ``{"snapshot": manifest, "removed": names, "problem": ""}``.

        Raises:
            SafetyError: there is no verified new one; earlier ones are kept.
        """
        settings = self.settings
        if not settings.where(self._db_url):
            raise SafetyError("no place for snapshots: set DatabaseBackup.destination")
        keep = settings.keep if tidy else None
        asked = self.request("backup", keep=keep, keep_days=settings.keep_days)
        async with self._one_at_a_time:
            begin = time.monotonic()
            try:
                try:
                    found = await self._run(asked, progress=progress, timeout=settings.timeout)
                except NoRoom:
                    # Only then is anything removed before there is a new one: of a database that
                    # cannot be read all snapshots stay. A full volume was never tidied again.
                    if not tidy or not await self._tidied(asked):
                        raise
                    found = await self._run(asked, progress=progress, timeout=settings.timeout)
            except SafetyError:
                metrics.SNAPSHOTS.labels("failed").inc()
                raise
        metrics.SNAPSHOTS.labels("verified").inc()
        metrics.SNAPSHOT_SECONDS.set(time.monotonic() - begin)
        metrics.SNAPSHOT_SIZE.set(found["snapshot"]["stored"]["size"])
        metrics.SNAPSHOT_TIME.set(datetime.fromisoformat(found["snapshot"]["made"]).timestamp())
        self._write_down(found["removed"])
        return found

    async def _tidied(self, asked: dict[str, Any]) -> bool:
        """Whether there is more room now."""
        found = await self._run({**asked, "do": "tidy"}, timeout=self.settings.timeout)
        self._write_down(found["removed"])
        if found["problem"]:
            self.settings.log.warning("Old snapshots were not removed: %s", found["problem"])
        return bool(found["removed"])

    def _write_down(self, removed: Iterable[str]) -> None:
        settings = self.settings
        why = f"older than {settings.keep_days:g} days, not among {settings.keep}"
        if self._journal is not None:
            for name in removed:
                self._journal.write(Action("delete-snapshot", "", name, why), "done")

    async def list(self) -> dict[str, Any]:
        """``{"snapshots": [...], "newest": name or None, "ours": name or None}``, oldest first.

        *ours*: the newest that is of this very database, as far as that is known.

        Raises:
            Doubt: they could not be listed, or not all.
        """
        return await self._run(self.request("list"), timeout=self.settings.timeout)

    async def newest_verified(self) -> dict[str, Any] | None:
        """The one to restore: the newest verified one that holds users. Raises Doubt.

        It was good when it was written; a restore proves it again.
        """
        found = await self.list()
        return self._newest(found, found["newest"])

    @staticmethod
    def _newest(found: dict[str, Any], name: str | None) -> dict[str, Any] | None:
        made = next((one for one in found["snapshots"] if one["name"] == name), None)
        if made is not None:
            metrics.SNAPSHOT_TIME.set(datetime.fromisoformat(made["made"]).timestamp())
        return made

    async def serve(self) -> None:
        """Make snapshots on schedule until cancelled; a failure is logged, and tried again.

        Returns at once where there is no place for them, or with ``enabled`` off.

        Raises:
            ConfigError: the destination cannot be used.
        """
        if not self.settings.enabled:
            return
        for one in self.settings.warnings(self._db_url):
            self.settings.log.warning(one)
        if not self.settings.where(self._db_url):
            return
        schedule = Schedule(self.settings.interval)
        failures = 0
        age = await self._age()
        while True:
            await self._sleep(schedule.wait(age=age, failures=failures, since_failure=0.0))
            try:
                found = await self.run_once()
                age, failures = 0.0, 0
                if found["problem"]:
                    self.settings.log.warning(
                        "Old snapshots were not removed: %s", found["problem"]
                    )
            except SafetyError as error:
                failures += 1
                self.settings.log.error(  # noqa: TRY400 - it says all there is to say
                    "No snapshot of the hub database was made: %s. Earlier ones are kept; it is "
                    "tried again.",
                    error,
                )

    async def _age(self) -> float | None:
        try:
            found = await self.list()
            # Another hub's that shares the place says nothing about ours.
            newest = self._newest(found, found.get("ours", found["newest"]))
        except SafetyError:
            return None
        if newest is None:
            return None
        return (self._now() - datetime.fromisoformat(newest["made"])).total_seconds()
