"""Homes on one shared claim, of a hub that was upgraded from KubeSpawner 6.2.

The old state is made by KubeSpawner 6.2 itself, in the environment that tools/golden makes for it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest
import pytest_asyncio
from kubernetes_asyncio import client, config
from kubernetes_asyncio.stream import WsApiClient

from jhub_safety.volumes import looking
from tests.cluster.hubs import ADMIN, UNHURRIED, Hub, Setup
from tools.demo.hub import cache_dir
from tools.golden.generate import environment
from tools.golden.releases import RELEASES

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.hub,
    pytest.mark.asyncio(loop_scope="module"),
]

# As Zero to JupyterHub with storage.type: static renders it, with a folder that all share, and an
# init container of the hub's own that mounts the home.
STATIC = (
    UNHURRIED
    + """
c.KubeSpawner.storage_pvc_ensure = False
c.KubeSpawner.volumes = [{"name": "home", "persistentVolumeClaim": {"claimName": "homes"}}]
c.KubeSpawner.volume_mounts = [
    {"mountPath": "/home/jovyan", "name": "home", "subPath": "{username}"},
    {"mountPath": "/shared", "name": "home", "subPath": "_shared", "readOnly": True},
    {"mountPath": "/shared-rw", "name": "home", "subPath": "_shared"},
]
c.KubeSpawner.init_containers = [
    {
        "name": "own-home",
        "image": c.KubeSpawner.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["chown", "1000:100", "/mnt/home"],
        "securityContext": {"runAsUser": 0},
        "volumeMounts": [{"name": "home", "mountPath": "/mnt/home", "subPath": "{username}"}],
    }
]
"""
)
LOOKS = (
    STATIC
    + """
c.JupyterHub.upgrade_db = True
c.SafeKubeSpawner.home_sub_path = "{username}"
c.SafeKubeSpawner.home_look_image = c.KubeSpawner.image
"""
)
NO_IMAGE = LOOKS + 'c.SafeKubeSpawner.home_look_image = "localhost/no-such-image:1"\n'
NOT_ALLOWED = LOOKS + "c.SafeKubeSpawner.home_look_uid = 4242\n"

# Its JupyterHub's login form is not that of today.
TOKEN = "only-in-tests-" + "0" * 20
EARLIER = (
    STATIC
    + f"""
c.JupyterHub.services = [{{"name": "tests", "api_token": "{TOKEN}"}}]
c.JupyterHub.load_roles = [
    {{"name": "tests", "services": ["tests"], "scopes": ["admin:users", "admin:servers"]}}
]
"""
)

BEFORE = {
    "erin@school.edu": "erin-40school-2eedu",
    "john.doe": "john-2edoe",
    "mary-ann": "mary-2dann",
    "ada": "ada",
    "twin@school.edu": "twin-40school-2eedu",
    "lost@school.edu": "lost-40school-2eedu",
    "named@school.edu": "named-40school-2eedu",
    "both@school.edu": "both-40school-2eedu",
    "killed@school.edu": "killed-40school-2eedu",
}
TWIN_TODAY = "twin-school-edu---9c7538c5"


@dataclass(frozen=True)
class Claim:
    """The shared claim, and the eye of an administrator on its root."""

    hub: Hub

    async def shell(self, script: str) -> str:
        """Run *script* in the root of the claim, as root."""
        async with await _exec_client(self.hub.space.kubeconfig) as api:
            return str(
                await client.CoreV1Api(api).connect_get_namespaced_pod_exec(
                    "keeper",
                    self.hub.space.name,
                    command=["sh", "-c", f"cd /home/jovyan && {script}"],
                    stdout=True,
                    stderr=True,
                    stdin=False,
                    tty=False,
                )
            )

    async def listing(self) -> list[str]:
        """Every folder and file, with its text."""
        text = await self.shell(
            "find . -type f -exec sh -c 'echo \"$1=$(cat $1)\"' - {} \\; -o -print"
        )
        return sorted(text.splitlines())

    async def folders(self) -> set[str]:
        return set((await self.shell("ls -1")).split())


async def _exec_client(kubeconfig: Path) -> WsApiClient:
    made = client.Configuration()
    await config.load_kube_config(str(kubeconfig), client_configuration=made)
    return WsApiClient(made)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def homes(space, hub_factory) -> Claim:
    """A hub with KubeSpawner 6.2 has run here; now it is one of today."""
    release = next(one for one in RELEASES if one.version == "6.2.0")
    python = await asyncio.to_thread(environment, release)
    await space.make_claim("homes")
    hub = await hub_factory(space, Setup(safe=False, extra=EARLIER))
    await space.make_pod("keeper", hub.cluster.init_image, "homes", None, labels={"component": "x"})
    claim = Claim(hub)
    hub.python = str(python)
    await hub.start()
    await _start_everybody(hub)
    assert await claim.folders() == {*BEFORE.values(), "_shared"}
    for user, folder in BEFORE.items():
        await claim.shell(f"echo {user} > {folder}/mine.txt")
    await claim.shell(f"echo all > _shared/data.txt && mkdir {TWIN_TODAY}")
    hub.python = sys.executable
    # "alembic", for the upgrade of the database.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    node = cache_dir() / "node" / "bin"
    await hub.restart_as(Setup(extra=LOOKS, environment={"PATH": f"{node}{os.pathsep}{path}"}))
    return claim


async def _start_everybody(hub: Hub) -> None:
    """Start each user's lab, wait until all are ready, stop them."""
    headers = {"Authorization": f"token {TOKEN}"}
    api = f"{hub.url}/hub/api/users"
    async with aiohttp.ClientSession(headers=headers, raise_for_status=True) as http:
        for user in BEFORE:
            await http.post(f"{api}/{quote(user)}")
            await http.post(f"{api}/{quote(user)}/server")

        async def count(ready: bool) -> int:
            async with http.get(api) as answer:
                servers = [one["servers"].get("") for one in await answer.json()]
            return sum(bool(one and one["ready"]) if ready else one is not None for one in servers)

        async with asyncio.timeout(120):
            while await count(ready=True) < len(BEFORE):
                await asyncio.sleep(0.2)
            for user in BEFORE:
                await http.delete(f"{api}/{quote(user)}/server")
            while await count(ready=False):
                await asyncio.sleep(0.2)


async def _sub_paths(hub: Hub, user: str, server: str = "") -> dict[str, tuple[str, bool]]:
    """Sub path by mount path, and whether it is read-only; of all containers of the lab."""
    async with await hub.login(user) as person:
        await person.start_server(server)
        await person.wait_ready(server)
    (name,) = [name for name in await hub.space.pods() if name != "keeper"]
    pod = await hub.space.pod(name)
    return {
        mount.mount_path: (mount.sub_path, bool(mount.read_only))
        for container in (*pod.spec.containers, *pod.spec.init_containers[1:])
        for mount in container.volume_mounts
        if mount.name == "home"
    }


@pytest.mark.parametrize("user", ["erin@school.edu", "john.doe", "mary-ann", "ada"])
async def test_a_user_of_an_earlier_kubespawner_sees_their_files(homes: Claim, user: str):
    before = await homes.listing()
    mounted = await _sub_paths(homes.hub, user)
    folder = BEFORE[user]
    assert mounted == {
        "/home/jovyan": (folder, False),
        "/mnt/home": (folder, False),
        "/shared": ("_shared", True),
        "/shared-rw": ("_shared", False),
    }
    await homes.hub.stop_lab(user)
    assert await homes.listing() == before


async def test_a_named_server_has_the_same_folder(homes: Claim):
    before = await homes.listing()
    user = "named@school.edu"
    assert (await _sub_paths(homes.hub, user, "gpu"))["/home/jovyan"] == (BEFORE[user], False)
    await homes.hub.stop_lab(user, "gpu")
    assert await homes.listing() == before


async def test_a_new_user_gets_todays_folder(homes: Claim):
    before = await homes.folders()
    mounted = await _sub_paths(homes.hub, "new@school.edu")
    await homes.hub.stop_lab("new@school.edu")
    (made,) = await homes.folders() - before
    assert mounted["/home/jovyan"][0] == made
    assert made.startswith("new-school-edu---")
    assert (await _sub_paths(homes.hub, "new@school.edu"))["/home/jovyan"][0] == made
    await homes.hub.stop_lab("new@school.edu")


async def _refused(homes: Claim, user: str, *words: str) -> None:
    """The start is refused, says so, and leaves neither a folder nor a lab."""
    before, mark = await homes.listing(), len(homes.hub.log_text())
    page = await homes.hub.refusal(user, stops=True)
    assert page.status == 409
    assert "Nothing was lost" in page.text
    assert homes.hub.log_lines("not started", *words, since=mark)
    assert await homes.listing() == before
    async with asyncio.timeout(30):
        while set(await homes.hub.space.pods()) != {"keeper"}:
            await asyncio.sleep(0.1)


async def test_two_folders_are_refused_until_somebody_chooses(homes: Claim):
    user = "twin@school.edu"
    await _refused(homes, user, BEFORE[user], TWIN_TODAY, "homes choose FOLDER --user=twin@")
    said = await _choose(homes.hub, BEFORE[user], user)
    assert "Recorded" in said
    assert (await _sub_paths(homes.hub, user))["/home/jovyan"][0] == BEFORE[user]
    await homes.hub.stop_lab(user)


async def test_who_gets_the_name_of_a_renamed_user_does_not_get_the_folder_that_was_chosen(
    homes: Claim,
):
    """The choice of the test before stays with the name; its files are the renamed user's."""
    user, now = "twin@school.edu", "twin-now@school.edu"
    async with await homes.hub.login(ADMIN) as admin:
        await admin.api("PATCH", f"users/{user}", {"name": now})
    assert (await _sub_paths(homes.hub, now))["/home/jovyan"][0] == BEFORE[user]
    await homes.hub.stop_lab(now)
    await _refused(homes, user, BEFORE[user], f"the hub's record of {now} names it as theirs")
    said = await _choose(homes.hub, BEFORE[user], user)
    assert f"But the hub's record of {now} names this folder" in " ".join(said.split())
    said = await _choose(homes.hub, "anew", user, "--new")
    assert "But" not in said
    assert (await _sub_paths(homes.hub, user))["/home/jovyan"][0] == "anew"
    await homes.hub.stop_lab(user)


async def _choose(hub: Hub, folder: str, user: str, *more: str) -> str:
    """All that the command says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "jhub_safety", "homes", "choose", folder, f"--user={user}"),
        *(f"--config={hub.config}", f"--namespace={hub.space.name}", "--yes", *more),
        cwd=hub.directory,
        env={**hub._environment(), "XDG_STATE_HOME": str(hub.directory / "state")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return err.decode() + out.decode()


async def test_two_servers_that_start_at_once_find_one_folder(homes: Claim):
    before = await homes.listing()
    user = "both@school.edu"
    async with await homes.hub.login(user) as person:
        await person.start_server("one")
        await person.start_server("two")
        await person.wait_ready("one")
        await person.wait_ready("two")
        pods = [await homes.hub.space.pod(name) for name in await homes.hub.space.pods()]
        mounted = {
            mount.sub_path
            for pod in pods
            if pod.metadata.name != "keeper"
            for mount in pod.spec.containers[0].volume_mounts
            if mount.mount_path == "/home/jovyan"
        }
        await person.stop_server("one")
        await person.stop_server("two")
    assert mounted == {BEFORE[user]}
    assert await homes.listing() == before


async def test_a_hub_that_is_killed_while_a_lab_waits_starts_anew(homes: Claim):
    user, before = "killed@school.edu", await homes.listing()
    hub = homes.hub
    async with await hub.login(user) as person:
        await person.start_server()
        while len(await hub.space.pods()) < 2:
            await asyncio.sleep(0.02)
        await hub.kill()
    (name,) = set(await hub.space.pods()) - {"keeper"}
    async with asyncio.timeout(60):
        while not await _has_looked(hub, name):
            await asyncio.sleep(0.2)
    await hub.start()
    async with asyncio.timeout(60):
        while name in await hub.space.pods():
            await asyncio.sleep(0.2)
    assert await homes.listing() == before
    assert (await _sub_paths(hub, user))["/home/jovyan"][0] == BEFORE[user]
    await hub.stop_lab(user)
    assert await homes.listing() == before


async def _has_looked(hub: Hub, name: str) -> bool:
    states = (await hub.space.pod(name)).status.init_container_statuses or []
    return any(
        one.name == looking.NAME and (one.state.terminated or one.last_state.terminated)
        for one in states
    )


async def test_kubernetes_makes_a_folder_when_the_container_that_mounts_it_starts(homes: Claim):
    """What the look rests on: nothing is made while it runs, and nothing when it fails."""
    space, image = homes.hub.space, homes.hub.cluster.init_image
    root = {"name": "home", "mountPath": "/root-of-it", "readOnly": True}
    script = "ls /root-of-it/never-made; exit 3"
    pod = {
        "metadata": {"name": "proof"},
        "spec": {
            "restartPolicy": "Never",
            "volumes": [{"name": "home", "persistentVolumeClaim": {"claimName": "homes"}}],
            "initContainers": [
                {"name": "look", "image": image, "command": ["sh", "-c", script]}
                | {"volumeMounts": [root]}
            ],
            "containers": [
                {"name": "lab", "image": image, "command": ["true"]}
                | {"volumeMounts": [{**root, "readOnly": False, "subPath": "never-made"}]}
            ],
        },
    }
    await space._core.create_namespaced_pod(space.name, pod)
    async with asyncio.timeout(60):
        while (await space.pod("proof")).status.phase != "Failed":
            await asyncio.sleep(0.2)
    assert "never-made" not in await homes.folders()
    await space.delete_pod("proof")


async def test_a_folder_on_record_that_is_gone_is_refused(homes: Claim):
    user = "lost@school.edu"
    assert (await _sub_paths(homes.hub, user))["/home/jovyan"][0] == BEFORE[user]
    await homes.hub.stop_lab(user)
    await homes.shell(f"mv {BEFORE[user]} kept-aside")
    await _refused(homes, user, "a home was here and is missing")
    await homes.shell(f"mv kept-aside {BEFORE[user]}")
    assert (await _sub_paths(homes.hub, user))["/home/jovyan"][0] == BEFORE[user]
    await homes.hub.stop_lab(user)


async def test_a_name_made_to_fit_anothers_folder_gets_nothing(homes: Claim):
    await _refused(homes, BEFORE["erin@school.edu"], "erin@school.edu")


async def test_an_image_that_is_missing_makes_no_folder(homes: Claim):
    await homes.hub.restart_as(Setup(extra=NO_IMAGE))
    await _refused(homes, "fresh@school.edu", "could not be looked for", "Try again")


async def test_a_root_that_may_not_be_seen_makes_no_folder(homes: Claim):
    await homes.shell("chmod 700 .")
    await homes.hub.restart_as(Setup(extra=NOT_ALLOWED))
    try:
        await _refused(homes, "fresh@school.edu", "cannot be looked at", "Try again")
        await _refused(homes, "ada", "cannot be looked at", "Try again")
    finally:
        await homes.shell("chmod 755 .")


async def test_a_lost_database_costs_nobody_their_folder(homes: Claim):
    await homes.hub.restart_as(Setup(extra=LOOKS))
    await homes.hub.lose_the_database()
    before = await homes.listing()
    for user in ("erin@school.edu", "mary-ann", "ada"):
        assert (await _sub_paths(homes.hub, user))["/home/jovyan"][0] == BEFORE[user]
        await homes.hub.stop_lab(user)
    assert await homes.listing() == before


async def test_an_empty_claim_is_not_everybodys_new_home(homes: Claim):
    """As when a file server gives out the folder below its disk."""
    await homes.shell(
        "mkdir /home/jovyan/.aside && mv * .aside/ && mv .aside /tmp/ 2>/dev/null; true"
    )
    try:
        await _refused(homes, "newcomer@school.edu", "empty")
    finally:
        await homes.shell("cp -a /tmp/aside/. .")
