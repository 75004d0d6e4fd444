"""A proxy between hub and API server that answers wrongly where a test tells it to.

Everything else is handed on as it is, with the hub's own credentials: watches too, which stream.
Each request is recorded with the status that the hub got to see.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import yaml
from aiohttp import web

CLAIMS = r"/api/v1/namespaces/[^/]+/persistentvolumeclaims"
CLAIM_LIST = rf"{CLAIMS}$"
#: Headers of one connection, which say nothing about the message.
_HOP_BY_HOP = frozenset({"connection", "host", "keep-alive", "transfer-encoding", "upgrade"})

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
#: Gets the request and the way onward; gives what the hub sees.
Answer = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]


@dataclass
class Rule:
    """Which requests get which answer.

    path: a regular expression from the start of the path; later_page: only LIST requests with a
    continue token (True), only without (False), either (None); times: how often at most, None for
    ever; hits: how often so far.
    """

    answer: Answer
    path: str = CLAIM_LIST
    methods: Collection[str] = ("GET",)
    later_page: bool | None = None
    times: int | None = None
    hits: int = 0

    def applies(self, request: web.Request) -> bool:
        return (
            request.method in self.methods
            and re.match(self.path, request.path) is not None
            and self.later_page in (None, "continue" in request.query)
            and "watch" not in request.query
            and (self.times is None or self.hits < self.times)
        )


@dataclass(frozen=True)
class Seen:
    """One request of the hub; status 0 when it got no answer."""

    method: str
    path: str
    status: int

    @property
    def writes(self) -> bool:
        return self.method not in ("GET", "HEAD")


class FaultProxy:
    """Listens on loopback; an async context manager.

    page_size: when set, put in place of the `limit` that the hub asks for, so that a few claims
    make several pages.
    """

    def __init__(self, kubeconfig: Path) -> None:
        cluster = yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]
        self._server: str = cluster["server"]
        self._tls = ssl.create_default_context(cadata=_authority(cluster))
        self.rules: list[Rule] = []
        self.seen: list[Seen] = []
        self.page_size: int | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        self._upstream = aiohttp.ClientSession(
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),
            connector=aiohttp.TCPConnector(ssl=self._tls, limit=0),
        )
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._runner.cleanup()
        await self._upstream.close()

    def break_(self, *rules: Rule) -> None:
        """Answer by these rules, the first that applies, and forget what was seen so far."""
        self.rules = list(rules)
        self.seen.clear()

    def heal(self) -> None:
        self.rules = []

    def writes(self, *resources: str) -> list[Seen]:
        """What the hub asked to be changed of these resources since `break_`."""
        return [
            one
            for one in self.seen
            if one.writes and any(f"/{resource}" in one.path for resource in resources)
        ]

    def asked(self, path: str = CLAIMS) -> list[Seen]:
        """Requests whose path begins with this regular expression, since `break_`."""
        return [one for one in self.seen if re.match(path, one.path)]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        rule = next((rule for rule in self.rules if rule.applies(request)), None)
        if rule is not None:
            rule.hits += 1
        status = 0
        try:
            answer = await (rule.answer(request, self._forward) if rule else self._forward(request))
            status = answer.status
            return answer
        finally:
            self.seen.append(Seen(request.method, request.path, status))

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        url = request.rel_url
        if self.page_size is not None and "limit" in url.query:
            url = url.update_query(limit=str(self.page_size))
        async with self._upstream.request(
            request.method, f"{self._server}{url}", headers=_end_to_end(request), data=body
        ) as upstream:
            answer = web.StreamResponse(status=upstream.status, headers=_end_to_end(upstream))
            await answer.prepare(request)
            async for chunk in upstream.content.iter_any():
                await answer.write(chunk)
            await answer.write_eof()
            return answer

    async def ask(self, request: web.Request) -> tuple[int, bytes]:
        """The API server's whole answer to the request, for an answer made from it."""
        url = request.rel_url
        if self.page_size is not None and "limit" in url.query:
            url = url.update_query(limit=str(self.page_size))
        headers = {**_end_to_end(request), "Accept-Encoding": "identity"}
        async with self._upstream.request(
            request.method, f"{self._server}{url}", headers=headers, data=await request.read()
        ) as upstream:
            return upstream.status, await upstream.read()


# What may be answered


def status(code: int, reason: str = "InternalError") -> Answer:
    """The API server's own way to say no."""

    async def answer(_request: web.Request, _onward: Handler) -> web.StreamResponse:
        body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}
        return web.json_response({**body, "reason": reason, "message": reason}, status=code)

    return answer


def text(body: str, code: int = 200, content_type: str = "text/html") -> Answer:
    """What something else on the way says, such as a load balancer's page."""

    async def answer(_request: web.Request, _onward: Handler) -> web.StreamResponse:
        return web.Response(text=body, status=code, content_type=content_type)

    return answer


def empty_list() -> Answer:
    """A well-formed 200 that says there is nothing."""
    body = {
        "kind": "PersistentVolumeClaimList",
        "apiVersion": "v1",
        "metadata": {"resourceVersion": "1"},
        "items": [],
    }
    return text(json.dumps(body), content_type="application/json")


def hang() -> Answer:
    """No answer, until the hub gives up."""

    async def answer(_request: web.Request, _onward: Handler) -> web.StreamResponse:
        await asyncio.sleep(3600)
        raise web.HTTPGatewayTimeout

    return answer


def half(proxy: FaultProxy) -> Answer:
    """The right Content-Length, half of the bytes, and the connection is gone."""

    async def answer(request: web.Request, _onward: Handler) -> web.StreamResponse:
        code, body = await proxy.ask(request)
        response = web.StreamResponse(status=code, headers={"Content-Type": "application/json"})
        response.content_length = len(body)
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        if request.transport is not None:
            request.transport.close()
        return response

    return answer


def changed(proxy: FaultProxy, change: Callable[[Any], None]) -> Answer:
    """The real answer, with something done to its JSON."""

    async def answer(request: web.Request, _onward: Handler) -> web.StreamResponse:
        code, body = await proxy.ask(request)
        content = json.loads(body)
        change(content)
        return web.json_response(content, status=code)

    return answer


def after(first: Callable[[], Awaitable[object]]) -> Answer:
    """Something happens in the cluster just before the request arrives."""

    async def answer(request: web.Request, onward: Handler) -> web.StreamResponse:
        await first()
        return await onward(request)

    return answer


def _authority(cluster: dict[str, Any]) -> str | None:
    import base64

    data = cluster.get("certificate-authority-data")
    if data:
        return base64.b64decode(data).decode()
    file = cluster.get("certificate-authority")
    return Path(file).read_text() if file else None


def _end_to_end(message: web.Request | aiohttp.ClientResponse) -> dict[str, str]:
    return {
        name: value for name, value in message.headers.items() if name.lower() not in _HOP_BY_HOP
    }
