"""What a database adds to what a start asks of the API server, from its own audit log."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
import pytest_asyncio

from tests.cluster.audit import CLAIMS, PODS
from tests.cluster.databases import POSTGRES_IMAGE, LabPod, light_with_databases
from tests.cluster.hubs import UNHURRIED, Hub, Setup
from tools.cluster import ClusterInfo

pytestmark = [pytest.mark.cluster, pytest.mark.asyncio(loop_scope="module")]

#: What goes by the hub's clock must not fall among the calls of a start.
CALM = """
c.DatabaseGuard.interval = 3600
c.SessionReconciler.interval = 3600
"""


def with_a_database(cluster: ClusterInfo) -> Setup:
    return Setup(extra=light_with_databases(cluster) + CALM)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(space, hub_factory, cluster, database_images) -> Hub:
    database_images(POSTGRES_IMAGE)
    hub = await hub_factory(space, with_a_database(cluster))
    await hub.start()
    return hub


async def calls_of_a_start(hub: Hub, audit, user: str) -> Counter[str]:
    """By verb, resource and name; without looks that go by time, not by start."""
    audit.mark()
    await hub.start_lab(user)
    made = audit.calls(user=hub.space.hub_user)
    await hub.stop_lab(user)
    return Counter(
        f"{one.verb} {one.resource} {one.name}".strip()
        for one in made
        if one.verb != "watch"
        and (one.verb, one.resource) not in (("list", PODS), ("list", "events"))
    )


async def test_a_known_database_costs_one_read_of_its_claim_and_nothing_else(
    hub: Hub, audit, cluster
):
    await hub.start_lab("ada")
    await hub.stop_lab("ada")
    (claim,) = [name for name in await hub.space.uids() if name.startswith("postgres-")]

    counted = await calls_of_a_start(hub, audit, "ada")
    await hub.restart_as(Setup(extra=UNHURRIED + CALM))
    await hub.start_lab("ada")
    await hub.stop_lab("ada")
    without = await calls_of_a_start(hub, audit, "ada")

    assert counted - without == Counter({f"get {CLAIMS} {claim}": 1})
    await hub.restart_as(with_a_database(cluster))


async def test_what_the_cluster_can_do_is_asked_once_for_all_users(hub: Hub, audit):
    await hub.restart()
    audit.mark()
    await asyncio.gather(*(hub.start_lab(user) for user in ("ben", "cleo", "dan")))
    made = audit.calls(user=hub.space.hub_user)
    await asyncio.gather(*(hub.stop_lab(user) for user in ("ben", "cleo", "dan")))

    assert sum("/version" in one.uri for one in made) <= 1
    assert sum("dryRun" in one.uri for one in made) <= 1


async def test_a_second_start_makes_no_new_data_folder(hub: Hub):
    # Each initdb draws another one.
    identifier = "SELECT system_identifier FROM pg_control_system()"
    seen = []
    for _ in range(2):
        await hub.start_lab("eve")
        pod = await LabPod.of(hub.space, "eve")
        seen.append(await pod.sql(identifier))
        await hub.stop_lab("eve")
        await pod.until_gone()
    assert seen[0] == seen[1] != ""
