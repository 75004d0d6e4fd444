"""Sessions are asked of the running hub, and of its database only while no hub is alive."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Protocol, cast

import aiohttp
from traitlets.utils.importstring import import_item

from jhub_safety.cli.connection import (
    Options,
    command_line_journal,
    common_options,
    header,
    notes,
    shown,
    to_cluster,
)
from jhub_safety.cli.dbfingerprint import after_forgetting
from jhub_safety.cli.hubalive import Sign, sign_of_serving
from jhub_safety.cluster.client import Cluster
from jhub_safety.cluster.notes import Note
from jhub_safety.control import PROPOSALS, is_private, socket_path
from jhub_safety.errors import Doubt, SafetyError
from jhub_safety.hubconfig import SessionsConfig, load_sessions
from jhub_safety.hubdb.engines import address, name_of
from jhub_safety.hubdb.logout import logout
from jhub_safety.owner import label_value
from jhub_safety.plan import Plan
from jhub_safety.sessions.absence import Absences
from jhub_safety.sessions.inventory import Inventory
from jhub_safety.sessions.kubernetes import KubernetesInventory
from jhub_safety.sessions.operations import Operations
from jhub_safety.sessions.pause import Pause
from jhub_safety.sessions.stopped import StoppedHub, database_of

#: Seconds for the running hub to look at everything.
LOOKING = 300.0
ELSEWHERE = "Run it where the hub runs: kubectl exec -it deploy/hub -- jhub-safety sessions ..."


@dataclass(frozen=True, slots=True)
class Site:
    """One hub, as its configuration describes it, and its cluster."""

    cluster: Cluster
    hub: SessionsConfig
    options: Options

    @property
    def namespace(self) -> str:
        return self.options.namespace or self.hub.namespace

    @property
    def db_url(self) -> str:
        return self.options.db_url or self.hub.db_url

    @property
    def socket(self) -> Path:
        return socket_path(self.hub.hub_name, self.hub.reconciler.control_socket)

    @property
    def pause(self) -> Pause:
        return Pause(Note(self.cluster.api, self.namespace, self.hub.hub_name, "pause"))

    def header(self) -> str:
        return header(self.cluster, self.namespace, self.hub.hub_name)


class Access(Protocol):
    """The running hub, or the database of one that is down. Records are as JSON has them."""

    async def propose(self, what: str, **asked: Any) -> dict[str, Any]:
        """What is found and would be done, with an ``id``. *what*: of ``control.PROPOSALS``.

        Raises:
            SafetyError: it could not be found out. Nothing was changed.
        """

    async def execute(self, proposal: dict[str, Any]) -> list[dict[str, Any]]:
        """Carry out exactly what was proposed; one outcome for each action.

        Raises:
            SafetyError: it was not, or not to its end.
        """

    async def logout(self, user: str | None) -> dict[str, int]:
        """End browser sessions, of *user* or of all; how many users and tokens were concerned.

        Raises:
            SafetyError: it was not done.
        """


# -- through the socket


class ThroughSocket:
    """The running hub does it, with all that it has in memory."""

    def __init__(self, client: aiohttp.ClientSession) -> None:
        self._client = client

    async def propose(self, what: str, **asked: Any) -> dict[str, Any]:
        try:
            return await self._post(f"sessions/{what}", asked, LOOKING)
        except SafetyError as error:
            raise SafetyError(f"{error}. Nothing was changed") from error

    async def execute(self, proposal: dict[str, Any]) -> list[dict[str, Any]]:
        return list((await self._post(f"plans/{proposal['id']}", {}, None))["outcomes"])

    async def logout(self, user: str | None) -> dict[str, int]:
        return await self._post("logout", {"user": user}, LOOKING)

    async def close(self) -> None:
        await self._client.close()

    async def _post(self, path: str, body: dict[str, Any], seconds: float | None) -> dict[str, Any]:
        timeout = aiohttp.ClientTimeout(total=seconds)
        try:
            async with self._client.post(f"/{path}", json=body, timeout=timeout) as answer:
                status, text = answer.status, await answer.text()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Doubt(
                f"the hub did not answer to the end ({type(error).__name__}); what it has come to "
                "shows: jhub-safety sessions list"
            ) from error
        if status == 404:
            raise SafetyError(text)
        try:
            found = json.loads(text)
        except ValueError as error:
            raise Doubt(f"the hub answers HTTP {status}; its log tells why") from error
        if status != 200:
            raise SafetyError(str(found["error"]))
        return cast("dict[str, Any]", found)


async def _through_socket(site: Site) -> ThroughSocket | OSError:
    """The hub that listens there, or why none was reached.

    Raises:
        SafetyError: what listens there is another hub, or does not answer.
    """
    try:
        if not is_private(site.socket.parent):
            return PermissionError(f"{site.socket.parent} can be written by others")
    except OSError as missing:
        return missing
    client = aiohttp.ClientSession("http://hub", connector=aiohttp.UnixConnector(str(site.socket)))
    try:
        async with client.get("/hub", timeout=aiohttp.ClientTimeout(total=30)) as answer:
            name = (await answer.json())["hub"]
        if name == site.hub.hub_name:
            return ThroughSocket(client)
    except aiohttp.ClientConnectorError as refused:
        await client.close()
        return refused.os_error
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError, LookupError) as error:
        await client.close()
        raise SafetyError(
            f"a hub is alive, but does not answer on its control socket {site.socket} "
            f"({type(error).__name__}). Nothing was changed. {_restart(site)}"
        ) from error
    await client.close()
    raise SafetyError(
        f"hub {name} listens on {site.socket}, not hub {site.hub.hub_name}. Nothing was changed. "
        "Name its configuration file with --config"
    )


# -- on the database


class OnDatabase:
    """What the hub would do, done here while none is alive."""

    def __init__(self, site: Site, operations: Operations) -> None:
        self._site, self._operations = site, operations
        self._plans: dict[str, Plan] = {}

    async def propose(self, what: str, **asked: Any) -> dict[str, Any]:
        try:
            proposal = await PROPOSALS[what](self._operations, asked)
        except Doubt as doubt:
            raise Doubt(f"{doubt}. Nothing was changed", status=doubt.status) from doubt
        identifier = secrets.token_hex(8)
        self._plans[identifier] = proposal.plan
        return {"id": identifier, **proposal.record()}

    async def execute(self, proposal: dict[str, Any]) -> list[dict[str, Any]]:
        # Somebody read the plan in the meantime, and somebody else may have started the hub.
        await _be_sure_that_it_is_down(self._site, None)
        outcomes = await self._operations.execute(self._plans[proposal["id"]])
        return [one.record() for one in outcomes]

    async def logout(self, user: str | None) -> dict[str, int]:
        await _be_sure_that_it_is_down(self._site, None)

        def run() -> dict[str, int]:
            with database_of(self._site.db_url, self._site.hub.connect_args) as database:
                done = logout(database.connection(), user)
                return {"users": done.users, "tokens": done.tokens}

        return await asyncio.to_thread(run)


@asynccontextmanager
async def _on_database(site: Site) -> AsyncIterator[OnDatabase]:
    _warn_here()
    known = 0
    absences = Absences()
    inventory = _inventory(site, absences, lambda: known)
    try:
        hub = StoppedHub(site.db_url, inventory, site.hub.connect_args, after_forgetting(site))
        try:
            known = len(await hub.sessions())
        except Doubt as doubt:
            where = name_of(site.db_url)
            raise Doubt(f"{doubt} ({where}), and no hub answers here. {ELSEWHERE}") from doubt
        site.hub.reconciler.attach(
            hub,
            inventory,
            label=label_value(site.hub.hub_name),
            absences=absences,
            journal=command_line_journal(),
            paused=site.pause.why,
        )
        yield OnDatabase(site, Operations(site.hub.reconciler))
    finally:
        await inventory.close()


def _inventory(site: Site, absences: Absences, count: Callable[[], int]) -> Inventory:
    hub = site.hub
    cls = import_item(hub.reconciler.inventory_class)
    if not issubclass(cls, KubernetesInventory):
        return cast("Inventory", cls(absences=absences, config=hub.everything))
    made: Inventory = cls(
        site.cluster.api,
        hub.hub_name,
        site.namespace,
        component=hub.component_label,
        everywhere=hub.user_namespaces,
        absences=absences,
        count=count,
        timeout=hub.reconciler.inventory_timeout,
        config=hub.everything,
    )
    return made


class _OnTerminal(logging.Handler):
    """What goes wrong within an action, without a traceback and without anybody's escapes."""

    def emit(self, record: logging.LogRecord) -> None:
        notes.print(shown(record.getMessage()))


def _warn_here() -> None:
    log = logging.getLogger("jhub_safety")
    if not any(isinstance(one, _OnTerminal) for one in log.handlers):
        log.addHandler(_OnTerminal(logging.WARNING))


# -- which of them


async def _be_sure_that_it_is_down(site: Site, error: OSError | None) -> None:
    """Raises SafetyError when a hub is alive, Doubt when that is not known."""
    try:
        sign = await sign_of_serving(site.hub, site.cluster.api, site.namespace, site.db_url)
    except Doubt as doubt:
        raise Doubt(
            f"no hub answers on {site.socket}, and whether one is alive is not known: {doubt}. "
            f"Nothing was changed. {ELSEWHERE}",
            status=doubt.status,
        ) from doubt
    if sign is not None:
        raise SafetyError(
            f"a hub is alive but does not answer on its control socket {site.socket}: "
            f"{sign.what}. Nothing was changed. {_next(site, sign, error)}"
        )


def _next(site: Site, sign: Sign, error: OSError | None) -> str:
    """The one thing to do next."""
    if sign.pod:
        return (
            f"Run it there: kubectl -n {site.namespace} exec -it {sign.pod} -- "
            "jhub-safety sessions ..."
        )
    if not site.hub.compares:
        return (
            "It compares no sessions (SessionReconciler.enabled, SafeKubeSpawner.sessions), so it "
            "opens none. Stop servers on the hub's admin page"
        )
    if isinstance(error, PermissionError):
        return f"Run it as the user to whom {site.socket} belongs"
    if sign.uid is not None and not site.socket.exists() and sign.uid != os.getuid():
        return f"Run it as the hub's own user (uid {sign.uid})"
    return _restart(site)


def _restart(site: Site) -> str:
    return (
        "Restart the hub, labs go on running: "
        f"kubectl -n {site.namespace} rollout restart deploy/hub"
    )


@asynccontextmanager
async def access(site: Site) -> AsyncIterator[Access]:
    """The running hub where it answers; its database when no hub is alive.

    Raises:
        SafetyError: neither can be used. Nothing was changed.
    """
    found = await _through_socket(site)
    if isinstance(found, ThroughSocket):
        try:
            yield found
        finally:
            await found.close()
        return
    await _be_sure_that_it_is_down(site, found)
    file = address(site.db_url).file
    if file is not None and not file.exists():
        raise SafetyError(f"no hub answers here, and its database {file} is not here. {ELSEWHERE}")
    async with _on_database(site) as operations:
        yield operations


def with_site(function: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Give a coroutine the common options, and a :class:`Site` as its first argument."""

    @common_options
    @wraps(function)
    def command(options: Options, **arguments: Any) -> None:
        async def run() -> None:
            async with to_cluster(options) as cluster:
                hub = load_sessions(options.config, options.namespace or cluster.namespace)
                await function(Site(cluster, hub, options), **arguments)

        asyncio.run(run())

    return command
