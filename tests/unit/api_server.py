"""An HTTP server in place of the API server, which answers what a test says.

The client is the real kubernetes_asyncio, so that what is tested is what is sent and received.
Shapes of the answers (Status objects, lists, continue tokens) are those that kube-apiserver
v1.29 and later gives, as recorded on the cluster of ``tools/cluster``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes_asyncio import client as kube

#: What must never be seen in an error.
TOKEN = "t0p-s3cret-token"

Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Request:
    """What arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class ApiServer:
    """Replies in the order in which they were put in *replies*; the last one stays."""

    api: kube.CoreV1Api
    replies: list[Reply] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    def answers(self, *replies: Reply) -> None:
        self.replies[:] = replies

    async def handle(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        self.requests.append(
            Request(
                request.method,
                request.path,
                dict(request.query),
                dict(request.headers),
                json.loads(text) if text else None,
            )
        )
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        return await reply(request)


@asynccontextmanager
async def api_server() -> AsyncIterator[ApiServer]:
    """A server on a free port and a client that talks to it."""
    app = web.Application()
    configuration = kube.Configuration()
    async with kube.ApiClient(configuration) as api_client:
        double = ApiServer(kube.CoreV1Api(api_client))
        app.router.add_route("*", "/{path:.*}", double.handle)
        server = TestServer(app)
        await server.start_server()
        configuration.host = str(server.make_url("")).rstrip("/")
        configuration.api_key = {"BearerToken": TOKEN}
        configuration.api_key_prefix = {"BearerToken": "Bearer"}
        try:
            yield double
        finally:
            await server.close()


def says(status: int, body: Any) -> Reply:
    """JSON."""

    async def reply(_: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=status)

    return reply


def text(status: int, body: str, content_type: str = "text/html") -> Reply:
    """Anything but JSON, such as a proxy's page."""

    async def reply(_: web.Request) -> web.StreamResponse:
        return web.Response(text=body, status=status, content_type=content_type)

    return reply


def silence(seconds: float) -> Reply:
    """No answer for a while."""

    async def reply(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return web.json_response({})

    return reply


def cut_off(body: Any) -> Reply:
    """200 with half of the body that the Content-Length promises, then the end."""

    async def reply(request: web.Request) -> web.StreamResponse:
        raw = json.dumps(body).encode()
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.content_length = len(raw)
        await response.prepare(request)
        await response.write(raw[: len(raw) // 2])
        assert request.transport is not None
        request.transport.close()
        return response

    return reply


def hangs_up() -> Reply:
    """The connection ends without a word."""

    async def reply(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    return reply


def status(code: int, reason: str, message: str = "", details: Any = None) -> Reply:
    """A Status object, as the API server answers everything that is no object."""
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message or f"{reason} happened",
        "reason": reason,
        "code": code,
    }
    if details is not None:
        body["details"] = details
    return says(code, body)


def not_found(name: str) -> Reply:
    return status(
        404,
        "NotFound",
        f'persistentvolumeclaims "{name}" not found',
        {"name": name, "kind": "persistentvolumeclaims"},
    )


def pvc(name: str, **metadata: Any) -> dict[str, Any]:
    """A bound claim."""
    return {
        "kind": "PersistentVolumeClaim",
        "apiVersion": "v1",
        "metadata": {
            "name": name,
            "namespace": "jupyter",
            "uid": f"uid-of-{name}",
            "resourceVersion": "17",
            "creationTimestamp": "2024-05-01T12:00:00Z",
        }
        | metadata,
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "10Gi"}},
            "volumeName": f"pv-{name}",
            "storageClassName": "standard",
        },
        "status": {"phase": "Bound"},
    }


def pvc_list(*names: str, **metadata: Any) -> dict[str, Any]:
    """One page. The items of a list carry no kind of their own."""
    items = [pvc(name) for name in names]
    for item in items:
        del item["kind"], item["apiVersion"]
    return {
        "kind": "PersistentVolumeClaimList",
        "apiVersion": "v1",
        "metadata": {"resourceVersion": "100"} | metadata,
        "items": items,
    }
