"""``jhub-safety sessions`` on a real hub: what it shows is so, and what it deletes is gone."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest
import pytest_asyncio

from jhub_safety.control import socket_path
from jhub_safety.sessions.model import Server
from tests.cluster.audit import CLAIMS
from tests.cluster.control import Control
from tests.cluster.faults import FaultProxy, Rule, status
from tests.cluster.hubs import QUICK, Setup
from tests.cluster.shell import Shell
from tests.cluster.space import Home
from tests.cluster.test_startup import POD, POD_LIST
from tests.cluster.waiting import until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.hub,
    pytest.mark.asyncio(loop_scope="module"),
]

DELETES = ("delete", "deletecollection")
#: What is gone stays so until a command comes: no polls, and no pass but the first.
CALM = (
    QUICK
    + """
c.KubeSpawner.poll_interval = 0
c.SessionReconciler.interval = 3600
c.JupyterHub.init_spawners_timeout = 1
"""
)
LAB = "jupyter-{}".format


@dataclass(frozen=True)
class Site(Shell):
    """The hub, and the shell of an operator beside it."""

    group: ClassVar[str] = "sessions"

    #: Claims of labs that were started, by server.
    homes: dict[str, Home] = field(default_factory=dict)

    @property
    def socket(self) -> Path:
        return socket_path(self.hub.space.name)

    async def verdicts(self) -> dict[str, str]:
        said = await self.run("list", "--json")
        assert said.status == 0, said.err
        return {
            "/".join(filter(None, (one["user"], one["server"]))): one["verdict"]
            for one in said.json["findings"]
        }

    async def routes(self) -> set[str]:
        return set(await self.hub.proxy_api("GET"))

    def sessions(self) -> list[tuple[str, str]]:
        return [(user, server) for user, server, _ in self.hub.rows()["sessions"]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(space, hub_factory, tmp_path_factory):
    """Lives through the whole module; each test ends with the hub up and answering."""
    hub = await hub_factory(space, Setup(extra=CALM))
    await hub.start()
    return Site(hub, tmp_path_factory.mktemp("operator"))


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def no_claim_is_touched(site: Site, audit):
    before = await site.hub.space.uids()
    yield
    after = await site.hub.space.uids()
    assert {name: after.get(name) for name in before} == before
    assert audit.calls(namespace=site.hub.space.name, resource=CLAIMS, verbs=DELETES) == []


async def test_the_list_shows_each_server_with_its_three_records_and_what_follows(site: Site):
    hub = site.hub
    for user, server in (("ada", ""), ("ada", "gpu"), ("emmy", ""), ("katherine", "")):
        site.homes[str(Server(user, server))] = await hub.start_lab(user, server)
    await hub.kill()
    hub.clear_rows("emmy")
    await hub.start()

    async def known() -> bool:
        return (await Control(hub).verdicts())["katherine"] == "in step"

    # A lab that goes while the hub still looks for it is one that ended, not a stale one.
    await until(known, 60)
    await hub.space.delete_pod(LAB("katherine"))

    said = await site.run("list")
    one = await site.run("list", "ada", "--server=gpu", "--json")
    some = await site.run("list", "--verdict=stale", "--verdict=orphan", "--json")

    assert (said.status, one.status, some.status) == (0, 0, 0)
    title, *rows = said.out.splitlines()
    assert title.split() == ["SERVER", "SESSION", "ROUTE", "LAB", "VERDICT", "WHY"]
    words = {row.split()[0]: row for row in rows}
    assert list(words) == ["ada", "ada/gpu", "emmy", "katherine"]
    assert "in step" in words["ada"]
    assert f"{LAB('ada')} Running" in words["ada"]
    assert "in step" in words["ada/gpu"]
    assert f"lab {LAB('emmy')} runs, and no session names it" in words["emmy"]
    assert "orphan" in words["emmy"]
    assert f"lab {LAB('katherine')}, which is not there" in words["katherine"]
    assert "stale" in words["katherine"]
    assert "4 servers: 2 in step, 1 stale, 1 orphan; " in said.err
    (gpu,) = one.json["findings"]
    assert (gpu["user"], gpu["server"], gpu["verdict"]) == ("ada", "gpu", "in step")
    assert gpu["route"].endswith(gpu["session"]["address"])
    assert {one["user"] for one in some.json["findings"]} == {"emmy", "katherine"}


async def test_a_plan_that_is_not_agreed_to_changes_nothing(site: Site):
    before = site.hub.rows(), await site.hub.space.pods(), await site.routes()
    said = await site.run("delete", "ada", answer="n\n")
    assert said.status == 1
    assert f"end-session ada ({LAB('ada')})" in said.err
    assert said.err.index("end-session") < said.err.index("Go on?")
    assert (site.hub.rows(), await site.hub.space.pods(), await site.routes()) == before


async def test_one_server_of_a_user_is_deleted_and_their_others_go_on(site: Site):
    before = await site.hub.space.pods()
    said = await site.run("delete", "ada", "--server=gpu", "--yes")
    assert said.status == 0, said.err
    assert ("ada", "") in site.sessions()
    assert ("ada", "gpu") not in site.sessions()
    after = await site.hub.space.pods()
    assert after.items() < before.items()
    assert LAB("ada") in after
    assert await site.verdicts() == {"ada": "in step", "emmy": "orphan", "katherine": "stale"}


@pytest.mark.parametrize("user", ["ada", "emmy", "katherine"], ids=["in step", "orphan", "stale"])
async def test_a_session_is_deleted_with_lab_and_route_and_doing_it_again_does_nothing(
    site: Site, user: str
):
    first = await site.run("delete", user, "--yes")
    again = await site.run("delete", user, "--yes")

    assert first.status == 0, first.err
    assert first.out.rstrip().endswith(": done")
    assert again.status == 0
    assert again.out == ""
    assert f"There is nothing to do: {user} has no session" in again.err
    assert (user, "") not in site.sessions()
    assert LAB(user) not in await site.hub.space.pods()
    assert f"/user/{user}" not in await site.routes()
    told = [row for rows in site.hub.rows().values() for row in rows if user in str(row)]
    assert told == [], "no token and no OAuth client is left"
    assert await site.hub.start_lab(user) == site.homes[user]
    await site.hub.stop_lab(user)


async def test_a_user_who_is_forgotten_gets_the_same_home_when_they_come_again(site: Site):
    home = await site.hub.start_lab("mary")

    first = await site.run("delete", "mary", "--forget-user", "--yes")
    again = await site.run("delete", "mary", "--forget-user", "--yes")

    assert first.status == 0, first.err
    assert f"The home stays, with every file (claim {home.name})." in first.err
    assert "Whoever logs in as mary later gets that home again." in first.err
    assert first.out.splitlines()[-1] == "forget-user mary: done"
    assert "There is nothing to do: mary has no session, no route, no lab, no user" in again.err
    assert again.status == 0
    assert await site.hub.start_lab("mary") == home
    await site.hub.stop_lab("mary")


async def test_a_pause_survives_a_restart_and_nothing_overrides_it_but_its_end(site: Site):
    paused = await site.run("pause", "2h", "--why=node upgrade")
    assert paused.status == 0, paused.err
    assert "(node upgrade)" in paused.out
    await site.hub.restart(kill=True)
    await site.hub.start_lab("rosalind")
    await site.hub.space.end_pod(LAB("rosalind"))
    async with asyncio.timeout(60):
        while await site.verdicts() != {"rosalind": "ended"}:
            await asyncio.sleep(0.5)

    listed = await site.run("list")
    assert "Passes change nothing just now: paused until " in listed.err
    tried = await site.run("reconcile", "--yes")
    assert tried.status == 1
    assert f"clear-session rosalind ({LAB('rosalind')})" in tried.err
    assert "jhub-safety sessions resume" in tried.err
    assert ("rosalind", "") in site.sessions()

    ended = await site.run("resume")
    again = await site.run("resume")
    assert (ended.status, ended.out) == (0, "Passes act again.\n")
    assert (again.status, again.out) == (0, "It was not paused.\n")
    assert "paused" not in (await site.run("list")).err
    done = await site.run("reconcile", "--yes")
    assert (done.status, done.out) == (0, f"clear-session rosalind ({LAB('rosalind')}): done\n")
    assert ("rosalind", "") not in site.sessions()
    # What is left of the lab goes with its session.
    async with asyncio.timeout(30):
        while LAB("rosalind") in await site.hub.space.pods():
            await asyncio.sleep(0.5)


async def test_a_stale_session_is_cleared_by_one_command_that_looks_twice(site: Site):
    await site.hub.start_lab("dorothy")
    await site.hub.space.delete_pod(LAB("dorothy"))

    once = await site.run("reconcile", "--yes")
    assert once.status == 0
    assert "not now dorothy: it must be missing twice" in once.err
    assert "add --wait" in once.err
    assert ("dorothy", "") in site.sessions()

    plan = await site.run("reconcile", "--dry-run", "--wait")
    assert plan.status == 0
    assert f"clear-session dorothy ({LAB('dorothy')})" in plan.err
    assert ("dorothy", "") in site.sessions()

    twice = await site.run("reconcile", "--yes")
    assert (twice.status, twice.out) == (0, f"clear-session dorothy ({LAB('dorothy')}): done\n")
    assert ("dorothy", "") not in site.sessions()


async def test_a_hub_that_is_alive_without_its_socket_is_left_alone(site: Site):
    home = await site.hub.start_lab("grace")
    before = site.hub.rows(), await site.hub.space.pods()
    site.socket.unlink()
    for command in (("delete", "grace", "--yes"), ("reconcile", "--yes"), ("list",)):
        said = await site.run(*command)
        assert said.status == 1
        assert "a hub is alive but does not answer on its control socket" in said.err
        assert "rollout restart deploy/hub" in said.err
    assert (site.hub.rows(), await site.hub.space.pods()) == before
    await site.hub.restart()
    assert (await site.verdicts())["grace"] == "in step"
    assert await site.hub.space.home_of("grace") == home


async def test_while_the_hub_is_down_a_session_is_deleted_on_its_database(site: Site):
    home = await site.hub.space.home_of("grace")
    await site.hub.start_lab("hedy")
    await site.hub.kill()

    listed = await site.run("list")
    first = await site.run("delete", "grace", "--yes")
    again = await site.run("delete", "grace", "--yes")
    stuck = await site.run("unstick", "hedy", "--yes")

    assert listed.status == 0
    assert "No hub runs" in listed.err
    assert [row.split()[0] for row in listed.out.splitlines()[1:]] == ["grace", "hedy"]
    assert (first.status, first.out) == (0, f"end-session grace ({LAB('grace')}): done\n")
    assert (again.status, again.out) == (0, "")
    assert (stuck.status, stuck.out) == (0, "")
    assert site.sessions() == [("hedy", "")]
    assert set(await site.hub.space.pods()) == {LAB("hedy")}
    told = [row for rows in site.hub.rows().values() for row in rows if "grace" in str(row)]
    assert told == [], "no token and no OAuth client is left"

    await site.hub.start()
    assert await site.verdicts() == {"hedy": "in step"}
    assert await site.hub.start_lab("grace") == home


async def test_a_server_whose_check_hangs_can_be_started_without_a_restart_of_the_hub(
    space_factory, hub_factory, cluster, tmp_path_factory
):
    async with FaultProxy(cluster.kubeconfig) as proxy:
        space = await space_factory()
        hub = await hub_factory(space, Setup(extra=CALM, server=proxy.url))
        site = Site(hub, tmp_path_factory.mktemp("operator"))
        await hub.start()
        home = await hub.start_lab("ada")
        pods = await space.pods()
        bad = status(503, "ServiceUnavailable")
        proxy.break_(Rule(bad, path=POD_LIST), Rule(bad, path=POD))
        await hub.restart(kill=True)
        async with await hub.login("ada") as client:
            model = await client.server()
            assert model is not None
            assert model["pending"] == "check"

            seen = await site.run("list")
            assert seen.status == 1
            assert "HTTP 503" in seen.err
            assert "Nothing was changed" in seen.err
            given_up = await site.run("unstick", "ada", "--yes")
            assert given_up.status == 0, given_up.err
            assert given_up.out.startswith(f"unstick ada ({LAB('ada')}): done")
            again = await site.run("unstick", "ada", "--yes")
            assert (again.status, again.out) == (0, "")

            proxy.heal()
            model = await client.server()
            assert model is None or not model["pending"]
            assert await hub.start_lab("ada") == home
        assert await space.pods() == pods, "the lab that ran all the time was taken up"
