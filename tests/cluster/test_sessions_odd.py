"""Labs that nobody may touch, answers that nobody may believe, and the few that must end.

The passes run every second here, and what takes a minute or a day takes seconds: how long is not
what is tested, but what happens then, and to whom.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.cluster.audit import PODS
from tests.cluster.control import Control
from tests.cluster.faults import Answer, FaultProxy, Rule, changed, status, text
from tests.cluster.hubs import ADMIN, QUICK, UNHURRIED, Hub, Setup
from tests.cluster.waiting import until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.hub,
    pytest.mark.asyncio(loop_scope="module"),
]

POD_LIST = r"/api/v1/namespaces/[^/]+/pods$"
HUB_LABEL = "jhub-safety/hub"
SHORT = (
    QUICK
    + UNHURRIED
    + """
from jhub_safety.sessions import absence, reconciler
absence.APART = reconciler.APART = 2.0
reconciler.SessionReconciler.interval.min = 1.0
reconciler.SessionReconciler.orphan_age.min = 1.0
c.SessionReconciler.interval = 1
c.KubeSpawner.poll_interval = 0
c.JupyterHub.last_activity_interval = 3600
c.JupyterHub.init_spawners_timeout = 1
c.JupyterHub.authenticate_prometheus = False
"""
)
NOWHERE = """
c.KubeSpawner.node_selector = {"nobody.example/has": "this"}
"""
IMPATIENT = """
c.SessionReconciler.pending_limit = 5
"""
DELETED = """
c.SessionReconciler.orphans = "delete"
c.SessionReconciler.orphan_age = 5
"""
DEADLINE = 90.0
#: Enough of them for whatever wants to be seen two or three times.
SEVERAL = 12


@dataclass(frozen=True)
class Site:
    """The hub, and the proxy between it and the API server."""

    hub: Hub
    proxy: FaultProxy

    def setup(self, extra: str = "") -> Setup:
        return Setup(extra=SHORT + extra, server=self.proxy.url)

    async def begin_again(self, extra: str = "") -> None:
        """Kill the hub, and start it with other settings."""
        await self.hub.kill()
        await self.hub.set_up(self.setup(extra))
        await self.hub.start()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(cluster, space, hub_factory):
    async with FaultProxy(cluster.kubeconfig) as proxy:
        hub = await hub_factory(space, Setup(extra=SHORT, server=proxy.url))
        await hub.start()
        yield Site(hub, proxy)


async def passes(hub: Hub, outcome: str, number: int) -> None:
    """Wait for so many more of them: ``done``, ``dry`` or ``doubt``."""
    before = await counted(hub, outcome)

    async def enough() -> bool:
        return await counted(hub, outcome) - before >= number

    await until(enough, DEADLINE)


async def counted(hub: Hub, outcome: str) -> float:
    """Passes of the running hub, by its own metrics."""
    async with aiohttp.ClientSession() as client, client.get(f"{hub.url}/hub/metrics") as answer:
        found = re.search(
            rf'^jhub_safety_session_passes_total{{outcome="{outcome}"}} (\S+)$',
            await answer.text(),
            re.MULTILINE,
        )
    return float(found[1]) if found else 0.0


async def server_of(hub: Hub, user: str) -> dict[str, Any] | None:
    async with await hub.login(ADMIN) as client:
        return (await client.api("GET", f"users/{user}"))["servers"].get("")


# What is waited for, and for how long


@pytest.mark.parametrize("user", ["regular", "newcomer"])
async def test_a_lab_that_never_gets_a_node_is_stopped_and_its_user_starts_again(
    site: Site, user: str
):
    """JupyterHub saves a lab's name when its start has ended: of a first one, too late."""
    hub, lab = site.hub, f"jupyter-{user}"
    if user == "regular":
        await site.begin_again()
        await hub.start_lab(user)
        await hub.stop_lab(user)
    await site.begin_again(NOWHERE)
    home = await hub.begin_lab(user)
    await site.begin_again(IMPATIENT)
    assert (await hub.space.pod(lab)).status.phase == "Pending"
    mark = len(hub.log_text())

    async def gone() -> bool:
        return await server_of(hub, user) is None and lab not in await hub.space.pods()

    async def written() -> bool:
        return bool(hub.log_lines("journal", "stop-server", lab, '"done"', since=mark))

    await until(gone, DEADLINE)
    await until(written, DEADLINE)
    # What a session leaves behind is what an ordinary stop leaves behind: nothing but the home.
    assert not any(user in str(row) for rows in hub.rows().values() for row in rows)
    await site.begin_again()
    assert await hub.start_lab(user) == home
    await hub.stop_lab(user)


async def test_a_lab_that_waits_for_a_node_within_the_limit_is_waited_for(site: Site):
    hub = site.hub
    await site.begin_again(NOWHERE)
    await hub.begin_lab("patient")
    await site.begin_again()
    before = await hub.space.pods()
    await passes(hub, "done", SEVERAL)
    assert await Control(hub).verdicts() == {"patient": "busy"}
    assert await hub.space.pods() == before
    await site.begin_again(IMPATIENT)

    async def gone() -> bool:
        return await hub.space.pods() == {}

    await until(gone, DEADLINE)


# Labs without a session


async def test_only_an_orphan_is_deleted_and_nobody_elses_lab(site: Site):
    hub, space, image = site.hub, site.hub.space, site.hub.cluster.init_image
    await site.begin_again()
    await asyncio.gather(hub.start_lab("ada"), hub.start_lab("emmy"))
    await hub.kill()
    hub.clear_rows("emmy")
    ours, theirs = {HUB_LABEL: space.name}, {HUB_LABEL: "staging"}
    await asyncio.gather(
        space.make_pod("lab-of-staging", image, None, "emmy", labels=theirs),
        space.make_pod("lab-of-nobody", image, None, None, labels=ours),
        # A second one beside ada's session, and two of grace's without any.
        space.make_pod("second-of-ada", image, None, "ada", labels=ours),
        space.make_pod("first-of-grace", image, None, "grace", labels=ours),
        space.make_pod("second-of-grace", image, None, "grace", labels=ours),
    )
    before, claims = await space.pods(), await space.uids()
    site.proxy.break_()
    await hub.set_up(site.setup(DELETED))
    await hub.start()

    async def gone() -> bool:
        return "jupyter-emmy" not in await space.pods()

    await until(gone, DEADLINE)
    await passes(hub, "done", SEVERAL)
    # That pod, no other, and no claim.
    del before["jupyter-emmy"]
    assert await space.pods() == before
    assert await space.uids() == claims
    deleted = {seen.path for seen in site.proxy.writes(PODS) if seen.method == "DELETE"}
    assert deleted == {f"/api/v1/namespaces/{space.name}/pods/jupyter-emmy"}
    found = (await Control(hub).ask("survey"))["findings"]
    assert {one["lab"]["name"]: one["verdict"] for one in found} == {
        "jupyter-ada": "in step",
        "lab-of-staging": "foreign",
        "lab-of-nobody": "foreign",
        "second-of-ada": "two labs",
        "first-of-grace": "two labs",
        "second-of-grace": "two labs",
    }
    # Before the next test; and one of it can be deleted by whoever is sure of it.
    await asyncio.gather(*(space.delete_pod(name) for name in set(before) - {"jupyter-ada"}))


async def test_an_orphan_younger_than_the_age_stays(site: Site):
    hub = site.hub
    await hub.start_lab("emmy")
    await hub.kill()
    hub.clear_rows("emmy")
    before = await hub.space.pods()
    await hub.set_up(site.setup('c.SessionReconciler.orphans = "delete"\n'))
    await hub.start()
    await passes(hub, "done", SEVERAL)
    assert (await Control(hub).verdicts())["emmy"] == "orphan"
    assert await hub.space.pods() == before
    # Their next start takes it up.
    await hub.start_lab("emmy")
    assert await hub.space.pods() == before


# Answers of the API server


def _nothing(proxy: FaultProxy) -> Answer:
    """What it says of a namespace without labs, as a list or as a table."""

    def change(content: dict[str, Any]) -> None:
        content["rows" if content["kind"] == "Table" else "items"] = []

    return changed(proxy, change)


#: What the hub is told when it asks for all labs.
DOUBTFUL: dict[str, Callable[[], Answer]] = {
    "503": lambda: status(503, "ServiceUnavailable"),
    "403": lambda: status(403, "Forbidden"),
    "an empty list, and no table": lambda: text(
        '{"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []}',
        content_type="application/json",
    ),
}
USERS = ("dorothy", "lise", "marie")


@dataclass(frozen=True)
class Everything:
    """What an answer that is no answer could cost somebody."""

    rows: dict[str, list[tuple[Any, ...]]]
    routes: dict[str, str]
    pods: dict[str, str]

    @classmethod
    async def of(cls, hub: Hub) -> Everything:
        routes = await hub.proxy_api("GET")
        targets = {path: route["target"] for path, route in routes.items()}
        return cls(hub.rows(), targets, await hub.space.pods())


@dataclass(frozen=True)
class Quiet(Site):
    """A hub whose passes find nothing, and what it was like before any doubt."""

    before: Everything


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def quiet(cluster, space_factory, hub_factory):
    async with FaultProxy(cluster.kubeconfig) as proxy:
        hub = await hub_factory(await space_factory(), Setup(extra=SHORT, server=proxy.url))
        await hub.start()
        await asyncio.gather(*(hub.start_lab(user) for user in USERS))
        assert await Control(hub).verdicts() == dict.fromkeys(USERS, "in step")
        yield Quiet(hub, proxy, await Everything.of(hub))


@pytest.mark.parametrize("fault", DOUBTFUL)
async def test_a_pass_without_a_whole_listing_changes_nothing(quiet: Quiet, fault: str):
    quiet.proxy.break_(Rule(DOUBTFUL[fault](), path=POD_LIST))
    try:
        await passes(quiet.hub, "doubt", 3)
    finally:
        quiet.proxy.heal()
    assert quiet.proxy.writes(PODS) == []
    assert await Everything.of(quiet.hub) == quiet.before
    await passes(quiet.hub, "done", 2)
    assert await Everything.of(quiet.hub) == quiet.before


async def test_labs_that_an_empty_listing_misses_are_read_one_by_one_and_stay(quiet: Quiet):
    hub, mark = quiet.hub, len(quiet.hub.log_text())
    quiet.proxy.break_(Rule(_nothing(quiet.proxy), path=POD_LIST))

    async def each_was_read() -> bool:
        read = {seen.path.rpartition("/")[2] for seen in quiet.proxy.seen if seen.status == 200}
        return read >= {f"jupyter-{user}" for user in USERS}

    try:
        # Missing often enough, and long enough: now it is the live read that decides.
        await until(each_was_read, DEADLINE)
        await passes(hub, "done", 3)
    finally:
        quiet.proxy.heal()
    assert quiet.proxy.writes(PODS) == []
    assert not hub.log_lines("Ending the session", since=mark)
    await passes(hub, "done", 2)
    assert await Control(hub).verdicts() == dict.fromkeys(USERS, "in step")
    assert await Everything.of(hub) == quiet.before
