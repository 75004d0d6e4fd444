"""Extra volumes: each user has their own, it grows, and nobody gets another's."""

from __future__ import annotations

import asyncio
import os

import jupyterhub
import pytest
import pytest_asyncio

from tests.cluster.hubs import ADMIN, UNHURRIED, Hub, Setup
from tests.cluster.space import CHART_ROLE

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.hub,
    pytest.mark.asyncio(loop_scope="module"),
]

#: As the users of 2i2c's recipe write it.
DECLARED = (
    UNHURRIED
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
HOMES_OFF = 'c.SafeKubeSpawner.homes = "off"\n'
#: As with Zero to JupyterHub's storage.type: static, or none.
STATIC = """
c.KubeSpawner.storage_pvc_ensure = False
c.KubeSpawner.volumes = c.KubeSpawner.volumes[1:]
c.KubeSpawner.volume_mounts = c.KubeSpawner.volume_mounts[1:]
"""
LARGER = DECLARED + 'c.SafeKubeSpawner.extra_pvcs[0]["capacity"] = "2Gi"\n'
HUGE = DECLARED + 'c.SafeKubeSpawner.extra_pvcs[0]["capacity"] = "1000Gi"\n'
#: Another class than the claims have: wished for afterwards, by an edit in the values.
OTHER_CLASS = DECLARED + 'c.SafeKubeSpawner.extra_pvcs[0]["class"] = "fast"\n'
STRICT = OTHER_CLASS + 'c.SafeKubeSpawner.extra_pvc_mismatch = "refuse"\n'
#: Zero to JupyterHub values as 2i2c's users write them. Its z2jh.py cannot be had here; this one
#: answers `get_config(key, default)` as the chart's does (jupyterhub/files/hub/z2jh.py, chart 4).
VALUES = """
custom:
  singleuser:
    extraPVCs:
      - name: scratch-{username}
        class: ""
        capacity: 1Gi
"""
Z2JH = """
from pathlib import Path
import yaml
VALUES = yaml.safe_load(Path(__file__).with_name("values.yaml").read_text())

def get_config(key, default=None):
    value = VALUES
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return default
        value = value[part]
    return value
"""
FROM_VALUES = (
    UNHURRIED
    + """
c.KubeSpawner.volumes = c.KubeSpawner.volumes + [
    {"name": "scratch", "persistentVolumeClaim": {"claimName": "scratch-{username}"}}
]
c.KubeSpawner.volume_mounts = c.KubeSpawner.volume_mounts + [
    {"name": "scratch", "mountPath": "/scratch"}
]
"""
)
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


async def test_volumes_of_a_user_who_is_renamed_while_the_server_runs_stay_theirs(hub: Hub):
    await hub.start_lab("cleo")
    before, mounted = await hub.space.uids(), await _mounted(hub, "jupyter-cleo")
    async with await hub.login(ADMIN) as admin:
        await admin.api("PATCH", "users/cleo", {"name": "cleopatra"})
    # At once, and not when she starts again: till then the next cleo would get her database.
    async with asyncio.timeout(30):
        while (await hub.space.marks("postgres-cleo"))["jhub-safety/user"] != "cleopatra":
            await asyncio.sleep(0.05)
    # While her server runs JupyterHub itself starts none for a namesake: its OAuth client has a
    # server already.
    await hub.stop_lab("cleopatra")
    page = await hub.refusal("cleo")
    assert "one of your volumes could not be mounted" in page.text
    assert hub.log_lines("cleo not started", "claim postgres-cleo is cleopatra")
    # But for a home of their own, which is settled first.
    after = await hub.space.uids()
    assert {name: after[name] for name in before} == before
    assert all(name.startswith("claim-cleo-") for name in set(after) - set(before))
    before = after
    await hub.start_lab("cleopatra")
    assert await _mounted(hub, "jupyter-cleopatra") == mounted
    assert await hub.space.uids() == before
    assert (await hub.space.marks("postgres-cleo"))["jhub-safety/user"] == "cleopatra"
    # The next one of that name is somebody else, whose volume cannot be called so.
    page = await hub.refusal("cleo")
    assert "one of your volumes could not be mounted" in page.text
    await hub.stop_lab("cleopatra")


@pytest.mark.parametrize("static", [False, True], ids=["homes are left alone", "static homes"])
async def test_nor_does_the_next_of_a_name_get_them_where_no_claim_may_be_annotated(
    space_factory, hub_factory, static: bool
):
    """The chart's Role alone; the renamed user does not start again before their namesake."""
    space = await space_factory(CHART_ROLE)
    made = await hub_factory(space, Setup(extra=DECLARED + (STATIC if static else HOMES_OFF)))
    await made.start()
    await made.start_lab("cleo")
    before = await space.uids()
    mounted = await _mounted(made, "jupyter-cleo")
    await made.stop_lab("cleo")
    async with await made.login(ADMIN) as admin:
        await admin.api("PATCH", "users/cleo", {"name": "cleopatra"})

    page = await made.refusal("cleo")

    assert "one of your volumes could not be mounted" in page.text
    assert made.log_lines("cleo not started", "postgres-cleo", "the hub's record of cleopatra")
    assert made.log_lines("Not every claim of cleopatra carries the new name", "403")
    assert (await space.marks("postgres-cleo"))["jhub-safety/user"] == "cleo"
    assert await space.pods() == {}
    await made.start_lab("cleopatra")
    again = await _mounted(made, "jupyter-cleopatra")
    extras = {name for name in mounted if name.startswith(("postgres-", "data-"))}
    assert len(extras) == 2
    assert {name: again[name] for name in extras} == {name: mounted[name] for name in extras}
    after = await space.uids()
    assert {name: after[name] for name in before} == before
    await made.stop_lab("cleopatra")
    # After she has started, too.
    assert "one of your volumes could not be mounted" in (await made.refusal("cleo")).text
    await made.stop()


@pytest.mark.skipif(
    jupyterhub.version_info < (6,), reason="JupyterHub renames servers from version 6 on"
)
async def test_volumes_of_a_renamed_server_stay_its_own_and_the_next_of_its_name_gets_none(
    hub: Hub,
):
    await hub.start_lab("ann", "gpu")
    before, mounted = await hub.space.uids(), await _mounted(hub, "jupyter-ann--gpu")
    data = next(name for name in mounted if name.startswith("data-ann"))
    await hub.stop_lab("ann", "gpu")
    async with await hub.login("ann") as ann:
        await ann.api("PATCH", "users/ann/servers/gpu", {"name": "cpu"})
    assert (await hub.space.marks(data))["jhub-safety/server"] == "cpu"
    # Whatever the new server called gpu gets, none of it is what the other one has.
    page = await hub.refusal("ann", "gpu")
    assert "one of your volumes could not be mounted" in page.text
    assert hub.log_lines("ann:gpu not started", f"claim {data} is ann/cpu")
    await hub.start_lab("ann", "cpu")
    assert await _mounted(hub, "jupyter-ann--cpu") == mounted
    after = await hub.space.uids()
    assert {name: after[name] for name in before} == before
    await hub.stop_lab("ann", "cpu")


async def test_a_lost_volume_of_all_servers_is_refused_at_whichever_starts_next(hub: Hub):
    await hub.start_lab("mary")
    await hub.stop_lab("mary")
    await hub.space._core.delete_namespaced_persistent_volume_claim("postgres-mary", hub.space.name)
    await hub.space.until_gone("postgres-mary")
    for server in ("two", ""):
        page = await hub.refusal("mary", server)
        assert "one of your volumes could not be mounted" in page.text
        told = f"mary:{server} not started" if server else "mary not started"
        assert hub.log_lines(told, "claims forget postgres-mary --user=mary")
    assert "postgres-mary" not in await hub.space.uids()


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


async def test_another_class_is_told_and_stops_nobody_unless_the_hub_says_so(hub: Hub):
    await hub.restart_as(Setup(extra=DECLARED))
    await hub.start_lab("ada")
    await hub.stop_lab("ada")
    before = await hub.space.uids()
    await hub.restart_as(Setup(extra=OTHER_CLASS))
    mark = len(hub.log_text())
    await hub.start_lab("ada")
    assert hub.log_lines("postgres-ada", "class", "starts all the same", since=mark)
    await hub.stop_lab("ada")
    await hub.restart_as(Setup(extra=STRICT))
    page = await hub.refusal("ada")
    assert "one of your volumes could not be mounted" in page.text
    assert await hub.space.uids() == before


async def test_of_two_hubs_in_a_namespace_the_second_never_gets_the_firsts_volume(
    space, hub: Hub, hub_factory
):
    """Both have an ada, and both call her volume postgres-ada."""
    await hub.restart_as(Setup(extra=DECLARED))
    await hub.start_lab("ada")
    await hub.stop_lab("ada")
    before, marks = await space.uids(), await space.marks("postgres-ada")
    await hub.stop()
    # Homes of its own, so that it comes as far as the volumes.
    staging = """
c.SafeKubeSpawner.hub_name = "staging"
c.KubeSpawner.pvc_name_template = "staging-{username}"
"""
    other = await hub_factory(space, Setup(extra=DECLARED + staging))
    await other.start()
    page = await other.refusal("ada")
    assert page.status == 409
    assert other.log_lines("ada", "not started", "postgres-ada", hub.space.name)
    after = await space.uids()
    assert {name: after[name] for name in before} == before
    assert await space.marks("postgres-ada") == marks
    await other.stop()


async def test_values_of_the_recipe_need_no_change(space, hub_factory, tmp_path):
    (tmp_path / "values.yaml").write_text(VALUES)
    (tmp_path / "z2jh.py").write_text(Z2JH)
    environment = {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    made = await hub_factory(space, Setup(extra=FROM_VALUES, environment=environment))
    await made.start()
    home = await made.start_lab("newton")
    mounted = await _mounted(made, "jupyter-newton")
    assert mounted == {home.name: "/home/jovyan", "scratch-newton": "/scratch"}
    assert (await space.marks("scratch-newton"))["jhub-safety/volume"] == "scratch-{username}"
    await made.stop_lab("newton")
    await made.stop()
