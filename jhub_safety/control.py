"""The hub's control socket: what the commands ask of the running hub.

A Unix socket of mode 0600 in a directory of mode 0700: whoever can open it is the hub's own user,
and needs no token. Nothing listens on the network.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import socket
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from jhub_safety import __version__
from jhub_safety.errors import SafetyError
from jhub_safety.plan import Plan
from jhub_safety.sessions.operations import Operations, Proposal

#: Plans that were shown and not yet carried out; the oldest goes first.
KEPT = 20


def socket_path(hub: str, configured: str = "") -> Path:
    """Where the hub of this name listens: as configured, else below the temporary directory.

    Not in the hub's working directory: that may be a file system without sockets (NFS).
    """
    if configured:
        return Path(configured)
    mark = hashlib.sha256(hub.encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"jhub-safety-{os.getuid()}" / f"{mark}.sock"


def is_private(directory: Path) -> bool:
    """Nobody else can put a socket there: below a temporary directory anybody may come first.

    Raises OSError when there is no such directory.
    """
    found = directory.stat()
    return found.st_uid == os.getuid() and not stat.S_IMODE(found.st_mode) & 0o022


class ControlSocket:
    """Serves :class:`~jhub_safety.sessions.operations.Operations`.

    ``GET /hub``; ``POST /sessions/{survey,reconcile,delete,unstick}`` answers a proposal and an
    ``id``; ``POST /plans/ID`` carries out that very plan; ``POST /logout`` ends browser sessions,
    of one user or of all. Errors: 409 with ``{"error": ...}``.
    """

    def __init__(
        self,
        operations: Operations,
        hub: str,
        path: Path,
        logout: Callable[[str | None], dict[str, int]] | None = None,
    ) -> None:
        self._operations, self._hub, self.path, self._logout = operations, hub, path, logout
        self._plans: dict[str, Plan] = {}
        self._runner: web.AppRunner | None = None
        self._inode = 0

    async def open(self) -> None:
        """Raises OSError when nothing can listen there."""
        directory = self.path.parent
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not is_private(directory):
            raise OSError(f"{directory} can be written by others")
        if self.path.exists() and not self.path.is_socket():
            raise OSError(f"{self.path} is there, and is no socket")
        # Left behind by a hub that was killed.
        self.path.unlink(missing_ok=True)
        app = web.Application(middlewares=[_errors])
        app.add_routes(
            [
                web.get("/hub", self._get_hub),
                web.post("/sessions/{what}", self._propose),
                web.post("/plans/{id}", self._execute),
                web.post("/logout", self._log_out),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.SockSite(self._runner, _bind(self.path)).start()
        self._inode = self.path.stat().st_ino

    async def close(self) -> None:
        if self._runner is None:
            return
        await self._runner.cleanup()
        # A hub that was started meanwhile has made its own.
        if self.path.exists() and self.path.stat().st_ino == self._inode:
            self.path.unlink()

    async def _get_hub(self, _: web.Request) -> web.Response:
        return web.json_response({"hub": self._hub, "version": __version__})

    async def _propose(self, request: web.Request) -> web.Response:
        asked = await request.json()
        proposal = await PROPOSALS[request.match_info["what"]](self._operations, asked)
        identifier = secrets.token_hex(8)
        self._plans[identifier] = proposal.plan
        while len(self._plans) > KEPT:
            del self._plans[next(iter(self._plans))]
        # Of 10,000 servers it takes longer than a request of somebody else may wait.
        body = await asyncio.to_thread(lambda: json.dumps({"id": identifier, **proposal.record()}))
        return web.Response(text=body, content_type="application/json")

    async def _execute(self, request: web.Request) -> web.Response:
        plan = self._plans.pop(request.match_info["id"], None)
        if plan is None:
            raise web.HTTPNotFound(text="no such plan; ask again")
        outcomes = await self._operations.execute(plan)
        return web.json_response({"outcomes": [one.record() for one in outcomes]})

    async def _log_out(self, request: web.Request) -> web.Response:
        if self._logout is None:
            raise web.HTTPNotFound(text="this hub cannot do that")
        return web.json_response(self._logout((await request.json())["user"]))


def _bind(path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The mode is there from the first moment; nothing else of the process runs in between.
    before = os.umask(0o177)
    try:
        listening.bind(str(path))
    finally:
        os.umask(before)
    return listening


async def _survey(operations: Operations, asked: dict[str, Any]) -> Proposal:
    return await operations.survey(asked.get("user"), asked.get("server"))


async def _reconcile(operations: Operations, asked: dict[str, Any]) -> Proposal:
    return await operations.reconcile(over_cap=bool(asked.get("over_cap")))


async def _delete(operations: Operations, asked: dict[str, Any]) -> Proposal:
    return await operations.delete(
        asked["user"], asked.get("server"), forget=bool(asked.get("forget"))
    )


async def _unstick(operations: Operations, asked: dict[str, Any]) -> Proposal:
    return await operations.unstick(asked["user"], asked.get("server"))


#: What may be asked for, by its name; the second argument is what was asked, as JSON has it.
PROPOSALS = {
    "survey": _survey,
    "reconcile": _reconcile,
    "delete": _delete,
    "unstick": _unstick,
}


@web.middleware
async def _errors(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        answer: web.StreamResponse = await handler(request)
    except SafetyError as error:
        return web.json_response({"error": str(error)}, status=409)
    except KeyError as error:
        return web.json_response({"error": f"{error} is missing or unknown"}, status=400)
    return answer
