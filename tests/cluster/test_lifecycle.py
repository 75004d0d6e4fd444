"""Renamed and deleted servers and users: a home follows its owner, and goes only when told to."""

from __future__ import annotations

import jupyterhub
import pytest
import pytest_asyncio

from tests.cluster.hubs import ADMIN, QUICK, Hub, Setup
from tests.cluster.space import Home, Space

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.hub,
    pytest.mark.asyncio(loop_scope="module"),
]

servers_can_be_renamed = pytest.mark.skipif(
    jupyterhub.version_info < (6,), reason="JupyterHub renames servers from version 6 on"
)
DELETING = "c.KubeSpawner.delete_pvc = True\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(space, hub_factory):
    hub = await hub_factory(space, Setup(extra=QUICK))
    await hub.start()
    return hub


async def _used(hub: Hub, user: str, server: str = ""):
    """The home of a server that has been started and stopped."""
    home = await hub.start_lab(user, server)
    await hub.stop_lab(user, server)
    return home


async def _as_admin(hub: Hub, method: str, path: str, body: dict | None = None) -> None:
    async with await hub.login(ADMIN) as admin:
        await admin.api(method, path, body)


@servers_can_be_renamed
async def test_a_renamed_server_keeps_its_home_and_the_next_of_its_name_gets_its_own(hub: Hub):
    home = await _used(hub, "ann", "gpu")
    async with await hub.login("ann") as ann:
        await ann.api("PATCH", "users/ann/servers/gpu", {"name": "cpu"})

    assert await _used(hub, "ann", "cpu") == home
    assert (await _used(hub, "ann", "gpu")).uid != home.uid
    await hub.lose_the_database()
    assert await _used(hub, "ann", "cpu") == home


@servers_can_be_renamed
async def test_a_renamed_default_server_keeps_its_home_and_the_new_one_gets_its_own(hub: Hub):
    home = await _used(hub, "bob")
    async with await hub.login("bob") as bob:
        await bob.api("PATCH", "users/bob/server", {"name": "first"})

    assert await _used(hub, "bob", "first") == home
    assert (await _used(hub, "bob")).uid != home.uid


async def test_a_renamed_user_keeps_their_home_and_the_next_of_that_name_gets_another(hub: Hub):
    home = await _used(hub, "cleo")
    await _as_admin(hub, "PATCH", "users/cleo", {"name": "cleopatra"})

    assert await _used(hub, "cleopatra") == home
    assert (await _used(hub, "cleo")).uid != home.uid


async def test_deleted_users_and_servers_leave_their_claims_behind(hub: Hub):
    default, named = await _used(hub, "dora"), await _used(hub, "dora", "gpu")
    claims = await hub.space.uids()

    async with await hub.login("dora") as dora:
        await dora.delete_server("gpu")
    await _as_admin(hub, "DELETE", "users/dora")

    assert {default, named} <= await _homes(hub.space)
    assert await hub.space.uids() == claims
    assert await _used(hub, "dora") == default, "back again, they find it"


async def test_with_delete_pvc_a_deleted_server_takes_its_own_claim_and_no_other(
    space_factory, hub_factory
):
    space: Space = await space_factory()
    victims = await space.make_claim("claim-victim", "victim")
    hub: Hub = await hub_factory(space, Setup(extra=QUICK + DELETING))
    # An older record, or KubeSpawner's 409 taken for success: it names somebody else's claim.
    hub.remember("thief", {"pvc_name": "claim-victim", "kubespawner_version": "7.1.0"})
    await hub.start()
    default, named = await _used(hub, "dora"), await _used(hub, "dora", "gpu")

    async with await hub.login("dora") as dora:
        await dora.delete_server("gpu")
    await space.until_gone(named.name)
    assert await space.uids() == {"claim-victim": victims, default.name: default.uid}

    await _as_admin(hub, "DELETE", "users/thief")
    await _as_admin(hub, "DELETE", "users/dora")
    await space.until_gone(default.name)
    assert await space.uids() == {"claim-victim": victims}
    assert hub.log_lines("claim-victim", "kept")


async def _homes(space: Space):
    return {Home(name, uid) for name, uid in (await space.uids()).items()}
