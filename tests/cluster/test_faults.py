"""Doubt costs nobody a home: a wrong answer about claims refuses the start and changes nothing.

Each user here has a home from earlier, with files in it as far as anybody knows. A hub that has
lost its record of it (LIST), or has one (GET), gets an answer about claims that is not the truth.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.cluster.audit import CLAIMS as CLAIM_RESOURCE
from tests.cluster.audit import PODS, WRITES
from tests.cluster.faults import (
    CLAIMS,
    Answer,
    FaultProxy,
    Rule,
    changed,
    empty_list,
    half,
    hang,
    status,
    text,
)
from tests.cluster.hubs import QUICK, UNHURRIED, Hub, Setup
from tests.cluster.space import Home
from tools.demo.client import ClientError
from tools.demo.kube import USERNAME

pytestmark = [pytest.mark.cluster, pytest.mark.asyncio(loop_scope="module")]

RETRY = "could not be looked up just now. Try again in a moment"
SAFE = "Nothing was lost or changed"
#: Without it most of these starts would be answered from the listing of the test before.
ALWAYS_LIST = """
c.SafeKubeSpawner.claim_listing_max_age = 0
"""
#: The only faults that are to pass within a start.
PATIENT = """
c.KubeSpawner.k8s_api_request_retry_timeout = 10
"""
#: Seconds in which a healed cluster must have given everybody their home back.
HEALED = 15.0


@dataclass(frozen=True)
class Site:
    """The hub, and the proxy between it and the API server."""

    hub: Hub
    proxy: FaultProxy


def _cut_short(content: dict) -> None:
    """The first page as if it were all: a proxy that dropped the rest."""
    if content["metadata"].pop("continue", None):
        content["metadata"].pop("remainingItemCount", None)


def _more_remain(content: dict) -> None:
    """No continue token, and yet a number of items that are not here."""
    if content["metadata"].pop("continue", None):
        content["metadata"]["remainingItemCount"] = 3


def _without_names(content: dict) -> None:
    for item in content["items"]:
        del item["metadata"]["name"]


#: Both questions can be answered like this.
ANSWERS: dict[str, Callable[[FaultProxy], Answer]] = {
    "403": lambda _: status(403, "Forbidden"),
    "500": lambda _: status(500),
    "503": lambda _: status(503, "ServiceUnavailable"),
    "time-out": lambda _: hang(),
    "half of the body": half,
    "garbage with 200": lambda _: text("<html>Please log in</html>"),
    "JSON of something else": lambda _: text("{}", content_type="application/json"),
    "empty list with 200": lambda _: empty_list(),
}
PAGES: dict[str, tuple[Callable[[FaultProxy], Answer], bool | None]] = {
    "410 on a later page": (lambda _: status(410, "Expired"), True),
    "503 on a later page": (lambda _: status(503, "ServiceUnavailable"), True),
    "half of a later page": (half, True),
    "first page only": (lambda proxy: changed(proxy, _cut_short), None),
    "last page says more remain": (lambda proxy: changed(proxy, _more_remain), None),
    "items without names": (lambda proxy: changed(proxy, _without_names), None),
}
LISTS = {name: (answer, None) for name, answer in ANSWERS.items()} | PAGES
GETS = ANSWERS | {"404 of something else": lambda _: text("default backend - 404", code=404)}
#: A user for each, whom the hub knows from earlier.
RECORDED = {fault: f"known{number}" for number, fault in enumerate(GETS)}


def _setup(proxy: FaultProxy, extra: str = "") -> Setup:
    return Setup(extra=QUICK + UNHURRIED + ALWAYS_LIST + extra, server=proxy.url)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(cluster, space, hub_factory):
    async with FaultProxy(cluster.kubeconfig) as proxy:
        # Claims of earlier users make several pages of two.
        for number in range(5):
            await space.make_claim(f"claim-earlier-{number}", f"earlier-{number}")
        proxy.page_size = 2
        hub = await hub_factory(space, _setup(proxy))
        for user in RECORDED.values():
            # As a hub that has run this library or KubeSpawner 7 would remember it.
            await space.make_claim(f"claim-{user}", user)
            hub.remember(user, {"pvc_name": f"claim-{user}", "kubespawner_version": "7.1.0"})
        await hub.start()
        yield Site(hub, proxy)


async def _is_refused(site: Site, audit, user: str, rule: Rule) -> None:
    """The start is refused for now, in words for a person, and nothing is written anywhere."""
    claims, pods = await site.hub.space.uids(), await site.hub.space.pods()
    audit.mark()
    site.proxy.break_(rule)
    try:
        async with asyncio.timeout(HEALED):
            # A listing from before may be shared for a moment: until the fault has been met.
            while rule.hits == 0:
                page = await site.hub.refusal(user)
                assert page.status == 409
                assert RETRY in page.text
                assert SAFE in page.text
    finally:
        site.proxy.heal()
    assert site.proxy.writes(CLAIM_RESOURCE, PODS) == []
    assert audit.calls(user=site.hub.space.hub_user, resource=CLAIM_RESOURCE, verbs=WRITES) == []
    assert audit.calls(user=site.hub.space.hub_user, resource=PODS, verbs=WRITES) == []
    assert await site.hub.space.uids() == claims
    assert await site.hub.space.pods() == pods


async def _gets_home(site: Site, user: str) -> Home:
    """The next start that goes through; a listing that was taken in doubt may be kept a moment."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + HEALED
    while True:
        try:
            return await site.hub.begin_lab(user)
        except ClientError:
            if loop.time() > deadline:
                raise
            await asyncio.sleep(0.5)


@pytest.mark.parametrize("fault", LISTS)
async def test_without_a_record_a_bad_listing_never_makes_a_second_home(
    site: Site, audit, fault: str
):
    make, later_page = LISTS[fault]
    user = f"list{list(LISTS).index(fault)}@school.edu"
    old = f"claim-list{list(LISTS).index(fault)}-40school-2eedu"
    uid = await site.hub.space.make_claim(old, user)
    claims = await site.hub.space.uids()

    await _is_refused(site, audit, user, Rule(make(site.proxy), later_page=later_page))

    assert await _gets_home(site, user) == Home(old, uid)
    assert await site.hub.space.uids() == claims


@pytest.mark.parametrize("fault", GETS)
async def test_with_a_record_a_bad_answer_about_the_claim_never_makes_a_second_home(
    site: Site, audit, fault: str
):
    user = RECORDED[fault]
    claims = await site.hub.space.uids()

    await _is_refused(site, audit, user, Rule(GETS[fault](site.proxy), path=f"{CLAIMS}/"))

    assert await _gets_home(site, user) == Home(f"claim-{user}", claims[f"claim-{user}"])
    assert await site.hub.space.uids() == claims


@pytest.mark.parametrize("fault", GETS)
async def test_a_claim_found_in_a_listing_is_not_mounted_on_a_bad_second_look(
    site: Site, audit, fault: str
):
    user = f"look{list(GETS).index(fault)}@school.edu"
    await site.hub.space.make_claim(f"claim-look{list(GETS).index(fault)}-40school-2eedu", user)

    await _is_refused(site, audit, user, Rule(GETS[fault](site.proxy), path=f"{CLAIMS}/"))


async def test_a_listing_that_expired_once_is_begun_again_and_gives_the_home(site: Site):
    uid = await site.hub.space.make_claim("claim-once-40school-2eedu", "once@school.edu")
    rule = Rule(status(410, "Expired"), later_page=True, times=1)
    site.proxy.break_(rule)
    log = len(site.hub.log_text())

    assert await _gets_home(site, "once@school.edu") == Home("claim-once-40school-2eedu", uid)
    assert rule.hits == 1
    assert "HTTP 410" not in site.hub.log_since(log), "nobody was refused for it"


@pytest_asyncio.fixture(loop_scope="module")
async def patient(site: Site) -> AsyncIterator[Site]:
    """The same hub, which tries again for longer than a second."""
    await site.hub.restart_as(_setup(site.proxy, PATIENT))
    yield site
    await site.hub.restart_as(_setup(site.proxy))


async def test_a_passing_fault_is_waited_out_by_the_same_start(patient: Site):
    site = patient
    uid = await site.hub.space.make_claim("claim-brief-40school-2eedu", "brief@school.edu")
    rule = Rule(status(503, "ServiceUnavailable"), times=2)
    site.proxy.break_(rule)
    log = len(site.hub.log_text())

    assert await _gets_home(site, "brief@school.edu") == Home("claim-brief-40school-2eedu", uid)
    assert rule.hits == 2
    assert "HTTP 503" not in site.hub.log_since(log), "nobody was refused for it"


async def test_a_home_that_was_given_a_moment_ago_is_found_however_young_the_last_listing_is(
    space_factory, hub_factory
):
    """`claims adopt` while others log in: the claim's name says nothing, only its annotation."""
    space = await space_factory()
    uid = await space.make_claim("semester-2019-disk-7")
    hub = await hub_factory(space, Setup(extra=UNHURRIED))
    await hub.start()
    await hub.begin_lab("somebody")
    await space.annotate("semester-2019-disk-7", {USERNAME: "gwen"})

    assert await hub.begin_lab("gwen") == Home("semester-2019-disk-7", uid)
