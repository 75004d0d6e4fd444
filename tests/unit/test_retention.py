"""Which snapshots may go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jhub_safety.hubdb.retention import Kept, Policy, superfluous

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def kept(name: str, days: float, *, verified: bool = True, users: int | None = 5) -> Kept:
    return Kept(name, NOW - timedelta(days=days), verified, users)


@pytest.mark.parametrize(
    ("found", "count", "days", "gone"),
    [
        pytest.param([], 3, 7, (), id="nothing kept"),
        pytest.param([kept("a", 100)], 1, 7, (), id="the only one stays however old"),
        pytest.param(
            [kept("a", 3), kept("b", 2), kept("c", 1)], 1, 7, (), id="young ones stay beyond count"
        ),
        pytest.param(
            [kept("a", 30), kept("b", 20), kept("c", 10)], 3, 7, (), id="count stays beyond age"
        ),
        pytest.param(
            [kept("a", 30), kept("b", 20), kept("c", 10)],
            2,
            7,
            ("a",),
            id="old and beyond the count goes",
        ),
        pytest.param(
            [kept("good", 30), *(kept(f"bad{n}", 20 - n, verified=False) for n in range(9))],
            2,
            7,
            ("bad0", "bad1", "bad2", "bad3", "bad4", "bad5", "bad6"),
            id="unverified ones do not push out the last good one",
        ),
        pytest.param(
            [kept("good", 30), *(kept(f"empty{n}", 20 - n, users=0) for n in range(4))],
            1,
            7,
            ("empty0", "empty1", "empty2"),
            id="those of an emptied database do not push out the last with users",
        ),
        pytest.param(
            [kept("good", 30), kept("cut", 20, verified=False, users=None)],
            1,
            7,
            (),
            id="the newest stays also when it was cut off",
        ),
        pytest.param(
            [kept("a", 30), kept("b", -9)],
            1,
            7,
            ("a",),
            id="one of the future is the newest",
        ),
    ],
)
def test_what_goes(found, count, days, gone):
    assert superfluous(found, Policy(count, timedelta(days=days)), NOW) == gone


SNAPSHOTS = st.lists(
    st.builds(
        kept,
        st.uuids().map(str),
        st.floats(-10, 100),
        verified=st.booleans(),
        users=st.none() | st.integers(0, 3),
    ),
    unique_by=lambda one: one.name,
)


@given(SNAPSHOTS, st.integers(1, 5), st.floats(0, 50))
def test_the_last_verified_one_and_the_last_with_users_never_go(found, count, days):
    gone = set(superfluous(found, Policy(count, timedelta(days=days)), NOW))
    for good in (
        [one for one in found if one.verified],
        [one for one in found if one.verified and one.users],
    ):
        if good:
            newest = max(good, key=lambda one: (one.made, one.name))
            assert newest.name not in gone


@given(SNAPSHOTS, st.integers(1, 5), st.floats(0, 50))
def test_only_old_ones_go_and_a_second_time_none(found, count, days):
    policy = Policy(count, timedelta(days=days))
    gone = set(superfluous(found, policy, NOW))
    assert all(NOW - one.made > policy.age for one in found if one.name in gone)
    assert superfluous([one for one in found if one.name not in gone], policy, NOW) == ()


# -- of several databases


def of(identity: str | None, name: str, days: float, users: int | None = 5) -> Kept:
    return Kept(name, NOW - timedelta(days=days), users is not None, users, identity)


@pytest.mark.parametrize(
    ("found", "gone"),
    [
        pytest.param(
            [of("us", "a", 30), *(of("them", f"b{n}", 20 - n) for n in range(5))],
            (),
            id="another's newer ones push none of ours out",
        ),
        pytest.param(
            [of("them", "a", 30), *(of("us", f"b{n}", 20 - n) for n in range(3))],
            ("b0", "b1"),
            id="ours remove none of another's",
        ),
        pytest.param(
            [of("", "a", 30), of("us", "b", 20), of("us", "c", 19)],
            ("b",),
            id="one without a mark may be another's",
        ),
        pytest.param(
            [of(None, "a", 30), of(None, "b", 29), of("us", "c", 20), of("us", "d", 19)],
            ("a", "c"),
            id="those of early releases by themselves",
        ),
        pytest.param(
            [of(None, "a", 30, None), of("us", "b", 20)], ("a",), id="one that was cut off goes"
        ),
    ],
)
def test_each_databases_are_counted_by_themselves(found, gone):
    assert superfluous(found, Policy(1, timedelta(days=7)), NOW, "us") == gone


def test_of_a_database_without_a_mark_those_without_one_go():
    found = [of("", "a", 30), of("", "b", 20), of("us", "c", 10)]
    assert superfluous(found, Policy(1, timedelta(days=7)), NOW, "") == ("a",)
