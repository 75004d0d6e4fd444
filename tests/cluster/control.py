"""A hub's control socket, as a test asks it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp

from jhub_safety.control import socket_path
from tests.cluster.hubs import Hub
from tests.cluster.waiting import until

#: Seconds.
OPEN = 30.0


class Control:
    """Of one hub; its name is that of its namespace."""

    def __init__(self, hub: Hub) -> None:
        self.path: Path = socket_path(hub.space.name)

    async def ask(self, what: str, **asked: Any) -> dict[str, Any]:
        """A proposal: its findings, its plan, and the id to carry it out."""
        return await self._post(f"sessions/{what}", asked)

    async def execute(self, proposal: dict[str, Any]) -> list[dict[str, Any]]:
        return list((await self._post(f"plans/{proposal['id']}", {}))["outcomes"])

    async def verdicts(self) -> dict[str, str]:
        """By server, as ``user`` or ``user/server``."""
        found = (await self.ask("survey"))["findings"]
        return {
            "/".join(filter(None, (one["user"] or "?", one["server"]))): one["verdict"]
            for one in found
        }

    async def _open(self) -> bool:
        try:
            _, writer = await asyncio.open_unix_connection(str(self.path))
        except OSError:
            return False
        writer.close()
        return True

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        # A hub that has just been started answers browsers a moment before it opens this.
        await until(self._open, OPEN)
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.path))) as client,
            client.post(f"http://hub/{path}", json=body) as answer,
        ):
            found: dict[str, Any] = await answer.json()
            assert answer.status == 200, found
            return found
