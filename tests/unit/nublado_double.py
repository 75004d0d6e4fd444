"""An HTTP server in place of a Nublado controller.

Written from the facts of Nublado 15.1's API: its routes ``GET /labs``, ``GET /labs/{user}`` and
``DELETE /labs/{user}`` below ``/nublado/spawner/v1``, their documented answers, and the defaults of
its settings, as read in its public source (lsst-sqre/nublado, June 2026). Never run against a real
controller. Where it is like the real one, and it matters:

- It answers from its own record. A lab that is deleted behind its back stays "running" there until
  its next pass (:meth:`NubladoDouble.reconcile`; every five minutes in reality).
- ``GET /labs`` lists the users whose labs run, nobody else.
- ``DELETE`` answers when the lab is gone. Deletions of the same lab wait together.
- Errors have the shape ``{"detail": [{"msg", "type", "loc"}]}``. An address that is no route gets
  ``{"detail": "Not Found"}`` instead; one with ``%2F`` in a segment is none, because the path is
  unquoted before the route is chosen.
- The ingress in front of it checks the bearer token; here that is done by the server itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aiohttp import web
from aiohttp.test_utils import TestServer

#: What must never be seen in an error, a log or a repr.
TOKEN = "gt-s3cret-t0ken.0f-the-hub"
LABS = "/nublado/spawner/v1/labs"

Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Request(NamedTuple):
    """What arrived, the path as it was sent."""

    method: str
    path: str
    token: str


def error(status: int, kind: str, message: str, *loc: str) -> web.Response:
    """An error as the controller gives it."""
    one: dict[str, Any] = {"msg": message, "type": kind}
    if loc:
        one["loc"] = list(loc)
    return web.json_response({"detail": [one]}, status=status)


@dataclass
class NubladoDouble:
    """Its record of labs, and the cluster that the record is about."""

    #: The controller's own record: status by user.
    labs: dict[str, str] = field(default_factory=dict)
    #: Users whose lab really exists.
    cluster: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=lambda: {TOKEN})
    requests: list[Request] = field(default_factory=list)
    #: Replies by path as sent, in place of the controller's; "" stands for every path.
    instead: dict[str, Reply] = field(default_factory=dict)
    #: Users of whom something else than a start or a deletion is under way.
    busy: set[str] = field(default_factory=set)
    #: Users whose lab cannot be deleted.
    stuck: set[str] = field(default_factory=set)
    deletion_takes: float = 0.0
    #: No lab is gone before that.
    may_go: asyncio.Event = field(default_factory=asyncio.Event)
    answer_takes: float = 0.0
    #: Requests under way, and the most there ever were.
    under_way: int = 0
    most_under_way: int = 0
    url: str = ""
    _deletions: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.may_go.set()

    def has(self, **labs: str) -> None:
        """Labs that exist, by user and status."""
        self.labs.update(labs)
        self.cluster.update(labs)

    def delete_behind_its_back(self, user: str) -> None:
        """As by kubectl: the controller goes on believing in the lab."""
        self.cluster.remove(user)

    def reconcile(self) -> None:
        """The controller's own pass: what is not in the cluster fails, and is forgotten at once."""
        for user in [one for one in self.labs if one not in self.cluster]:
            del self.labs[user]

    @property
    def asked(self) -> list[str]:
        """Method and path of each request, without what all have in common."""
        return [f"{one.method} {one.path.removeprefix(LABS) or '(all)'}" for one in self.requests]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        self.requests.append(Request(request.method, request.raw_path, token))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            reply = self.instead.get(request.raw_path) or self.instead.get("")
            if reply is not None:
                return await reply(request)
            await asyncio.sleep(self.answer_takes)
            if scheme != "Bearer" or token not in self.tokens:
                return web.Response(status=401, text="<html>401 Authorization Required</html>")
            return await self._route(request.method, request.path)
        finally:
            self.under_way -= 1

    async def _route(self, method: str, path: str) -> web.Response:
        if path == LABS and method == "GET":
            return web.json_response([one for one, is_ in self.labs.items() if is_ == "running"])
        user = path.removeprefix(f"{LABS}/")
        if user == path or "/" in user or not user:
            return web.json_response({"detail": "Not Found"}, status=404)
        if method == "GET":
            return self._show(user)
        if method == "DELETE":
            return await self._delete(user)
        return web.json_response({"detail": "Method Not Allowed"}, status=405)

    def _show(self, user: str) -> web.Response:
        if user not in self.labs:
            return self._unknown(user)
        return web.json_response(
            {
                "user": {"username": user, "name": user.title(), "uid": 1000, "gid": 1000},
                "options": {"size": "small"},
                "status": self.labs[user],
                "internal_url": f"http://nb-{user}.nublado-{user}:8888"
                if self.labs[user] == "running"
                else None,
            }
        )

    async def _delete(self, user: str) -> web.Response:
        if user not in self.labs:
            return self._unknown(user)
        if user in self.busy:
            return error(409, "operation_in_progress", f"Conflicting operation for {user}")
        if user not in self._deletions:
            self.labs[user] = "terminating"
            self._deletions[user] = asyncio.create_task(self._take_down(user))
        await asyncio.shield(self._deletions[user])
        if user in self.labs:
            return error(500, "delete_failed", "Failed to delete lab")
        return web.Response(status=204)

    async def _take_down(self, user: str) -> None:
        await asyncio.sleep(self.deletion_takes)
        await self.may_go.wait()
        if user in self.stuck:
            self.labs[user] = "failed"
        else:
            del self.labs[user]
            self.cluster.discard(user)
        del self._deletions[user]

    @staticmethod
    def _unknown(user: str) -> web.Response:
        return error(404, "unknown_user", f"Unknown user {user}", "path", "username")


@asynccontextmanager
async def nublado() -> AsyncIterator[NubladoDouble]:
    """A controller on a free port, without any lab."""
    double = NubladoDouble()
    app = web.Application()
    app.router.add_route("*", "/{path:(?s:.*)}", double.handle)
    server = TestServer(app)
    await server.start_server()
    double.url = str(server.make_url("")).rstrip("/")
    try:
        yield double
    finally:
        await server.close()
