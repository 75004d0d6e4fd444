"""Observe, decide, confirm, act: what is asked of the cluster, and what is done when it lies."""

from __future__ import annotations

import asyncio
import inspect
import logging
from dataclasses import replace

import pytest

from jhub_safety import owner as marks
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.volumes.model import Row, Verdict
from jhub_safety.volumes.resolve import possible_names
from tests.unit.cluster_double import ClusterDouble, counts, holding
from tests.unit.given import ALICE, BOB, GPU, HUB, claim, kubespawner, ours, question
from tests.unit.resolver_double import Stage

MINE = ALICE.claim_name
#: Names that are read one by one before a claim is created; our own answers 409 by itself.
OTHER_NAMES = len(possible_names(question())) - 1
WITH_ID = replace(ALICE, identity="sub-1")


@pytest.fixture
def stage(tmp_path):
    """The stage for some claims: ``stage(claim, ..., recorded={...})``."""

    def make(*claims, **fields):
        return Stage(holding(*claims), tmp_path, **fields)

    return make


@pytest.mark.parametrize(
    ("asked", "claims", "row", "costs"),
    [
        pytest.param(
            question(saved=MINE), [ours(ALICE)], Row.KNOWN, {"read": 1}, id="on record and ours"
        ),
        pytest.param(
            question(saved="claim-alice"),
            [kubespawner("claim-alice", "alice")],
            Row.KNOWN,
            {"read": 1, "annotate": 1},
            id="on record and KubeSpawner's, once",
        ),
        pytest.param(
            question(saved="claim-alice"),
            [claim("claim-alice"), ours(BOB)],
            Row.SAVED_UNMARKED,
            {"read": 1, "list": 1, "annotate": 1},
            id="on record without annotations, once",
        ),
        pytest.param(
            question(), [ours(ALICE)], Row.KNOWN, {"list": 1, "read": 1}, id="found, ours"
        ),
        pytest.param(
            question(),
            [kubespawner("claim-alice", "alice")],
            Row.SINGLE,
            {"list": 1, "read": 1, "annotate": 1},
            id="found, adopted",
        ),
        pytest.param(
            question(),
            [ours(BOB)],
            Row.NEW,
            {"list": 1, "read": OTHER_NAMES, "prepare": 1, "create": 1},
            id="new",
        ),
        pytest.param(
            question(),
            [ours(ALICE, "one"), ours(ALICE, "two")],
            Row.SEVERAL,
            {"list": 1},
            id="refused",
        ),
        pytest.param(
            question(saved="claim-x"),
            [ours(BOB, "claim-x")],
            Row.TAKEN,
            {"read": 1, "list": 1},
            id="on record, another's",
        ),
    ],
)
async def test_costs_no_more_requests_than(stage, asked, claims, row, costs):
    here = stage(*claims)
    decision = await here.resolver.resolve(asked)
    assert decision.row is row
    assert counts(here.cluster) == costs


async def test_a_home_that_was_found_costs_one_read_from_then_on(stage):
    here = stage(kubespawner("claim-alice", "alice"))
    first = await here.resolver.resolve(question())
    here.cluster.calls.clear()
    again = await here.resolver.resolve(question(saved=first.name))
    assert (again.row, again.verdict) == (Row.KNOWN, Verdict.MOUNT)
    assert here.cluster.calls == [("read", "claim-alice")]


async def test_a_storm_of_logins_costs_few_listings(stage):
    """A thousand users at once, after the hub database was lost."""
    everybody = [replace(ALICE, user=f"user-{n}") for n in range(1000)]
    here = stage(*(kubespawner(f"claim-{owner.user}", owner.user) for owner in everybody[:900]))
    decisions = await asyncio.gather(*(here.resolver.resolve(question(who)) for who in everybody))
    assert [d.verdict for d in decisions] == [Verdict.ADOPT] * 900 + [Verdict.CREATE] * 100
    assert counts(here.cluster)["list"] <= 3


@pytest.mark.parametrize(
    ("generation", "asked", "claims"),
    [
        ("saved-state", question(saved="claim-alice"), [kubespawner("claim-alice", "alice")]),
        ("saved-state", question(saved="claim-alice"), [claim("claim-alice")]),
        ("kubespawner", question(), [kubespawner("claim-alice", "alice")]),
        ("kubespawner-6", question(declared=["kubespawner-6"]), [claim("claim-alice")]),
    ],
    ids=["on record, annotated", "on record", "annotated", "by its name"],
)
async def test_an_adopted_claim_says_whose_it_is_and_keeps_what_it_said(
    stage, generation, asked, claims
):
    here = stage(*claims)
    decision = await here.resolver.resolve(asked)
    written = here.cluster.stored["claim-alice"]
    assert written.annotations == {**claims[0].annotations, **ALICE.annotations(generation)}
    assert written.labels == {**claims[0].labels, **ALICE.labels()}
    # What is decided upon afterwards is the claim as it is now.
    assert decision.claim == written


async def test_a_created_claim_says_whose_it_is(stage):
    here = stage(ours(BOB))
    decision = await here.resolver.resolve(question())
    made = here.cluster.stored[MINE]
    assert made.annotations == {
        "hub.jupyter.org/username": "alice",
        "extra": "kept",
        **ALICE.annotations("jhub-safety"),
    }
    assert made.labels == {"component": "singleuser-storage", **ALICE.labels()}
    assert (decision.verdict, decision.claim) == (Verdict.CREATE, made)


async def test_a_users_namespace_is_prepared_before_a_claim_is_created_in_it(stage):
    here = stage(ours(BOB))
    await here.resolver.resolve(question())
    assert here.cluster.verbs()[-2:] == ["prepare", "create"]


async def test_nothing_is_prepared_for_a_claim_that_exists(stage):
    here = stage(kubespawner("claim-alice", "alice"))
    await here.resolver.resolve(question())
    assert here.prepared == 0


@pytest.mark.parametrize(
    ("before", "owner", "adds"),
    [
        (ALICE, WITH_ID, {marks.IDENTITY}),
        (WITH_ID, replace(WITH_ID, user="alice.smith"), {marks.USER}),
        (WITH_ID, WITH_ID, set()),
        (WITH_ID, ALICE, set()),
    ],
    ids=["identity configured", "account renamed", "complete", "identity no longer configured"],
)
async def test_annotations_are_completed_once(stage, before, owner, adds):
    home = ours(before)
    here = stage(home)
    asked = question(owner, saved=home.name)
    decision = await here.resolver.resolve(asked)
    assert (decision.row, decision.verdict) == (Row.KNOWN, Verdict.MOUNT)
    now = here.cluster.stored[home.name].annotations
    assert {key for key in now if now[key] != home.annotations.get(key)} == adds
    assert len(here.cluster.writes()) == bool(adds)
    here.cluster.calls.clear()
    await here.resolver.resolve(asked)
    assert here.cluster.writes() == []


CASES = {
    "ours on record": (question(saved=MINE), [ours(ALICE)]),
    "adopted": (question(), [kubespawner("claim-alice", "alice")]),
    "created": (question(), [ours(BOB)]),
    "refused": (question(), [claim("claim-alice")]),
    "gone": (question(saved="claim-x"), [ours(BOB)]),
}


@pytest.mark.parametrize("case", CASES)
async def test_looking_changes_nothing(stage, case):
    """``homes = "observe"`` and ``claims explain`` rest on it."""
    asked, claims = CASES[case]
    here = stage(*claims)
    _, looked = await here.resolver.look(asked)
    assert (here.cluster.writes(), here.journal()) == ([], [])
    here.cluster.calls.clear()
    done = await here.resolver.resolve(asked)
    assert (looked.row, looked.verdict, looked.name) == (done.row, done.verdict, done.name)


@pytest.mark.parametrize(
    ("asked", "claims", "kind", "name"),
    [
        (question(), [kubespawner("claim-alice", "alice")], "annotate-claim", "claim-alice"),
        (question(), [ours(BOB)], "create-claim", MINE),
    ],
    ids=["adopted", "created"],
)
async def test_what_is_done_is_in_the_journal(stage, asked, claims, kind, name):
    here = stage(*claims)
    decision = await here.resolver.resolve(asked)
    [line] = here.journal()
    assert (line["kind"], line["name"], line["outcome"]) == (kind, name, "done")
    assert line["namespace"] == here.cluster.namespace
    assert line["reason"].startswith(f"{decision.row}: ")
    assert line["annotations"][marks.USER] == "alice"
    uid = line["uid"] if kind == "annotate-claim" else line["created_uid"]
    assert uid == here.cluster.stored[name].uid


@pytest.mark.parametrize("case", ["ours on record", "refused", "gone"])
async def test_what_changes_nothing_is_not_in_the_journal(stage, case):
    asked, claims = CASES[case]
    here = stage(*claims)
    await here.resolver.resolve(asked)
    assert here.journal() == []


async def test_forbidden_to_annotate_mounts_all_the_same_and_says_so(stage):
    """The chart's Role lacks PATCH. The spawner says it once in a hub's life."""
    here = stage(kubespawner("claim-alice", "alice"))
    forbidden = Doubt("annotating claim: HTTP 403", status=403, retryable=False)
    here.cluster.faults["annotate"] = [forbidden]
    decision = await here.resolver.resolve(question())
    assert (decision.verdict, decision.name) == (Verdict.ADOPT, "claim-alice")
    assert here.cannot_annotate == [forbidden]
    [line] = here.journal()
    assert line["outcome"] == "failed: annotating claim: HTTP 403"


async def test_an_annotation_that_fails_mounts_all_the_same(stage, caplog):
    """The home is certain; only the mark for later is missing, and is tried again then."""
    here = stage(kubespawner("claim-alice", "alice"))
    here.cluster.faults["annotate"] = [Doubt("annotating claim: HTTP 500", status=500)]
    with caplog.at_level(logging.WARNING):
        decision = await here.resolver.resolve(question())
    assert (decision.verdict, decision.name) == (Verdict.ADOPT, "claim-alice")
    assert here.cannot_annotate == []
    assert "annotating claim: HTTP 500" in caplog.text


async def test_annotating_can_be_switched_off(stage):
    here = stage(kubespawner("claim-alice", "alice"), may_annotate=False)
    decision = await here.resolver.resolve(question())
    assert decision.verdict is Verdict.ADOPT
    assert here.cluster.writes() == []
    assert here.journal() == []


async def test_what_an_operator_has_just_decided_is_seen_at_the_next_try(stage):
    """The listing of the try before is still handed out to others."""
    here = stage(ours(ALICE, "one"), ours(ALICE, "two"))
    assert (await here.resolver.resolve(question())).row is Row.SEVERAL
    here.cluster.put(ours(BOB, "two"))
    here.clock.now += 1
    again = await here.resolver.resolve(question())
    assert (again.row, again.name) == (Row.KNOWN, "one")


async def test_a_missing_home_that_was_given_up_is_made_anew(stage):
    here = stage(ours(BOB), forgotten=True)
    decision = await here.resolver.resolve(question(saved="claim-x"))
    assert (decision.row, decision.name) == (Row.NEW, MINE)
    assert set(here.cluster.stored) == {BOB.claim_name, MINE}


async def test_a_missing_home_that_was_not_given_up_is_refused(stage):
    here = stage(ours(BOB))
    decision = await here.resolver.resolve(question(saved="claim-x"))
    assert (decision.row, decision.verdict, decision.retryable) == (
        Row.GONE,
        Verdict.REFUSE,
        False,
    )
    assert here.cluster.writes() == []


@pytest.mark.parametrize("claims", [[ours(ALICE)], [claim("claim-alice")]], ids=["ours", "by name"])
async def test_a_claim_on_another_servers_record_is_not_touched(stage, claims):
    """Somebody was renamed; whoever has the old name now must not get their home."""
    here = stage(*claims, recorded={claims[0].name: "bob"})
    decision = await here.resolver.resolve(question(declared=["kubespawner-6"]))
    assert (decision.row, decision.verdict) == (Row.TAKEN, Verdict.REFUSE)
    assert "bob" in decision.why
    assert here.cluster.writes() == []


async def test_a_stable_id_on_the_claim_outweighs_a_record_under_another_name(stage):
    """The account was renamed at the login provider; the hub knows the old name's record."""
    renamed = replace(WITH_ID, user="alice.smith")
    here = stage(ours(WITH_ID), recorded={WITH_ID.claim_name: "alice"})
    decision = await here.resolver.resolve(question(renamed))
    assert (decision.row, decision.verdict) == (Row.KNOWN, Verdict.MOUNT)


async def test_a_conflict_on_create_is_looked_at_again(stage):
    """Another hub process made the claim in between: mounted when it is this owner's."""
    here = stage(ours(BOB))
    here.cluster.meanwhile = lambda verb, _: verb == "create" and here.cluster.put(ours(ALICE))
    decision = await here.resolver.resolve(question())
    assert (decision.row, decision.verdict, decision.name) == (Row.KNOWN, Verdict.MOUNT, MINE)
    assert counts(here.cluster)["create"] == 1
    assert [line["outcome"][:6] for line in here.journal()] == ["failed"]


async def test_a_name_that_another_took_meanwhile_is_refused(stage):
    """KubeSpawner takes 409 for success and mounts a stranger's files."""
    here = stage(ours(BOB))
    stranger = ours(replace(ALICE, hub="other"))
    here.cluster.meanwhile = lambda verb, _: verb == "create" and here.cluster.put(stranger)
    decision = await here.resolver.resolve(question())
    assert (decision.row, decision.verdict) == (Row.TAKEN, Verdict.REFUSE)
    assert here.cluster.stored[MINE] == stranger


async def test_a_conflict_on_annotate_is_looked_at_again(stage):
    here = stage(kubespawner("claim-alice", "alice"))
    here.cluster.faults["annotate"] = [Conflict("it has been modified")]
    decision = await here.resolver.resolve(question())
    assert (decision.row, decision.verdict) == (Row.SINGLE, Verdict.ADOPT)
    assert here.cluster.stored["claim-alice"].annotations[marks.USER] == "alice"


async def test_a_claim_given_to_another_meanwhile_is_not_taken(stage):
    """It is annotated for bob between the read and the PATCH, whose resourceVersion is old."""
    here = stage(kubespawner("claim-alice", "alice"))
    bobs = replace(ours(BOB, "claim-alice"), resource_version="2")
    here.cluster.meanwhile = lambda verb, _: verb == "annotate" and here.cluster.put(bobs)
    decision = await here.resolver.resolve(question(saved="claim-alice"))
    assert (decision.row, decision.verdict) == (Row.TAKEN, Verdict.REFUSE)
    assert here.cluster.stored["claim-alice"] == bobs


@pytest.mark.parametrize(
    ("verb", "asked", "claims"),
    [
        ("create", question(), [ours(BOB)]),
        ("annotate", question(), [kubespawner("claim-alice", "alice")]),
    ],
)
async def test_a_claim_that_keeps_changing_is_refused_for_now(stage, verb, asked, claims):
    here = stage(*claims)
    here.cluster.faults[verb] = [Conflict("modified") for _ in range(10)]
    decision = await here.resolver.resolve(asked)
    assert (decision.row, decision.verdict, decision.retryable) == (
        Row.INCOMPLETE,
        Verdict.REFUSE,
        True,
    )
    assert "modified (three times)" in decision.why
    assert counts(here.cluster)[verb] == 3
    assert here.cluster.stored == {each.name: each for each in claims}


async def test_a_create_without_answer_is_refused_for_now_and_found_next_time(stage):
    """After a time-out the claim may exist. It then carries its owner's annotations."""
    here = stage(ours(BOB))
    here.cluster.faults["create"] = [Doubt("creating claim: no answer within 10 s")]
    here.cluster.meanwhile = lambda verb, _: verb == "create" and here.cluster.put(ours(ALICE))
    decision = await here.resolver.resolve(question())
    assert (decision.verdict, decision.retryable) == (Verdict.REFUSE, True)
    assert "no answer within 10 s" in decision.why
    again = await here.resolver.resolve(question())
    assert (again.row, again.name) == (Row.KNOWN, MINE)


def test_every_verb_of_the_api_is_in_the_double():
    """The double stands for ClaimsApi; one that lacks a method would hide a new call."""
    from jhub_safety.cluster.claims import ClaimsApi

    for name, method in vars(ClaimsApi).items():
        if not name.startswith("_"):
            double = inspect.signature(getattr(ClusterDouble, name))
            assert list(double.parameters) == list(inspect.signature(method).parameters), name


def test_possible_names_are_those_of_this_server():
    assert MINE in possible_names(question())
    assert {"claim-alice", MINE} <= possible_names(question())
    named = possible_names(question(GPU))
    assert {"claim-alicegpu", "claim-alice--gpu", GPU.claim_name} <= named
    assert "claim-alice" not in named
    assert ALICE.hub == HUB
