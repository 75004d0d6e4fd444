"""Claims and their volumes over the loss of a namespace, and of the cluster's own records."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml
from kubernetes_asyncio import client, config

from jhub_safety.cluster.claims import ClaimsApi
from jhub_safety.cluster.volumes import VolumesApi
from jhub_safety.journal import Journal
from jhub_safety.volumes import rebind
from jhub_safety.volumes.exported import parse
from jhub_safety.volumes.reattach import Seen, decide_all
from jhub_safety.volumes.remake import Target
from tests.cluster.hubs import Hub, Setup
from tests.cluster.losses import (
    Site,
    Volumes,
    all_marks,
    bindings,
    lose,
    make_taker,
    mode,
    moved,
    moving,
    names_in,
    put,
    read_files,
    text,
    write_files,
)
from tests.cluster.space import CHART_ROLE, LIBRARY_ROLE, ROOT, Space

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.asyncio(loop_scope="module"),
]

#: A home, and a volume beside it that the lab's user may write to.
REAL = Setup(
    real_labs=True,
    extra="""
c.SafeKubeSpawner.extra_pvcs = [{"name": "data-{username}", "capacity": "1Gi"}]
c.KubeSpawner.volumes = c.KubeSpawner.volumes + [
    {"name": "data", "persistentVolumeClaim": {"claimName": "data-{username}"}}
]
mount = {"name": "data", "mountPath": "/data"}
c.KubeSpawner.volume_mounts = c.KubeSpawner.volume_mounts + [mount]
first = c.KubeSpawner.init_containers[0]
first["command"] = ["chown", "1000:100", "/home/jovyan", "/data"]
first["volumeMounts"] = first["volumeMounts"] + [mount]
""",
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def spaces(space_factory) -> AsyncIterator[tuple[Space, Space]]:
    made = await space_factory(), await space_factory()
    yield made
    for space in made:
        # What has made them deletes them.
        await space.ensure()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(cluster, spaces, tmp_path_factory) -> AsyncIterator[Site]:
    async with await config.new_client_from_config(config_file=str(cluster.kubeconfig)) as api:
        volumes = Volumes(client.CoreV1Api(api))
        yield Site(tmp_path_factory.mktemp("operator"), volumes)
        await volumes.discard(*(space.name for space in spaces))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(spaces, hub_factory) -> Hub:
    made = await hub_factory(spaces[0], REAL)
    await made.start()
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def other(spaces, hub_factory) -> Hub:
    """The hub of another namespace, not started yet."""
    made: Hub = await hub_factory(spaces[1], REAL)
    return made


@pytest_asyncio.fixture(loop_scope="module")
async def operator(other: Hub, site: Site) -> AsyncIterator[Path]:
    """The kubeconfig of an account that has the rights of examples/helm/operator-volumes.yaml."""
    space = other.space
    (role,) = yaml.safe_load_all(text(ROOT / "examples" / "helm" / "operator-volumes.yaml"))
    name = f"operator-{space.name}"
    await space._core.create_namespaced_service_account(
        space.name, {"metadata": {"name": "operator"}}
    )
    answer = await space._core.create_namespaced_service_account_token(
        "operator", space.name, {"spec": {"expirationSeconds": 3600}}
    )
    account = {"kind": "ServiceAccount", "name": "operator", "namespace": space.name}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    rbac = client.RbacAuthorizationV1Api(space._api)
    await rbac.create_cluster_role({**role, "metadata": {"name": name}})
    try:
        await rbac.create_cluster_role_binding(
            {"metadata": {"name": name}, "roleRef": reference, "subjects": [account]}
        )
        file = site.directory / "operator.kubeconfig"
        settings = yaml.safe_load(text(other.cluster.kubeconfig))
        settings["users"] = [{"name": "operator", "user": {"token": answer.status.token}}]
        settings["contexts"][0]["context"] |= {"user": "operator"}
        put(file, json.dumps(settings))
        yield file
        await rbac.delete_cluster_role_binding(name)
    finally:
        await rbac.delete_cluster_role(name)


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """The one that the tests of this module hand on."""
    return tmp_path_factory.mktemp("exported") / "claims.json"


async def test_files_outlive_their_namespace(hub: Hub, site: Site, file: Path):
    """Exported with --retain, namespace deleted for real, made again, reattached: all is there."""
    space = hub.space
    content = await write_files(hub, "ada")
    before = await all_marks(space)
    volumes = await site.volumes.of(space.name)
    assert len(before) == len(volumes) == 2
    assert {one.spec.persistent_volume_reclaim_policy for one in volumes.values()} == {"Delete"}

    careless = await site.run(hub, "export", str(file))
    assert careless.status == 0, careless.err
    assert "2 of 2 volumes are DELETED with their claims" in careless.err
    refused = await site.run(hub, "export", str(file), "--retain", "--yes")
    assert refused.status == 1
    assert "exists; nothing was changed" in refused.err
    done = await site.run(hub, "export", str(file), "--retain", "--overwrite", answer="y\n")
    assert done.status == 0, done.err
    assert done.out == f"2 claims with their volumes are in {file}\n"
    volumes = await site.volumes.of(space.name)
    assert {one.spec.persistent_volume_reclaim_policy for one in volumes.values()} == {"Retain"}
    assert mode(file) == 0o600

    await hub.stop()
    await lose(space)
    for name in volumes:
        await site.volumes.phase(name, "Released")
    early = await site.run(hub, "reattach", str(file), "--yes")
    assert early.status == 1
    assert f"there is no namespace {space.name}" in early.err
    await space.prepare(CHART_ROLE, LIBRARY_ROLE)

    done = await site.run(hub, "reattach", str(file), answer="y\n")
    assert done.status == 0, done.err
    assert done.out == "2 reattached, 0 were bound already, 0 refused, 0 failed\n"
    assert await all_marks(space) == before, "owner annotations and labels are whole"
    again = await site.run(hub, "reattach", str(file), "--yes")
    assert (again.status, again.out) == (
        0,
        "0 reattached, 2 were bound already, 0 refused, 0 failed\n",
    )
    kinds = [line["kind"] for line in site.journal() if line["outcome"] == "done"]
    assert sorted(kinds) == sorted(
        2 * ["retain-volume", "reserve-volume", "create-claim", "bind-claim"]
    )

    await hub.set_up(REAL)
    await hub.start()
    uids = await space.uids()
    assert await read_files(hub, "ada") == (f"/home/jovyan{content}", f"/data{content}")
    assert await space.uids() == uids, "nothing was made beside them"


async def test_a_volume_in_use_and_a_claim_of_somebody_else_are_refused(
    hub: Hub, other: Hub, site: Site, file: Path
):
    here, there = hub.space, other.space
    volumes = await site.volumes.of(here.name)

    elsewhere = await site.run(other, "reattach", str(file), "--yes")
    assert elsewhere.status == 1
    assert f"To move its claims here: --to-namespace {there.name}" in elsewhere.err
    elsewhere = await site.run(other, "reattach", str(file), f"--to-namespace={there.name}")
    assert f"--hub {there.name}" in elsewhere.err
    used = await site.run(other, "reattach", str(file), *moving(there), "--yes")
    assert (used.status, used.out) == (
        1,
        "0 reattached, 0 were bound already, 2 refused, 0 failed\n",
    )
    for volume in volumes.values():
        held = volume.spec.claim_ref
        assert f"bound to claim {held.name} in namespace {here.name}" in used.err

    uids = await here.uids()
    await here.annotate("data-ada", {"jhub-safety/user": "mallory"})
    others = await site.run(hub, "reattach", str(file), "--yes")
    await here.annotate("data-ada", {"jhub-safety/user": "ada"})
    assert (others.status, others.out) == (
        1,
        "0 reattached, 1 were bound already, 1 refused, 0 failed\n",
    )
    assert "claim data-ada exists and is mallory of hub" in others.err
    assert (await here.uids(), await there.uids()) == (uids, {})
    assert bindings(await site.volumes.of(here.name)) == bindings(volumes)


class Killed(BaseException):
    """In place of SIGKILL: nothing of the library catches it."""


class Dying(ClaimsApi):
    """Ends the process just before its first claim is made."""

    async def create(self, manifest: Any) -> Any:
        raise Killed


async def test_a_run_that_was_killed_between_its_two_writes_is_ended_by_running_it_again(
    hub: Hub, other: Hub, site: Site, file: Path
):
    """Into another namespace and hub, with the file that served once already."""
    here, there = hub.space, other.space
    content = await write_files(hub, "ada")
    before = await all_marks(here)
    volumes = await site.volumes.of(here.name)
    await hub.stop()
    await lose(here)
    for name in volumes:
        await site.volumes.phase(name, "Released")

    claims, api = Dying(site.volumes.core, there.name), VolumesApi(site.volumes.core)
    seen = Seen.of({}, await api.list())
    planned = decide_all(parse(text(file), "it"), Target(there.name, there.name), seen)
    with pytest.raises(Killed):
        await rebind.execute(planned, seen, claims, api, Journal(None))
    reserved = await site.volumes.of(there.name)
    assert len(reserved) == 1, "the first volume is reserved, and has no claim"
    assert [one.spec.claim_ref.uid for one in reserved.values()] == [None]
    assert await there.uids() == {}
    # Nobody else can have it meanwhile.
    (name,) = reserved
    await make_taker(there, name)

    done = await site.run(other, "reattach", str(file), *moving(there), "--yes")
    assert done.status == 0, done.err
    assert done.out == "2 reattached, 0 were bound already, 0 refused, 0 failed\n"
    assert (await there.claim("taker")).status.phase == "Pending"
    await there._core.delete_namespaced_persistent_volume_claim("taker", there.name)
    await there.until_gone("taker")
    assert await all_marks(there) == moved(before, here, there)
    await other.start()
    assert await read_files(other, "ada") == (f"/home/jovyan{content}", f"/data{content}")


async def test_with_the_cluster_the_volumes_are_made_anew_from_the_file(
    other: Hub, site: Site, tmp_path
):
    """The cluster's records of them are gone, as in a new one; the disks are there."""
    space, file = other.space, tmp_path / "claims.json"
    content = await write_files(other, "ada")
    before = await all_marks(space)
    done = await site.run(other, "export", str(file))
    assert done.status == 0, done.err
    assert "DELETED" not in done.err
    volumes = await site.volumes.of(space.name)
    await other.stop()
    await lose(space)
    for name in volumes:
        await site.volumes.forget(name)
    await space.prepare(CHART_ROLE, LIBRARY_ROLE)

    unsaid = await site.run(other, "reattach", str(file), "--yes")
    assert (unsaid.status, await space.uids()) == (1, {})
    assert "add --create-volumes" in unsaid.err
    # As the runbook has it: without the hub, with a file that says its name.
    put(tmp_path / "name.py", f'c.SafeKubeSpawner.hub_name = "{space.name}"')
    alone = (f"--config={tmp_path / 'name.py'}", f"--namespace={space.name}")
    done = await site.run(
        other, "reattach", str(file), *alone, "--create-volumes", "--yes", "--json"
    )
    assert done.status == 0, done.err
    told = json.loads(done.out)
    assert {one["row"] for one in told["claims"]} == {"recreate"}
    assert {one["result"] for one in told["outcomes"]} == {"done"}
    assert await all_marks(space) == before
    made = await site.volumes.of(space.name)
    assert set(made) == set(volumes)
    assert {one.spec.persistent_volume_reclaim_policy for one in made.values()} == {"Retain"}
    await other.set_up(REAL)
    await other.start()
    assert await read_files(other, "ada") == (f"/home/jovyan{content}", f"/data{content}")


async def test_the_rights_of_the_example_are_enough_and_with_the_hubs_own_the_error_names_them(
    other: Hub, site: Site, operator: Path, tmp_path
):
    space, file = other.space, tmp_path / "claims.json"
    hubs = Path(other.environment["KUBECONFIG"])
    refused = await site.run(other, "export", str(file), kubeconfig=hubs)
    assert refused.status == 1
    assert "needs get, list and patch of persistentvolumes" in refused.err
    assert file.name not in names_in(tmp_path)

    done = await site.run(other, "export", str(file), "--retain", kubeconfig=operator)
    assert done.status == 0, done.err
    before = await all_marks(space)
    volume = (await space.claim("data-ada")).spec.volume_name
    await space._core.delete_namespaced_persistent_volume_claim("data-ada", space.name)
    await site.volumes.phase(volume, "Released")
    refused = await site.run(other, "reattach", str(file), "--yes", kubeconfig=hubs)
    assert refused.status == 1
    assert "needs get, list and patch of persistentvolumes" in refused.err
    done = await site.run(other, "reattach", str(file), "--yes", kubeconfig=operator)
    assert (done.status, done.out) == (
        0,
        "1 reattached, 1 were bound already, 0 refused, 0 failed\n",
    )
    assert (await space.claim("data-ada")).spec.volume_name == volume
    assert await all_marks(space) == before
