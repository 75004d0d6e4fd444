"""Passes: nothing at first sight, nothing in doubt, nothing while paused."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from jhub_safety import metrics
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.sessions.absence import APART
from jhub_safety.sessions.model import Live, Server, Verdict
from jhub_safety.sessions.presence import Presence
from tests.unit.given import NAMESPACE
from tests.unit.session_given import ADA, BOB, GPU, READY, lab_name, session
from tests.unit.session_stage import FirstPassDouble, Stage

CROWD = tuple(Server(f"user{number}") for number in range(20))


@pytest.fixture
def stage(tmp_path):
    def make(*servers: Server, **fields: Any) -> Stage:
        given = {key: fields.pop(key) for key in ("first_pass", "paused") if key in fields}
        made = Stage(tmp_path, fields, **given)
        made.has(*servers)
        return made

    return make


# -- sightings


async def test_in_step_there_is_nothing_to_do(stage):
    here = stage(ADA, GPU, BOB)
    before = here.state()
    assert await here.passes(3) == [[], [], []]
    assert here.state() == before
    assert here.reconciler.last.judgement.counts == {Verdict.IN_STEP: 3}


async def test_a_lab_that_is_missing_twice_a_minute_apart_costs_its_session(stage):
    here = stage(ADA, GPU, BOB)
    here.inventory.lose(ADA)
    assert await here.passes(3) == [[], ["clear-session"], []]
    assert set(here.hub.rows) == {GPU, BOB}
    assert set(here.inventory.live) == {lab_name(GPU), lab_name(BOB)}
    (line,) = map(json.loads, (here.folder / "journal").read_text().splitlines())
    assert (line["kind"], line["user"], line["outcome"]) == ("clear-session", "ada", "done")


async def test_passes_within_a_minute_are_one_sighting(stage):
    here = stage(ADA, BOB)
    here.inventory.lose(ADA)
    assert await here.passes(7, apart=10.0) == [[]] * 6 + [["clear-session"]]


async def test_a_lab_that_was_listed_in_between_starts_from_the_beginning(stage):
    here = stage(ADA, BOB)
    here.inventory.lose(ADA)
    await here.passes(1)
    here.inventory.runs(ADA)
    await here.passes(1)
    here.inventory.lose(ADA)
    assert await here.passes(2) == [[], ["clear-session"]]


async def test_a_lab_that_only_the_table_does_not_show_keeps_its_session(stage):
    """A stale or lying listing: the live read decides."""
    here = stage(ADA, BOB)
    here.inventory.listed.pop(lab_name(ADA))
    assert await here.passes(5) == [[]] * 5
    assert set(here.hub.rows) == {ADA, BOB}


async def test_over_the_cap_the_third_sighting_decides_about_all(stage):
    here = stage(*CROWD)
    here.inventory.lose(*CROWD[:5])
    assert await here.passes(1) == [[]]
    assert [one.code for one in here.reconciler.last.judgement.plan.refusals] == ["cap"] * 5
    assert await here.passes(2) == [[], ["clear-session"] * 5]
    assert set(here.hub.rows) == set(CROWD[5:])


async def test_an_empty_listing_costs_nobody_anything_while_the_labs_are_there(stage):
    here = stage(*CROWD)
    here.inventory.listed.clear()
    before = here.state()[:4]
    assert await here.passes(5) == [[]] * 5
    assert here.state()[:4] == before


async def test_a_look_around_counts_no_sighting(stage):
    here = stage(ADA, BOB)
    here.inventory.lose(ADA)
    for _ in range(3):
        await here.reconciler.survey(count=False)
        here.clock.now += APART
    assert here.inventory.absences.suspected() == ()
    assert await here.passes(2) == [[], ["clear-session"]]


async def test_polls_go_on_while_a_pass_counts_thousands_of_missing_labs(stage):
    """Every pass failed: a poll changed the dictionary that the pass went over in its thread."""
    crowd = tuple(Server(f"user{number}") for number in range(3000))
    here = stage(ADA, *crowd)
    here.inventory.lose(*crowd)
    polled = session(BOB)
    for due in (set(), set(), set(crowd)):
        survey = asyncio.ensure_future(here.reconciler.survey())
        while not survey.done():
            assert (await here.inventory.look(polled)).presence is Presence.DOUBT
            await asyncio.sleep(0)
            here.inventory.absences.seen(f"{NAMESPACE}/{polled.lab}")
            await asyncio.sleep(0)
        assert (await survey).due == due
        here.clock.now += APART


async def test_a_server_that_the_hub_is_busy_with_is_left_to_it(stage):
    here = stage(ADA, BOB)
    here.inventory.lose(ADA)
    here.hub.memory[ADA] = Live("spawn")
    assert await here.passes(4) == [[]] * 4


async def test_a_start_that_took_long_is_no_sighting_of_the_lab_it_makes(stage):
    here = stage(ADA, BOB)
    here.inventory.lose(ADA)
    here.hub.memory[ADA] = Live("spawn")
    await here.passes(3)
    here.hub.memory[ADA] = READY
    assert await here.passes(1) == [[]]


# -- doubt


@pytest.mark.parametrize("record", ["labs", "sessions"])
async def test_in_doubt_nothing_is_done(stage, record):
    here = stage(ADA, BOB)
    here.inventory.lose(ADA)
    await here.passes(1)
    before = here.state()
    counted = metrics.SESSION_PASSES.labels(outcome="doubt")._value.get()
    last = here.reconciler.last
    if record == "labs":
        here.inventory.doubt = Doubt("HTTP 503")
    else:
        here.hub.faults[""] = Doubt("locked")
    with pytest.raises(Doubt):
        await here.reconciler.one_pass()
    assert here.state() == before
    assert here.reconciler.last is last
    assert metrics.SESSION_PASSES.labels(outcome="doubt")._value.get() == counted + 1


async def test_doubt_is_no_sighting(stage):
    here = stage(ADA, BOB)
    here.inventory.lose(ADA)
    here.inventory.doubt = Doubt("HTTP 503")
    for _ in range(5):
        with pytest.raises(Doubt):
            await here.reconciler.one_pass()
        here.clock.now += APART
    here.inventory.doubt = None
    assert await here.passes(2) == [[], ["clear-session"]]


async def test_the_next_pass_runs_after_one_that_failed(stage, caplog):
    here = stage(ADA, BOB)
    faults = [Doubt("HTTP 503"), RuntimeError("a bug"), None]
    seen = asyncio.Event()

    async def sessions():
        if (fault := faults.pop(0)) is not None:
            raise fault
        seen.set()
        return tuple(here.hub.rows.values())

    here.hub.sessions = sessions
    here.reconciler.interval = 10.0
    here.reconciler.set_trait("interval", 10.0)
    real = asyncio.sleep
    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(asyncio, "sleep", lambda seconds: real(0 if seconds == 10.0 else seconds))
        task = asyncio.ensure_future(here.reconciler.run())
        await asyncio.wait_for(seen.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert "Sessions were not compared: HTTP 503. Nothing was changed." in caplog.text


async def test_routes_that_are_not_known_keep_nothing_else_back(stage):
    here = stage(ADA, BOB)
    here.hub.targets = None
    here.inventory.lose(ADA)
    assert await here.passes(2) == [[], ["clear-session"]]


# -- dry


DRY = {
    "dry_run": ({"dry_run": True}, "SessionReconciler.dry_run is on"),
    "paused": ({"paused": "paused until tomorrow"}, "paused until tomorrow"),
    "pause unreadable": (
        {"paused": Doubt("HTTP 503")},
        "whether it is paused is not known (HTTP 503)",
    ),
    "version unreadable": (
        {"first_pass": FirstPassDouble(doubt=Doubt("HTTP 500"))},
        "whether it is paused is not known (HTTP 500)",
    ),
}


@pytest.mark.parametrize("case", DRY)
async def test_a_dry_pass_says_why_and_changes_nothing(stage, case, caplog):
    fields, why = DRY[case]
    here = stage(ADA, GPU, BOB, **fields)
    here.inventory.lose(ADA)
    before = here.state()
    with caplog.at_level(logging.WARNING):
        assert await here.passes(4) == [[]] * 4
    assert here.state() == before
    report = here.reconciler.last
    assert report.dry == why
    assert [one.kind for one in report.judgement.plan.actions] == ["clear-session"]
    assert f"1 actions not taken: {why}" in caplog.text


async def test_a_reason_given_by_the_caller_makes_one_pass_dry(stage):
    here = stage(ADA, BOB)
    here.inventory.lose(ADA)
    assert await here.passes(3, dry="as asked") == [[]] * 3
    assert here.reconciler.last.dry == "as asked"
    assert await here.passes(1) == [["clear-session"]]


async def test_the_first_pass_of_a_version_is_dry_and_the_second_is_not(stage):
    here = stage(ADA, BOB, first_pass=FirstPassDouble())
    here.inventory.lose(ADA)
    here.inventory.absences.take_word(f"{NAMESPACE}/{lab_name(ADA)}")
    assert await here.passes(2) == [[], ["clear-session"]]


async def test_asking_does_not_use_up_the_first_pass(stage):
    here = stage(ADA, first_pass=FirstPassDouble())
    for _ in range(3):
        assert "first pass" in await here.reconciler.why_dry()


async def test_a_pass_in_doubt_is_not_the_first_one(stage):
    here = stage(ADA, first_pass=FirstPassDouble())
    here.inventory.doubt = Doubt("HTTP 503")
    with pytest.raises(Doubt):
        await here.reconciler.one_pass()
    assert here.first_pass.news


async def test_a_first_pass_that_cannot_be_noted_is_followed_by_another(stage):
    here = stage(ADA, BOB, first_pass=FirstPassDouble())
    here.inventory.lose(ADA)
    here.first_pass.done = _refuses
    assert await here.passes(3) == [[]] * 3


async def _refuses() -> None:
    raise Conflict("HTTP 409")
