"""From which snapshots a lost database may be made again: each kind that is passed over."""

from __future__ import annotations

from typing import Any

import pytest

from jhub_safety.hubdb.choosing import TOLD, Passed, choose, told
from jhub_safety.hubdb.guarding import Fingerprint
from jhub_safety.hubdb.snapshot import BEFORE_RESTORE

OURS, THEIRS = "a" * 32, "b" * 32
BEFORE = Fingerprint(OURS, 7, "4621fec11365", 100, 120, "2026-11-21T12:00:00.000+00:00")


def one(name: str, identity: str | None = OURS, users: int = 100, **more: Any) -> dict[str, Any]:
    about = {"users": users, "identity": identity, "purpose": more.pop("purpose", "")}
    if identity is None:
        del about["identity"]
    return {
        "name": name,
        "made": "2026-11-21T11:00:00+00:00",
        "verified": True,
        "damaged": False,
        "manifest": about,
        **more,
    }


@pytest.mark.parametrize(
    ("listed", "candidates", "passed"),
    [
        pytest.param([], [], [], id="none"),
        pytest.param([one("1"), one("2")], ["2", "1"], [], id="the newest first"),
        pytest.param([one("1"), one("2", THEIRS)], ["1"], ["2"], id="another database's"),
        pytest.param([one("1"), one("2", users=79)], ["1"], ["2"], id="21 users fewer"),
        pytest.param([one("1"), one("2", users=80)], ["2", "1"], [], id="20 users fewer"),
        pytest.param([one("1", users=30)], ["1"], [], id="70 users have come since"),
        pytest.param(
            [one("1", users=5), one("2", users=30)], ["2", "1"], [], id="and some in between"
        ),
        pytest.param(
            [one("1", users=300), one("2", users=90)], ["2", "1"], [], id="210 have left, as known"
        ),
        pytest.param(
            [one("1", users=60), one("2", users=2)], ["1"], ["2"], id="58 fewer, while some came"
        ),
        pytest.param(
            [one("1", THEIRS, users=90), one("2", users=2)],
            ["2"],
            ["1"],
            id="another database's say nothing of ours",
        ),
        pytest.param([one("1"), one("2", users=0)], ["1"], [], id="without users"),
        pytest.param([one("1", users=0)], [], [], id="none with users"),
        pytest.param([one("1", ""), one("2")], ["2", "1"], [], id="from before the mark"),
        pytest.param([one("1"), one("2", "")], ["1"], ["2"], id="without the mark, and later"),
        pytest.param([one("1", "")], ["1"], [], id="without the mark, and nothing to compare"),
        pytest.param([one("1"), one("2", None)], ["2", "1"], [], id="not noted: looked into"),
        pytest.param(
            [one("1"), one("2", verified=False, damaged=True)], ["1"], ["2"], id="damaged"
        ),
        pytest.param(
            [one("1"), one("2", verified=False, damaged=True, manifest=None)],
            ["1"],
            ["2"],
            id="its manifest is damaged",
        ),
        pytest.param(
            [one("1"), one("2", verified=False, manifest=None), one("3", verified=False)],
            ["1"],
            [],
            id="never whole, or never verified",
        ),
        pytest.param(
            [one("1"), one("2", purpose=BEFORE_RESTORE)],
            ["1", "2"],
            [],
            id="what a restore replaced comes last",
        ),
    ],
)
def test_what_is_taken_and_what_is_passed_over(listed, candidates, passed):
    found = choose(listed, BEFORE)
    assert [each.name for each in found.candidates] == candidates
    assert [each.name for each in found.passed] == passed
    assert all(each.why for each in found.passed)


def test_of_many_that_are_passed_over_there_is_a_number():
    some = [Passed(str(number), "is damaged") for number in range(TOLD + 2)]
    assert told(some[:1]) == "0 is damaged"
    assert told(some).endswith("4 is damaged; and 2 more")
