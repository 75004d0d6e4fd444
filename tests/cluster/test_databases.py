"""A private database server per user, whose data really survives."""

from __future__ import annotations

import pytest
import pytest_asyncio

from tests.cluster.hubs import QUICK, UNHURRIED, Hub, Setup

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.hub,
    pytest.mark.asyncio(loop_scope="module"),
]

#: The image of the init container is this project's own; postgres:15 is Debian's.
DATABASES = (
    QUICK
    + UNHURRIED
    + """
c.SafeKubeSpawner.ownership_image = c.KubeSpawner.init_containers[0]["image"]
c.KubeSpawner.init_containers = []
c.SafeKubeSpawner.databases = [{"kind": "postgres", "image": "postgres:15"}]
"""
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(space, hub_factory) -> Hub:
    made = await hub_factory(space, Setup(extra=DATABASES, real_labs=True))
    await made.start()
    return made


async def psql(hub: Hub, user: str, sql: str) -> str:
    """What the lab's own psql prints, with nothing said of where the server is."""
    async with await hub.login(user) as client:
        return await client.lab_exec(
            "import subprocess; "
            f"done = subprocess.run(['psql', '-AXtc', {sql!r}], capture_output=True, text=True); "
            "print(done.stdout + done.stderr)"
        )


async def test_a_row_is_there_after_the_lab_was_stopped_and_started(hub: Hub):
    await hub.start_lab("ada")
    print(await psql(hub, "ada", "CREATE TABLE kept (n int); INSERT INTO kept VALUES (42)"))
    await hub.stop_lab("ada")
    await hub.start_lab("ada")
    assert "42" in await psql(hub, "ada", "SELECT n FROM kept")
    await hub.stop_lab("ada")
