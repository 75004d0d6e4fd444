"""The browser that demo, benchmarks and tests on the cluster use."""

from __future__ import annotations

from aiohttp import web
from aiohttp.test_utils import TestServer

from tools.demo.client import HubClient


async def test_no_request_is_sent_on_a_connection_that_the_proxy_may_be_closing():
    """A POST on one that was idle for the proxy's 5 s was lost, and a whole replay with it."""
    asked: list[tuple[str, int]] = []

    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        asked.append((request.method, request.transport.get_extra_info("peername")[1]))
        return web.json_response({})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server, HubClient(str(server.make_url("")), "ada") as client:
        for method in ("GET", "POST", "POST"):
            await client.api(method, "users/ada/server")
    assert [method for method, _ in asked] == ["GET", "POST", "POST"]
    assert len({port for _, port in asked}) == 3
