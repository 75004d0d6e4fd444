"""Labs that no session names: whose they are, and what an operator's policy makes of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from jhub_safety.sessions.decide import decide
from jhub_safety.sessions.model import LabState, Live, Observation, Rules, Server, Verdict
from tests.unit.given import HUB, NAMESPACE
from tests.unit.session_given import (
    ADA,
    BOB,
    GPU,
    READY,
    WORDS,
    identity,
    lab,
    lab_name,
    observed,
    session,
)

NAME = lab_name(ADA)
KEY = (NAMESPACE, NAME, "uid-1")
SETTLED, AGE = Rules().settled, Rules().orphan_age
POLICIES = ("report", "relink", "delete")
#: The second lab of a server, as after a changed pod_name_template.
OTHER = "jupyter-ada-2"


@dataclass(frozen=True)
class Case:
    id: str
    seen: Observation
    verdicts: tuple[Verdict, ...]
    #: Kinds of the plan's actions for the policies relink and delete; report never has any.
    relink: tuple[str, ...] = ()
    delete: tuple[str, ...] = ()


def alone(one: Any = None, whose: Any = None, **fields: Any) -> Observation:
    """One lab, seen for long enough for whatever may follow."""
    given = {"orphan_for": {KEY: AGE}} | fields
    return observed(one or lab(), whose={NAME: whose or identity()}, **given)


def two(**fields: Any) -> Observation:
    whose = {NAME: identity(), OTHER: identity(uid="uid-2")}
    return observed(
        lab(),
        lab(OTHER),
        whose=whose,
        orphan_for={KEY: AGE, (NAMESPACE, OTHER, "uid-2"): AGE},
        **fields,
    )


def second(**fields: Any) -> Observation:
    """A second lab beside the one that the session names."""
    given = {"live": {ADA: READY}} | fields
    return observed(
        lab(),
        lab(OTHER),
        sessions=(session(),),
        whose={OTHER: identity(uid="uid-2")},
        orphan_for={(NAMESPACE, OTHER, "uid-2"): AGE},
        **given,
    )


BOTH: dict[str, Any] = {"relink": ("relink-lab",), "delete": ("delete-lab",)}
DELETED: dict[str, Any] = {"delete": ("delete-lab",)}
CASES = [
    Case("ours by its label", alone(), (Verdict.ORPHAN,), **BOTH),
    Case("from before labels", alone(whose=identity(hub=None)), (Verdict.ORPHAN,), **BOTH),
    Case("ours, hub runs and does not know it", alone(live={}), (Verdict.ORPHAN,), **BOTH),
    Case("ours, server idle", alone(live={ADA: Live()}), (Verdict.ORPHAN,), **BOTH),
    Case("another hub's", alone(whose=identity(hub="staging")), (Verdict.FOREIGN,)),
    Case("names no user", alone(whose=identity(None)), (Verdict.FOREIGN,)),
    Case(
        "names no user, ours by its label", alone(whose=identity(None, hub=HUB)), (Verdict.FOREIGN,)
    ),
    Case("identity not known", observed(lab(), orphan_for={KEY: AGE}), (Verdict.DOUBT,)),
    Case(
        "two of that name, one identity",
        alone(lab(), orphan_for={KEY: AGE}),
        (Verdict.ORPHAN,),
        **BOTH,
    ),
    Case("being started", alone(live={ADA: Live("spawn")}), (Verdict.BUSY,)),
    Case("being stopped", alone(live={ADA: Live("stop")}), (Verdict.BUSY,)),
    Case("being checked", alone(live={ADA: Live("check")}), (Verdict.BUSY,)),
    Case("session made since", alone(live={ADA: READY}), (Verdict.BUSY,)),
    Case("terminating", alone(lab(state=LabState.TERMINATING)), (Verdict.TERMINATING,)),
    Case("ended", alone(lab(state=LabState.ENDED)), (Verdict.ENDED,)),
    Case("node lost", alone(lab(state=LabState.LOST)), (Verdict.ORPHAN,), **DELETED),
    Case("pending", alone(lab(state=LabState.PENDING)), (Verdict.ORPHAN,), **DELETED),
    Case("two, no session", two(), (Verdict.TWO_LABS, Verdict.TWO_LABS)),
    Case("a second one, hub down", second(live=None), (Verdict.TWO_LABS,)),
    Case("a second one, hub runs", second(), (Verdict.TWO_LABS,)),
    Case("a second one, session starting", second(live={ADA: Live("spawn")}), (Verdict.BUSY,)),
]


def several_namespaces() -> Observation:
    there = replace(lab(), namespace="other")
    return observed(lab(), there, whose={NAME: identity()}, orphan_for={KEY: AGE})


CASES.append(Case("one name in two namespaces", several_namespaces(), (Verdict.DOUBT,)))


def _others(case: Case) -> list[Verdict]:
    """Verdicts about labs that no session names."""
    judged = decide(case.seen, Rules(), HUB)
    return [one.verdict for one in judged.findings if one.session is None]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_lab_without_a_session_gets_its_verdict(case: Case):
    assert _others(case) == list(case.verdicts)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_only_an_orphan_is_acted_upon_and_only_by_policy(case: Case, policy: str):
    plan = decide(case.seen, Rules(orphans=policy), HUB).plan
    wanted = {"report": (), "relink": case.relink, "delete": case.delete}[policy]
    assert tuple(one.kind for one in plan.actions) == wanted
    assert plan.refusals == ()
    for action in plan.actions:
        assert (action.namespace, action.name, action.uid) == KEY
        assert (action.user, action.server) == ADA


AGES = {
    "never seen before": (None, (), ()),
    "just seen": (0.0, (), ()),
    "not settled": (SETTLED - 1, (), ()),
    "settled": (SETTLED, ("relink-lab",), ()),
    "not old enough": (AGE - 1, ("relink-lab",), ()),
    "old enough": (AGE, ("relink-lab",), ("delete-lab",)),
}


@pytest.mark.parametrize("age", AGES)
def test_an_orphan_is_settled_before_a_relink_and_old_before_a_deletion(age: str):
    seconds, relink, delete = AGES[age]
    seen = alone(orphan_for={} if seconds is None else {KEY: seconds})
    for policy, wanted in (("report", ()), ("relink", relink), ("delete", delete)):
        plan = decide(seen, Rules(orphans=policy), HUB).plan
        assert tuple(one.kind for one in plan.actions) == wanted


def test_an_orphan_is_settled_before_a_deletion_whatever_its_age_limit():
    rules = Rules(orphans="delete", orphan_age=1.0)
    assert not decide(alone(orphan_for={KEY: SETTLED - 1}), rules, HUB).plan
    assert decide(alone(orphan_for={KEY: SETTLED}), rules, HUB).plan


@pytest.mark.parametrize(
    "key",
    [("other", NAME, "uid-1"), (NAMESPACE, "jupyter-bob", "uid-1"), (NAMESPACE, NAME, "uid-0")],
    ids=["another namespace's", "another lab's", "a former lab's"],
)
@pytest.mark.parametrize("policy", POLICIES)
def test_an_age_is_of_exactly_that_lab(key, policy):
    assert not decide(alone(orphan_for={key: AGE}), Rules(orphans=policy), HUB).plan


@pytest.mark.parametrize("left", [0, 1, 3, 9])
def test_no_more_labs_are_deleted_than_the_hour_allows(left: int):
    servers = [Server(f"user{number}") for number in range(5)]
    labs = {lab_name(one): identity(one, uid=f"uid-of-{one}") for one in servers}
    seen = observed(
        *map(lab, servers),
        whose=labs,
        orphan_for={(NAMESPACE, name, one.uid): AGE for name, one in labs.items()},
    )
    plan = decide(seen, Rules(orphans="delete", deletions=left), HUB).plan
    done = [one.user for one in plan.actions]
    refused = [(one.code, one.who) for one in plan.refusals]
    assert done == [str(one) for one in servers[:left]]
    assert refused == [("cap", str(one)) for one in servers[left:]]


def test_the_cap_of_deletions_is_not_one_of_relinks():
    rules = Rules(orphans="relink", deletions=0)
    assert [one.kind for one in decide(alone(), rules, HUB).plan.actions] == ["relink-lab"]


@pytest.mark.parametrize("state", LabState)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    "whose",
    [identity(hub="staging"), identity(None), identity(None, hub="staging")],
    ids=["another hub's", "nobody's", "another hub's, nobody's"],
)
def test_a_foreign_lab_is_never_touched(state, policy, whose):
    judged = decide(alone(lab(state=state), whose), Rules(orphans=policy, orphan_age=0), HUB)
    assert judged.counts == {Verdict.FOREIGN: 1}
    assert not judged.plan


def test_another_hubs_lab_of_the_same_user_is_not_their_second_one():
    """Two hubs in one namespace, with pod names of their own."""
    seen = observed(
        lab(),
        lab("staging-ada"),
        whose={NAME: identity(), "staging-ada": identity(hub="staging", uid="uid-2")},
        orphan_for={KEY: AGE},
    )
    judged = decide(seen, Rules(orphans="relink"), HUB)
    assert judged.counts == {Verdict.ORPHAN: 1, Verdict.FOREIGN: 1}
    assert [one.name for one in judged.plan.actions] == [NAME]


@pytest.mark.parametrize("state", [LabState.ENDED, LabState.TERMINATING])
def test_a_lab_that_does_not_run_is_not_one_of_two(state):
    seen = observed(
        lab(),
        lab(OTHER, state, words=WORDS[state]),
        whose={NAME: identity(), OTHER: identity(uid="uid-2")},
    )
    judged = decide(seen, Rules(), HUB)
    assert judged.counts == {Verdict.ORPHAN: 1, Verdict(str(state)): 1}


def test_labs_of_two_servers_of_one_user_are_two_orphans():
    seen = observed(
        lab(), lab(GPU), whose={NAME: identity(), lab_name(GPU): identity(GPU, uid="uid-2")}
    )
    assert decide(seen, Rules(), HUB).counts == {Verdict.ORPHAN: 2}


def test_a_session_whose_lab_is_missing_does_not_hide_the_orphan_of_another_name():
    """After a changed pod_name_template: the one is stale, the other an orphan."""
    seen = observed(
        lab(OTHER), sessions=(session(), session(BOB)), whose={OTHER: identity(uid="uid-2")}
    )
    assert decide(seen, Rules(), HUB).counts == {Verdict.STALE: 2, Verdict.ORPHAN: 1}
