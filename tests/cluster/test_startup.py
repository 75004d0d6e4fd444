"""Doubt costs nobody a server: a hub that starts while the cluster gives wrong answers.

Labs run, the hub is killed and starts again behind a proxy that answers for the API server. With
plain KubeSpawner every session is cleared here, and the next start of each user kills their lab.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import pytest_asyncio
from aiohttp import web

from tests.cluster.audit import PODS
from tests.cluster.faults import (
    Answer,
    FaultProxy,
    Handler,
    Rule,
    half,
    hang,
    status,
    text,
)
from tests.cluster.hubs import ADMIN, QUICK, Hub, Setup

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.hub,
    pytest.mark.asyncio(loop_scope="module"),
]

USERS = ("ada", "grace@school.edu", "katherine")
NAMESPACED = r"/api/v1/namespaces/[^/]+"
POD_LIST = NAMESPACED + r"/pods$"
POD = NAMESPACED + r"/pods/[^/]+$"
#: JupyterHub goes on without the checks after this many seconds; 10 by default.
IMPATIENT = """
c.JupyterHub.init_spawners_timeout = 1
"""
HEALED = 60.0


@dataclass(frozen=True)
class Site:
    """The hub, and the proxy between it and the API server."""

    hub: Hub
    proxy: FaultProxy


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(cluster, space, hub_factory):
    async with FaultProxy(cluster.kubeconfig) as proxy:
        hub = await hub_factory(space, Setup(extra=QUICK + IMPATIENT, server=proxy.url))
        await hub.start()
        for user in USERS:
            await hub.start_lab(user)
        yield Site(hub, proxy)


def no_pods() -> Answer:
    """A well-formed 200 that says there are none."""
    # A version that the real API server has not reached: a watch from an early one would show
    # every pod there is, as long as the cluster is young.
    version = {"resourceVersion": "999999999"}
    body = {"kind": "PodList", "apiVersion": "v1", "metadata": version}
    return text(json.dumps({**body, "items": []}), content_type="application/json")


def not_found() -> Answer:
    """The API server of another cluster: it answers well, and has nothing of what is asked."""

    async def answer(request: web.Request, _onward: Handler) -> web.StreamResponse:
        name = request.path.rsplit("/", 1)[1]
        body = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "reason": "NotFound",
            "details": {"name": name, "kind": "pods"},
            "code": 404,
        }
        return web.json_response(body, status=404)

    return answer


def of_pods(make: Callable[[FaultProxy], Answer]) -> Callable[[FaultProxy], list[Rule]]:
    return lambda proxy: [Rule(make(proxy), path=POD_LIST), Rule(make(proxy), path=POD)]


#: Each is on from before the start until it is healed.
LASTING: dict[str, Callable[[FaultProxy], list[Rule]]] = {
    "401": of_pods(lambda _: status(401, "Unauthorized")),
    "403": of_pods(lambda _: status(403, "Forbidden")),
    "404 of the namespace": of_pods(lambda _: status(404, "NotFound")),
    "410": of_pods(lambda _: status(410, "Expired")),
    "429": of_pods(lambda _: status(429, "TooManyRequests")),
    "500": of_pods(lambda _: status(500)),
    "503": of_pods(lambda _: status(503, "ServiceUnavailable")),
    "time-out": of_pods(lambda _: hang()),
    "half of the body": of_pods(half),
    "garbage with 200": of_pods(lambda _: text("<html>Please log in</html>")),
    "another cluster": lambda _: [
        Rule(no_pods(), path=POD_LIST),
        Rule(not_found(), path=NAMESPACED + r"/(pods|persistentvolumeclaims|secrets)/[^/]+$"),
    ],
}


async def _servers(hub: Hub) -> dict[str, dict | None]:
    async with await hub.login(ADMIN) as client:
        models = {user: await client.api("GET", f"users/{user}") for user in USERS}
    return {user: model["servers"].get("") for user, model in models.items()}


async def _until_ready(hub: Hub) -> None:
    async with asyncio.timeout(HEALED):
        while True:
            servers = await _servers(hub)
            if all(model and model["ready"] for model in servers.values()):
                return
            assert all(servers.values()), servers  # a session that was cleared never comes back
            await asyncio.sleep(0.5)


@pytest.mark.parametrize("fault", LASTING)
async def test_no_session_and_no_lab_is_lost_while_the_cluster_cannot_be_believed(
    site: Site, fault: str
):
    before = await site.hub.space.pods()
    assert len(before) == len(USERS)
    rules = LASTING[fault](site.proxy)
    site.proxy.break_(*rules)
    try:
        await site.hub.restart(kill=True)
        async with asyncio.timeout(30):
            while not all(rule.hits for rule in rules):
                await asyncio.sleep(0.2)
        # The hub serves, and shows these servers as being checked.
        checked = await _servers(site.hub)
        pending = {user: model and model["pending"] for user, model in checked.items()}
        assert pending == dict.fromkeys(USERS, "check")
    finally:
        site.proxy.heal()
    await _until_ready(site.hub)
    assert await site.hub.space.pods() == before
    assert [seen for seen in site.proxy.writes(PODS) if seen.method == "DELETE"] == []


@pytest.mark.parametrize("answers", [1, 1000], ids=["once", "always"])
async def test_an_empty_listing_ends_no_session_when_each_lab_can_be_read(site: Site, answers: int):
    before = await site.hub.space.pods()
    site.proxy.break_(Rule(no_pods(), path=POD_LIST, times=answers))
    try:
        await site.hub.restart(kill=True)
        await _until_ready(site.hub)
    finally:
        site.proxy.heal()
    assert await site.hub.space.pods() == before
