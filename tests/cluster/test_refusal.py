"""A start that is refused says why to everybody concerned, and has touched nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.cluster.audit import CLAIMS, PODS, WRITES
from tests.cluster.faults import CLAIM_LIST, FaultProxy, Rule, after
from tests.cluster.hubs import Hub, Setup
from tests.cluster.space import Home
from tools.demo.client import ClientError

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.hub,
    pytest.mark.asyncio(loop_scope="module"),
]

TWO_HOMES = "twin@school.edu"
OF_KUBESPAWNER_6 = "claim-twin-40school-2eedu"
OF_KUBESPAWNER_7 = "claim-twin-school-edu---9c7538c5"
UNSURE = "it is not certain which volume is yours"
LIMIT = 5


@dataclass(frozen=True)
class Site:
    """The hub, and the proxy between it and the API server."""

    hub: Hub
    proxy: FaultProxy


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(cluster, space, hub_factory):
    limit = f"c.KubeSpawner.consecutive_failure_limit = {LIMIT}\n"
    async with FaultProxy(cluster.kubeconfig) as proxy:
        await space.make_claim(OF_KUBESPAWNER_6, TWO_HOMES)
        await space.make_claim(OF_KUBESPAWNER_7, TWO_HOMES)
        hub = await hub_factory(space, Setup(extra=limit, server=proxy.url))
        await hub.start()
        yield Site(hub, proxy)


async def test_a_user_with_two_homes_reads_what_to_do_and_operators_the_whole_story(
    site: Site, audit
):
    space = site.hub.space
    claims, pods, log = await space.uids(), await space.pods(), len(site.hub.log_text())

    page = await site.hub.refusal(TWO_HOMES)

    assert page.status == 409
    assert UNSURE in page.text
    assert "Nothing was lost or changed" in page.text
    assert "please tell the people who run this hub" in page.text
    (story,) = site.hub.log_lines(f"Server of {TWO_HOMES} not started", " homes:", since=log)
    for words in (
        OF_KUBESPAWNER_6,
        OF_KUBESPAWNER_7,
        "Nothing was created or deleted",
        f"jhub-safety claims adopt CLAIM --user={TWO_HOMES}",
    ):
        assert words in story
    (event,) = await space.events("HomeRefused")
    assert event.type == "Warning"
    assert event.involved_object.kind == "PersistentVolumeClaim"
    assert event.involved_object.name in claims
    assert event.involved_object.uid == claims[event.involved_object.name]
    assert f"jhub-safety claims adopt CLAIM --user={TWO_HOMES}" in event.message
    assert audit.calls(user=space.hub_user, resource=CLAIMS, verbs=WRITES) == []
    assert audit.calls(user=space.hub_user, resource=PODS, verbs=WRITES) == []
    assert await space.uids() == claims
    assert await space.pods() == pods


async def test_the_api_answers_a_refused_start_with_the_same_message(site: Site):
    async with await site.hub.login(TWO_HOMES) as client:
        with pytest.raises(ClientError) as refused:
            await client.start_server()
        model = await client.server()
    assert refused.value.status == 409
    assert UNSURE in json.loads(refused.value.body)["message"]
    assert model is None or not (model["ready"] or model["pending"])


async def test_a_refused_start_does_not_kill_the_lab_that_still_runs_under_that_name(site: Site):
    space = site.hub.space
    # As after the loss of the database: the lab runs on, the hub knows nothing of it.
    name = "jupyter-twin-school-edu---9c7538c5"
    uid = await space.make_pod(name, site.hub.cluster.init_image, OF_KUBESPAWNER_7, TWO_HOMES)

    for _ in range(2):
        assert (await site.hub.refusal(TWO_HOMES)).status == 409

    pod = await space.pod(name)
    assert pod.metadata.uid == uid
    assert pod.metadata.deletion_timestamp is None
    assert pod.status.phase == "Running"


async def test_refused_starts_do_not_end_the_hub(site: Site):
    for _ in range(LIMIT + 1):
        assert (await site.hub.refusal(TWO_HOMES)).status == 409
    log = site.hub.log_text()
    assert "consecutive spawn failures" not in log
    assert site.hub.running()
    # The hub ends itself two seconds after it has said so: a whole start later it is still here.
    await site.hub.start_lab("somebody")
    assert site.hub.running()


async def test_a_claim_that_somebody_else_makes_at_the_last_moment_is_not_mounted(site: Site):
    space = site.hub.space
    name = await _wanted_name(site, "late")

    async def made_by_another() -> None:
        await space.make_claim(name, "mallory")

    site.proxy.break_(Rule(after(made_by_another), path=CLAIM_LIST, methods=("POST",), times=1))
    page = await site.hub.refusal("late")

    assert page.status == 409
    assert UNSURE in page.text
    assert [seen.status for seen in site.proxy.writes("persistentvolumeclaims")] == [409]
    assert site.proxy.writes("pods") == []
    (story,) = site.hub.log_lines("Server of late not started", " homes:")
    assert "mallory" in story


async def test_the_same_users_claim_made_at_the_last_moment_becomes_their_home(site: Site):
    space = site.hub.space
    name = await _wanted_name(site, "early")
    uids = []

    async def made_by_a_second_hub() -> None:
        uids.append(await space.make_claim(name, "early"))

    site.proxy.break_(
        Rule(after(made_by_a_second_hub), path=CLAIM_LIST, methods=("POST",), times=1)
    )
    home = await site.hub.start_lab("early")

    assert home == Home(name, uids[0])


async def _wanted_name(site: Site, user: str) -> str:
    """What a new claim of this user will be called."""
    from jhub_safety.owner import Owner

    return Owner(site.hub.space.name, user).claim_name
