"""A lab that runs is never killed for a new one, and one that is gone is noticed."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio

from tests.cluster.hubs import QUICK, Hub, Setup
from tools.demo.client import ClientError

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.hub,
    pytest.mark.asyncio(loop_scope="module"),
]

POLLED_OFTEN = """
c.KubeSpawner.poll_interval = 5
c.JupyterHub.init_spawners_timeout = 1
"""
#: Two sightings a minute apart, the polls between them, and the time to clear it.
NOTICED = 120.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(space, hub_factory) -> Hub:
    made = await hub_factory(space, Setup(extra=QUICK + POLLED_OFTEN, real_labs=True))
    await made.start()
    return made


async def test_a_running_lab_is_taken_up_after_the_loss_with_all_that_is_in_its_memory(hub: Hub):
    async with await hub.login("ada") as client:
        await client.start_server()
        await client.wait_ready()
        await client.lab_exec("open('/memory/unsaved.txt', 'w').write('not on any disk')")
    before = await hub.space.pods()

    await hub.lose_the_database()
    async with await hub.login("ada") as client:
        await client.start_server()
        await client.wait_ready()
        seen = await client.lab_exec("print(open('/memory/unsaved.txt').read())")
    assert "not on any disk" in seen
    assert await hub.space.pods() == before

    # It is a session like any other from here on.
    await hub.stop_lab("ada")
    assert await hub.space.pods() == {}


async def test_a_start_that_fails_after_it_took_up_a_lab_leaves_the_lab_running(hub: Hub):
    """KubeSpawner stops the pod, with no grace, when a hook fails after it was made."""
    await hub.start_lab("grace")
    before = await hub.space.pods()
    fails = """
async def fail(spawner, pod):
    raise RuntimeError("this hook fails")
c.KubeSpawner.after_pod_created_hook = fail
"""
    await hub.kill()
    hub.empty_the_database()
    await hub.set_up(Setup(extra=QUICK + POLLED_OFTEN + fails, real_labs=True))
    await hub.start()
    with pytest.raises(ClientError):
        await hub.start_lab("grace")
    assert "this hook fails" in hub.log_text()
    assert await hub.space.pods() == before

    await hub.restart_as(Setup(extra=QUICK + POLLED_OFTEN, real_labs=True))
    await hub.start_lab("grace")
    assert await hub.space.pods() == before
    await hub.stop_lab("grace")


async def test_a_lab_carries_the_hubs_name(hub: Hub):
    await hub.start_lab("grace")
    for name in await hub.space.pods():
        pod = await hub.space.pod(name)
        assert pod.metadata.labels["jhub-safety/hub"] == hub.space.name
    await hub.stop_lab("grace")


async def test_a_lab_of_somebody_else_under_the_same_name_is_left_alone(hub: Hub):
    await hub.space.make_claim("claim-of-another", "another")
    uid = await hub.space.make_pod(
        "jupyter-newcomer", hub.cluster.init_image, "claim-of-another", "another"
    )
    with pytest.raises(ClientError, match="in use by another server"):
        await hub.start_lab("newcomer")
    pod = await hub.space.pod("jupyter-newcomer")
    assert (pod.metadata.uid, pod.metadata.deletion_timestamp) == (uid, None)
    assert hub.log_lines("newcomer", "belongs to another")
    await hub.space.delete_pod("jupyter-newcomer")


async def test_a_lab_deleted_behind_the_hubs_back_is_noticed_and_its_user_starts_again(hub: Hub):
    home = await hub.start_lab("katherine")
    [name] = await hub.space.pods()
    await hub.space.delete_pod(name)
    async with await hub.login("katherine") as client, asyncio.timeout(NOTICED):
        while (model := await client.server()) is not None and model["ready"]:
            await asyncio.sleep(1)
    assert await hub.start_lab("katherine") == home
    await hub.stop_lab("katherine")
