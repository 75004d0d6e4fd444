"""Sessions, routes and labs are brought in step again, and what runs is never harmed by it."""

from __future__ import annotations

import aiohttp
import pytest
import pytest_asyncio

from tests.cluster.control import Control
from tests.cluster.hubs import ADMIN, UNHURRIED, Hub, Setup
from tests.cluster.waiting import until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.hub,
    pytest.mark.asyncio(loop_scope="module"),
]

#: KubeSpawner's own polls stay away: what is cleared here, a pass has cleared.
PASSES = (
    UNHURRIED
    + """
c.KubeSpawner.poll_interval = 0
c.SessionReconciler.interval = 10
c.JupyterHub.last_activity_interval = 3600
"""
)
#: Two sightings a minute apart, and the passes between.
CLEARED = 120.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(space, hub_factory) -> Hub:
    made = await hub_factory(space, Setup(extra=PASSES, real_labs=True))
    await made.start()
    return made


@pytest.fixture
def control(hub: Hub) -> Control:
    return Control(hub)


async def _server(hub: Hub, user: str) -> dict | None:
    # As an administrator: a user's own page polls their lab.
    async with await hub.login(ADMIN) as client:
        return (await client.api("GET", f"users/{user}"))["servers"].get("")


async def test_all_is_in_step_after_an_ordinary_start(hub: Hub, control: Control):
    await hub.start_lab("ada")
    await hub.start_lab("ada", "gpu")
    assert await control.verdicts() == {"ada": "in step", "ada/gpu": "in step"}


async def test_a_lab_deleted_behind_the_hubs_back_is_cleared_within_two_passes(
    hub: Hub, control: Control
):
    home = await hub.start_lab("katherine")
    await hub.space.delete_pod("jupyter-katherine")
    assert (await control.verdicts())["katherine"] == "stale"
    mark = len(hub.log_text())

    async def gone() -> bool:
        return await _server(hub, "katherine") is None

    await until(gone, CLEARED)
    assert "katherine" not in await control.verdicts()
    # The others were never touched, and the home is where it was.
    assert (await control.verdicts())["ada"] == "in step"
    assert not hub.log_lines("Failed to", since=mark)
    assert await hub.start_lab("katherine") == home
    await hub.stop_lab("katherine")


async def test_a_route_that_was_lost_is_added_by_the_next_pass(hub: Hub, control: Control):
    async with await hub.login("ada") as client:

        async def missing() -> bool:
            # A pass may add it again before it was looked for.
            try:
                await hub.proxy_api("DELETE", "/user/ada")
            except aiohttp.ClientResponseError as error:
                if error.status != 404:
                    raise
            return (await control.verdicts())["ada"] == "route missing"

        await until(missing, 30)

        async def back() -> bool:
            return (await control.verdicts())["ada"] == "in step"

        await until(back, 30)
        assert "1" in await client.lab_exec("print(1)")


async def test_a_route_that_leads_nowhere_is_removed(hub: Hub, control: Control):
    await hub.start_lab("grace")
    route = (await hub.proxy_api("GET"))["/user/grace"]
    await hub.stop_lab("grace")
    await hub.proxy_api("POST", "/user/grace", {**route, "user": "grace", "server_name": ""})

    async def gone() -> bool:
        return "/user/grace" not in await hub.proxy_api("GET")

    await until(gone, 30)


async def test_a_lab_that_ended_is_cleared_and_its_user_is_told_why(hub: Hub, control: Control):
    await hub.start_lab("mary")
    await hub.space.end_pod("jupyter-mary")

    async def gone() -> bool:
        return await _server(hub, "mary") is None

    await until(gone, 60)
    async with await hub.login("mary") as client:
        await client.start_server()
        told = await client.progress()
        await client.wait_ready()
    messages = [event["message"] for event in told]
    [message] = [one for one in messages if "Your former server is not there any more" in one]
    assert "its time was up (DeadlineExceeded" in message
    await hub.stop_lab("mary")


async def test_an_orphan_is_reported_and_goes_on_running(hub: Hub, control: Control):
    await hub.start_lab("emmy")
    before = await hub.space.pods()
    await hub.kill()
    hub.clear_rows("emmy")
    mark = len(hub.log_text())
    await hub.start()

    async def reported() -> bool:
        return bool(hub.log_lines("emmy", "orphan", since=mark))

    await until(reported, 30)
    assert (await control.verdicts())["emmy"] == "orphan"
    assert await hub.space.pods() == before


def _of(hub: Hub, user: str) -> dict[str, list[tuple]]:
    return {
        what: [row for row in rows if any(user in str(cell) for cell in row)]
        for what, rows in hub.rows().items()
    }


async def test_an_orphan_is_relinked_with_all_that_is_in_its_kernels_memory(
    hub: Hub, control: Control
):
    async with await hub.login("lise") as client:
        await client.start_server("work")
        await client.wait_ready("work")
        kernel = await client.open_kernel("work")
        await client.kernel_exec(kernel, "unsaved = 'not on any disk'", "work")
    before, lise = await hub.space.pods(), _of(hub, "lise")
    assert [len(rows) for rows in lise.values()] == [1, 1, 1]
    await hub.kill()
    hub.clear_rows("lise", "work")
    await hub.set_up(
        Setup(extra=PASSES + 'c.SessionReconciler.orphans = "relink"\n', real_labs=True)
    )
    await hub.start()

    async def back() -> bool:
        return (await control.verdicts())["lise/work"] == "in step"

    await until(back, CLEARED)
    async with await hub.login("lise") as client:
        assert "not on any disk" in await client.kernel_exec(kernel, "print(unsaved)", "work")
    assert await hub.space.pods() == before
    # All that the hub holds of a session is as it was.
    assert _of(hub, "lise") == lise
    # It is a session like any other: it ends, and leaves nothing.
    await hub.stop_lab("lise", "work")
    assert _of(hub, "lise") == {"sessions": [], "tokens": [], "clients": []}
