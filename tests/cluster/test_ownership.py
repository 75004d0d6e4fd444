"""Folders are given to the lab's user: only what is wrong, never what is in a home."""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from jhub_safety.sidecars import ownership
from tests.cluster.databases import POSTGRES, POSTGRES_IMAGE, LabPod, light_with_databases
from tests.cluster.hubs import Hub, Setup
from tests.cluster.space import Space
from tests.cluster.volumes_on_node import node_pid, owners, read_only_file_system, volume_on_node
from tools.cluster import ClusterInfo

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.asyncio(loop_scope="module"),
]

UID, GID = 1000, 100
#: Databases only in labs that ask for them; "plain" labs mount nothing shared.
BY_OPTIONS = """
_ENTRY = c.SafeKubeSpawner.databases
_SHARED = {
    "shared": "/home/jovyan/shared", "unnamed": "/srv/unnamed", "fixed": "/srv/fixed",
    "deep": "/home/jovyan/a/b/c", "linked": "/home/jovyan/shared",
}
c.SafeKubeSpawner.ownership = "always"
c.SafeKubeSpawner.ownership_paths = ["/home/jovyan/shared", "/srv/fixed", "/home/jovyan/a/b/c"]


def _of_this_start(spawner):
    wanted = spawner.user_options
    spawner.databases = _ENTRY if wanted.get("database") else []
    if wanted.get("unstated"):
        spawner.uid = spawner.gid = spawner.fs_gid = None
    for claim in wanted.get("shared", []):
        spawner.volumes = spawner.volumes + [
            {"name": claim, "persistentVolumeClaim": {"claimName": claim}}
        ]
        spawner.volume_mounts = spawner.volume_mounts + [
            {"name": claim, "mountPath": _SHARED[claim], "readOnly": claim == "fixed"}
        ]


c.KubeSpawner.pre_spawn_hook = _of_this_start
"""
#: What the pod security level asks of the lab itself.
RESTRICTED = """
c.KubeSpawner.uid = 1000
c.KubeSpawner.gid = 100
c.KubeSpawner.container_security_context = {
    "allowPrivilegeEscalation": False,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(space, hub_factory, cluster, database_images) -> Hub:
    node_pid(cluster)
    database_images(POSTGRES_IMAGE)
    made = await hub_factory(space, Setup(extra=light_with_databases(cluster) + BY_OPTIONS))
    await made.start()
    return made


async def start(hub: Hub, user: str, **options: Any) -> LabPod:
    async with await hub.login(user) as client:
        await client.start_server(options=options)
        await client.wait_ready()
    return await LabPod.of(hub.space, user)


async def claims_of(pod: LabPod) -> dict[str, str]:
    """Claim by name of its volume."""
    spec = (await pod.read() or {})["spec"]
    return {
        one["name"]: one["persistentVolumeClaim"]["claimName"]
        for one in spec["volumes"]
        if "persistentVolumeClaim" in one
    }


async def home_of_stopped(hub: Hub, cluster: ClusterInfo, user: str) -> Path:
    """A user's home on the node, after a first lab of theirs."""
    pod = await start(hub, user)
    claim = (await claims_of(pod))["home"]
    await hub.stop_lab(user)
    return await volume_on_node(cluster, hub.space, claim)


def spoil(folder: Path, uid: int = 0, mode: int = 0o750) -> None:
    os.chown(folder, uid, uid)
    folder.chmod(mode)


def changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


async def test_a_home_that_is_roots_is_given_and_nothing_in_it(hub: Hub, cluster: ClusterInfo):
    home = await home_of_stopped(hub, cluster, "ada")
    spoil(home)
    (home / "by-root").mkdir()
    (home / "by-root" / "file").write_text("x")
    (home / "link").symlink_to("/etc/passwd")
    before = owners(home)
    pod = await start(hub, "ada")
    said = await pod.log(ownership.NAME)
    await hub.stop_lab("ada")
    after = owners(home)
    assert after["."][:2] == (UID, GID)
    assert changed(before, after) == {"."}
    assert "was 0:0's (750), is now 1000:100's" in said


async def test_a_home_that_is_right_is_not_even_touched(hub: Hub, cluster: ClusterInfo):
    home = await home_of_stopped(hub, cluster, "grace")
    (home / "by-root").mkdir()
    before = owners(home)
    await start(hub, "grace")
    await hub.stop_lab("grace")
    assert owners(home) == before


async def test_a_home_of_an_images_own_account_stays_theirs(hub: Hub, cluster: ClusterInfo):
    """A plain KubeSpawner says no uid. Seen: 1001's home of mode 0700 was given to 1000."""
    home = await home_of_stopped(hub, cluster, "iris")
    spoil(home, uid=1001, mode=0o700)
    before = owners(home)
    await start(hub, "iris", unstated=True)
    await hub.stop_lab("iris")
    assert owners(home) == before
    # One that nobody could use is given all the same.
    spoil(home)
    await start(hub, "iris", unstated=True)
    await hub.stop_lab("iris")
    assert owners(home)["."][:2] == (UID, GID)


async def test_a_databases_volume_and_folder_are_given_and_its_rows_are_there(
    hub: Hub, cluster: ClusterInfo
):
    pod = await start(hub, "dora", database=True)
    await pod.sql("CREATE TABLE kept (n int); INSERT INTO kept VALUES (42)")
    claim = (await claims_of(pod))[POSTGRES]
    await hub.stop_lab("dora")
    volume = await volume_on_node(cluster, hub.space, claim)
    for one in (volume, *volume.rglob("*")):
        os.chown(one, 0, 0)
    spoil(volume)
    pod = await start(hub, "dora", database=True)
    assert await pod.sql("SELECT n FROM kept") == "42"
    await hub.stop_lab("dora")
    assert {one[:2] for one in owners(volume).values()} == {(UID, GID)}


async def test_a_shared_folder_is_given_only_when_named_writable_and_roots(
    hub: Hub, cluster: ClusterInfo
):
    folders = {}
    for claim in ("shared", "unnamed", "fixed"):
        await hub.space.make_extra_claim(claim, "nobody")
        await hub.space.annotate(claim, {"hub.jupyter.org/username": ""})
    pod = await start(hub, "linus", shared=["shared", "unnamed", "fixed"])
    container = (await pod.read() or {})["spec"]["initContainers"][0]
    for claim in ("shared", "unnamed", "fixed"):
        folders[claim] = await volume_on_node(cluster, hub.space, claim)
    await hub.stop_lab("linus")
    given = {claim: owners(folder)["."][:2] for claim, folder in folders.items()}
    assert given == {"shared": (UID, GID), "unnamed": (0, 0), "fixed": (0, 0)}
    # What it does not give is not there for it to reach.
    assert {one["name"] for one in container["volumeMounts"]} == {"home", "shared"}

    spoil(folders["shared"], uid=999, mode=0o755)
    before = owners(folders["shared"])
    await start(hub, "linus", shared=["shared"])
    await hub.stop_lab("linus")
    assert owners(folders["shared"]) == before


async def test_it_may_do_three_things_and_sees_nothing_but_the_folders(
    hub: Hub, cluster: ClusterInfo
):
    """The container as it is, with another command."""
    made = ownership.container(cluster.init_image, "IfNotPresent", [])
    looks = "grep -E '^(Cap|NoNewPrivs)' /proc/self/status; id -u; touch /x 2>&1"
    container = {
        "name": made["name"],
        "image": made["image"],
        "imagePullPolicy": made["image_pull_policy"],
        "command": ["sh", "-c", looks],
        "securityContext": made["security_context"],
        "resources": made["resources"],
    }
    spec = {
        "containers": [container],
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
    }
    core = hub.space._core
    created = await core.create_namespaced_pod(
        hub.space.name, {"metadata": {"name": "look"}, "spec": spec}
    )
    pod = LabPod(hub.space, "look", created.metadata.uid)
    async with asyncio.timeout(60):
        while ((await pod.read()) or {})["status"]["phase"] not in ("Succeeded", "Failed"):
            await asyncio.sleep(0.1)
    said = (await pod.log(ownership.NAME)).split("\n")
    found = dict(line.split(":\t") for line in said if ":\t" in line)
    # CHOWN is bit 0, DAC_OVERRIDE bit 1, FOWNER bit 3.
    assert int(found["CapEff"], 16) == int(found["CapBnd"], 16) == 0b1011
    assert int(found["CapAmb"], 16) == 0
    assert found["NoNewPrivs"] == "1"
    assert "0" in said
    assert any("Read-only file system" in line for line in said)


async def test_a_file_system_that_refuses_is_told_and_the_lab_starts(
    hub: Hub, cluster: ClusterInfo
):
    home = await home_of_stopped(hub, cluster, "nora")
    spoil(home)
    before = owners(home)
    async with read_only_file_system(cluster, home):
        pod = await start(hub, "nora")
        said = await pod.log(ownership.NAME)
        await hub.stop_lab("nora")
        await pod.until_gone()
    assert "is 0:0's (750) and cannot be given to 1000:100" in said
    assert "the file server has to do it" in said
    assert owners(home) == before


# Hostile users


async def test_a_link_for_the_data_folder_gives_away_nothing_it_leads_to(
    hub: Hub, cluster: ClusterInfo
):
    """A superuser may run programs as the server's account."""
    pod = await start(hub, "mallory", database=True)
    claims = await claims_of(pod)
    home = await volume_on_node(cluster, hub.space, claims["home"])
    volume = await volume_on_node(cluster, hub.space, claims[POSTGRES])
    (home / "by-root").mkdir()
    (home / "by-root" / "thesis").write_text("x")
    plant = "cd /var/lib/jhub-safety/postgres && mv data moved && ln -s /home/jovyan/by-root data"
    await pod.sql(f"COPY (SELECT 1) TO PROGRAM '{plant}'")
    assert (volume / "data").is_symlink()
    await hub.stop_lab("mallory")
    before = owners(home)
    mark = len(hub.log_text())
    await start(hub, "mallory", database=True)
    assert hub.log_lines("Database postgres of mallory", "a link stands", since=mark)
    await hub.stop_lab("mallory")
    assert changed(before, owners(home)) <= {"."}


async def test_a_link_that_leads_a_shared_folder_into_the_database_gives_nothing_of_it(
    hub: Hub, cluster: ClusterInfo
):
    """The container runtime follows links in a home to where it mounts what is below it."""
    await hub.space.make_extra_claim("deep", "nobody")
    await hub.space.annotate("deep", {"hub.jupyter.org/username": ""})
    pod = await start(hub, "trudy", database=True, shared=["deep"])
    home = await volume_on_node(cluster, hub.space, (await claims_of(pod))["home"])
    victim = await volume_on_node(cluster, hub.space, "deep")
    await hub.stop_lab("trudy")
    spoil(victim, uid=999, mode=0o755)
    (victim / "thesis").write_text("somebody else's")
    before = owners(victim)
    (home / "a" / "b" / "c").rmdir()
    (home / "a" / "b" / "c").symlink_to("/var/lib/jhub-safety/postgres/data")
    pod = await start(hub, "trudy", database=True, shared=["deep"])
    made = (await pod.read() or {})["spec"]["initContainers"][0]
    await hub.stop_lab("trudy")
    assert owners(victim) == before
    # No link leads anywhere there: no folder is mounted in another.
    paths = [one["mountPath"] for one in made["volumeMounts"]]
    assert paths == [f"/folders/{number}" for number in range(3)]


async def test_a_link_that_leads_a_shared_folder_over_root_s_programs_runs_nothing_of_the_users(
    hub: Hub, cluster: ClusterInfo
):
    """The container runtime follows it in the container's root, also that of a container of root.

    Seen before each folder had a path of its own there: the user's "sh" ran as uid 0.
    """
    await hub.space.make_extra_claim("linked", "nobody")
    await hub.space.annotate("linked", {"hub.jupyter.org/username": ""})
    pod = await start(hub, "eve", shared=["linked"])
    home = await volume_on_node(cluster, hub.space, (await claims_of(pod))["home"])
    share = await volume_on_node(cluster, hub.space, "linked")
    await hub.stop_lab("eve")
    # Both as the lab's own programs can do it: the folder is the user's.
    shutil.copy(str(shutil.which("busybox")), share / "busybox")
    trap = share / "sh"
    ran = ': >"/bin/ran-$(/bin/busybox id -u)"'
    trap.write_text(f"#!/bin/busybox sh\n{ran}\necho the user was here\n")
    trap.chmod(0o755)
    os.chown(trap, UID, GID)
    (home / "shared").rmdir()
    (home / "shared").symlink_to("/bin")
    spoil(home)
    before = owners(share)
    pod = LabPod(hub.space, "", "")
    async with await hub.login("eve") as client:
        await client.start_server(options={"shared": ["linked"]})
        async with asyncio.timeout(60):
            while True:
                with suppress(LookupError):
                    pod = await LabPod.of(hub.space, "eve")
                    state = (await pod.statuses()).get(ownership.NAME, {}).get("state", {})
                    if "terminated" in state:
                        break
                await asyncio.sleep(0.2)
    said = await pod.log(ownership.NAME)
    # The lab itself has nothing but the user's own rights, and may not come up.
    await hub.stop_lab("eve")
    assert "the user was here" not in said
    assert not (share / "ran-0").exists()
    assert changed(before, owners(share)) <= {".", f"ran-{UID}"}
    assert owners(home)["."][:2] == (UID, GID)


# Where it cannot run


async def test_a_lab_starts_without_it_when_its_image_cannot_be_had_and_that_is_told(
    hub_factory, space_factory, cluster: ClusterInfo
):
    node_pid(cluster)
    space: Space = await space_factory()
    extra = (
        light_with_databases(cluster)
        + "c.SafeKubeSpawner.databases = []\n"
        + "c.SafeKubeSpawner.ownership = 'always'\n"
        + "c.SafeKubeSpawner.ownership_image = 'localhost/none:1'\n"
    )
    hub = await hub_factory(space, Setup(extra=extra))
    await hub.start()
    pod = await start(hub, "ada")
    spec = (await pod.read() or {})["spec"]
    assert ownership.NAME not in {one["name"] for one in spec.get("initContainers", [])}
    claim = (await claims_of(pod))["home"]
    assert hub.log_lines(f"Folders of ada (claim {claim}): the container that gives folders to you")
    assert hub.log_lines("Starting ada again, without ownership")
    events = (await space._core.list_namespaced_event(space.name)).items
    told = [one for one in events if one.reason == "DatabaseOwnership"]
    assert [one.involved_object.name for one in told] == [claim]
    await hub.stop_lab("ada")


# Where root is refused


async def test_a_namespace_that_refuses_root_gets_an_fs_group_and_its_database(
    space_factory, hub_factory, cluster: ClusterInfo, database_images
):
    node_pid(cluster)
    database_images(POSTGRES_IMAGE)
    space: Space = await space_factory()
    level = {"pod-security.kubernetes.io/enforce": "restricted"}
    await space._core.patch_namespace(space.name, {"metadata": {"labels": level}})
    extra = light_with_databases(cluster) + RESTRICTED
    hub = await hub_factory(space, Setup(extra=extra))
    await hub.start()

    # Host paths know no fsGroup: what its folder's owner is stays, and that is told.
    pod = await start(hub, "ada")
    spec = (await pod.read() or {})["spec"]
    claims = await claims_of(pod)
    assert spec["securityContext"]["fsGroup"] == GID
    assert ownership.NAME not in {one["name"] for one in spec["initContainers"]}
    assert hub.log_lines("Database postgres of ada", "cannot be written to")
    await hub.stop_lab("ada")

    # As a volume that does know it would be.
    volume = await volume_on_node(cluster, space, claims[POSTGRES])
    os.chown(volume, 0, GID)
    volume.chmod(0o2775)
    pod = await start(hub, "ada")
    await pod.sql("CREATE TABLE kept (n int); INSERT INTO kept VALUES (42)")
    await hub.stop_lab("ada")
    for one in (volume, *volume.rglob("*")):
        # What the kubelet does at each mount.
        one.chmod(one.stat().st_mode | (0o2070 if one.is_dir() else 0o060))
    pod = await start(hub, "ada")
    assert await pod.sql("SELECT n FROM kept") == "42"
    await hub.stop_lab("ada")
    assert len(hub.log_lines("takes no container that runs as root")) == 1
