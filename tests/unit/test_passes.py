"""Passes run one at a time, remember for how long things have been so, and tell each once."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace
from typing import Any

import pytest

from jhub_safety import metrics
from jhub_safety.errors import Conflict
from jhub_safety.plan import Action, Plan
from jhub_safety.sessions.absence import APART
from jhub_safety.sessions.model import LabState, Live, Server, Verdict
from tests.unit.given import NAMESPACE
from tests.unit.session_given import ADA, BOB, CAROL, READY, lab, lab_name
from tests.unit.session_stage import Stage

ERIN, FAY = Server("erin"), Server("fay")


@pytest.fixture
def stage(tmp_path):
    def make(*servers: Server, **fields: Any) -> Stage:
        given = {key: fields.pop(key) for key in ("first_pass", "paused") if key in fields}
        made = Stage(tmp_path, fields, **given)
        made.has(*servers)
        return made

    return make


# -- one at a time


async def test_passes_wait_for_one_another(stage):
    here = stage(ADA)
    running, most = 0, 0
    take = here.inventory.take

    async def slow(sessions):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return await take(sessions)

    here.inventory.take = slow
    await asyncio.gather(*(here.reconciler.one_pass() for _ in range(5)))
    assert most == 1
    assert here.inventory.taken == 5


async def test_a_plan_of_an_operator_is_carried_out_while_a_pass_hangs(stage):
    """The pass may hang in the very stop that the operator wants to give up."""
    here = stage(ADA)
    never = asyncio.Event()

    async def hangs(sessions):
        await never.wait()

    here.inventory.take = hangs
    running = asyncio.ensure_future(here.reconciler.one_pass())
    await asyncio.sleep(0)
    plan = Plan("by hand", (Action("unstick", "", "", "by hand", user="ada"),))
    async with asyncio.timeout(5):
        [outcome] = await here.reconciler.execute(plan)
    assert outcome.action == plan.actions[0]
    assert not outcome.failed
    assert not running.done()
    running.cancel()


@pytest.mark.parametrize("where", ["take", "look", "clear"])
async def test_a_pass_that_is_cancelled_leaves_the_way_free_for_the_next(stage, where):
    here = stage(ADA, BOB)
    here.inventory.lose(ADA)
    here.inventory.absences.take_word(f"{NAMESPACE}/{lab_name(ADA)}")
    target = here.hub if where == "clear" else here.inventory
    real, reached = getattr(target, where), asyncio.Event()

    async def hangs(*_, **__):
        reached.set()
        await asyncio.Event().wait()

    setattr(target, where, hangs)
    running = asyncio.ensure_future(here.reconciler.one_pass())
    await asyncio.wait_for(reached.wait(), 5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert set(here.hub.rows) == {ADA, BOB}
    setattr(target, where, real)
    # What was believed once is seen twice again, as the lab may have come back meanwhile.
    await here.passes(2)
    assert set(here.hub.rows) == {BOB}


# -- for how long


async def test_a_pending_lab_is_stopped_after_its_limit(stage):
    here = stage(ADA, BOB, pending_limit=150.0)
    here.inventory.listed[lab_name(ADA)] = lab(ADA, LabState.PENDING)
    here.inventory.live[lab_name(ADA)] = replace(
        here.inventory.live[lab_name(ADA)], phase="Pending"
    )
    assert await here.passes(4) == [[], [], [], ["stop-server"]]


async def test_a_lab_that_ran_in_between_has_its_whole_limit_again(stage):
    here = stage(ADA, BOB, pending_limit=150.0)
    for _ in range(4):
        here.inventory.listed[lab_name(ADA)] = lab(ADA, LabState.PENDING)
        await here.passes(2)
        here.inventory.listed[lab_name(ADA)] = lab(ADA)
        await here.passes(1)
    assert set(here.hub.rows) == {ADA, BOB}


async def test_pending_counts_what_the_hub_says_too(stage):
    here = stage(ADA, BOB)
    here.hub.memory[ADA] = Live("stop")
    seen = []
    for _ in range(3):
        seen.append(dict((await here.reconciler.survey()).pending_for))
        here.clock.now += APART
    assert seen == [{ADA: 0.0}, {ADA: APART}, {ADA: 2 * APART}]
    here.hub.memory[ADA] = READY
    assert (await here.reconciler.survey()).pending_for == {}


async def test_the_age_of_an_orphan_grows_by_passes_and_begins_again_with_another_lab(stage):
    here = stage(ADA)
    here.inventory.orphan(CAROL)
    ages = []
    for step in range(5):
        if step == 3:
            here.inventory.lose(CAROL)
            here.inventory.orphan(CAROL, uid="uid-anew")
        (age,) = (await here.reconciler.survey()).orphan_for.values()
        ages.append(age)
        here.clock.now += APART
    assert ages == [0.0, APART, 2 * APART, 0.0, APART]


async def test_an_orphan_that_had_a_session_in_between_begins_again(stage):
    here = stage(ADA)
    here.inventory.orphan(CAROL)
    await here.passes(2)
    here.hub.has(CAROL)
    await here.passes(1)
    here.hub.rows.pop(CAROL)
    here.hub.memory.pop(CAROL)
    here.hub.targets.pop(CAROL)
    (age,) = (await here.reconciler.survey()).orphan_for.values()
    assert age == 0.0


@pytest.mark.parametrize(
    ("policy", "did"),
    [
        ("report", [[], [], [], []]),
        ("relink", [[], ["relink-lab"], [], []]),
        ("delete", [[], [], [], ["delete-lab"]]),
    ],
)
async def test_an_orphan_is_treated_by_policy(stage, policy, did):
    here = stage(ADA, orphans=policy, orphan_age=170.0)
    here.inventory.orphan(CAROL)
    here.hub.users.add("carol")
    assert await here.passes(4) == did


@pytest.mark.parametrize(
    ("policy", "did"),
    [("report", [[]] * 4), ("relink", [[]] * 4), ("delete", [[], [], [], ["delete-lab"]])],
)
async def test_an_orphan_of_a_user_whom_the_hub_does_not_know_is_not_relinked(stage, policy, did):
    """They have not logged in since the database was lost."""
    here = stage(ADA, orphans=policy, orphan_age=170.0)
    here.inventory.orphan(CAROL)
    assert await here.passes(4) == did


async def test_no_more_orphans_are_deleted_in_an_hour_than_the_cap(stage):
    here = stage(ADA, orphans="delete", orphan_age=60.0)
    for server in (BOB, CAROL, ERIN, FAY):
        here.inventory.orphan(server)
    did = await here.passes(5)
    assert did == [[], ["delete-lab"] * 2, [], [], []]
    here.clock.now += 3600
    assert await here.passes(1) == [["delete-lab"] * 2]
    assert set(here.inventory.live) == {lab_name(ADA)}


async def test_a_deletion_that_does_not_end_counts_for_the_cap_all_the_same(stage):
    """The lab was told to end; with a lost node it goes on being there."""
    here = stage(ADA, orphans="delete", orphan_age=60.0)
    told = []

    async def never_ends(identity, name):
        told.append(name)
        raise Conflict("told to end, and still there")

    here.inventory.delete = never_ends
    for server in (BOB, CAROL, ERIN, FAY):
        here.inventory.orphan(server)
    for _ in range(5):
        await here.reconciler.one_pass()
        here.clock.now += APART
    assert len(told) == 2


# -- what is told


async def test_each_finding_is_told_once_and_again_when_it_comes_back(stage, caplog):
    here = stage(ADA)
    told = []
    for step in range(6):
        caplog.clear()
        if step in (0, 4):
            here.inventory.orphan(CAROL)
        elif step == 3:
            here.inventory.lose(CAROL)
        with caplog.at_level(logging.WARNING):
            await here.passes(1)
        told.append("carol" in caplog.text)
    assert told == [True, False, False, False, True, False]


async def test_the_metrics_show_the_last_pass(stage):
    here = stage(ADA, BOB)
    here.inventory.lose(ADA)
    here.inventory.orphan(CAROL)
    await here.passes(1)
    shown = {str(one): metrics.SESSIONS.labels(verdict=str(one))._value.get() for one in Verdict}
    assert {key: value for key, value in shown.items() if value} == {
        "in step": 1,
        "stale": 1,
        "orphan": 1,
    }
    report = here.reconciler.last.record()
    assert report["counts"] == {"in step": 1, "stale": 1, "orphan": 1}
    assert json.loads(json.dumps(report)) == report
