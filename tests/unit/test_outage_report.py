"""What `make outage` counts as a broken promise, and whom it is about."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from tools.demo.hub import PROXY_PID
from tools.demo.identity import Identity
from tools.outage.people import Kind, people
from tools.outage.proxied import ProxiedHub
from tools.outage.report import Checks, Report, Timeline, show

GOOD = Checks(
    users=10,
    labs=2,
    running=1,
    arrived_real=2,
    arrived_played=8,
    homes=10,
    nonces=2,
    same_pods=1,
)
TIMES = Timeline(restarted=10.0, answers=15.0, first=16.0, dots=30.0, everybody=40.0)


def _report(checks: Checks = GOOD, timeline: Timeline = TIMES) -> Report:
    return Report("sqlite", ".save", 70, "made again", 10, {}, timeline, checks)


def test_when_all_is_well_the_outage_passes():
    report = _report()
    assert report.passed
    assert report.recovery_seconds == 30.0
    assert report.as_json()["promises"] == dict.fromkeys(report.promises, True)


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({"not_arrived": ["ada: refused"], "arrived_played": 7}, id="not arrived"),
        pytest.param({"other_homes": ["ada: claim-2"], "homes": 9}, id="an empty home"),
        pytest.param({"homes": 9}, id="a home that was not seen"),
        pytest.param({"wrong_nonces": ["ada: 404"], "nonces": 1}, id="a file that is gone"),
        pytest.param({"nonces": 1}, id="a file that was not read"),
        pytest.param({"cross_logins": ["ada is bob"]}, id="cross-login"),
        pytest.param({"lost_labs": ["ada"], "same_pods": 0}, id="a lab that was restarted"),
        pytest.param({"claims_made": ["claim-2"]}, id="a claim made"),
        pytest.param({"claims_gone": ["claim-1"]}, id="a claim gone"),
    ],
)
def test_whatever_is_broken_the_outage_does_not_pass_and_says_so(broken):
    report = _report(replace(GOOD, **broken))
    assert not report.passed
    said = io.StringIO()
    show(report, Console(file=said, width=120))
    assert "BROKEN" in said.getvalue()


def test_slowness_is_told_and_breaks_no_promise():
    report = _report(timeline=replace(TIMES, everybody=100.0))
    assert report.passed
    assert not report.in_time


def test_an_outage_without_an_all_clear_is_never_in_time():
    report = _report(timeline=replace(TIMES, everybody=None))
    assert report.recovery_seconds is None
    assert not report.in_time


@pytest.mark.parametrize(("users", "labs"), [(1000, 20), (40, 3), (60, 4), (10, 2)])
def test_people_have_names_and_homes_of_their_own_of_every_generation(users: int, labs: int):
    found = people(users, labs, "hub")
    assert len({one.name for one in found}) == len({one.claim for one in found}) == users
    assert sum(one.real for one in found) == labs
    assert sum(one.runs for one in found) == (labs + 1) // 2
    assert not any(one.late and (one.real or one.kind is not Kind.OURS) for one in found)
    assert any(one.late for one in found)
    if users >= 40:
        assert {one.kind for one in found} == set(Kind)
        assert len({one.kind for one in found if one.real}) >= min(labs, 3)


def test_too_many_labs_for_so_few_users_are_refused():
    with pytest.raises(ValueError, match="real labs"):
        people(10, 3, "hub")


async def test_the_proxy_ends_with_the_hub_that_was_started_after_it(tmp_path):
    """Each replay left one behind: the hub's start had forgotten it."""
    hub = ProxiedHub(tmp_path / "no_config.py", tmp_path)
    hub.start_proxy()
    pid = int((tmp_path / PROXY_PID).read_text())
    hub._forget_a_stale_proxy()
    hub.close()
    assert Identity.of(pid) is None
