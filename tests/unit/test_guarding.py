"""Whether a hub may serve on its database: each row of the table, and what holds for all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jhub_safety.cli.dbguard import NEXT
from jhub_safety.hubdb.condition import Condition, State
from jhub_safety.hubdb.guarding import (
    UNKNOWN,
    WAITING,
    Case,
    Fingerprint,
    Row,
    Verdict,
    decide,
    is_fewer,
)

PAGE = Path(__file__).parents[2] / "docs" / "database.md"
WHERE = "sqlite /srv/jupyterhub.sqlite"
BEFORE = Fingerprint(
    "a" * 32, 7, "4621fec11365", 1000, 1200, "2026-11-21T12:00:00.000+00:00", WHERE
)
EMPTY_BEFORE = replace(BEFORE, users=0, highest_id=0)
NOW = Condition(
    State.USABLE,
    "as it was found",
    identity=BEFORE.identity,
    epoch=7,
    revision=BEFORE.revision,
    users=1000,
    highest_id=1200,
    volume=BEFORE.identity,
    address=WHERE,
)
LOST = {"identity": None, "epoch": 0, "users": 0, "highest_id": 0, "revision": ""}
SERVE, ALARM, HOLD, RECOVER = Verdict


def now(state: State = State.USABLE, **changes) -> Condition:
    empty = LOST if state is not State.USABLE else {}
    return replace(NOW, state=state, **{**empty, **changes})


#: Condition, what was known, homes in the cluster; row and verdict with on_loss = "recover".
TABLE = [
    pytest.param(now(), BEFORE, False, Row.AS_BEFORE, SERVE, id="as it was"),
    pytest.param(now(users=1001), BEFORE, True, Row.AS_BEFORE, SERVE, id="a user more"),
    pytest.param(now(epoch=8), BEFORE, True, Row.AS_BEFORE, SERVE, id="killed before it was noted"),
    pytest.param(now(users=900), BEFORE, True, Row.AS_BEFORE, SERVE, id="a tenth fewer"),
    pytest.param(now(users=899), BEFORE, True, Row.FEWER_USERS, HOLD, id="more than a tenth fewer"),
    pytest.param(
        now(users=100, renewed=True), BEFORE, True, Row.AS_BEFORE, SERVE, id="fewer: made again"
    ),
    pytest.param(now(epoch=6), BEFORE, True, Row.OLDER, HOLD, id="an older copy"),
    pytest.param(now(epoch=6, users=5), BEFORE, True, Row.OLDER, HOLD, id="older and smaller"),
    pytest.param(now(epoch=6, renewed=True), BEFORE, True, Row.OLDER, HOLD, id="older, made again"),
    pytest.param(now(identity="b" * 32), BEFORE, True, Row.ANOTHER, HOLD, id="another hub's"),
    pytest.param(now(identity=None, epoch=0), BEFORE, True, Row.ANOTHER, HOLD, id="never marked"),
    pytest.param(
        now(identity="b" * 32),
        EMPTY_BEFORE,
        True,
        Row.ANOTHER,
        HOLD,
        id="another's, ours was empty",
    ),
    pytest.param(
        now(address="sqlite /mnt/x"), BEFORE, True, Row.AS_BEFORE, SERVE, id="it has moved"
    ),
    # Lost beyond doubt.
    pytest.param(now(State.MISSING), BEFORE, True, Row.MISSING, RECOVER, id="missing"),
    pytest.param(now(State.ZERO_BYTES), BEFORE, True, Row.ZERO_BYTES, RECOVER, id="zero bytes"),
    pytest.param(now(State.NO_TABLES), BEFORE, True, Row.NO_TABLES, RECOVER, id="no tables"),
    pytest.param(now(State.CORRUPT), BEFORE, True, Row.CORRUPT, RECOVER, id="damaged"),
    pytest.param(now(users=0), BEFORE, True, Row.NO_USERS, RECOVER, id="no users"),
    pytest.param(
        now(users=0, identity=None), BEFORE, True, Row.NO_USERS, RECOVER, id="a fresh one instead"
    ),
    pytest.param(
        now(State.ZERO_BYTES, volume=None), BEFORE, True, Row.ZERO_BYTES, RECOVER, id="no mark"
    ),
    # Not beyond doubt.
    pytest.param(
        now(State.MISSING, volume=None), BEFORE, True, Row.WRONG_VOLUME, HOLD, id="missing: no mark"
    ),
    pytest.param(
        now(State.MISSING, volume="b" * 32),
        BEFORE,
        True,
        Row.WRONG_VOLUME,
        HOLD,
        id="missing: another volume's mark",
    ),
    pytest.param(
        now(State.MISSING, volume=None),
        EMPTY_BEFORE,
        True,
        Row.WRONG_VOLUME,
        HOLD,
        id="missing, had no users, no mark",
    ),
    *(
        pytest.param(
            now(state, address="postgresql other hub"),
            replace(BEFORE, address="postgresql db hub"),
            True,
            Row.ANOTHER_ADDRESS,
            HOLD,
            id=f"{state} at another address",
        )
        for state in (State.NO_TABLES, State.ZERO_BYTES, State.MISSING, State.CORRUPT)
    ),
    pytest.param(
        now(users=0, address="x"), BEFORE, True, Row.ANOTHER_ADDRESS, HOLD, id="no users elsewhere"
    ),
    pytest.param(
        now(State.NO_TABLES, address="x"),
        replace(BEFORE, address=""),
        True,
        Row.NO_TABLES,
        RECOVER,
        id="no tables, address never noted",
    ),
    # It had none.
    pytest.param(now(users=0), EMPTY_BEFORE, True, Row.AS_BEFORE, SERVE, id="still no users"),
    pytest.param(now(State.ZERO_BYTES), EMPTY_BEFORE, True, Row.AS_BEFORE, SERVE, id="had none"),
    # In the way of any look.
    *(
        pytest.param(now(state), before, homes, row, HOLD, id=f"{state}, {what}")
        for state, row in (
            (State.UNREACHABLE, Row.UNREACHABLE),
            (State.READ_ONLY, Row.READ_ONLY),
            (State.FULL, Row.NO_ROOM),
        )
        for what, before, homes in (
            ("known", BEFORE, True),
            ("never seen", None, False),
            ("not known", UNKNOWN, UNKNOWN),
        )
    ),
    # One login could reach another's account.
    *(
        pytest.param(now(unsafe="shared"), before, True, Row.UNSAFE, HOLD, id=f"unsafe, {what}")
        for what, before in (("known", BEFORE), ("new", None), ("not known", UNKNOWN))
    ),
    # What is known cannot be read.
    pytest.param(now(), UNKNOWN, True, Row.UNKNOWN_BEFORE, ALARM, id="not known, users"),
    pytest.param(now(users=0), UNKNOWN, True, Row.UNKNOWN_BEFORE, HOLD, id="not known, no users"),
    *(
        pytest.param(now(state), UNKNOWN, homes, Row.UNKNOWN_BEFORE, HOLD, id=f"not known, {state}")
        for state, homes in (
            (State.MISSING, False),
            (State.ZERO_BYTES, True),
            (State.NO_TABLES, UNKNOWN),
            (State.CORRUPT, True),
        )
    ),
    # Never looked at before.
    pytest.param(now(), None, True, Row.FIRST_GUARDED, SERVE, id="new here, users"),
    pytest.param(now(State.MISSING), None, False, Row.FIRST_START, SERVE, id="a first start"),
    pytest.param(
        now(State.ZERO_BYTES), None, False, Row.FIRST_START, SERVE, id="first, zero bytes"
    ),
    pytest.param(now(State.NO_TABLES), None, False, Row.FIRST_START, SERVE, id="first, no tables"),
    pytest.param(now(users=0), None, False, Row.FIRST_START, SERVE, id="first, no users"),
    pytest.param(
        now(State.MISSING), None, True, Row.EMPTY_BESIDE_HOMES, ALARM, id="missing beside homes"
    ),
    pytest.param(now(users=0), None, True, Row.EMPTY_BESIDE_HOMES, ALARM, id="empty beside homes"),
    pytest.param(
        now(State.MISSING), None, UNKNOWN, Row.EMPTY_BESIDE_HOMES, ALARM, id="homes not known"
    ),
    pytest.param(now(State.CORRUPT), None, False, Row.CORRUPT, HOLD, id="damaged, never seen"),
]


@pytest.mark.parametrize(("condition", "before", "homes", "row", "verdict"), TABLE)
def test_each_case_has_its_row(condition, before, homes, row, verdict):
    decision = decide(Case(condition, before, homes))
    assert (decision.row, decision.verdict) == (row, verdict)
    assert decision.why


@pytest.mark.parametrize(("condition", "before", "homes", "row", "verdict"), TABLE)
def test_on_loss_hold_only_turns_recovery_into_holding(condition, before, homes, row, verdict):
    decision = decide(Case(condition, before, homes), "hold")
    assert (decision.row, decision.verdict) == (row, HOLD if verdict is RECOVER else verdict)


@pytest.mark.parametrize(("condition", "before", "homes", "row", "verdict"), TABLE)
def test_on_loss_ignore_serves_unless_it_cannot_or_logins_could_cross(
    condition, before, homes, row, verdict
):
    decision = decide(Case(condition, before, homes), "ignore")
    stays = verdict in (SERVE, ALARM) or row in WAITING or row is Row.UNSAFE
    assert (decision.row, decision.verdict) == (row, verdict if stays else ALARM)
    assert ("on_loss is ignore" in decision.why) is (not stays)


def test_the_cases_cover_every_row():
    assert {case.values[3] for case in TABLE} == set(Row)


# -- for all cases

_texts = st.sampled_from(["", "a" * 32, "b" * 32])
_numbers = st.integers(0, 3000)
_conditions = st.builds(
    Condition,
    st.sampled_from(State),
    identity=st.none() | _texts,
    epoch=st.integers(0, 9),
    users=_numbers,
    highest_id=_numbers,
    unsafe=st.sampled_from(["", "shared"]),
    volume=st.none() | _texts,
    address=_texts,
    renewed=st.booleans(),
)
_known = st.builds(
    Fingerprint,
    _texts,
    st.integers(0, 9),
    _texts,
    _numbers,
    _numbers,
    st.just("2026-11-21T12:00:00.000+00:00"),
    _texts,
)
_cases = st.builds(
    Case,
    _conditions,
    st.none() | st.just(UNKNOWN) | _known,
    st.sampled_from([True, False, UNKNOWN]),
)
_on_loss = st.sampled_from(["recover", "hold", "ignore"])


@given(_cases, _on_loss)
def test_a_database_with_users_is_never_made_again(case, on_loss):
    if case.condition.state is State.USABLE and case.condition.users:
        assert decide(case, on_loss).verdict is not RECOVER


@given(_cases, _on_loss)
def test_nothing_is_made_again_unless_users_are_known_to_have_been_there(case, on_loss):
    if decide(case, on_loss).verdict is RECOVER:
        assert on_loss == "recover"
        assert isinstance(case.before, Fingerprint)
        assert case.before.users > 0


@given(_conditions, st.sampled_from([True, False, UNKNOWN]), _on_loss)
def test_doubt_about_what_was_known_never_recovers_nor_counts_as_a_first_start(
    condition, homes, on_loss
):
    decision = decide(Case(condition, UNKNOWN, homes), on_loss)
    assert decision.verdict in (ALARM, HOLD)
    assert decision.row not in (Row.FIRST_START, Row.FIRST_GUARDED)


@given(_conditions)
def test_doubt_about_homes_is_never_a_first_start(condition):
    assert decide(Case(condition, None, UNKNOWN)).row is not Row.FIRST_START


@given(_cases, _on_loss)
def test_a_database_in_which_logins_could_cross_is_never_served(case, on_loss):
    if case.condition.unsafe:
        assert decide(case, on_loss).verdict is HOLD


@given(_cases)
def test_what_may_be_put_right_by_itself_is_neither_recovered_nor_served(case):
    if case.condition.state in (State.UNREACHABLE, State.READ_ONLY, State.FULL):
        assert decide(case).verdict is HOLD


@pytest.mark.parametrize(
    ("users", "before", "fewer"),
    [
        pytest.param(0, 20, False, id="a small class, all gone: another row's business"),
        pytest.param(10, 30, False, id="20 of 30"),
        pytest.param(9, 30, True, id="21 of 30"),
        pytest.param(180, 200, False, id="20 of 200"),
        pytest.param(179, 200, True, id="21 of 200"),
        pytest.param(900, 1000, False, id="a tenth of 1,000"),
        pytest.param(899, 1000, True, id="101 of 1,000"),
        pytest.param(90_000, 100_000, False, id="a tenth of 100,000"),
        pytest.param(2000, 1000, False, id="more"),
    ],
)
def test_fewer_is_more_than_20_and_more_than_a_tenth(users, before, fewer):
    assert is_fewer(users, before) is fewer


# -- what is written down


def test_a_fingerprint_survives_its_note():
    assert Fingerprint.parse(BEFORE.record()) == BEFORE


def test_a_fingerprint_of_an_earlier_release_has_no_address():
    record = BEFORE.record()
    del record["address"]
    assert Fingerprint.parse(record) == replace(BEFORE, address="")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"epoch": "x"}, id="no number"),
        pytest.param({"users": ""}, id="empty"),
        pytest.param({"identity": None}, id="missing"),
    ],
)
def test_a_fingerprint_that_is_not_whole_is_an_error(change):
    record = {**BEFORE.record(), **change}
    with pytest.raises(ValueError, match=r"fingerprint|invalid"):
        Fingerprint.parse({key: value for key, value in record.items() if value is not None})


def test_every_row_that_is_not_in_order_says_what_to_do():
    fine = {Row.AS_BEFORE, Row.FIRST_START, Row.FIRST_GUARDED}
    assert set(NEXT) == set(Row) - fine


def test_the_page_has_every_row_with_what_the_hub_does():
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    told = {line.split("|")[1].strip(" `"): line for line in lines}
    assert set(Row) - set(told) == set()
    for case in TABLE:
        row, verdict = case.values[3], case.values[4]
        assert verdict in told[row].split("|")[3], (row, verdict)
