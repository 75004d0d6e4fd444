"""Coming to this library on a running hub, looking at it first, and leaving it again."""

from __future__ import annotations

import asyncio

import pytest

from tests.cluster.hubs import Hub, Setup
from tests.cluster.space import Home, Space

pytestmark = [pytest.mark.cluster, pytest.mark.asyncio(loop_scope="module")]

PLAIN, SAFE = Setup(safe=False), Setup()
OBSERVING = Setup(extra='c.SafeKubeSpawner.homes = "observe"\n')
ALICE, ERIN, FRANK, TWIN = (
    ("alice", ""),
    ("erin@school.edu", ""),
    ("frank", "gpu"),
    ("twin@school.edu", ""),
)
EVERYBODY = (ALICE, ERIN, FRANK, TWIN)
OF_TODAY = {"kubespawner_version": "7.1.0"}


async def _homes(hub: Hub, *, stop: bool = True) -> dict[tuple[str, str], Home]:
    """What everybody has mounted when they start their server now."""
    found = await asyncio.gather(*(hub.start_lab(*owner) for owner in EVERYBODY))
    if stop:
        await asyncio.gather(*(hub.stop_lab(*owner) for owner in EVERYBODY))
    return dict(zip(EVERYBODY, found, strict=True))


@pytest.mark.hub
async def test_everybody_keeps_the_claim_they_had_mounted_when_it_is_installed_and_removed(
    space: Space, hub_factory
):
    for name, owner in (
        ("claim-erin-40school-2eedu", ERIN),
        ("claim-frankgpu", FRANK),
        # Two claims: the one that KubeSpawner 7 would make now, and the one that is in use.
        ("claim-twin-school-edu---9c7538c5", TWIN),
        ("claim-twin-40school-2eedu", TWIN),
    ):
        await space.make_claim(name, *owner)
    hub: Hub = await hub_factory(space, PLAIN)
    hub.remember(ERIN[0], {"pod_name": "jupyter-erin-40school-2eedu"})
    hub.remember(FRANK[0], {"pvc_name": "claim-frankgpu", **OF_TODAY}, server=FRANK[1])
    hub.remember(TWIN[0], {"pvc_name": "claim-twin-40school-2eedu", **OF_TODAY})
    await hub.start()
    before = await _homes(hub)
    assert {owner: home.name for owner, home in before.items()} == {
        ALICE: "claim-alice",
        ERIN: "claim-erin-40school-2eedu",
        FRANK: "claim-frankgpu",
        TWIN: "claim-twin-40school-2eedu",
    }
    await hub.start_lab("always-on")
    claims = await space.uids()
    assert len(claims) == len(EVERYBODY) + 2
    running = await space.pods()

    await hub.restart_as(SAFE)
    assert await space.pods() == running, "a lab that runs goes on running"
    assert await _homes(hub) == before
    assert await space.uids() == claims
    # And somebody new, whose claim has a name that KubeSpawner would never give it.
    own = await hub.start_lab("olga.o")
    await hub.stop_lab("olga.o")

    await hub.restart_as(PLAIN)
    assert await space.pods() == running
    assert await _homes(hub, stop=False) == before
    assert await hub.start_lab("olga.o") == own
    assert await space.uids() == claims | {own.name: own.uid}


async def test_observing_changes_nothing_that_plain_kubespawner_would_not_and_says_what_it_saw(
    space_factory, hub_factory
):
    seen = []
    for setup in (PLAIN, OBSERVING):
        space = await space_factory()
        for name, owner in (
            ("claim-erin-40school-2eedu", ERIN),
            ("claim-twin-school-edu---9c7538c5", TWIN),
            ("claim-twin-40school-2eedu", TWIN),
        ):
            await space.make_claim(name, *owner)
        hub: Hub = await hub_factory(space, setup)
        await hub.start()
        homes = await _homes(hub, stop=False)
        marks = {name: await space.marks(name) for name in await space.uids()}
        seen.append(({owner: home.name for owner, home in homes.items()}, marks))
        hub.close()

    assert seen[1] == seen[0]
    assert await space.events("HomeRefused") == []
    for words in (
        ("Home of alice (observe only): would create",),
        ("Home of erin@school.edu (observe only): would adopt claim-erin-40school-2eedu",),
        ("Home of twin@school.edu (observe only): would refuse",),
    ):
        assert len(hub.log_lines(*words)) == 1, words
