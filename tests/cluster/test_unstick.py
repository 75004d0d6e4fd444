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


#: The first start hangs where nobody can tell it to let go, and fails once it is told to.
HANGING_HOOK = """
import asyncio
from pathlib import Path
hanging = Path({folder!r})

async def hang(spawner):
    if spawner.user.name == "grace" and not (hanging / "begun").exists():
        (hanging / "begun").touch()
        try:
            while not (hanging / "fail").exists():
                await asyncio.sleep(0.1)
            (hanging / "failed").touch()
            raise RuntimeError("at last")
        finally:
            (hanging / "looked").touch()

c.Spawner.pre_spawn_hook = hang
"""


async def test_what_was_given_up_never_touches_what_is_started_after_it(
    space_factory, hub_factory, tmp_path
):
    """The former start's failure, minutes later, stopped the lab that the user had by then."""
    space = await space_factory()
    hook = HANGING_HOOK.format(folder=str(tmp_path))
    hub = await hub_factory(space, Setup(extra=PATIENT + hook))
    await hub.start()
    async with await hub.login("grace") as client:
        await client.start_server()

        async def begun() -> bool:
            return (tmp_path / "begun").exists()

        await until(begun, 60)
        assert await _pending(hub, "grace") == "spawn"
        assert "taken off the hub's memory" in await _unstick(hub, "grace")
        await client.start_server()
        await client.wait_ready()
        labs = await space.pods()
        assert list(labs) == ["jupyter-grace"]
        (tmp_path / "fail").touch()

        async def looked() -> bool:
            return (tmp_path / "looked").exists()

        # Whatever became of the hook: it was ended, or it has seen that it is to fail.
        await until(looked, 60)
        assert not (tmp_path / "failed").exists()
        assert await space.pods() == labs
        assert (await client.server())["ready"]
    await hub.stop_lab("grace")


async def test_a_server_that_was_started_anew_is_not_what_an_operator_was_shown(hub: Hub):
    await hub.start_lab("ada")
    control = Control(hub)
    shown = await control.ask("delete", user="ada")
    await hub.stop_lab("ada")
    await hub.start_lab("ada")
    labs = await hub.space.pods()
    ended, *_ = await control.execute(shown)
    assert ended["outcome"] == "unchanged: that session has ended"
    assert await hub.space.pods() == labs
    assert await _pending(hub, "ada") is None
    anew = await control.execute(await control.ask("delete", user="ada"))
    assert anew[0]["outcome"] == "done"
    assert await hub.space.pods() == {}
