"""Extra volumes: each user has their own, it grows, and nobody gets another's."""

from __future__ import annotations

import pytest
import pytest_asyncio

from tests.cluster.hubs import QUICK, UNHURRIED, Hub, Setup

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.hub,
    pytest.mark.asyncio(loop_scope="module"),
]

#: As the users of 2i2c's recipe write it.
DECLARED = (
    QUICK
    + UNHURRIED
    + """
c.SafeKubeSpawner.extra_pvcs = [
    {"name": "postgres-{username}", "capacity": "1Gi"},
    {"name": "data-{owner_slug}-{owner_hash}", "capacity": "1Gi", "mount_path": "/data"},
]
c.KubeSpawner.volumes = c.KubeSpawner.volumes + [
    {"name": "db", "persistentVolumeClaim": {"claimName": "postgres-{username}"}}
]
c.KubeSpawner.volume_mounts = c.KubeSpawner.volume_mounts + [
    {"name": "db", "mountPath": "/db", "subPath": "data"}
]
"""
)
LARGER = DECLARED + 'c.SafeKubeSpawner.extra_pvcs[0]["capacity"] = "2Gi"\n'
HUGE = DECLARED + 'c.SafeKubeSpawner.extra_pvcs[0]["capacity"] = "1000Gi"\n'
SMALLER = DECLARED + 'c.SafeKubeSpawner.extra_pvcs[0]["capacity"] = "512Mi"\n'


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(space, hub_factory) -> Hub:
    made = await hub_factory(space, Setup(extra=DECLARED))
    await made.start()
    return made


async def _mounted(hub: Hub, pod: str) -> dict[str, str]:
    """Mount path by claim, of the notebook container."""
    found = await hub.space.pod(pod)
    claims = {
        volume.name: volume.persistent_volume_claim.claim_name
        for volume in found.spec.volumes
        if volume.persistent_volume_claim
    }
    notebook = next(one for one in found.spec.containers if one.name == "notebook")
    return {
        claims[mount.name]: mount.mount_path
        for mount in notebook.volume_mounts
        if mount.name in claims
    }


async def test_each_user_gets_their_own_volumes_and_the_hubs_own_mounts_stay(hub: Hub):
    home = await hub.start_lab("ada")
    mounted = await _mounted(hub, "jupyter-ada")
    data = next(name for name in mounted if name.startswith("data-ada-"))
    assert mounted == {home.name: "/home/jovyan", "postgres-ada": "/db", data: "/data"}
    marks = await hub.space.marks("postgres-ada")
    assert marks["component"] == "extra-pvc"
    assert marks["jhub-safety/user"] == marks["hub.jupyter.org/username"] == "ada"
    assert marks["jhub-safety/volume"] == "postgres-{username}"
    assert marks["jhub-safety/hub"] == hub.space.name
    await hub.stop_lab("ada")


async def test_a_known_volume_costs_one_read_and_is_kept_over_a_lost_database(hub: Hub):
    await hub.start_lab("grace")
    before = await hub.space.uids()
    await hub.stop_lab("grace")
    await hub.lose_the_database()
    await hub.start_lab("grace")
    assert await hub.space.uids() == before
    await hub.stop_lab("grace")


async def test_a_claim_of_an_earlier_kubespawner_is_adopted_and_followed_by_the_hubs_volume(
    hub: Hub,
):
    """2i2c's recipe on KubeSpawner 6: escaped name, KubeSpawner's annotations, its label."""
    uid = await hub.space.make_extra_claim("postgres-erin-40school-2eedu", "erin@school.edu")
    await hub.start_lab("erin@school.edu")
    (pod,) = await hub.space.pods()
    assert (await _mounted(hub, pod))["postgres-erin-40school-2eedu"] == "/db"
    assert (await hub.space.uids())["postgres-erin-40school-2eedu"] == uid
    marks = await hub.space.marks("postgres-erin-40school-2eedu")
    assert marks["jhub-safety/user"] == "erin@school.edu"
    await hub.stop_lab("erin@school.edu")


async def test_another_users_claim_is_never_mounted(hub: Hub):
    await hub.space.make_extra_claim("postgres-newcomer", "somebody-else")
    before = await hub.space.uids()
    page = await hub.refusal("newcomer")
    assert "one of your volumes could not be mounted" in page.text
    assert hub.log_lines("newcomer", "postgres-newcomer", "somebody-else")
    after = await hub.space.uids()
    assert {name: after[name] for name in before} == before
    assert await hub.space.pods() == {}


@pytest.mark.parametrize(
    ("extra", "capacity", "told"),
    [
        pytest.param(LARGER, "2Gi", "", id="larger grows"),
        pytest.param(SMALLER, "2Gi", "cannot shrink", id="smaller stays"),
        pytest.param(HUGE, "2Gi", "cannot be taken back", id="a slip stays"),
    ],
)
async def test_a_claim_follows_the_configured_capacity_upwards_only(
    hub: Hub, extra: str, capacity: str, told: str
):
    uid = (await hub.space.uids())["postgres-ada"]
    await hub.restart_as(Setup(extra=extra))
    mark = len(hub.log_text())
    await hub.start_lab("ada")
    claim = await hub.space.claim("postgres-ada")
    assert (claim.metadata.uid, claim.spec.resources.requests["storage"]) == (uid, capacity)
    if told:
        assert hub.log_lines("postgres-ada", told, "starts all the same", since=mark)
    await hub.stop_lab("ada")
