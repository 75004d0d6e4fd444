"""What every command needs first: the cluster, the hub's configuration, its records."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import click
from rich.console import Console
from rich.markup import escape

from jhub_safety.cluster.claims import ClaimsApi
from jhub_safety.cluster.client import Cluster, connect, why_not
from jhub_safety.errors import ConfigError, Doubt, SafetyError
from jhub_safety.hubconfig import HubConfig, load
from jhub_safety.hubdb.records import HubRecords, read
from jhub_safety.journal import Journal

P = ParamSpec("P")

#: Wide on purpose: a claim's name that is broken over two lines cannot be copied. A narrow
#: terminal wraps the lines itself, as with kubectl.
console = Console(highlight=False, emoji=False, width=400)
#: For everything that is not the answer: prompts, warnings, progress.
notes = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)
#: What to do when the journal cannot be written.
OTHER_JOURNAL = "Name another folder for it: XDG_STATE_HOME=FOLDER jhub-safety claims ..."


def shown(text: object) -> str:
    """*text* for a terminal: user and claim names are hostile input.

    Markup is taken literally, and what is no printable character (a terminal's escape
    sequences among them) is spelled out.
    """
    return escape(spelled(text))


def spelled(text: object) -> str:
    """*text* for where no markup is read: what is no printable character is spelled out."""
    words = str(text)
    if words.isprintable():
        return words
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in words
    )


@dataclass(frozen=True, slots=True)
class Options:
    """Where to look; the same options on every command."""

    config: Path | None
    context: str | None
    namespace: str | None
    db_url: str | None


@dataclass(frozen=True, slots=True)
class Connection:
    cluster: Cluster
    hub: HubConfig
    claims: ClaimsApi
    options: Options

    def records(self) -> HubRecords | None:
        url = self.options.db_url or self.hub.db_url
        return records_of(url, self.hub.connect_args)

    def header(self) -> str:
        return header(self.cluster, self.claims.namespace, self.hub.hub_name)


def records_of(db_url: str, connect_args: Mapping[str, Any] | None = None) -> HubRecords | None:
    """The hub's rows; None, said on stderr, when the database cannot be read."""
    try:
        return read(db_url, connect_args)
    except Doubt as doubt:
        notes.print(
            f"[yellow]Without the hub's records[/] (saved states unknown): {shown(doubt)}. "
            "Run this where the hub runs, or name the database with --db-url.",
        )
        return None


def header(cluster: Cluster, namespace: str, hub_name: str) -> str:
    """What an operator must see before anything is changed."""
    return (
        f"cluster {cluster.server} (context {cluster.context}), "
        f"namespace {namespace}, hub {hub_name}"
    )


@asynccontextmanager
async def to_cluster(options: Options) -> AsyncIterator[Cluster]:
    """Raises ConfigError when there is none."""
    try:
        manager = connect(options.context)
        cluster = await manager.__aenter__()
    except Exception as error:
        raise ConfigError(
            f"no cluster to talk to: {why_not(error)}. Run inside the hub's pod or set KUBECONFIG."
        ) from error
    try:
        yield cluster
    finally:
        await manager.__aexit__(None, None, None)


@asynccontextmanager
async def connected(options: Options) -> AsyncIterator[Connection]:
    """Raises ConfigError when there is no cluster or no configuration to go by."""
    async with to_cluster(options) as cluster:
        hub = load(options.config, options.namespace or cluster.namespace)
        namespace = options.namespace or hub.namespace
        hub = replace(hub, namespace=namespace)
        claims = ClaimsApi(cluster.api, namespace, timeout=30, patience=30)
        yield Connection(cluster, hub, claims, options)


def command_line_journal() -> Journal:
    """Operators' own actions: below $XDG_STATE_HOME, else ~/.local/state."""
    file = _journal_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        notes.print(f"[yellow]Without a journal[/]: {shown(error)}")
        return Journal(None)
    return Journal(file)


def kept_journal() -> Journal:
    """The same, for what cannot be taken back and must not go unrecorded.

    Raises:
        SafetyError: it cannot be written.
    """
    file = _journal_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
    except OSError as error:
        raise SafetyError(
            f"the journal {file} cannot be written ({error.strerror}), and what cannot be taken "
            f"back is not done without one; nothing was changed. {OTHER_JOURNAL}"
        ) from error
    return Journal(file)


def _journal_file() -> Path:
    base = os.environ.get("XDG_STATE_HOME")
    directory = (Path(base) if base else Path.home() / ".local/state") / "jhub-safety"
    return directory / "journal.jsonl"


def common_options(function: Callable[..., None]) -> Callable[..., None]:
    """The options that every command has, handed on as one :class:`Options`."""

    @click.option(
        "--config",
        envvar="JHUB_SAFETY_CONFIG",
        type=click.Path(path_type=Path),
        help="The hub's jupyterhub_config.py (default: the chart's, then ./jupyterhub_config.py).",
    )
    @click.option("--context", help="kubectl context (default: the pod's account, or current).")
    @click.option("-n", "--namespace", help="Namespace of the hub (default: as configured).")
    @click.option("--db-url", help="The hub's database (default: from the configuration).")
    @wraps(function)
    def command(
        config: Path | None,
        context: str | None,
        namespace: str | None,
        db_url: str | None,
        **arguments: Any,
    ) -> None:
        function(Options(config, context, namespace, db_url), **arguments)

    return command


def with_connection(
    function: Callable[..., Coroutine[Any, Any, None]],
) -> Callable[..., None]:
    """Give a coroutine the common options, and a :class:`Connection` as its first argument."""

    @common_options
    @wraps(function)
    def command(options: Options, **arguments: Any) -> None:
        async def run() -> None:
            async with connected(options) as connection:
                await function(connection, **arguments)

        asyncio.run(run())

    return command
