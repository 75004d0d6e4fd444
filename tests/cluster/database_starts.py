"""Starts of labs with a database, watched as their user and their operator do."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.cluster.databases import (
    POSTGRES,
    CommandFailed,
    LabPod,
)
from tests.cluster.hubs import Hub
from tests.cluster.volumes_on_node import (
    put_back,
    volume_on_node,
)
from tools.cluster import ClusterInfo
from tools.demo.client import ClientError

#: A start's own options change its entry: one hub for all faults.
BY_OPTIONS = """
import copy

_ENTRY = c.SafeKubeSpawner.databases[0]


def _of_this_start(spawner):
    entry = copy.deepcopy(_ENTRY)
    entry.update(spawner.user_options.get("entry") or {})
    spawner.databases = [entry]
    spawner.ownership = spawner.user_options.get("ownership", "auto")
    spawner.start_timeout = spawner.user_options.get("start_timeout", spawner.start_timeout)


c.KubeSpawner.pre_spawn_hook = _of_this_start
c.JupyterHub.authenticate_prometheus = False
"""


@dataclass(frozen=True)
class Told:
    """What one start has said of its database."""

    #: Messages of the page that a user watches, to its end.
    page: list[str]
    ready: bool
    log: list[str]
    events: list[Any]
    #: How often each code was counted meanwhile.
    counted: dict[str, float]

    def said(self) -> list[str]:
        return [one for one in self.page if one.startswith("Your database")]


async def begin(hub: Hub, user: str, entry: dict[str, Any] | None = None, **options: Any) -> Told:
    """Start a lab, and watch as its user and its operator do."""
    mark, before = len(hub.log_text()), await counted(hub)
    old = {one.metadata.uid for one in await _events(hub)}
    async with await hub.login(user) as client:
        await client.start_server(options={"entry": entry or {}, **options})
        page = [str(one.get("message", "")) for one in await client.progress()]
        try:
            await client.wait_ready()
            ready = True
        except ClientError as error:
            page.append(error.body)
            ready = False
    after = await counted(hub)
    new = {code: number - before.get(code, 0) for code, number in after.items()}
    events: list[Any] = []
    if any(new.values()):
        # It is written beside the start.
        async with asyncio.timeout(20):
            while not events:
                events = [one for one in await _events(hub) if one.metadata.uid not in old]
                await asyncio.sleep(0.1)
    return Told(
        page,
        ready,
        list(hub.log_lines("Database postgres of", since=mark)),
        events,
        {code: number for code, number in new.items() if number},
    )


async def counted(hub: Hub) -> dict[str, float]:
    async with aiohttp.ClientSession() as client, client.get(f"{hub.url}/hub/metrics") as answer:
        found = re.findall(
            r'^jhub_safety_database_notices_total{.*code="([^"]+)".*} (\S+)$',
            await answer.text(),
            re.MULTILINE,
        )
    return {code: float(number) for code, number in found}


async def _events(hub: Hub) -> list[Any]:
    """Of claims: the hub's own database has events as well."""
    found = await hub.space._core.list_namespaced_event(
        hub.space.name, field_selector="involvedObject.kind=PersistentVolumeClaim"
    )
    return [one for one in found.items if one.reason.startswith("Database")]


async def events_of(hub: Hub, claim: str, reason: str) -> list[Any]:
    return [
        one
        for one in await _events(hub)
        if (one.involved_object.name, one.reason) == (claim, reason)
    ]


def check_told_everywhere(told: Told, code: str, words: str, claim: str) -> None:
    """The user's page, the operator's log and events, and the metric agree."""
    reason = "Database" + "".join(word.capitalize() for word in code.split("-"))
    events = [(one.reason, one.involved_object.name, one.message) for one in told.events]
    seen = {
        "counted": told.counted,
        "page": [words in one for one in told.said()],
        "log": [words in one and claim in one and "To do: " in one for one in told.log],
        "events": [(what, where, words in message) for what, where, message in events],
        # The user is told nothing that only an operator can use.
        "not for users": [one for one in told.said() if claim in one or "To do" in one],
    }
    assert seen == {
        "counted": {code: 1.0},
        "page": [True],
        "log": [True],
        "events": [(reason, claim, True)],
        "not for users": [],
    }, f"page: {told.page}; log: {told.log}; events: {events}"


@dataclass(frozen=True)
class Stored:
    """A stopped lab's database with rows in it."""

    user: str
    claim: str
    volume: Path
    template: Path

    @property
    def data(self) -> Path:
        return self.volume / "data"


async def make_stored(
    hub: Hub, cluster: ClusterInfo, user: str, template: Path, entry: dict[str, Any] | None = None
) -> Stored:
    told = await begin(hub, user, entry)
    assert told.ready
    pod = await LabPod.of(hub.space, user)
    await pod.sql("CREATE TABLE kept (n int); INSERT INTO kept SELECT generate_series(1, 1000)")
    spec = (await pod.read() or {})["spec"]
    claim = next(one for one in spec["volumes"] if one["name"] == POSTGRES)
    name = claim["persistentVolumeClaim"]["claimName"]
    await hub.stop_lab(user)
    volume = await volume_on_node(cluster, hub.space, name)
    put_back(volume, template)
    return Stored(user, name, volume, template)


async def sql_until_up(pod: LabPod, statement: str) -> str:
    """Ask a server that may still be on its way, or have one more recovery to go through."""
    async with asyncio.timeout(120):
        while True:
            try:
                return await pod.sql(statement)
            except (CommandFailed, aiohttp.WSServerHandshakeError):
                # The latter: its container is between two runs.
                await asyncio.sleep(0.3)


async def rows(hub: Hub, user: str) -> str:
    return await (await LabPod.of(hub.space, user)).sql("SELECT count(*) FROM kept")
