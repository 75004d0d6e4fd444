"""The DataHub outage of 2017 in small, as `make outage` replays it with a thousand users."""

from __future__ import annotations

import pytest
import pytest_asyncio

from jhub_safety.hub.watching import LOST_UNDER_IT
from tools.cluster import Progress
from tools.outage.cluster import OutageNamespace
from tools.outage.losing import Database
from tools.outage.replay import Replay, Scale
from tools.outage.report import Report

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.hub,
    pytest.mark.asyncio(loop_scope="module"),
]

SCALE = Scale(users=40, labs=3, at_once=10, interval=5.0)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def report(cluster, space, hub_ip, tmp_path_factory) -> Report:
    """Of one whole outage, with the rights that the chart and examples/helm/rbac.yaml give."""
    directory = tmp_path_factory.mktemp("outage")
    kubeconfig = await space.write_kubeconfig(directory / "kubeconfig")
    database = Database("sqlite", f"sqlite:///{directory / 'jupyterhub.sqlite'}")
    async with OutageNamespace(cluster.kubeconfig, space.name) as namespace:
        replay = Replay(
            cluster,
            namespace,
            database,
            directory,
            SCALE,
            Progress(),
            kubeconfig=kubeconfig,
            hub_ip=hub_ip,
        )
        return await replay.run()


async def test_the_hub_notices_that_its_database_was_emptied_and_ends(report: Report):
    assert report.exit_code == LOST_UNDER_IT
    # The newcomers are not in the snapshot; their claims name them.
    assert "from snapshot" in report.said
    assert "from the cluster: 2 users more" in report.said


async def test_everybody_logs_in_and_gets_an_answer_from_their_own_server(report: Report):
    checks = report.checks
    assert checks.not_arrived == []
    assert (checks.arrived_real, checks.arrived_played) == (SCALE.labs, SCALE.users - SCALE.labs)


async def test_every_start_has_the_claim_that_was_the_users_before_whoever_named_it(
    report: Report,
):
    checks = report.checks
    assert checks.other_homes == []
    assert checks.homes == SCALE.users
    assert (checks.claims_made, checks.claims_gone) == ([], [])
    assert len(report.kinds) == 4


async def test_each_user_of_a_real_lab_reads_back_what_they_wrote(report: Report):
    assert report.checks.wrong_nonces == []
    assert report.checks.nonces == SCALE.labs


async def test_no_login_old_or_new_is_anybody_elses(report: Report):
    assert report.checks.cross_logins == []
    assert report.checks.old_cookies == 0


async def test_labs_that_ran_go_on_in_the_same_pods(report: Report):
    assert report.checks.lost_labs == []
    assert report.checks.same_pods == report.checks.running == 2


async def test_that_is_all_that_the_outage_promises(report: Report):
    assert report.passed
