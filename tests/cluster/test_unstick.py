"""A server that hangs is brought to where it can be started; the hub is not restarted for it."""

from __future__ import annotations

import pytest
import pytest_asyncio

from tests.cluster.control import Control
from tests.cluster.faults import FaultProxy, Rule, hang, status
from tests.cluster.hubs import ADMIN, QUICK, UNHURRIED, Hub, Setup
from tests.cluster.waiting import until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.hub,
    pytest.mark.asyncio(loop_scope="module"),
]

PODS = r"/api/v1/namespaces/[^/]+/pods$"
POD = r"/api/v1/namespaces/[^/]+/pods/[^/]+$"
#: A start or a stop that hangs is to hang for longer than a test waits.
PATIENT = (
    QUICK
    + UNHURRIED
    + """
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0, "slow_stop_timeout": 0}
c.KubeSpawner.start_timeout = 600
c.KubeSpawner.k8s_api_request_retry_timeout = 600
c.KubeSpawner.poll_interval = 0
"""
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def proxy(cluster):
    async with FaultProxy(cluster.kubeconfig) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(space, hub_factory, proxy) -> Hub:
    made = await hub_factory(space, Setup(extra=PATIENT, server=proxy.url))
    await made.start()
    return made


async def _pending(hub: Hub, user: str) -> str | None:
    async with await hub.login(ADMIN) as client:
        server = (await client.api("GET", f"users/{user}"))["servers"].get("")
    return server["pending"] if server else None


async def _unstick(hub: Hub, user: str) -> str:
    control = Control(hub)
    proposal = await control.ask("unstick", user=user)
    [outcome] = await control.execute(proposal)
    return str(outcome["outcome"])


async def test_a_start_that_hangs_is_given_up_and_the_next_one_works(hub: Hub, proxy: FaultProxy):
    rule = Rule(hang(), path=PODS, methods={"POST"})
    proxy.break_(rule)
    try:
        async with await hub.login("ada") as client:
            await client.start_server()

            async def asked() -> bool:
                return rule.hits > 0

            await until(asked, 60)
            assert await _pending(hub, "ada") == "spawn"
            assert await _unstick(hub, "ada") == "done: pending spawn was given up"
            assert await _pending(hub, "ada") is None
            assert "was ended by an administrator" in await client.failure()
    finally:
        proxy.heal()
    home = await hub.start_lab("ada")
    await hub.stop_lab("ada")
    assert home.name in await hub.space.uids()


async def test_a_stop_that_hangs_is_given_up_and_the_lab_is_taken_up_again(
    hub: Hub, proxy: FaultProxy
):
    await hub.start_lab("grace")
    before = await hub.space.pods()
    rule = Rule(status(503, "ServiceUnavailable"), path=POD, methods={"DELETE"})
    proxy.break_(rule)
    try:
        async with await hub.login("grace") as client:
            await client.api("DELETE", "users/grace/server")

            async def asked() -> bool:
                return rule.hits > 0

            await until(asked, 60)
            assert await _pending(hub, "grace") == "stop"
            assert await _unstick(hub, "grace") == "done: pending stop was given up"
            assert await _pending(hub, "grace") is None
    finally:
        proxy.heal()
    assert await hub.space.pods() == before
    await hub.start_lab("grace")
    assert await hub.space.pods() == before
    await hub.stop_lab("grace")
