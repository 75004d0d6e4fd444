"""What an operator asks of sessions: the plan is shown first, and looking changes nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from jhub_safety.errors import Doubt
from jhub_safety.plan import Plan
from jhub_safety.sessions.absence import APART
from jhub_safety.sessions.model import LabIdentity, LabState, Live, Server, Verdict
from jhub_safety.sessions.operations import Operations, Proposal
from tests.unit.given import NAMESPACE
from tests.unit.session_given import ADA, BOB, CAROL, GPU, lab, lab_name, session
from tests.unit.session_stage import FirstPassDouble, Stage


@pytest.fixture
def here(tmp_path) -> Stage:
    made = Stage(tmp_path)
    made.has(ADA, GPU, BOB)
    return made


@pytest.fixture
def operations(here) -> Operations:
    return Operations(here.reconciler)


def steps(plan: Plan) -> list[tuple[str, str, str]]:
    return [(one.kind, str(Server(one.user, one.server)), one.name) for one in plan.actions]


def findings(proposal: Proposal) -> dict[str, Verdict]:
    return {str(one.server): one.verdict for one in proposal.findings}


# -- looking


async def test_looking_lists_every_server_and_changes_nothing(here, operations):
    here.inventory.lose(BOB)
    before = here.state()
    for _ in range(3):
        proposal = await operations.survey()
        here.clock.now += APART
    assert here.state() == before
    assert findings(proposal) == {
        "ada": Verdict.IN_STEP,
        "ada/gpu": Verdict.IN_STEP,
        "bob": Verdict.STALE,
    }
    assert not proposal.plan
    # Nor does it count as a sighting.
    assert here.inventory.absences.suspected() == ()


@pytest.mark.parametrize(
    ("user", "server", "seen"),
    [
        ("ada", None, {"ada", "ada/gpu"}),
        ("ada", "", {"ada"}),
        ("ada", "gpu", {"ada/gpu"}),
        ("bob", None, {"bob"}),
        ("nobody", None, set()),
        (None, None, {"ada", "ada/gpu", "bob"}),
    ],
)
async def test_a_user_sees_theirs_alone_and_the_count_is_of_all(operations, user, server, seen):
    proposal = await operations.survey(user, server)
    assert set(findings(proposal)) == seen
    assert proposal.counts == {Verdict.IN_STEP: 3}


async def test_looking_does_not_use_up_the_first_pass(tmp_path):
    here = Stage(tmp_path, first_pass=FirstPassDouble())
    here.has(ADA)
    for _ in range(2):
        assert "first pass" in (await Operations(here.reconciler).survey()).dry


async def test_a_proposal_is_json(here, operations):
    here.inventory.lose(BOB)
    here.inventory.orphan(CAROL)
    record = (await operations.survey()).record()
    assert json.loads(json.dumps(record)) == record
    assert record["hub_runs"] is True
    here.hub.memory = None
    assert (await operations.survey()).record()["hub_runs"] is False


@pytest.mark.parametrize("ask", ["survey", "reconcile", "delete"])
async def test_in_doubt_nothing_is_proposed(here, operations, ask):
    here.inventory.doubt = Doubt("HTTP 503")
    asked: dict[str, Any] = {"user": "ada", "forget": False} if ask == "delete" else {}
    with pytest.raises(Doubt):
        await getattr(operations, ask)(**asked)


# -- comparing now


async def test_comparing_counts_as_a_sighting_and_acts_only_when_told_to(here, operations):
    here.inventory.lose(BOB)
    first = await operations.reconcile()
    assert [one.code for one in first.plan.refusals] == ["sightings"]
    here.clock.now += APART
    second = await operations.reconcile()
    assert steps(second.plan) == [("clear-session", "bob", "jupyter-bob")]
    assert set(here.hub.rows) == {ADA, GPU, BOB}
    assert [one.outcome for one in await operations.execute(second.plan)] == ["done"]
    assert set(here.hub.rows) == {ADA, GPU}


async def test_an_operators_word_is_taken_when_the_plan_is_carried_out_and_not_before(
    here, operations
):
    here.inventory.lose(ADA, GPU, BOB)
    shown = await operations.reconcile(over_cap=True)
    assert {one[1] for one in steps(shown.plan)} == {"ada", "ada/gpu", "bob"}
    assert here.inventory.trusted == []
    # Whoever else looks meanwhile believes nothing yet.
    assert (await here.reconciler.one_pass()).outcomes == ()
    assert [one.outcome for one in await operations.execute(shown.plan)] == ["done"] * 3
    assert here.hub.rows == {}


async def test_without_that_word_the_same_plan_is_not_even_proposed(here, operations):
    here.inventory.lose(ADA, GPU, BOB)
    shown = await operations.reconcile()
    assert (steps(shown.plan), len(shown.plan.refusals)) == ([], 3)


# -- deleting


PLANS = {
    "both servers": (
        lambda here: None,
        ("ada", None, False),
        [
            ("end-session", "ada", "jupyter-ada"),
            ("end-session", "ada/gpu", "jupyter-ada--gpu"),
            ("check-routes", "", "proxy"),
        ],
    ),
    "one server": (
        lambda here: None,
        ("ada", "gpu", False),
        [("end-session", "ada/gpu", "jupyter-ada--gpu"), ("check-routes", "", "proxy")],
    ),
    "the default server": (
        lambda here: None,
        ("ada", "", False),
        [("end-session", "ada", "jupyter-ada"), ("check-routes", "", "proxy")],
    ),
    "without a hub": (
        lambda here: (setattr(here.hub, "memory", None), setattr(here.hub, "targets", None)),
        ("bob", None, False),
        [("end-session", "bob", "jupyter-bob")],
    ),
    "lab gone": (
        lambda here: here.inventory.lose(BOB),
        ("bob", None, False),
        [("end-session", "bob", "jupyter-bob"), ("check-routes", "", "proxy")],
    ),
    "busy": (
        lambda here: here.hub.memory.update({BOB: Live("spawn")}),
        ("bob", None, False),
        [
            ("unstick", "bob", "jupyter-bob"),
            ("end-session", "bob", "jupyter-bob"),
            ("check-routes", "", "proxy"),
        ],
    ),
    "an orphan": (
        lambda here: here.inventory.orphan(CAROL),
        ("carol", None, False),
        [("delete-lab", "carol", "jupyter-carol")],
    ),
    "a route alone": (
        lambda here: here.hub.targets.update({CAROL: "http://10.0.0.1:1"}),
        ("carol", None, False),
        [("check-routes", "", "proxy")],
    ),
    "forget": (
        lambda here: None,
        ("bob", None, True),
        [
            ("end-session", "bob", "jupyter-bob"),
            ("check-routes", "", "proxy"),
            ("forget-user", "bob", "bob"),
        ],
    ),
    "another hub's lab": (
        lambda here: here.inventory.orphan(CAROL, hub="staging"),
        ("carol", None, False),
        [],
    ),
    "nothing": (lambda here: None, ("nobody", None, False), []),
    "nothing, forget": (
        lambda here: None,
        ("nobody", None, True),
        [("forget-user", "nobody", "nobody")],
    ),
}


@pytest.mark.parametrize("case", PLANS)
async def test_a_deletion_is_shown_step_by_step_and_does_nothing_yet(here, operations, case):
    prepare, (user, server, forget), wanted = PLANS[case]
    prepare(here)
    before = here.state()
    proposal = await operations.delete(user, server, forget=forget)
    assert steps(proposal.plan) == wanted
    assert here.state() == before


@pytest.mark.parametrize("case", PLANS)
async def test_a_deletion_leaves_nothing_of_it_and_everything_else(here, operations, case):
    prepare, (user, server, forget), _ = PLANS[case]
    prepare(here)
    others = {one for one in here.hub.rows if one.user != user or server not in (None, one.name)}
    foreign = {key for key, one in here.inventory.whose.items() if one.hub == "staging"}
    proposal = await operations.delete(user, server, forget=forget)
    outcomes = await operations.execute(proposal.plan)
    assert {one.outcome.partition(":")[0] for one in outcomes} <= {"done"}
    assert set(here.hub.rows) == others
    assert {key for key in here.inventory.whose if key in foreign} == foreign
    assert (user in here.hub.users) is (not forget and user in ("ada", "bob"))
    # Once more is success as well.
    again = await operations.delete(user, server, forget=forget)
    assert not any(one.failed for one in await operations.execute(again.plan))
    assert set(here.hub.rows) == others


async def test_two_labs_of_one_server_are_both_named(here, operations):
    """The one by its session, the other one by its uid."""
    here.inventory.listed["jupyter-bob-2"] = lab("jupyter-bob-2")
    here.inventory.whose[NAMESPACE, "jupyter-bob-2"] = LabIdentity("uid-2", NAMESPACE, BOB, "hub")
    plan = (await operations.delete("bob", forget=False)).plan
    assert steps(plan)[:2] == [
        ("end-session", "bob", "jupyter-bob"),
        ("delete-lab", "bob", "jupyter-bob-2"),
    ]
    assert plan.actions[1].uid == "uid-2"


async def test_a_session_without_a_lab_on_record_can_be_deleted(here, operations):
    here.hub.rows[BOB] = session(BOB, lab="")
    here.inventory.lose(BOB)
    plan = (await operations.delete("bob", forget=False)).plan
    assert [one.outcome for one in await operations.execute(plan)] == ["done", "done"]
    assert set(here.hub.rows) == {ADA, GPU}


# -- what hangs


@pytest.mark.parametrize("pending", ["spawn", "stop", "check"])
async def test_what_the_hub_is_busy_with_is_given_up(here, operations, pending):
    here.hub.memory[GPU] = Live(pending)
    proposal = await operations.unstick("ada")
    assert steps(proposal.plan) == [("unstick", "ada/gpu", "jupyter-ada--gpu")]
    assert [one.outcome for one in await operations.execute(proposal.plan)] == ["done: given up"]


async def test_what_hangs_without_a_session_can_be_given_up(here, operations):
    """user.stop drops the row, then waits for post_stop_hook; nothing else knows of it then."""
    here.hub.memory[CAROL] = Live("stop")
    proposal = await operations.unstick("carol")
    assert [(one.kind, one.user) for one in proposal.plan.actions] == [("unstick", "carol")]


async def test_where_nothing_hangs_that_is_said(operations):
    proposal = await operations.unstick("ada")
    assert (proposal.plan.actions, [one.code for one in proposal.plan.refusals]) == (
        (),
        ["not-pending"],
    )


async def test_what_hangs_is_given_up_also_while_no_lab_can_be_asked_for(here, operations):
    """It may hang because of that very doubt."""
    here.inventory.doubt = Doubt("HTTP 503")
    here.hub.memory |= {ADA: Live("check"), BOB: Live("stop")}
    proposal = await operations.unstick("ada")
    assert steps(proposal.plan) == [("unstick", "ada", "jupyter-ada")]
    assert findings(proposal) == {"ada": Verdict.DOUBT, "ada/gpu": Verdict.DOUBT}
    assert "HTTP 503" in proposal.findings[0].why


async def test_without_the_hubs_own_records_nothing_is_given_up(here, operations):
    here.hub.faults[""] = Doubt("locked")
    with pytest.raises(Doubt, match="locked"):
        await operations.unstick("ada")


async def test_a_lab_that_is_lost_or_terminating_is_named_as_such(here, operations):
    here.inventory.listed[lab_name(ADA)] = lab(ADA, LabState.LOST)
    here.inventory.listed[lab_name(BOB)] = replace(
        lab(BOB, LabState.TERMINATING), words="Terminating"
    )
    assert findings(await operations.survey()) == {
        "ada": Verdict.NODE_LOST,
        "ada/gpu": Verdict.IN_STEP,
        "bob": Verdict.TERMINATING,
    }
