"""A namespace for each user (``enable_user_namespaces``): the same rules, over all of them.

Other namespaces of this cluster have labs, too; those are none of this hub's business.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.cluster.control import Control
from tests.cluster.faults import FaultProxy, Rule, status
from tests.cluster.hubs import ADMIN, QUICK, UNHURRIED, Hub, Setup
from tests.cluster.space import Space
from tests.cluster.waiting import until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.hub,
    pytest.mark.asyncio(loop_scope="module"),
]

ALL_PODS = r"/api/v1/pods$"
POD = r"/api/v1/namespaces/[^/]+/pods/[^/]+$"
DEADLINE = 60.0
#: What the documentation asks for: the Roles of the hub's namespace, in all of them.
RULES = [
    {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["create"]},
    {
        "apiGroups": [""],
        "resources": ["pods", "persistentvolumeclaims", "secrets", "services"],
        "verbs": ["get", "watch", "list", "create", "delete"],
    },
    {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["patch"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["get", "watch", "list", "create"]},
]


def _config(space: Space) -> str:
    """A hub's own namespace is read from its pod, and it has none here: it is named instead."""
    return (
        QUICK
        + UNHURRIED
        + f"""
from jhub_safety.sessions import absence, reconciler
absence.APART = reconciler.APART = 2.0
reconciler.SessionReconciler.interval.min = 1.0
c.SessionReconciler.interval = 1
c.KubeSpawner.enable_user_namespaces = True
c.KubeSpawner.user_namespace_template = "{space.name}-{{username}}"
c.SafeKubeSpawner.hub_name = "{space.name}"
c.KubeSpawner.poll_interval = 0
c.JupyterHub.last_activity_interval = 3600
c.JupyterHub.init_spawners_timeout = 1
"""
    )


@dataclass(frozen=True)
class Site:
    """The hub, the proxy between it and the API server, and who uses it.

    Names that no other test uses: labs of one name in two namespaces are not judged.
    """

    hub: Hub
    proxy: FaultProxy
    users: tuple[str, ...]

    def of(self, user: str) -> Space:
        return Space(self.hub.cluster.kubeconfig, f"{self.hub.space.name}-{user}")

    async def pods(self) -> dict[str, dict[str, str]]:
        found = {}
        for user in self.users:
            async with self.of(user) as space:
                found[user] = await space.pods()
        return found

    async def verdicts(self) -> dict[str, str]:
        """Of these users; other namespaces have labs that are found as well."""
        found = await Control(self.hub).verdicts()
        return {user: verdict for user, verdict in found.items() if user in self.users}

    async def server(self, user: str) -> dict | None:
        async with await self.hub.login(ADMIN) as client:
            return (await client.api("GET", f"users/{user}"))["servers"].get("")

    async def start(self, user: str) -> None:
        async with await self.hub.login(user) as client:
            await client.start_server()
            await client.wait_ready()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(cluster, space, hub_factory):
    users = tuple(f"{user}{space.name.removeprefix('test-')}" for user in ("ada", "lise"))
    await space.allow_everywhere(RULES)
    try:
        async with FaultProxy(cluster.kubeconfig) as proxy:
            hub = await hub_factory(space, Setup(extra=_config(space), server=proxy.url))
            await hub.start()
            made = Site(hub, proxy, users)
            try:
                for user in users:
                    await made.start(user)
                yield made
            finally:
                hub.close()
                for user in users:
                    async with made.of(user) as one:
                        await one.delete()
    finally:
        await space.forbid_everywhere()


async def test_each_lab_runs_in_its_users_namespace_and_passes_see_them_all(site: Site):
    assert await site.verdicts() == dict.fromkeys(site.users, "in step")
    assert await site.hub.space.pods() == {}
    for user, pods in (await site.pods()).items():
        assert list(pods) == [f"jupyter-{user}"]
    sessions = (await Control(site.hub).ask("survey"))["findings"]
    assert {
        one["user"]: one["session"]["namespace"] for one in sessions if one["user"] in site.users
    } == {user: site.of(user).name for user in site.users}


async def test_a_lab_deleted_in_its_users_namespace_is_cleared(site: Site):
    ada, lise = site.users
    before = await site.pods()
    async with site.of(ada) as space:
        await space.delete_pod(f"jupyter-{ada}")
        claims = await space.uids()

    async def cleared() -> bool:
        return await site.server(ada) is None

    await until(cleared, DEADLINE)
    assert await site.verdicts() == {lise: "in step"}
    await site.start(ada)
    after = await site.pods()
    assert after[lise] == before[lise]
    assert after[ada].keys() == before[ada].keys()
    async with site.of(ada) as space:
        assert await space.uids() == claims


async def test_a_hub_that_starts_without_an_api_server_serves_and_loses_nothing(site: Site):
    """KubeSpawner ends the hub here: its reflector over all namespaces cannot be started."""
    before = await site.pods()
    unavailable = status(503, "ServiceUnavailable")
    rules = [Rule(unavailable, path=ALL_PODS), Rule(unavailable, path=POD)]
    site.proxy.break_(*rules)
    try:
        await site.hub.restart(kill=True)

        async def tried() -> bool:
            return all(rule.hits > 2 for rule in rules)

        await until(tried, DEADLINE)
        assert site.hub.running()
        for user in site.users:
            model = await site.server(user)
            assert model is not None
            assert model["pending"] == "check"
    finally:
        site.proxy.heal()

    async def ready() -> bool:
        models = [await site.server(user) for user in site.users]
        assert all(models), models
        return all(model and model["ready"] for model in models)

    await until(ready, DEADLINE)
    assert site.hub.running()
    assert await site.pods() == before
    assert await site.verdicts() == dict.fromkeys(site.users, "in step")
