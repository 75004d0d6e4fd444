"""The record that is printed, journalled and executed; and the plan of one home."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from types import MappingProxyType
from typing import get_args

import pytest

from jhub_safety import owner as marks
from jhub_safety.plan import Action, Kind, Plan, Refusal
from jhub_safety.volumes import resolve
from jhub_safety.volumes.home import decide
from tests.unit.given import ALICE, BOB, GPU, NAMESPACE, claim, kubespawner, ours, question, seen

ACTION = Action("create-claim", "ns", "claim-a", "new", annotations=MappingProxyType({"a": "b"}))
REFUSAL = Refusal("several", "alice", "two claims", "claims adopt CLAIM --user=alice")


def test_a_plan_without_actions_is_false():
    assert not Plan("nothing to do")
    assert not Plan("refused", refusals=(REFUSAL,))
    assert Plan("something", (ACTION,))


def test_a_plan_is_json():
    record = Plan("home of alice", (ACTION,), (REFUSAL,)).record()
    assert json.loads(json.dumps(record)) == {
        "title": "home of alice",
        "actions": [
            {
                "kind": "create-claim",
                "namespace": "ns",
                "name": "claim-a",
                "uid": "",
                "reason": "new",
                "annotations": {"a": "b"},
                "labels": {},
            }
        ],
        "refusals": [
            {
                "code": "several",
                "who": "alice",
                "reason": "two claims",
                "command": "claims adopt CLAIM --user=alice",
                "retryable": False,
            }
        ],
        "on_word": False,
    }


def test_an_operators_word_is_in_the_record():
    assert Plan("told to", (ACTION,), on_word=True).record()["on_word"] is True


@pytest.mark.parametrize("kind", get_args(Kind))
def test_each_kind_of_action_is_json(kind):
    """Of sessions: whose, and no more than that."""
    action = Action(kind, "ns", "x", "why", user="alice", server="gpu")
    shown = json.loads(json.dumps(action.record()))
    assert (shown["kind"], shown["user"], shown["server"]) == (kind, "alice", "gpu")
    assert "user" not in ACTION.record()


@pytest.mark.parametrize(
    ("record", "part"), [(ACTION, "name"), (REFUSAL, "code"), (Plan("x"), "title")]
)
def test_what_was_shown_is_what_is_executed(record, part):
    with pytest.raises(FrozenInstanceError):
        setattr(record, part, "changed")


def plan(asked, found):
    return resolve.plan(asked, decide(asked, found))


def test_a_new_home_is_one_creation():
    [action] = plan(question(), seen(ours(BOB))).actions
    assert (action.kind, action.namespace, action.name, action.uid) == (
        "create-claim",
        NAMESPACE,
        ALICE.claim_name,
        "",
    )
    assert action.annotations == ALICE.annotations("jhub-safety")
    assert action.labels == ALICE.labels()


def test_an_adopted_home_is_one_annotation_of_the_claim_that_was_seen():
    [action] = plan(question(GPU), seen(kubespawner("claim-x", "alice", "gpu", uid="42"))).actions
    assert (action.kind, action.name, action.uid) == ("annotate-claim", "claim-x", "42")
    assert action.annotations == GPU.annotations("kubespawner")


def test_a_known_home_is_nothing_to_do():
    assert plan(question(), seen(ours(ALICE))).record()["actions"] == []


def test_a_known_home_keeps_the_generation_it_was_made_by():
    with_id = replace(ALICE, identity="sub-1")
    home = claim("claim-alice", ALICE.annotations("z2jh-3"), ALICE.labels())
    [action] = plan(question(with_id), seen(home)).actions
    assert action.annotations == with_id.annotations("z2jh-3")
    assert action.annotations[marks.IDENTITY] == with_id.identity_digest


def test_a_refused_home_changes_nothing_and_says_what_to_run():
    made = plan(question(), seen(claim("claim-alice")))
    assert not made
    [refusal] = made.refusals
    assert (refusal.code, refusal.who, refusal.retryable) == ("unproven", "alice", False)
    assert refusal.command == "claims adopt claim-alice --user=alice"


def test_a_refusal_for_now_says_so():
    [refusal] = plan(question(), seen(complete=False)).refusals
    assert (refusal.code, refusal.retryable) == ("incomplete", True)
