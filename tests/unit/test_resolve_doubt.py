"""A cluster that fails, lies or changes its mind: refused for now, and nothing is written."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jhub_safety.errors import Doubt
from jhub_safety.volumes.model import Row, Verdict
from jhub_safety.volumes.resolve import possible_names
from tests.unit.cluster_double import counts, holding
from tests.unit.given import ALICE, BOB, GPU, claim, kubespawner, ours, question
from tests.unit.resolver_double import Stage

MINE = ALICE.claim_name
FAILURES = {
    "403": Doubt("listing: HTTP 403", status=403, retryable=False),
    "410 twice": Doubt("listing: HTTP 410", status=410),
    "500": Doubt("listing: HTTP 500", status=500),
    "503": Doubt("listing: HTTP 503", status=503),
    "time-out": Doubt("listing: no answer within 10 s"),
    "cut off": Doubt("listing: ClientPayloadError"),
}


@pytest.fixture
def stage(tmp_path):
    def make(*claims, **fields):
        return Stage(holding(*claims), tmp_path, **fields)

    return make


def assert_refused_for_now(here, decision, says, command="claims explain alice"):
    assert (decision.row, decision.verdict) == (Row.INCOMPLETE, Verdict.REFUSE)
    assert decision.retryable
    assert says in decision.why
    assert decision.command == command
    assert here.cluster.writes() == []
    assert here.journal() == []


@pytest.mark.parametrize("failure", FAILURES)
async def test_no_home_is_made_when_the_listing_fails(stage, failure):
    here = stage(ours(BOB))
    here.cluster.faults["list"] = [FAILURES[failure]]
    decision = await here.resolver.resolve(question())
    assert_refused_for_now(here, decision, str(FAILURES[failure]))


@pytest.mark.parametrize("failure", FAILURES)
async def test_no_home_is_made_when_the_claim_on_record_cannot_be_read(stage, failure):
    here = stage(ours(BOB))
    here.cluster.faults["read"] = [FAILURES[failure]]
    decision = await here.resolver.resolve(question(saved="claim-x"))
    assert_refused_for_now(here, decision, str(FAILURES[failure]))


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("nth", range(len(possible_names(question(GPU))) - 1))
async def test_no_home_is_made_when_a_name_cannot_be_read(stage, failure, nth):
    """Each name that a named server's claim may have had is read before one is created."""
    here = stage(ours(BOB))
    here.cluster.faults["read"] = [None] * nth + [FAILURES[failure]]
    decision = await here.resolver.resolve(question(GPU))
    assert_refused_for_now(here, decision, str(FAILURES[failure]), "claims explain alice gpu")


async def test_no_home_is_mounted_that_cannot_be_read(stage):
    here = stage(ours(ALICE))
    here.cluster.faults["read"] = [FAILURES["503"]]
    assert_refused_for_now(here, await here.resolver.resolve(question()), "HTTP 503")


async def test_a_failed_listing_is_not_remembered(stage):
    here = stage(kubespawner("claim-alice", "alice"))
    here.cluster.faults["list"] = [FAILURES["503"]]
    assert_refused_for_now(here, await here.resolver.resolve(question()), "HTTP 503")
    assert (await here.resolver.resolve(question())).verdict is Verdict.ADOPT


async def test_a_known_home_needs_no_listing(stage):
    """What is broken elsewhere does not keep people out whose home is certain."""
    here = stage(ours(ALICE))
    here.cluster.faults["list"] = [FAILURES["503"]]
    decision = await here.resolver.resolve(question(saved=MINE))
    assert (decision.row, decision.verdict) == (Row.KNOWN, Verdict.MOUNT)


@pytest.mark.parametrize("what", ["forgotten", "landmark"])
async def test_doubt_about_what_an_operator_said_is_doubt(stage, what):
    here = stage(**{what: Doubt("reading secret: HTTP 500")})
    asked = question(saved="claim-x") if what == "forgotten" else question()
    assert_refused_for_now(here, await here.resolver.resolve(asked), "reading secret: HTTP 500")


@pytest.mark.parametrize("name", ["claim-alice", "claim-alice-7"], ids=["by name", "with an id"])
async def test_an_empty_answer_where_homes_were_is_no_answer(stage, name):
    """A broken proxy answers 200 with an empty list: looks like a new hub, is none."""
    here = stage(kubespawner(name, "alice"), ours(BOB), landmark=True)
    here.cluster.hidden = {name, BOB.claim_name}
    decision = await here.resolver.resolve(question())
    assert_refused_for_now(here, decision, "nobody's home")
    assert "kubectl delete secret -n jupyter jhub-safety-homes-" in decision.why


async def test_the_first_home_of_a_new_hub_is_made(stage):
    here = stage(landmark=False)
    assert (await here.resolver.resolve(question())).verdict is Verdict.CREATE


async def test_the_next_home_is_made_where_others_are(stage):
    here = stage(ours(BOB), landmark=True)
    assert (await here.resolver.resolve(question())).verdict is Verdict.CREATE


async def test_a_claim_that_a_listing_leaves_out_is_found_by_its_name(stage):
    """The proof that the listing was wrong; it is wrong again, so nothing is done."""
    here = stage(kubespawner("claim-alice", "alice"), ours(BOB))
    here.cluster.hidden = {"claim-alice"}
    decision = await here.resolver.resolve(question())
    assert_refused_for_now(here, decision, "claim claim-alice exists and was not in the listing")
    assert "two answers of the cluster disagree" in decision.why


async def test_a_listing_that_was_wrong_once_is_made_anew(stage):
    here = stage(kubespawner("claim-alice", "alice"), ours(BOB))
    here.cluster.hidden = {"claim-alice"}

    def heal(verb, name):
        if verb == "read":
            here.cluster.hidden = set()

    here.cluster.meanwhile = heal
    decision = await here.resolver.resolve(question())
    assert (decision.verdict, decision.name) == (Verdict.ADOPT, "claim-alice")
    assert counts(here.cluster)["list"] == 2


async def test_a_listing_proven_wrong_is_not_used_for_the_next(stage):
    here = stage(kubespawner("claim-alice", "alice"), ours(BOB))
    here.cluster.hidden = {"claim-alice"}
    await here.resolver.resolve(question())
    here.cluster.hidden = set()
    assert (await here.resolver.resolve(question())).verdict is Verdict.ADOPT


async def test_a_claim_that_is_listed_and_gone_is_not_mounted(stage):
    here = stage(ours(ALICE), ours(BOB))
    listed = dict(here.cluster.stored)
    here.cluster.stored.pop(MINE)

    async def stale():
        here.cluster.calls.append(("list", ""))
        return listed

    here.cluster.list = stale
    here.__post_init__()
    decision = await here.resolver.resolve(question())
    assert_refused_for_now(here, decision, f"claim {MINE} was listed and is gone")


async def test_nothing_is_created_on_a_listing_made_before_the_question(stage):
    """An operator gave the user a claim by a name nobody can guess, seconds ago."""
    here = stage(ours(BOB))
    await here.listing.claims()
    here.clock.now += 2.0
    here.cluster.put(ours(ALICE, "given-by-hand"))
    decision = await here.resolver.resolve(question())
    assert (decision.verdict, decision.name) == (Verdict.MOUNT, "given-by-hand")


async def test_a_listing_made_before_is_good_enough_to_mount_by(stage):
    here = stage(ours(BOB), ours(ALICE))
    await here.listing.claims()
    here.clock.now += 2.0
    here.cluster.calls.clear()
    assert (await here.resolver.resolve(question())).verdict is Verdict.MOUNT
    assert counts(here.cluster) == {"read": 1}


@pytest.mark.parametrize(
    ("change", "row"),
    [
        pytest.param({"deleting": True}, Row.TERMINATING, id="being deleted"),
        pytest.param({"phase": "Lost"}, Row.LOST, id="lost"),
        pytest.param({"annotations": BOB.annotations("x")}, Row.NEW, id="given to bob"),
    ],
)
@pytest.mark.parametrize(
    "home", [ours(ALICE, "home"), kubespawner("home", "alice")], ids=["ours", "KubeSpawner's"]
)
async def test_what_changed_since_the_listing_counts(stage, home, change, row):
    """Nothing is written on a claim that is ours, so no conflict would tell of it."""
    here = stage(home, ours(BOB))
    await here.listing.claims()
    here.cluster.put(now := replace(home, resource_version="2", **change))
    decision = await here.resolver.resolve(question())
    assert decision.row is row
    assert here.cluster.stored["home"] == now


async def test_a_claim_read_as_missing_outweighs_an_older_listing(stage):
    """Deleted since the listing: a home was here and is missing."""
    home = ours(ALICE, "claim-x")
    here = stage(home, ours(BOB))
    await here.listing.claims()
    here.cluster.stored.pop("claim-x")
    decision = await here.resolver.resolve(question(saved="claim-x"))
    assert (decision.row, decision.verdict) == (Row.GONE, Verdict.REFUSE)


async def test_a_named_servers_home_is_confirmed_by_its_own_names(stage):
    here = stage(claim("claim-alicegpu"), ours(BOB))
    here.cluster.hidden = {"claim-alicegpu"}
    decision = await here.resolver.resolve(question(GPU))
    assert "claim claim-alicegpu exists" in decision.why
    assert here.cluster.writes() == []
