"""An operator's word: each owner gets exactly the claim named for them, and nothing is deleted."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace

import pytest

from jhub_safety import owner as marks
from jhub_safety.cluster.claims import Claim
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.journal import Journal
from jhub_safety.volumes.adopt import Adoption, execute, plan_adoptions
from jhub_safety.volumes.home import decide
from jhub_safety.volumes.model import Row, Verdict
from tests.unit.cluster_double import ClusterDouble, holding
from tests.unit.given import (
    ALICE,
    BOB,
    GPU,
    NAMESPACE,
    claim,
    hub_label,
    kubespawner,
    ours,
    question,
    seen,
)

TODAY = "2024-05-01T10:00:00+00:00"
ANNOTATE, RELEASE = "annotate-claim", "release-claim"
WITH_ID = replace(ALICE, identity="sub-1")


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "journal", log=logging.getLogger("tests.unit.adopt"))


def planned(cluster: ClusterDouble, *adoptions: Adoption):
    return plan_adoptions(adoptions, dict(cluster.stored), namespace=NAMESPACE, today=TODAY)


async def adopt(cluster: ClusterDouble, journal: Journal, *adoptions: Adoption):
    return await execute(planned(cluster, *adoptions), cluster, journal)


def home(cluster: ClusterDouble, owner=ALICE, saved: str | None = None):
    """Row, verdict and claim of a start that sees every claim."""
    decision = decide(question(owner, saved=saved), seen(*cluster.stored.values()))
    return decision.row, decision.verdict, decision.name


def mountable(cluster: ClusterDouble, owner=ALICE) -> list[str]:
    """Every claim that carries this owner's annotations and was not released."""
    return sorted(
        found.name
        for found in cluster.stored.values()
        if found.annotations.get(marks.USER) == owner.user
        and found.annotations.get(marks.SERVER, "") == owner.server
        and marks.RELEASED not in found.annotations
    )


# -- the plan


@dataclass(frozen=True)
class Case:
    id: str
    claims: tuple[Claim, ...]
    adoptions: tuple[Adoption, ...]
    #: Kind and claim of each action, in order.
    actions: tuple[tuple[str, str], ...] = ()
    #: What SUPERSEDES says on the claim that is given last.
    supersedes: str | None = None
    #: Who is refused, and words of the reason.
    refused: tuple[tuple[str, str], ...] = ()


NOBODYS = claim("restored")
CASES = (
    Case(
        "a claim that says nothing",
        (NOBODYS, ours(BOB)),
        (Adoption("restored", ALICE),),
        ((ANNOTATE, "restored"),),
    ),
    Case(
        "KubeSpawner's for this user",
        (kubespawner("claim-alice", "alice"), kubespawner("claim-alice-2", "alice")),
        (Adoption("claim-alice-2", ALICE),),
        ((ANNOTATE, "claim-alice-2"),),
    ),
    Case(
        "the former home is released and superseded",
        (ours(ALICE), NOBODYS),
        (Adoption("restored", ALICE),),
        ((ANNOTATE, "restored"), (RELEASE, ALICE.claim_name)),
        supersedes=ALICE.claim_name,
    ),
    Case(
        "the saved former home is released and superseded",
        (kubespawner("claim-alice", "alice"), NOBODYS),
        (Adoption("restored", ALICE, saved="claim-alice"),),
        ((ANNOTATE, "restored"), (RELEASE, "claim-alice")),
        supersedes="claim-alice",
    ),
    Case(
        "the saved claim is superseded though it is gone",
        (NOBODYS,),
        (Adoption("restored", ALICE, saved="claim-alice"),),
        ((ANNOTATE, "restored"),),
        supersedes="claim-alice",
    ),
    Case(
        "the saved name beats another former home",
        (ours(ALICE), NOBODYS),
        (Adoption("restored", ALICE, saved="claim-gone"),),
        ((ANNOTATE, "restored"), (RELEASE, ALICE.claim_name)),
        supersedes="claim-gone",
    ),
    Case(
        "the saved claim itself: it supersedes the other annotated one",
        (ours(ALICE, "other"), kubespawner("claim-alice", "alice")),
        (Adoption("claim-alice", ALICE, saved="claim-alice"),),
        ((ANNOTATE, "claim-alice"), (RELEASE, "other")),
        supersedes="other",
    ),
    Case(
        "a saved claim that is somebody else's is not released",
        (ours(BOB, "claim-bob"), NOBODYS),
        (Adoption("restored", ALICE, saved="claim-bob"),),
        ((ANNOTATE, "restored"),),
        supersedes="claim-bob",
    ),
    Case(
        "the home of another server of theirs is not released",
        (ours(GPU), NOBODYS),
        (Adoption("restored", ALICE),),
        ((ANNOTATE, "restored"),),
    ),
    Case(
        "somebody else's claim, by the operator's word",
        (ours(BOB, "claim-bob"),),
        (Adoption("claim-bob", ALICE),),
        ((ANNOTATE, "claim-bob"),),
    ),
    Case(
        "another hub's claim, by the operator's word",
        (claim("moved", labels=hub_label("elsewhere")),),
        (Adoption("moved", ALICE),),
        ((ANNOTATE, "moved"),),
    ),
    Case(
        "no such claim",
        (ours(ALICE),),
        (Adoption("none", ALICE),),
        refused=(("alice", "there is no claim none"),),
    ),
    Case(
        "it is Terminating",
        (ours(ALICE), claim("ending", deleting=True)),
        (Adoption("ending", ALICE),),
        refused=(("alice", "claim ending is being deleted"),),
    ),
    Case(
        "two owners for one claim: the first",
        (NOBODYS, ours(BOB)),
        (Adoption("restored", ALICE), Adoption("restored", BOB)),
        ((ANNOTATE, "restored"),),
        refused=(("bob", "given to alice in the same plan"),),
    ),
    Case(
        "two claims for one owner: the first",
        (NOBODYS, claim("second")),
        (Adoption("restored", ALICE), Adoption("second", ALICE)),
        ((ANNOTATE, "restored"),),
        refused=(("alice", "gets another claim in the same plan"),),
    ),
    Case(
        "two servers of one user are two owners",
        (NOBODYS, claim("second")),
        (Adoption("restored", ALICE), Adoption("second", GPU)),
        ((ANNOTATE, "restored"), (ANNOTATE, "second")),
    ),
    Case(
        "a refused line leaves owner and claim to the next",
        (NOBODYS,),
        (Adoption("none", ALICE), Adoption("restored", ALICE)),
        ((ANNOTATE, "restored"),),
        refused=(("alice", "there is no claim none"),),
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_plan_is_what_the_operator_said_and_no_more(case: Case):
    plan = planned(holding(*case.claims), *case.adoptions)
    assert tuple((action.kind, action.name) for action in plan.actions) == case.actions
    assert [refusal.who for refusal in plan.refusals] == [who for who, _ in case.refused]
    for refusal, (_, words) in zip(plan.refusals, case.refused, strict=True):
        assert words in refusal.reason
    uids = {found.name: found.uid for found in case.claims}
    assert all(action.uid == uids[action.name] for action in plan.actions)
    assert {action.namespace for action in plan.actions} <= {NAMESPACE}
    given = [action for action in plan.actions if action.kind == ANNOTATE]
    if given:
        assert given[-1].annotations[marks.SUPERSEDES] == case.supersedes


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
async def test_executing_it_touches_the_claims_of_the_plan_and_keeps_all(journal, case: Case):
    cluster = holding(*case.claims)
    before = dict(cluster.stored)
    assert all(not outcome.failed for outcome in await adopt(cluster, journal, *case.adoptions))

    assert {name: found.uid for name, found in cluster.stored.items()} == {
        name: found.uid for name, found in before.items()
    }
    touched = {name for _, name in case.actions}
    assert {name for name in before if cluster.stored[name] != before[name]} == touched
    assert cluster.writes() == [("annotate", name) for _, name in case.actions]
    refused = {who for who, _ in case.refused}
    for adoption in case.adoptions:
        if str(adoption.owner) not in refused:
            assert mountable(cluster, adoption.owner) == [adoption.claim]


def test_the_new_owner_stands_on_the_claim_and_nothing_is_left_of_the_former():
    theirs = ours(replace(BOB, identity="sub-9"), "claim-bob", released=True)
    [action] = planned(holding(theirs), Adoption("claim-bob", ALICE)).actions
    assert action.annotations == {
        **ALICE.annotations("jhub-safety"),
        marks.IDENTITY: None,
        marks.SUPERSEDES: None,
        marks.RELEASED: None,
        marks.DECIDED: TODAY,
    }
    assert action.labels == ALICE.labels()
    assert "so far: bob of hub hub" in action.reason


def test_a_stable_id_is_written_as_its_digest():
    [action] = planned(holding(NOBODYS), Adoption("restored", WITH_ID)).actions
    assert action.annotations[marks.IDENTITY] == WITH_ID.identity_digest
    assert "sub-1" not in str(action.record())


def test_a_released_claim_keeps_its_owner_in_words_and_cannot_be_selected_as_theirs():
    _, release = planned(holding(ours(ALICE), NOBODYS), Adoption("restored", ALICE)).actions
    assert release.annotations == {marks.RELEASED: TODAY, marks.USER: "alice"}
    assert release.labels == {marks.OWNER_LABEL: None}
    assert "its files stay" in release.reason


# -- what a start makes of it


@pytest.mark.parametrize("spawned_in_between", [True, False], ids=["spawned", "not spawned"])
async def test_back_and_forth_ends_in_exactly_one_home(journal, spawned_in_between):
    """Whether or not the hub's record has moved on to each claim in between."""
    cluster = holding(ours(ALICE, "one"), claim("two"), claim("three"), ours(BOB))
    saved = "one"
    for wanted in ("two", "one", "three", "two", "one", "one"):
        await adopt(cluster, journal, Adoption(wanted, ALICE, saved))
        assert mountable(cluster) == [wanted]
        for record in {saved, "one", None}:
            if record == "one" != saved and wanted != "one":
                continue  # a record that the hub does not have any more
            _, verdict, name = home(cluster, saved=record)
            assert (verdict, name) == (Verdict.MOUNT, wanted), record
        if spawned_in_between:
            saved = wanted
    assert sorted(cluster.stored) == sorted([BOB.claim_name, "one", "three", "two"])
    assert home(cluster, BOB) == (Row.KNOWN, Verdict.MOUNT, BOB.claim_name)


async def test_of_several_claims_the_adopted_one_is_mounted(journal):
    cluster = holding(kubespawner("claim-alice", "alice"), kubespawner("claim-alice-2", "alice"))
    assert home(cluster)[:2] == (Row.SEVERAL, Verdict.REFUSE)
    await adopt(cluster, journal, Adoption("claim-alice-2", ALICE))
    assert home(cluster) == (Row.KNOWN, Verdict.MOUNT, "claim-alice-2")


@pytest.mark.parametrize("order", [1, -1], ids=["alice first", "bob first"])
async def test_two_users_can_swap_their_homes_in_one_plan(journal, order):
    cluster = holding(ours(ALICE, "one"), ours(BOB, "two"))
    await adopt(cluster, journal, *[Adoption("two", ALICE), Adoption("one", BOB)][::order])
    assert (home(cluster), home(cluster, BOB)) == (
        (Row.KNOWN, Verdict.MOUNT, "two"),
        (Row.KNOWN, Verdict.MOUNT, "one"),
    )


async def test_adopting_ends_the_refusal_of_a_record_that_names_somebody_elses_claim(journal):
    cluster = holding(ours(BOB, "claim-bob"), NOBODYS)
    assert home(cluster, saved="claim-bob")[0] is Row.TAKEN
    await adopt(cluster, journal, Adoption("restored", ALICE, saved="claim-bob"))
    assert home(cluster, saved="claim-bob")[1:] == (Verdict.MOUNT, "restored")


# -- carrying it out


async def test_a_claim_made_anew_in_between_is_left_alone(journal):
    cluster = holding(NOBODYS)
    plan = planned(cluster, Adoption("restored", ALICE))
    cluster.put(claim("restored", uid="another"))
    [outcome] = await execute(plan, cluster, journal)
    assert outcome.result == "failed: claim restored is not the one that was planned for"
    assert cluster.writes() == []


async def test_a_claim_that_is_gone_in_between_is_an_error_and_is_not_made(journal):
    cluster = holding(NOBODYS)
    plan = planned(cluster, Adoption("restored", ALICE))
    cluster.stored.clear()
    [outcome] = await execute(plan, cluster, journal)
    assert outcome.failed
    assert cluster.stored == {}


async def test_a_claim_that_changes_at_the_last_moment_is_left_alone(journal):
    cluster = holding(NOBODYS)
    plan = planned(cluster, Adoption("restored", ALICE))
    by_another = ours(BOB, "restored", uid=NOBODYS.uid, resource_version="2")

    def meanwhile(verb: str, name: str) -> None:
        if verb == "annotate":
            cluster.put(by_another)

    cluster.meanwhile = meanwhile
    [outcome] = await execute(plan, cluster, journal)
    assert outcome.result.startswith("failed: ")
    assert cluster.stored == {"restored": by_another}


@pytest.mark.parametrize("verb", ["read", "annotate"])
@pytest.mark.parametrize("fault", [Doubt("HTTP 500"), Conflict("changed")], ids=["Doubt", "409"])
async def test_one_items_error_does_not_stop_the_others(journal, verb, fault):
    cluster = holding(NOBODYS, claim("second"), claim("third"))
    cluster.faults[verb] = [None, fault]
    seen_so_far = []
    plan = planned(
        cluster, Adoption("restored", ALICE), Adoption("second", BOB), Adoption("third", GPU)
    )

    outcomes = await execute(plan, cluster, journal, seen_so_far.append)

    assert [outcome.result for outcome in outcomes] == ["done", f"failed: {fault}", "done"]
    assert tuple(seen_so_far) == outcomes
    assert [mountable(cluster, who) for who in (ALICE, BOB, GPU)] == [["restored"], [], ["third"]]
    lines = [json.loads(line) for line in journal.path.read_text().splitlines()]
    assert [(line["name"], line["outcome"]) for line in lines] == [
        (outcome.action.name, outcome.result) for outcome in outcomes
    ]


@pytest.mark.parametrize(
    ("verb", "status", "told"),
    [("annotate", 403, True), ("annotate", 500, False), ("read", 403, False)],
)
async def test_who_may_not_patch_claims_is_told_what_lets_the_hub(journal, verb, status, told):
    """The chart's Role lacks it, and the guide has people adopt early on."""
    cluster = holding(NOBODYS)
    cluster.faults[verb] = [Doubt("forbidden", status=status, retryable=False)]
    [outcome] = await adopt(cluster, journal, Adoption("restored", ALICE))
    assert outcome.result.startswith("failed: forbidden")
    command = f"kubectl apply -n {NAMESPACE} -f examples/helm/rbac.yaml"
    assert (command in outcome.result) is told


async def test_running_the_same_plan_again_changes_nothing_new(journal):
    cluster = holding(ours(ALICE), NOBODYS)
    plan = planned(cluster, Adoption("restored", ALICE))

    async def states():
        outcomes = await execute(plan, cluster, journal)
        assert not any(outcome.failed for outcome in outcomes)
        return {
            name: (found.uid, dict(found.annotations), dict(found.labels))
            for name, found in cluster.stored.items()
        }

    assert await states() == await states()


async def test_giving_the_order_again_releases_nobody_and_keeps_the_home(journal):
    cluster = holding(ours(ALICE), NOBODYS)
    for _ in range(2):
        await adopt(cluster, journal, Adoption("restored", ALICE))
    assert cluster.writes()[2:] == [("annotate", "restored")]
    assert home(cluster) == (Row.KNOWN, Verdict.MOUNT, "restored")


async def test_giving_the_order_again_without_the_hubs_records_keeps_the_home(journal):
    cluster = holding(ours(ALICE), NOBODYS)
    for _ in range(2):
        await adopt(cluster, journal, Adoption("restored", ALICE, saved=None))
    assert home(cluster, saved=ALICE.claim_name)[1:] == (Verdict.MOUNT, "restored")
