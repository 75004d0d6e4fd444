"""The decision table of docs/homes.md: at least one case for each row, and which row goes first."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from jhub_safety.owner import Owner
from jhub_safety.volumes.home import decide, recorded_for_another
from jhub_safety.volumes.model import Observation, Row, Verdict
from tests.unit import home_cases_found as found
from tests.unit import home_cases_on_record as on_record
from tests.unit.given import ALICE, GPU, HUB, claim, ours, question, seen
from tests.unit.home_case import Case, Outcome

TABLE = {
    "known": on_record.KNOWN_HOMES,
    "on record": on_record.SAVED_BY_RECORD,
    "taken": on_record.TAKEN,
    "found": found.FOUND,
    "renamed": found.RENAMES,
    "shared": found.SHARED_HOMES,
    "identity": found.IDENTITIES,
    "incomplete": found.INCOMPLETE,
}
CASES = [case for cases in TABLE.values() for case in cases]


def outcome(case: Case) -> Outcome:
    decision = decide(case.asked, case.seen)
    shown = tuple(sorted(each.name for each in decision.claims))
    return Outcome(
        decision.row, decision.verdict, decision.name, decision.command, decision.retryable, shown
    )


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=f"{part}: {case.id}")
        for part, cases in TABLE.items()
        for case in cases
    ],
)
def test_decision(case):
    assert outcome(case) == case.outcome


def test_every_row_of_the_table_has_a_case():
    tested = {case.outcome.row for case in CASES} | {Row.TERMINATING, Row.LOST}
    # The spawner refuses for want of an identity before it asks where the home is.
    assert tested == set(Row) - {Row.NO_IDENTITY}


TAKES = [case for case in CASES if case.outcome.verdict in (Verdict.MOUNT, Verdict.ADOPT)]
ILLNESSES = {
    "being deleted": ({"deleting": True}, Row.TERMINATING),
    "lost": ({"phase": "Lost"}, Row.LOST),
    "on a released volume": ({"volume_phase": "Released"}, Row.LOST),
    "on a failed volume": ({"volume_phase": "Failed"}, Row.LOST),
    "lost and being deleted": ({"phase": "Lost", "deleting": True}, Row.TERMINATING),
}


@pytest.mark.parametrize("illness", ILLNESSES)
@pytest.mark.parametrize("case", TAKES, ids=lambda case: case.id)
def test_a_claim_that_would_be_taken_must_be_there_to_stay(case, illness):
    """This row goes before all others that would take it, whatever they rest on."""
    fields, row = ILLNESSES[illness]
    name = case.outcome.name
    ill = replace(case.seen.claims[name], **fields)
    decision = decide(case.asked, replace(case.seen, claims={**case.seen.claims, name: ill}))
    assert (decision.row, decision.verdict, decision.name) == (row, Verdict.REFUSE, name)
    assert decision.command.startswith("claims explain ")
    assert not decision.retryable
    assert decision.claim is None
    assert [each.name for each in decision.claims] == [name]


@pytest.mark.parametrize(
    "fields", [{"phase": "Pending"}, {"phase": ""}, {"volume_phase": "Bound"}], ids=str
)
@pytest.mark.parametrize("case", TAKES, ids=lambda case: case.id)
def test_a_claim_that_waits_for_its_volume_is_taken(case, fields):
    """WaitForFirstConsumer: a claim is Pending until its first pod."""
    name = case.outcome.name
    other = replace(case.seen.claims[name], **fields)
    decision = decide(case.asked, replace(case.seen, claims={**case.seen.claims, name: other}))
    assert (decision.row, decision.verdict) == (case.outcome.row, case.outcome.verdict)


@pytest.mark.parametrize("illness", ILLNESSES)
def test_an_ill_claim_that_would_not_be_taken_changes_nothing(illness):
    fields, _ = ILLNESSES[illness]
    decision = decide(
        question(saved=ALICE.claim_name),
        seen(ours(ALICE), ours(ALICE, "claim-before", **fields), claim("claim-alice", **fields)),
    )
    assert (decision.row, decision.verdict) == (Row.KNOWN, Verdict.MOUNT)


def test_a_taken_claim_is_handed_on_whole():
    """Its uid and resourceVersion guard the annotation that follows."""
    home = ours(ALICE, resource_version="4711")
    assert decide(question(), seen(home)).claim is home


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_refusal_holds_no_claim_to_mount_and_names_one_command(case):
    decision = decide(case.asked, case.seen)
    if decision.verdict is Verdict.REFUSE:
        assert decision.claim is None
        assert shlex.split(decision.command)[:2][0] == "claims"
    else:
        assert decision.command == ""
    assert str(case.asked.owner.user) in decision.why or decision.verdict is not Verdict.REFUSE


@pytest.mark.parametrize(
    ("generation", "asked", "found"),
    [
        ("jhub-safety", question(), seen()),
        ("kubespawner-6", question(declared=["kubespawner-6"]), seen(claim("claim-alice"))),
        ("kubespawner", question(), found.FOUND[0].seen),
        ("saved-state", question(saved="claim-alice"), seen(claim("claim-alice"))),
    ],
    ids=["new", "declared", "annotated", "on record"],
)
def test_the_decision_says_which_generation_made_the_name(generation, asked, found):
    assert decide(asked, found).generation == generation


def test_a_fault_is_told():
    decision = decide(question(), Observation(fault="listing the claims: HTTP 503"))
    assert "listing the claims: HTTP 503" in decision.why


def test_two_claims_are_told_apart_in_the_refusal():
    """With age, size and volume: that is what an operator chooses by."""
    why = decide(
        question(),
        seen(ours(ALICE, "one", capacity="10Gi", volume="pv-1"), ours(ALICE, "two", volume="")),
    ).why
    assert "one (created unknown, 10Gi, volume pv-1, alice of hub hub)" in why
    assert "two (created unknown, unknown size, volume none, alice of hub hub)" in why


HOSTILE = "x; rm -rf ~ $(id) `id` 'q' \"d\" &"


@pytest.mark.parametrize(
    "user", [HOSTILE, "a b", "erin@school.edu", "line\nbreak", "-rf", "🦊"], ids=ascii
)
@pytest.mark.parametrize(
    ("saved", "claims", "row"),
    [
        (None, [ours(Owner(HUB, "somebody"), "claim-one")], None),
        ("claim-x", [], Row.GONE),
        ("claim-x", [ours(Owner(HUB, "somebody"), "claim-x")], Row.TAKEN),
        ("claim-x", [claim("claim-x", deleting=True)], Row.TERMINATING),
    ],
    ids=["incomplete", "gone", "taken", "terminating"],
)
def test_a_command_can_be_pasted_into_a_shell_whatever_the_user_is_called(user, saved, claims, row):
    owner = Owner(HUB, user)
    observed = seen(*claims, complete=row is not None, absent=[saved] if row is Row.GONE else [])
    decision = decide(question(owner, saved=saved), observed)
    assert decision.row is (row or Row.INCOMPLETE)
    words = shlex.split(decision.command)
    assert words[0] == "claims"
    assert words[-1] == user if words[1] == "explain" else words[-1] == f"--user={user}"
    # Behind "--" a name that looks like an option is none.
    assert ("--" in words) is (words[1] == "explain" and user.startswith("-"))


@pytest.mark.parametrize(
    ("asked", "found", "command"),
    [
        pytest.param(
            question(GPU),
            seen(ours(GPU, "one"), ours(GPU, "two")),
            "claims adopt CLAIM --user=alice --server=gpu",
            id="several",
        ),
        pytest.param(
            question(GPU),
            seen(claim("claim-alice--gpu")),
            "claims adopt claim-alice--gpu --user=alice --server=gpu",
            id="unproven",
        ),
        pytest.param(
            question(GPU, saved="claim-x"),
            seen(absent=["claim-x"]),
            "claims forget claim-x --user=alice --server=gpu",
            id="gone",
        ),
        pytest.param(question(GPU), seen(complete=False), "claims explain alice gpu", id="later"),
        pytest.param(
            question(GPU, saved="claim-x"),
            seen(ours(GPU, "claim-x", deleting=True)),
            "claims explain alice gpu",
            id="terminating",
        ),
    ],
)
def test_a_command_for_a_named_server_names_the_server(asked, found, command):
    """Pasted without it, it would settle the home of the default server."""
    assert decide(asked, found).command == command


@pytest.mark.parametrize("other", ["bob", "bob/gpu"])
def test_a_claim_on_another_servers_record_is_refused(other):
    """Somebody was renamed, and their claim could not be annotated."""
    decision = decide(question(), seen(ours(ALICE)))
    refused = recorded_for_another(question(), decision, other)
    assert (refused.row, refused.verdict, refused.claim) == (Row.TAKEN, Verdict.REFUSE, None)
    assert refused.name == ALICE.claim_name
    assert other in refused.why
    assert refused.command == f"claims adopt {refused.name} --user=alice"
