"""Absent is earned: how often, how far apart, and with how many others a lab must be missing."""

from __future__ import annotations

import pytest

from jhub_safety.sessions.absence import APART, WINDOW, Absences

MANY = 1000


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def absences(clock: Clock) -> Absences:
    return Absences(clock)


def test_one_sighting_never_makes_a_lab_gone(absences: Absences):
    assert not absences.missed("a", MANY)


@pytest.mark.parametrize(
    ("seconds", "gone"), [(0, False), (APART - 0.1, False), (APART, True), (10 * APART, True)]
)
def test_the_second_sighting_counts_from_a_minute_on(
    absences: Absences, clock: Clock, seconds: float, gone: bool
):
    absences.missed("a", MANY)
    clock.now += seconds
    assert absences.missed("a", MANY) is gone


def test_many_looks_within_a_minute_are_one_sighting(absences: Absences, clock: Clock):
    for _ in range(50):
        assert not absences.missed("a", MANY)
        clock.now += 1


def test_a_lab_that_was_seen_in_between_starts_from_the_beginning(absences: Absences, clock: Clock):
    absences.missed("a", MANY)
    clock.now += APART
    absences.seen("a")
    assert not absences.missed("a", MANY)


def _believed(absences: Absences, clock: Clock, labs: list[str], sessions: int) -> list[str]:
    """Two sightings of each; those that are believed gone."""
    for lab in labs:
        absences.missed(lab, sessions)
    clock.now += APART
    return [lab for lab in labs if absences.missed(lab, sessions)]


@pytest.mark.parametrize(
    ("sessions", "at_once"),
    [(1, 2), (10, 2), (20, 2), (30, 3), (100, 10)],
)
@pytest.mark.parametrize("too_many", [0, 1], ids=["at the cap", "one over it"])
def test_two_sightings_are_enough_for_a_tenth_of_the_sessions_and_for_none_beyond(
    absences: Absences, clock: Clock, sessions: int, at_once: int, too_many: int
):
    labs = [f"lab{number}" for number in range(at_once + too_many)]
    for lab in labs:
        absences.missed(lab, sessions)
    clock.now += APART
    # The hub has one session less for each that was believed.
    gone: list[str] = []
    for lab in labs:
        if absences.missed(lab, sessions - len(gone)):
            gone.append(lab)
    assert gone == ([] if too_many else labs)


def test_beyond_the_cap_three_sightings_are_needed_of_each(absences: Absences, clock: Clock):
    labs = ["a", "b", "c", "d"]
    assert _believed(absences, clock, labs, 4) == []
    clock.now += APART
    assert [lab for lab in labs if absences.missed(lab, 4)] == labs


def test_a_lab_that_was_believed_gone_stays_gone_while_its_session_is_ended(
    absences: Absences, clock: Clock
):
    assert _believed(absences, clock, ["a"], MANY) == ["a"]
    clock.now += APART
    assert absences.missed("a", MANY)


def test_a_lab_that_was_believed_gone_and_came_back_starts_from_the_beginning(
    absences: Absences, clock: Clock
):
    assert _believed(absences, clock, ["a"], MANY) == ["a"]
    absences.seen("a")
    assert not absences.missed("a", MANY)


def test_an_operators_word_stands_for_the_sightings_and_the_cap(absences: Absences, clock: Clock):
    assert _believed(absences, clock, ["b", "c", "d"], 4) == []
    absences.take_word("a")
    assert absences.missed("a", 4)
    assert not absences.missed("b", 4)


def test_what_was_missing_an_hour_ago_no_longer_counts_for_the_cap(
    absences: Absences, clock: Clock
):
    for lab in ("a", "b", "c"):
        absences.missing(lab)
    clock.now += WINDOW + 1
    assert not absences.over_cap(4)
    assert absences.suspected() == ()


def test_the_cap_is_of_a_rolling_hour(absences: Absences, clock: Clock):
    assert _believed(absences, clock, ["a", "b"], 4) == ["a", "b"]
    clock.now += WINDOW + 1
    assert _believed(absences, clock, ["c", "d"], 2) == ["c", "d"]
