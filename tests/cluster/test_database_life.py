"""How database servers beside labs live and end, in odd labs and odd hours.

The labs are light ones without psql; their servers are asked from inside their own containers.
"""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import suppress
from typing import Any

import pytest
import pytest_asyncio

from tests.cluster.audit import PODS
from tests.cluster.databases import (
    POSTGRES,
    POSTGRES_IMAGE,
    WAS_CLEAN,
    WAS_UNCLEAN,
    CommandFailed,
    LabPod,
    assert_ended_cleanly,
    begin_writing,
    check_what_was_written,
    light_with_databases,
)
from tests.cluster.hubs import Hub, Setup
from tools.demo.client import ClientError

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.asyncio(loop_scope="module"),
]

PORT = 5432
#: What a test asks for with a start is set on its spawner. As with profiles, it is forgotten when
#: the hub ends. A start whose file is there fails when its pod has been made.
VARIED = """
import asyncio
from pathlib import Path

def vary(spawner):
    for trait, value in spawner.user_options.items():
        setattr(spawner, trait, value)

async def fail_when_told(spawner, pod):
    name = spawner.user.name
    if Path(f"{name}-fails").exists():
        while not Path(f"{name}-fails-now").exists():
            await asyncio.sleep(0.05)
        raise RuntimeError("this hook fails")

c.KubeSpawner.pre_spawn_hook = vary
c.KubeSpawner.after_pod_created_hook = fail_when_told
c.KubeSpawner.poll_interval = 2
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(cluster, space, hub_factory, database_images) -> Hub:
    database_images(POSTGRES_IMAGE)
    made = await hub_factory(space, Setup(extra=light_with_databases(cluster) + VARIED))
    await made.start()
    return made


def postgres(**keys: Any) -> dict[str, Any]:
    return {"databases": [{"kind": "postgres", "image": POSTGRES_IMAGE, **keys}]}


async def start(hub: Hub, user: str, server: str = "", **traits: Any) -> LabPod:
    """Start a lab whose spawner has these traits, and wait until it is ready."""
    async with await hub.login(user) as client:
        await client.start_server(server, traits)
        await client.wait_ready(server)
    return await LabPod.of(hub.space, user, server)


# -- ends that are none of the user's making


async def _deletions(hub: Hub, audit) -> list[str]:
    """The addresses of all requests with which the hub deleted pods."""
    calls = audit.calls(
        user=hub.space.hub_user, namespace=hub.space.name, resource=PODS, verbs={"delete"}
    )
    return [call.uri for call in calls if call.status == 200]


async def test_a_start_that_fails_gives_the_database_its_time(hub: Hub, audit):
    pod = await start(hub, "kim")
    await pod.sql("CREATE TABLE kept (round int, n int)")
    await hub.stop_lab("kim")
    (hub.directory / "kim-fails").touch()
    audit.mark()
    async with await hub.login("kim") as kim:
        await kim.start_server()
        async with asyncio.timeout(60):
            while "true" not in await _started(hub, "kim"):
                await asyncio.sleep(0.1)
        pod = await LabPod.of(hub.space, "kim")
        await begin_writing(pod, 0)
        async with pod.followed() as lines:
            (hub.directory / "kim-fails-now").touch()
            with pytest.raises(ClientError):
                await kim.wait_ready()
            await pod.until_gone()
    (hub.directory / "kim-fails").unlink()
    assert_ended_cleanly(lines)
    [address] = await _deletions(hub, audit)
    assert address.endswith("?gracePeriodSeconds=60")
    pod = await start(hub, "kim")
    assert WAS_CLEAN in await pod.log()
    await check_what_was_written(pod, [0])
    await hub.stop_lab("kim")


async def _started(hub: Hub, user: str) -> str:
    """ "true" when the startup probe of the user's server has passed."""
    try:
        status = (await (await LabPod.of(hub.space, user)).statuses()).get(POSTGRES) or {}
    except LookupError:
        return ""
    return json.dumps(status.get("started"))


async def test_a_first_start_that_is_ended_early_does_not_keep_its_pod(hub: Hub):
    """A signal while the data is being made is lost on a script, and must come again."""
    (hub.directory / "kimi-fails").touch()
    async with await hub.login("kimi") as kimi:
        await hub.begin_lab("kimi")
        pod = await LabPod.of(hub.space, "kimi")
        async with asyncio.timeout(60):
            while "running" not in ((await pod.statuses()).get(POSTGRES) or {}).get("state", {}):
                await asyncio.sleep(0.05)
        async with pod.followed() as lines:
            async with asyncio.timeout(60):
                while not any("creating configuration files" in line for line in lines):
                    await asyncio.sleep(0.05)
            (hub.directory / "kimi-fails-now").touch()
            with pytest.raises(ClientError):
                await kimi.wait_ready()
            await pod.until_gone()
    (hub.directory / "kimi-fails").unlink()
    assert "database system is shut down" in lines[-1]
    pod = await start(hub, "kimi")
    assert await pod.sql("SELECT 1") == "1"
    await hub.stop_lab("kimi")


async def test_a_stop_gives_the_time_that_the_pod_asks_for_whatever_the_hub_knows(hub: Hub, audit):
    """A profile's databases are unknown after a restart, and an operator may drop them all."""
    pod = await start(hub, "lea", **postgres(stop_seconds=77))
    await pod.sql("CREATE TABLE kept (round int, n int)")
    await begin_writing(pod, 0)
    await hub.restart_as(Setup(extra=_without_databases(hub) + VARIED))
    try:
        audit.mark()
        async with pod.followed() as lines:
            await hub.stop_lab("lea")
        [with_one] = await _deletions(hub, audit)
        # What a start asked for is kept by JupyterHub for the next one that asks for nothing.
        await start(hub, "lea", databases=[])
        audit.mark()
        await hub.stop_lab("lea")
        [without] = await _deletions(hub, audit)
    finally:
        await hub.restart_as(Setup(extra=light_with_databases(hub.cluster) + VARIED))
    assert with_one.endswith("?gracePeriodSeconds=107")
    assert_ended_cleanly(lines)
    assert without.endswith("?gracePeriodSeconds=1")
    pod = await start(hub, "lea", **postgres())
    await check_what_was_written(pod, [0])
    await hub.stop_lab("lea")


def _without_databases(hub: Hub) -> str:
    return light_with_databases(hub.cluster) + "c.SafeKubeSpawner.databases = []\n"


async def test_a_hub_killed_in_the_middle_of_a_start_harms_no_database(hub: Hub):
    pod = await start(hub, "mia")
    await pod.sql("CREATE TABLE kept (round int, n int)")
    for round_ in range(2):
        await begin_writing(pod, round_)
        await hub.stop_lab("mia")
        await hub.begin_lab("mia")
        await hub.kill()
        await hub.start()
        async with await hub.login("mia") as mia:
            async with asyncio.timeout(60):
                while (await mia.server() or {}).get("pending") == "check":
                    await asyncio.sleep(0.1)
            if not (await mia.server() or {}).get("ready"):
                # It had not come as far as a session that is known after a restart.
                await mia.start_server()
            await mia.wait_ready()
        pod = await LabPod.of(hub.space, "mia")
        assert WAS_UNCLEAN not in await pod.log()
        await check_what_was_written(pod, range(round_ + 1))
    await hub.stop_lab("mia")


async def test_a_server_that_is_killed_comes_back_and_its_lab_goes_on(hub: Hub):
    """As at the limit of its memory."""
    pod = await start(hub, "nora")
    await pod.sql("CREATE TABLE kept (round int, n int)")
    await begin_writing(pod, 0)
    await pod.run(
        POSTGRES, "sh", "-c", "kill -9 $(head -1 /var/lib/jhub-safety/postgres/data/postmaster.pid)"
    )
    async with asyncio.timeout(60):
        while (
            not (status := (await pod.statuses())[POSTGRES])["restartCount"] or not status["ready"]
        ):
            await asyncio.sleep(0.2)
    assert WAS_UNCLEAN in await pod.log()
    await check_what_was_written(pod, [0])
    statuses = await pod.statuses()
    assert statuses["notebook"]["restartCount"] == 0
    async with await hub.login("nora") as nora:
        assert (await nora.server())["ready"]
    assert await LabPod.of(hub.space, "nora") == pod
    await hub.stop_lab("nora")


# -- two labs, one claim


async def test_of_two_labs_on_one_claim_the_second_is_told_and_the_first_goes_on(hub: Hub):
    shared = postgres(claim="postgres-{username}")
    first = await start(hub, "jo", "one", **shared)
    await first.sql("CREATE TABLE kept (round int, n int)")
    await begin_writing(first, 0)
    mark = len(hub.log_text())
    second = await start(hub, "jo", "two", **shared)
    async with await hub.login("jo") as jo:
        told = " ".join(event["message"] for event in await jo.progress("two"))
    assert hub.log_lines("jo", "another server of yours is using it", since=mark), told
    before = int(await first.sql("SELECT count(*) FROM kept"))
    async with asyncio.timeout(30):
        while int(await first.sql("SELECT count(*) FROM kept")) <= before:
            await asyncio.sleep(0.1)
    assert "jhub-safety: busy" in await second.log(previous=True)
    await hub.stop_lab("jo", "two")
    await hub.stop_lab("jo", "one")
    # The other one gets it now, with all that is in it.
    second = await start(hub, "jo", "two", **shared)
    assert WAS_CLEAN in await second.log()
    assert int(await second.sql("SELECT count(*) FROM kept")) > before
    await hub.stop_lab("jo", "two")


# -- what else is in the pod


def _own(hub: Hub) -> dict[str, dict[str, Any]]:
    quick = {"image": hub.cluster.init_image, "imagePullPolicy": "IfNotPresent"}
    idle = ["sh", "-c", "trap exit TERM; sleep 3600 & wait"]
    return {
        "init_containers": {"10-first": {"name": "theirs-first", "command": ["true"], **quick}},
        "extra_containers": {
            "10-beside": {
                "name": "theirs",
                "command": idle,
                "ports": [{"containerPort": 9999}],
                "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
                **quick,
            }
        },
        "volumes": {
            "10-home": {"name": "home", "persistentVolumeClaim": {"claimName": "{pvc_name}"}},
            "20-scratch": {"name": "scratch", "emptyDir": {}},
        },
        "volume_mounts": {
            "10-home": {"name": "home", "mountPath": "/home/jovyan"},
            "20-scratch": {"name": "scratch", "mountPath": "/scratch"},
        },
    }


def _comparable(spec: dict[str, Any]) -> Any:
    """A pod's spec without what differs between any two starts."""
    text = re.sub(r"kube-api-access-\w+", "kube-api-access", json.dumps(spec))
    plain = json.loads(text)
    for variable in plain["containers"][0]["env"]:
        if variable["name"].endswith("_API_TOKEN"):
            variable["value"] = ""
    return plain


def _without_ours(spec: dict[str, Any]) -> dict[str, Any]:
    def theirs(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [one for one in parts if not one["name"].startswith("jhub-safety-")]

    notebook = spec["containers"][0]
    notebook["env"] = [one for one in notebook["env"] if not one["name"].startswith("PG")]
    assert spec.pop("terminationGracePeriodSeconds") == 60
    inits, volumes = theirs(spec["initContainers"]), theirs(spec["volumes"])
    return {**spec, "initContainers": inits, "volumes": volumes}


@pytest.mark.parametrize("form", [list, dict], ids=["lists", "dictionaries"])
async def test_a_hubs_own_containers_and_volumes_are_all_kept(hub: Hub, form):
    user = f"otto-{form.__name__}"
    own = _own(hub)
    if form is list:
        own = {trait: list(parts.values()) for trait, parts in own.items()}
    spec = (await (await start(hub, user, databases=[], **own)).read())["spec"]
    plain = _comparable(spec)
    await hub.stop_lab(user)
    assert plain.pop("terminationGracePeriodSeconds") == 30

    pod = await start(hub, user, **postgres(), **own)
    beside = _comparable((await pod.read())["spec"])
    assert await pod.sql("SELECT 1") == "1"
    await hub.stop_lab(user)
    assert _without_ours(beside) == plain


@pytest.mark.parametrize(
    ("traits", "said"),
    [
        pytest.param({"extra_pod_config": {"hostNetwork": True}}, "hostNetwork", id="host-network"),
        pytest.param(
            {
                "extra_containers": [
                    {"name": "door", "image": "door", "ports": [{"containerPort": PORT}]}
                ]
            },
            "container door declares port 5432",
            id="same-port",
        ),
    ],
)
async def test_a_lab_that_would_show_its_database_to_others_is_refused(hub: Hub, traits, said):
    user = f"paul-{len(said)}"
    mark = len(hub.log_text())
    with pytest.raises(ClientError, match="open to other people"):
        await start(hub, user, **traits)
    assert hub.log_lines(user, said, since=mark)
    with pytest.raises(LookupError):
        await LabPod.of(hub.space, user)


# -- without native sidecars, as before Kubernetes 1.29


async def test_an_ordinary_container_is_waited_for_and_ends_cleanly(hub: Hub):
    ordinary = postgres(startup="container")
    pod = await start(hub, "quinn", **ordinary)
    names = [one["name"] for one in (await pod.read())["spec"]["containers"]]
    assert names == ["notebook", POSTGRES]
    # Asked at once: a lab that is ready has its database.
    await pod.sql("CREATE TABLE kept (round int, n int)")
    await begin_writing(pod, 0)
    async with pod.followed() as lines:
        # The lab alone ends; the hub sees it, and ends the rest.
        # What ends the container ends the command as well, at times before it has said how it went.
        with suppress(CommandFailed):
            await pod.run("notebook", "killall", "httpd")
        await pod.until_gone()
    assert_ended_cleanly(lines)
    async with await hub.login("quinn") as quinn, asyncio.timeout(30):
        while not await quinn._gone(""):
            await asyncio.sleep(0.2)
    pod = await start(hub, "quinn", **ordinary)
    assert WAS_CLEAN in await pod.log()
    await check_what_was_written(pod, [0])
    await hub.stop_lab("quinn")


async def test_a_lab_is_not_held_by_an_ordinary_container_that_cannot_start(hub: Hub):
    mark = len(hub.log_text())
    broken = postgres(startup="container", image="postgres:none", startup_deadline=5)
    pod = await start(hub, "rosa", **broken)
    assert hub.log_lines("rosa", "its image cannot be had just now", since=mark)
    # It was made a second time, without it: a pod with an image to come is never Running.
    assert POSTGRES not in await pod.statuses()
    await hub.stop_lab("rosa")
