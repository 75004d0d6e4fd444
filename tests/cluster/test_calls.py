"""What a start asks of the API server, counted from the API server's own audit log."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

import pytest
import pytest_asyncio

from tests.cluster import storm
from tests.cluster.audit import CLAIMS
from tests.cluster.hubs import Hub, Setup
from tests.cluster.space import ROOT, Home
from tools.demo.kube import USERNAME

pytestmark = [pytest.mark.cluster, pytest.mark.asyncio(loop_scope="module")]

STORM = 1000
LISTS_IN_A_STORM = 3


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(space, hub_factory):
    hub = await hub_factory(space, Setup())
    await space.make_claim("claim-from7", "from7")
    hub.remember("from7", {"pvc_name": "claim-from7", "kubespawner_version": "7.1.0"})
    await hub.start()
    return hub


def _claim_calls(hub: Hub, audit) -> dict[str, int]:
    return audit.count(user=hub.space.hub_user, namespace=hub.space.name, resource=CLAIMS)


async def test_a_new_user_costs_one_listing_some_reads_and_one_write(hub: Hub, audit):
    home = await hub.start_lab("newcomer")

    counted = _claim_calls(hub, audit)
    assert counted.pop("get") <= 12
    assert counted == {"list": 1, "create": 1}
    await hub.stop_lab("newcomer")
    audit.mark()
    # The hub remembers: one look at the claim, and nothing else.
    assert await hub.start_lab("newcomer") == home
    assert _claim_calls(hub, audit) == {"get": 1}
    await hub.stop_lab("newcomer")


async def test_a_home_that_kubespawner_7_recorded_costs_one_read_and_one_mark(hub: Hub, audit):
    uid = (await hub.space.uids())["claim-from7"]

    assert await hub.start_lab("from7") == Home("claim-from7", uid)

    assert _claim_calls(hub, audit) == {"get": 1, "patch": 1}
    await hub.stop_lab("from7")
    audit.mark()
    assert await hub.start_lab("from7") == Home("claim-from7", uid)
    assert _claim_calls(hub, audit) == {"get": 1}
    await hub.stop_lab("from7")


async def test_homes_known_before_a_restart_cost_one_read_each_after_it(hub: Hub, audit):
    await hub.restart()
    audit.mark()

    await hub.start_lab("newcomer")
    await hub.start_lab("from7")

    assert _claim_calls(hub, audit) == {"get": 2}
    await asyncio.gather(hub.stop_lab("newcomer"), hub.stop_lab("from7"))


async def test_homes_found_after_the_loss_cost_at_most_one_listing_and_no_write(hub: Hub, audit):
    claims = await hub.space.uids()
    await hub.lose_the_database()
    audit.mark()

    await asyncio.gather(hub.start_lab("newcomer"), hub.start_lab("from7"))

    counted = _claim_calls(hub, audit)
    assert counted.pop("get") <= 2
    assert counted == {"list": 1}
    assert await hub.space.uids() == claims


async def test_a_storm_of_logins_without_records_costs_a_few_listings(
    space_factory, audit, tmp_path, capsys
):
    """Real spawners against the real API server, up to where pods would be made."""
    space = await space_factory()
    limit = asyncio.Semaphore(40)

    async def make(user: str) -> None:
        async with limit:
            # A class that nobody provides for: a thousand volumes are not what this is about.
            await space.create_claim(f"claim-{user}", "none-such", {}, {USERNAME: user})

    await asyncio.gather(*(make(user) for user in storm.users(STORM)))
    claims = await space.uids()
    kubeconfig = await space.write_kubeconfig(tmp_path / "kubeconfig")
    audit.mark()

    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.cluster.storm", space.name, str(STORM)),
        cwd=tmp_path,
        env={**os.environ, "KUBECONFIG": str(kubeconfig), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    result = json.loads(output)

    calls = audit.count(user=space.hub_user, namespace=space.name, resource=CLAIMS)
    with capsys.disabled():
        print(f"\n  {STORM} logins without records: {calls}, {result['seconds']:.1f} s")
    assert result["homes"] == {user: f"claim-{user}" for user in storm.users(STORM)}
    # 500 claims a page: one listing of a thousand is two requests.
    assert calls.pop("list") <= LISTS_IN_A_STORM * 2
    assert calls.pop("get") <= STORM
    assert calls == {"patch": STORM}
    assert await space.uids() == claims
