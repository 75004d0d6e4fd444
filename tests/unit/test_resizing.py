"""Which claims grow at an operator's word, to what, and which never do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jhub_safety import owner as marks
from jhub_safety import quantity
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.journal import Journal, NotWritten
from jhub_safety.volumes.declared import parse_all
from jhub_safety.volumes.resizing import execute, growth_of, homes_left_out, plan_resizes
from tests.unit.claim_rows import ENTRY, extra, home, known, names, recipes, rows
from tests.unit.cluster_double import holding
from tests.unit.given import HUB, claim

GROUPS = {"groups": {"db": {"capacity": "8Gi"}}}
VOLUMES = parse_all([{"name": ENTRY, "capacity": "4Gi", "overrides": GROUPS}])


def planned(*claims, named=(), to="", limit=10.0, database=None, **more):
    found = rows(*claims, known=database, volumes=VOLUMES, home="20Gi", **more)
    return plan_resizes(found, named, hub=HUB, to=to, limit=limit, homes={"on-record"})


KNOWN = known("ada", "bob", groups={"bob": ("db",)})


@pytest.mark.parametrize(
    ("one", "asked", "outcome"),
    [
        pytest.param(extra("ada"), {}, "4Gi", id="to what is configured"),
        pytest.param(extra("bob"), {}, "8Gi", id="to what is configured for the group"),
        pytest.param(home("ada"), {}, None, id="a home, by filter"),
        pytest.param(home("ada"), {"to": "50Gi"}, None, id="a home, by filter, to what is asked"),
        pytest.param(claim("x", capacity="1Gi"), {"to": "2Gi"}, None, id="what may be a home"),
        pytest.param(extra("ada", "on-record"), {"to": "2Gi"}, None, id="on record as a home"),
        pytest.param(home("ada"), {"named": ["claim-ada"]}, "20Gi", id="a home, by name"),
        pytest.param(extra("ada"), {"to": "3Gi"}, "3Gi", id="to what is asked for"),
        pytest.param(extra("ada", capacity="4096Mi"), {}, None, id="as wanted"),
        pytest.param(extra("ada", capacity="5Gi"), {}, "smaller", id="never smaller"),
        pytest.param(extra("ada", capacity="?"), {}, "unreadable", id="no size"),
        pytest.param(extra("ada"), {"to": "11Gi"}, "too-much", id="more than tenfold"),
        pytest.param(extra("ada"), {"to": "11Gi", "limit": 0.0}, "11Gi", id="it is meant"),
        pytest.param(extra("ada", deleting=True), {}, "terminating", id="being deleted"),
        pytest.param(
            extra("ada", annotations={marks.PROTECT: "true"}), {}, "protected", id="protected"
        ),
        pytest.param(extra("ada", hub="other"), {}, "other-hub", id="another hub's"),
        pytest.param(
            extra("ada", hub="other"),
            {"named": ["data-ada"], "to": "2Gi"},
            "other-hub",
            id="another hub's, by name",
        ),
        pytest.param(recipes("ada"), {"to": "2Gi"}, "unlabelled", id="without a label"),
        pytest.param(
            recipes("ada"),
            {"named": ["postgres-ada"], "to": "2Gi"},
            "2Gi",
            id="without a label, by name",
        ),
        pytest.param(extra("ada", annotations={marks.VOLUME: "x"}), {}, None, id="not declared"),
        pytest.param(
            extra("ada", annotations={marks.VOLUME: "x"}),
            {"named": ["data-ada"]},
            "no-size",
            id="not declared, by name",
        ),
        pytest.param(
            claim("hub-db-dir", {}, {"component": "hub"}, capacity="1Gi"),
            {"to": "2Gi"},
            "unlabelled",
            id="the hub's own",
        ),
    ],
)
def test_a_claim_grows_by_the_rules_of_a_start(one, asked, outcome):
    plan = planned(one, database=KNOWN, **asked)
    grown = [action.capacity for action in plan.actions]
    codes = [refusal.code.replace(" ", "-") for refusal in plan.refusals]
    assert grown + codes == ([] if outcome is None else [outcome])


def test_without_the_database_a_size_that_may_depend_on_groups_is_refused():
    plan = planned(extra("ada"), home("ada"), named=["data-ada", "claim-ada"])
    assert names(plan.actions) == ["claim-ada"]
    assert [(one.code, one.who) for one in plan.refusals] == [("no-size", "data-ada")]


def test_homes_that_a_filter_has_chosen_are_told_as_left_out_and_no_others():
    found = rows(
        extra("ada"),
        home("ada"),
        home("bob"),
        home("eve", hub="other"),
        extra("eve", "on-record"),
        claim("x"),
    )
    told = homes_left_out(found, ["claim-bob"], hub=HUB, homes={"on-record"})
    assert set(told) == {"claim-ada", "on-record", "x"}


def test_a_name_that_does_not_exist_is_refused_and_the_others_grow():
    plan = planned(extra("ada"), named=["data-ada", "typo"], to="2Gi")
    assert names(plan.actions) == ["data-ada"]
    assert [(one.code, one.who) for one in plan.refusals] == [("missing", "typo")]


_sizes = st.sampled_from(["512Mi", "1Gi", "1G", "2Gi", "9Gi", "100Gi", "1Ti", "x"])


@given(st.lists(_sizes, max_size=6), _sizes.filter(lambda size: size != "x"))
def test_nothing_ever_shrinks_or_grows_more_than_tenfold(sizes, to):
    found = [extra("ada", f"c{n}", capacity=size) for n, size in enumerate(sizes)]
    plan = planned(*found, to=to)
    before = {one.name: one.capacity for one in found}
    for action in plan.actions:
        ratio = quantity.storage(action.capacity) / quantity.storage(before[action.name])
        assert 1 < ratio <= 10
    assert growth_of(plan, rows(*found)) >= len(plan.actions)


# -- acting


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "journal.jsonl")


async def run(plan, cluster, journal, limit=10.0):
    found = await execute(plan, cluster, journal, limit=limit)
    return {one.action.name: one.result for one in found}


async def test_exactly_the_planned_claims_grow_and_it_may_be_run_again(journal):
    claims = (extra("ada"), home("ada"), extra("bob", hub="other"))
    cluster = holding(*claims)
    plan = planned(extra("ada"), to="2Gi")
    assert await run(plan, cluster, journal) == {"data-ada": "done"}
    assert {name: one.capacity for name, one in cluster.stored.items()} == {
        "data-ada": "2Gi",
        "claim-ada": "10Gi",
        "data-bob": "1Gi",
    }
    assert await run(plan, cluster, journal) == {"data-ada": "done"}
    assert cluster.writes() == [("resize", "data-ada")]
    assert [(line["kind"], line["capacity"], line["outcome"]) for line in journal.lines()] == [
        ("resize-claim", "2Gi", "begun"),
        ("resize-claim", "2Gi", "done"),
        ("resize-claim", "2Gi", "done"),
    ]


@pytest.mark.parametrize(
    ("now", "words"),
    [
        pytest.param(None, "not the one that was planned for", id="gone"),
        pytest.param(extra("ada", uid="2"), "not the one that was planned for", id="made anew"),
        pytest.param(extra("ada", deleting=True), "not the one", id="being deleted"),
        pytest.param(extra("ada", capacity="5Gi"), "cannot shrink", id="larger by now"),
        pytest.param(extra("ada", capacity="100Mi"), "more than 10 times", id="smaller by now"),
        pytest.param(
            extra("ada", annotations={marks.PROTECT: ""}), "protected meanwhile", id="protected"
        ),
    ],
)
async def test_what_is_not_as_it_was_is_left_alone(journal, now, words):
    cluster = holding(*([now] if now else []))
    result = await run(planned(extra("ada"), to="2Gi"), cluster, journal)
    assert result["data-ada"].startswith("failed: ")
    assert words in result["data-ada"]
    assert cluster.writes() == []


@pytest.mark.parametrize("error", [Doubt("HTTP 403 quota"), Conflict("modified")], ids=type)
async def test_one_that_fails_is_told_and_the_others_grow(journal, error):
    claims = (extra("ada"), extra("bob"))
    cluster = holding(*claims)
    cluster.faults["resize"] = [error]
    result = await run(planned(*claims, to="2Gi"), cluster, journal)
    assert result == {"data-ada": f"failed: {error}", "data-bob": "done"}
    assert cluster.stored["data-ada"] == claims[0]
    assert cluster.stored["data-bob"].capacity == "2Gi"


async def test_nothing_grows_that_the_journal_could_not_take_before(tmp_path):
    claims = (extra("ada"), extra("bob"))
    cluster = holding(*claims)
    with pytest.raises(NotWritten):
        await run(planned(*claims, to="2Gi"), cluster, Journal(tmp_path / "missing" / "j"))
    assert cluster.writes() == []


def test_a_claim_of_a_class_that_is_not_known_is_no_reason_to_stop():
    assert planned(replace(extra("ada"), storage_class=""), to="2Gi").actions
