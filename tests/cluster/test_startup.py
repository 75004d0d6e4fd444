"""Doubt costs nobody a server: a hub that starts while the cluster gives wrong answers.

Labs run, the hub is killed and starts again behind a proxy that answers for the API server. With
plain KubeSpawner every session is cleared here, and the next start of each user kills their lab.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

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


# With JupyterLab itself: what is in a kernel's memory is what all this is about.

#: Seconds for which the API server fails, from before the hub's start.
FAILING = 20.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def real(cluster, space_factory, hub_factory):
    async with FaultProxy(cluster.kubeconfig) as proxy:
        setup = Setup(extra=QUICK + IMPATIENT, server=proxy.url, real_labs=True)
        hub = await hub_factory(await space_factory(), setup)
        await hub.start()
        await hub.start_lab("lise")
        yield Site(hub, proxy)


async def _remember(hub: Hub, value: str) -> str:
    """Set a variable in a new kernel of lise's lab, whose id it gives."""
    async with await hub.login("lise") as client:
        kernel = await client.open_kernel()
        await client.kernel_exec(kernel, f"unsaved = {value!r}")
        return kernel


async def _remembered(hub: Hub, kernel: str) -> str:
    async with await hub.login("lise") as client:
        return await client.kernel_exec(kernel, "print(unsaved)")


async def _lises(hub: Hub) -> dict | None:
    async with await hub.login(ADMIN) as client:
        return (await client.api("GET", "users/lise"))["servers"].get("")


async def _until_lises_is(hub: Hub, what: str) -> None:
    """*what*: ``ready``, or what the hub is doing about it."""
    async with asyncio.timeout(HEALED):
        while True:
            model = await _lises(hub)
            assert model, "the session was cleared, and never comes back"
            if model["ready"] if what == "ready" else model["pending"] == what:
                return
            await asyncio.sleep(0.2)


async def test_a_kernels_memory_outlives_a_start_without_an_api_server(real: Site):
    kernel = await _remember(real.hub, "before the fault")
    before = await real.hub.space.pods()
    rules = LASTING["503"](real.proxy)
    real.proxy.break_(*rules)
    begun = time.monotonic()
    try:
        await real.hub.restart(kill=True)
        while time.monotonic() - begun < FAILING:
            model = await _lises(real.hub)
            assert model is not None
            assert model["pending"] == "check"
            await asyncio.sleep(0.5)
        assert all(rule.hits for rule in rules)
    finally:
        real.proxy.heal()
    await _until_lises_is(real.hub, "ready")
    assert "before the fault" in await _remembered(real.hub, kernel)
    assert await real.hub.space.pods() == before


def _processes(pod_uid: str) -> list[int]:
    """On this machine, of all containers of a pod: their control group is named after it."""
    names = (pod_uid, pod_uid.replace("-", "_"))
    found = []
    for file in Path("/proc").glob("[0-9]*/cgroup"):
        with suppress(OSError):
            text = file.read_text()
            if any(name in text for name in names):
                found.append(int(file.parent.name))
    return found


async def test_a_lab_that_hangs_while_the_hub_starts_is_waited_for(real: Site):
    hub = real.hub
    kernel = await _remember(hub, "before it hung")
    before = await hub.space.pods()
    processes = _processes(before["jupyter-lise"])
    if not processes:
        pytest.skip("the processes of this cluster's labs are not seen on this machine")
    mark = len(hub.log_text())
    real.proxy.break_()
    try:
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        await hub.restart(kill=True)
        await _until_lises_is(hub, "check")
        # Tried again and again, and nothing else is done about it.
        async with asyncio.timeout(HEALED):
            while len(hub.log_lines("its lab does not answer", since=mark)) < 3:
                await asyncio.sleep(0.2)
        model = await _lises(hub)
        assert model is not None
        assert model["pending"] == "check"
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)
    await _until_lises_is(hub, "ready")
    assert [seen for seen in real.proxy.writes(PODS) if seen.method == "DELETE"] == []
    assert await hub.space.pods() == before
    assert "before it hung" in await _remembered(hub, kernel)
