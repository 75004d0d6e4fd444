"""The main promise: the hub database is lost, and everybody still finds their files."""

from __future__ import annotations

import asyncio
import hashlib
import secrets

import pytest

from tests.cluster.hubs import Hub, Setup
from tests.cluster.space import Home, Space

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.hub,
    pytest.mark.asyncio(loop_scope="module"),
]

FILE = "thesis.bin"
REAL = Setup(real_labs=True)
# KubeSpawner 6.2.0 made these names; tests/golden has what the releases themselves answered.
ERIN, ERINS = ("erin@school.edu", ""), "claim-erin-40school-2eedu"
FRANK, FRANKS = ("frank", "gpu"), "claim-frankgpu"
ALICE, DANA, OLGA = ("alice", ""), ("dana@school.edu", ""), ("olga.o", "")
EVERYBODY = (ERIN, FRANK, ALICE, DANA, OLGA)

Owner = tuple[str, str]


async def _write(hub: Hub, owner: Owner, content: bytes) -> Home:
    """Start the lab, save a file in it, stop it."""
    user, server = owner
    async with await hub.login(user) as client:
        await client.start_server(server)
        await client.wait_ready(server)
        await client.write_file(FILE, content, server)
        home = await hub.space.home_of(user, server)
        await client.stop_server(server)
    return home


async def _read(hub: Hub, owner: Owner) -> tuple[Home, str | None]:
    """What a new lab gives out, and from which claim."""
    user, server = owner
    async with await hub.login(user) as client:
        await client.start_server(server)
        await client.wait_ready(server)
        digest = await client.file_sha256(FILE, server)
    return await hub.space.home_of(user, server), digest


async def test_a_real_lab_reads_the_file_from_before_the_loss_whoever_named_the_claim(
    space: Space, hub_factory
):
    content = {owner: secrets.token_bytes(100_000) for owner in EVERYBODY}
    await space.make_claim(ERINS, *ERIN)
    await space.make_claim(FRANKS, *FRANK)
    hub: Hub = await hub_factory(space, Setup(safe=False, real_labs=True))
    # KubeSpawner 6's state names no claim; a hub that went from z2jh 3 to 4 has the name in it.
    hub.remember(ERIN[0], {"pod_name": "jupyter-erin-40school-2eedu"})
    hub.remember(FRANK[0], {"pvc_name": FRANKS, "kubespawner_version": "7.1.0"}, server=FRANK[1])
    await hub.start()
    before = dict(
        zip(
            (ERIN, FRANK, ALICE, DANA),
            await asyncio.gather(
                *(_write(hub, owner, content[owner]) for owner in (ERIN, FRANK, ALICE, DANA))
            ),
            strict=True,
        )
    )
    assert {owner: home.name for owner, home in before.items()} == {
        ERIN: ERINS,
        FRANK: FRANKS,
        ALICE: "claim-alice",
        DANA: before[DANA].name,
    }
    assert before[DANA].name.startswith("claim-dana-school-edu---"), "named by KubeSpawner 7"

    await hub.restart_as(REAL)
    before[OLGA] = await _write(hub, OLGA, content[OLGA])
    claims = await space.uids()
    assert len(claims) == len(EVERYBODY)

    await hub.lose_the_database()

    after = dict(
        zip(
            EVERYBODY,
            await asyncio.gather(*(_read(hub, owner) for owner in EVERYBODY)),
            strict=True,
        )
    )
    assert after == {
        owner: (before[owner], hashlib.sha256(content[owner]).hexdigest()) for owner in EVERYBODY
    }
    assert await space.uids() == claims
