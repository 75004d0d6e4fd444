"""Claims that are to grow, and what is told when they cannot: the lab starts all the same.

One hub, and users with claims of 1Gi from before, which their first start would enlarge.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import yaml
from kubernetes_asyncio import client

from tests.cluster.hubs import UNHURRIED, Hub, Setup
from tests.cluster.space import CHART_ROLE, LIBRARY_ROLE, Space

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.hub,
    pytest.mark.asyncio(loop_scope="module"),
]

GROWING = (
    UNHURRIED
    + """
c.SafeKubeSpawner.extra_pvcs = [
    {
        "name": "work-{username}",
        "capacity": "2Gi",
        "overrides": {
            "users": {"gwen": {"capacity": "2500Mi"}},
            "groups": {"course": {"capacity": "3Gi"}, "projects": {"capacity": "4Gi"}},
        },
    }
]
c.JupyterHub.load_groups = {"course": {"users": ["gwen"]}, "projects": {"users": ["gwen"]}}
c.SafeKubeSpawner.grow_homes = True
c.KubeSpawner.storage_capacity = "2Gi"
"""
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def space(space_factory, tmp_path_factory) -> Space:
    """The hub has the chart's Role and may write events: it must not patch claims."""
    role, binding = yaml.safe_load_all(LIBRARY_ROLE.read_text())
    role["rules"] = [rule for rule in role["rules"] if "patch" not in rule["verbs"]]
    for one in (role, binding):
        one["metadata"]["name"] = "hub-events"
    binding["roleRef"]["name"] = "hub-events"
    events = tmp_path_factory.mktemp("roles") / "events.yaml"
    events.write_text(yaml.safe_dump_all([role, binding]))
    made: Space = await space_factory(CHART_ROLE, events)
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(space: Space, hub_factory) -> Hub:
    made: Hub = await hub_factory(space, Setup(extra=GROWING))
    await made.start()
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fixed_class(space: Space) -> AsyncIterator[str]:
    """A storage class whose volumes cannot grow."""
    classes, name = client.StorageV1Api(space._api), f"fixed-{space.name}"
    made = {"metadata": {"name": name}, "provisioner": "kubernetes.io/host-path"}
    await classes.create_storage_class(made)
    try:
        yield name
    finally:
        await classes.delete_storage_class(name)


async def _let_it_patch(space: Space) -> None:
    """What the first test's log says is to be run; for all tests after it."""
    try:
        await space.apply_role(LIBRARY_ROLE)
    except client.ApiException as error:
        if error.status != 409:
            raise


async def _size(hub: Hub, claim: str) -> str:
    return str((await hub.space.claim(claim)).spec.resources.requests["storage"])


async def _start_and_stop(hub: Hub, user: str) -> int:
    """A start in which the lab comes up. Where the hub's log begins that is about it."""
    mark = len(hub.log_text())
    await hub.start_lab(user)
    await hub.stop_lab(user)
    return mark


async def _bound(hub: Hub, claim: str) -> None:
    """Unbound ones cannot grow at all, which is another story."""
    async with asyncio.timeout(30):
        while (await hub.space.claim(claim)).status.phase != "Bound":
            await asyncio.sleep(0.1)


async def _told(hub: Hub, claim: str, user: str, mark: int, *words: str) -> None:
    """The log says it once, and the claim's event the same."""
    starts = f"The server of {user} starts all the same."
    (line,) = hub.log_lines(claim, "has 1Gi, configured is 2Gi", starts, *words, since=mark)
    assert "[W " in line
    events = await hub.space.events("VolumeNotAsConfigured")
    (message,) = [one.message for one in events if one.involved_object.name == claim]
    assert line.endswith(message)


async def test_without_the_right_to_patch_it_says_so_and_what_to_run_and_that_helps(hub: Hub):
    await hub.space.make_extra_claim("work-nora", "nora")
    await _bound(hub, "work-nora")
    mark = await _start_and_stop(hub, "nora")
    run = f"Run: kubectl -n {hub.space.name} apply -f examples/helm/rbac.yaml"
    await _told(hub, "work-nora", "nora", mark, "the hub may not change claims", run)
    assert await _size(hub, "work-nora") == "1Gi"
    await _let_it_patch(hub.space)
    await _start_and_stop(hub, "nora")
    assert await _size(hub, "work-nora") == "2Gi"


async def test_a_class_that_cannot_expand_is_told(hub: Hub, fixed_class: str):
    await _let_it_patch(hub.space)
    labels, annotations = {"component": "extra-pvc"}, {"hub.jupyter.org/username": "fia"}
    await hub.space.create_claim("work-fia", fixed_class, labels, annotations)
    await _bound(hub, "work-fia")
    mark = await _start_and_stop(hub, "fia")
    why = "its storage class does not let volumes grow"
    await _told(hub, "work-fia", "fia", mark, why, "Run: kubectl get storageclass")
    assert await _size(hub, "work-fia") == "1Gi"


async def test_homes_grow_and_of_all_overrides_the_largest_counts(hub: Hub):
    await _let_it_patch(hub.space)
    before = {
        "claim-gwen": await hub.space.make_claim("claim-gwen", "gwen"),
        "work-gwen": await hub.space.make_extra_claim("work-gwen", "gwen"),
    }
    for claim in before:
        await _bound(hub, claim)
    await _start_and_stop(hub, "gwen")
    assert (await _size(hub, "claim-gwen"), await _size(hub, "work-gwen")) == ("2Gi", "4Gi")
    uids = await hub.space.uids()
    assert {name: uids[name] for name in before} == before


async def test_what_kubernetes_says_of_an_enlarged_claim_is_told(hub: Hub):
    """Nothing here enlarges a volume itself; its driver would write this."""
    pending = {
        "type": "FileSystemResizePending",
        "status": "True",
        "message": "Waiting for user to (re-)start a pod to finish file system resize of volume.",
    }
    await hub.space._core.patch_namespaced_persistent_volume_claim_status(
        "work-gwen",
        hub.space.name,
        {"status": {"conditions": [pending]}},
        _content_type="application/merge-patch+json",
    )
    mark = await _start_and_stop(hub, "gwen")
    has_grown = "claim work-gwen has grown; its file system grows when a lab mounts it"
    run = f"Run: kubectl -n {hub.space.name} describe pvc work-gwen"
    assert hub.log_lines(has_grown, "The server of gwen starts", run, since=mark)


async def test_a_quota_is_told_and_a_new_volume_that_it_forbids_is_no_invitation_to_try_again(
    hub: Hub,
):
    space = hub.space
    await _let_it_patch(space)
    for user in ("quinn", "rosa"):
        await space.make_claim(f"claim-{user}", user)
    await space.make_extra_claim("work-quinn", "quinn")
    await _bound(hub, "work-quinn")
    hard = {"requests.storage": "1Gi"}
    await space._core.create_namespaced_resource_quota(
        space.name, {"metadata": {"name": "storage"}, "spec": {"hard": hard}}
    )
    async with asyncio.timeout(30):
        # It refuses nothing, or everything, until it has counted.
        while not await _counted(space):
            await asyncio.sleep(0.1)
    mark = await _start_and_stop(hub, "quinn")
    why, run = "a quota of the namespace leaves no room", f"kubectl -n {space.name} describe"
    for claim in ("work-quinn", "claim-quinn"):
        await _told(hub, claim, "quinn", mark, why, f"Run: {run} resourcequota")
        assert await _size(hub, claim) == "1Gi"
    before, mark = await space.uids(), len(hub.log_text())
    page = await hub.refusal("rosa")
    assert page.status == 409
    (line,) = hub.log_lines("Server of rosa not started", "exceeded quota", since=mark)
    assert "does not pass by itself" in line
    assert "Try again" not in line
    assert line.endswith(f"Run: {run} resourcequota")
    assert await space.uids() == before


async def _counted(space: Space) -> bool:
    found = await space._core.read_namespaced_resource_quota("storage", space.name)
    return bool(found.status.used)
