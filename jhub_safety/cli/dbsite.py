"""What the ``db`` commands need first: the hub's configuration, and whether a hub is alive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any

import click
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from jhub_safety.checked import check_section
from jhub_safety.cli.connection import Options, common_options, notes, shown, to_cluster
from jhub_safety.cli.holding import nobody_else
from jhub_safety.cli.hubalive import Sign, sign_of_serving
from jhub_safety.cluster.client import is_configured
from jhub_safety.errors import ConfigError, Doubt, SafetyError
from jhub_safety.hubconfig import SessionsConfig, load_sessions
from jhub_safety.hubdb import worker
from jhub_safety.hubdb.alone import Lock
from jhub_safety.hubdb.backup import Backups, DatabaseBackup
from jhub_safety.hubdb.engines import Address, address

#: Where a pod finds the name of its namespace.
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True)
class DbSite:
    """A hub's database and its snapshots. No cluster is needed for them."""

    hub: SessionsConfig
    options: Options
    backups: Backups

    @property
    def address(self) -> Address:
        return address(self.options.db_url or self.hub.db_url)

    def header(self) -> str:
        where = self.backups.request("")["destination"]
        return (
            f"hub {self.hub.hub_name}, database {self.address}, snapshots in {where or 'no place'}"
        )

    def warn(self) -> None:
        """Tell what an operator should change about the snapshots."""
        for one in self.backups.settings.warnings(self.address.plain):
            notes.print(f"[yellow]{shown(one)}[/]")

    @property
    def namespace(self) -> str:
        return self.options.namespace or self.hub.namespace

    @property
    def connect_args(self) -> Mapping[str, Any]:
        return self.hub.connect_args

    def nobody_else(self) -> AbstractContextManager[Lock]:
        """As :func:`~jhub_safety.cli.holding.nobody_else`, of this hub's database."""
        return nobody_else(self.address.plain, self.connect_args)

    async def ask(self, do: str, *, lock: Lock | None = None, **more: Any) -> dict[str, Any]:
        """Have it done beside this process, with its progress on the terminal.

        *lock*: as :meth:`nobody_else` gave it, for what changes the database.
        """
        keeping = [lock.handle] if lock is not None and lock.handle is not None else []
        with progress() as told:
            request = self.backups.request(do, **more)
            return await worker.run(request, progress=told, keeping=keeping)

    async def resolve(self, wanted: str) -> str:
        """The full name of a snapshot: ``newest``, or a part of the name that only one has.

        Raises:
            SafetyError: none has it, or several. Doubt: they could not be listed.
        """
        found = await self.backups.list()
        if wanted == "newest":
            if found["newest"] is None:
                raise SafetyError(
                    "no verified snapshot is kept. To see what there is: jhub-safety db list"
                )
            return str(found["newest"])
        names = [one["name"] for one in found["snapshots"]]
        fitting = [name for name in names if wanted in name]
        if wanted in names:
            return wanted
        if len(fitting) == 1:
            return str(fitting[0])
        what = f"{len(fitting)} snapshots have" if fitting else "no snapshot has"
        raise SafetyError(f"{what} {wanted!r} in the name; see them with: jhub-safety db list")

    async def sign_of_life(self) -> Sign | None:
        """What shows that a hub serves; None when nothing does, or the one that is alive holds.

        Raises:
            Doubt: that is not known.
        """
        url = self.address.plain
        if not is_configured(self.options.context):
            notes.print("Without a cluster: whether a hub's pod runs elsewhere is not looked at.")
            return await sign_of_serving(self.hub, None, "", url)
        try:
            async with to_cluster(self.options) as cluster:
                return await sign_of_serving(self.hub, cluster.api, self.namespace, url)
        except ConfigError as error:
            # There is one, and the way to it is broken: a hub may run in it.
            raise Doubt(str(error).rstrip(".")) from error

    async def be_sure_that_it_is_down(self) -> None:
        """Nobody writes under a hub's feet.

        Raises:
            SafetyError: a hub is alive. Doubt: that is not known.
        """
        try:
            sign = await self.sign_of_life()
        except Doubt as doubt:
            raise Doubt(
                f"whether a hub is alive is not known: {doubt}. Nothing was changed",
                status=doubt.status,
            ) from doubt
        if sign is not None:
            raise SafetyError(
                f"a hub is alive: {sign.what}. Nothing was changed. Stop it, labs go on running: "
                f"kubectl -n {self.namespace} scale deploy/hub --replicas=0. From where to run "
                'this then: docs, Snapshots, "With the hub stopped"'
            )


@contextmanager
def progress() -> Iterator[Callable[[str, int], None]]:
    """Give a function that shows what is being done, and how much of it."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=notes, transient=True) as bar:
        task = bar.add_task("Looking", total=None)
        at: list[Any] = ["", 0]

        def told(what: str, done: int) -> None:
            at[:] = [what, at[1] + done if what == at[0] else done]
            bar.update(task, description=shown(f"{what}: {at[1]:,}" if at[1] else what))

        yield told


def _namespace() -> str:
    try:
        return _NAMESPACE.read_text().strip()
    except OSError:
        # As KubeSpawner outside of a cluster.
        return "default"


def with_db(function: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Give a coroutine the common options, and a :class:`DbSite` as its first argument."""

    @common_options
    @click.option("--destination", help="Where snapshots are (default: as configured).")
    @wraps(function)
    def command(options: Options, destination: str | None, **arguments: Any) -> None:
        hub = load_sessions(options.config, options.namespace or _namespace())
        check_section(DatabaseBackup, hub.everything)
        settings = DatabaseBackup(config=hub.everything)
        if destination is not None:
            settings.destination = destination
        db_url = address(options.db_url or hub.db_url).plain
        hub = replace(hub, db_url=db_url)
        backups = Backups(settings, db_url, hub.hub_name, connect_args=hub.connect_args)
        site = DbSite(hub, options, backups)
        asyncio.run(function(site, **arguments))

    return command
