"""What is known of each claim, and which of them a filter chooses."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jhub_safety import owner as marks
from jhub_safety.volumes.declared import parse_all
from jhub_safety.volumes.selection import (
    Filter,
    component_of,
    in_words,
    is_of,
    is_of_another,
    is_protected,
    totals,
)
from tests.unit.claim_rows import ENTRY, NOW, ago, extra, home, known, names, recipes, rows
from tests.unit.given import HUB, claim, hub_label, kubespawner

TEACHING = parse_all(
    [
        {
            "name": ENTRY,
            "capacity": "1Gi",
            "overrides": {
                "groups": {"db": {"capacity": "5Gi"}},
                "users": {"ada": {"capacity": "50Gi"}, "eve": {"capacity": "2Gi"}},
            },
        },
        {"name": "postgres-{username}", "capacity": "2Gi"},
    ]
)


@pytest.mark.parametrize(
    ("one", "component"),
    [
        pytest.param(home(), "home", id="a home"),
        pytest.param(extra(), "extra-pvc", id="an extra volume"),
        pytest.param(recipes("ada"), "extra-pvc", id="2i2c's"),
        pytest.param(claim("claim-ada-7"), "home", id="nothing is said: it may be a home"),
        pytest.param(claim("x", {marks.VOLUME: ENTRY}), "extra-pvc", id="annotation alone"),
        pytest.param(
            claim("x", {marks.VOLUME: ENTRY}, {"component": "singleuser-storage"}),
            "home",
            id="both are said: it may be a home",
        ),
        pytest.param(claim("hub-db-dir", {}, {"component": "hub"}), "hub", id="the hub's own"),
    ],
)
def test_only_what_says_so_itself_is_an_extra_volume(one, component):
    assert component_of(one) == component


@pytest.mark.parametrize(
    ("labels", "annotations", "ours", "anothers"),
    [
        pytest.param({}, {}, False, False, id="nothing"),
        pytest.param(hub_label(HUB), {}, True, False, id="label"),
        pytest.param(hub_label(HUB), {marks.HUB: HUB}, True, False, id="both"),
        pytest.param(hub_label("other"), {}, False, True, id="another's label"),
        pytest.param({}, {marks.HUB: "other"}, False, True, id="another's annotation"),
        pytest.param(hub_label(HUB), {marks.HUB: "other"}, False, True, id="they disagree"),
        pytest.param(hub_label("other"), {marks.HUB: HUB}, False, True, id="they disagree too"),
    ],
)
def test_a_claim_is_a_hubs_when_its_label_says_so_and_nothing_denies_it(
    labels, annotations, ours, anothers
):
    one = claim("x", annotations, labels)
    assert (is_of(one, HUB), is_of_another(one, HUB)) == (ours, anothers)


@pytest.mark.parametrize(
    ("value", "protected"),
    [("true", True), ("", True), ("no", True), ("False", True), ("false", False)],
)
def test_any_value_but_false_protects(value, protected):
    assert is_protected(claim("x", {marks.PROTECT: value})) is protected


def test_without_the_annotation_nothing_is_protected():
    assert not is_protected(claim("x"))


@pytest.mark.parametrize(
    ("one", "orphaned"),
    [
        pytest.param(extra("ada"), False, id="known"),
        pytest.param(extra("zoe"), True, id="unknown"),
        pytest.param(extra("zoe", "on-record"), False, id="a record names it"),
        pytest.param(home("zoe", "claim-of-record"), False, id="a record names it as home"),
        pytest.param(recipes("zoe"), True, id="by KubeSpawner's annotation"),
        pytest.param(claim("x"), None, id="nobody's"),
        pytest.param(extra("zoe", hub="other"), None, id="another hub's"),
    ],
)
def test_a_claim_is_orphaned_when_the_hub_knows_nobody_who_goes_by_it(one, orphaned):
    database = known("ada", volumes=frozenset({"on-record"}), homes=frozenset({"claim-of-record"}))
    [row] = rows(one, known=database)
    assert row.orphaned is orphaned


def test_without_the_database_nobody_is_an_orphan():
    assert [row.orphaned for row in rows(extra("ada"), home("ada"), recipes("bob"))] == [None] * 3


@pytest.mark.parametrize(
    ("one", "groups", "wanted"),
    [
        pytest.param(home("bob"), {}, "10Gi", id="a home"),
        pytest.param(extra("bob"), {}, "1Gi", id="an entry"),
        pytest.param(extra("bob"), {"bob": ("db", "x")}, "5Gi", id="by group"),
        pytest.param(extra("ada"), {"ada": ("db",)}, "50Gi", id="by name"),
        pytest.param(extra("eve"), {"eve": ("db",)}, "5Gi", id="by name, and a larger group"),
        pytest.param(recipes("bob"), {}, "2Gi", id="2i2c's, by the claim's name"),
        pytest.param(
            recipes("erin@school.edu", "postgres-erin-40school-2eedu"), {}, "2Gi", id="escaped"
        ),
        pytest.param(recipes("bob", "other-bob"), {}, "", id="not declared"),
        pytest.param(
            extra("bob", annotations={marks.VOLUME: "former-{username}"}), {}, "", id="former entry"
        ),
        pytest.param(extra("bob", hub="other"), {}, "", id="another hub's"),
        pytest.param(claim("hub-db-dir", {}, {"component": "hub"}), {}, "", id="the hub's own"),
    ],
)
def test_the_wanted_size_is_the_one_that_is_configured_for_its_owner(one, groups, wanted):
    [row] = rows(one, known=known("ada", groups=groups), volumes=TEACHING, home="10Gi")
    assert row.wanted == wanted


@pytest.mark.parametrize(
    ("one", "wanted"),
    [
        pytest.param(extra("bob"), None, id="by group, perhaps"),
        pytest.param(extra("ada"), "50Gi", id="by name"),
        pytest.param(extra("eve"), None, id="by name, and perhaps more by group"),
        pytest.param(recipes("bob"), "2Gi", id="no groups in the entry"),
        pytest.param(home("bob"), "10Gi", id="a home"),
    ],
)
def test_without_the_database_a_size_that_depends_on_groups_is_not_known(one, wanted):
    [row] = rows(one, volumes=TEACHING, home="10Gi")
    assert row.wanted == wanted


ALL = (
    home("ada", storage_class="fast", created=ago(days=400)),
    extra("ada", phase="Pending", volume=""),
    extra("bob", created=ago(days=200)),
    extra("zoe", deleting=True),
    extra("bob", "other-hubs", hub="other"),
    kubespawner("claim-gpu", "ada", "gpu", created=None),
)
MOUNTS = {"data-bob": ("jupyter-bob",)}


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        pytest.param(
            Filter(),
            ["claim-ada", "claim-gpu", "data-ada", "data-bob", "data-zoe", "other-hubs"],
            id="all",
        ),
        pytest.param(Filter(components=["home"]), ["claim-ada", "claim-gpu"], id="component"),
        pytest.param(Filter(owners=["ada"]), ["claim-ada", "claim-gpu", "data-ada"], id="owner"),
        pytest.param(Filter(owners=["ada/gpu"]), ["claim-gpu"], id="owner and server"),
        pytest.param(Filter(hubs=["other"]), ["other-hubs"], id="hub"),
        pytest.param(Filter(classes=["fast"]), ["claim-ada"], id="class"),
        pytest.param(Filter(phases=["pending"]), ["data-ada"], id="phase"),
        pytest.param(Filter(phases=["Terminating"]), ["data-zoe"], id="being deleted"),
        pytest.param(Filter(orphaned=True), ["data-zoe"], id="orphaned"),
        pytest.param(Filter(mounted=True), ["data-bob"], id="mounted"),
        pytest.param(
            Filter(mounted=False, components=["extra-pvc"]),
            ["data-ada", "data-zoe", "other-hubs"],
            id="unmounted extra volumes",
        ),
        pytest.param(
            Filter(older_than=timedelta(days=199)), ["claim-ada", "data-bob"], id="older than"
        ),
        pytest.param(Filter(owners=["ADA"]), [], id="nobody"),
    ],
)
def test_a_filter_chooses_what_it_says(asked, chosen):
    seen = rows(*ALL, known=known("ada", "bob"), mounts=MOUNTS)
    assert names(row for row in seen if asked.takes(row, NOW)) == chosen
    assert bool(asked) is (asked != Filter())


@pytest.mark.parametrize("mounted", [True, False])
def test_when_nobody_looked_a_claim_is_neither_mounted_nor_unmounted(mounted):
    assert not any(Filter(mounted=mounted).takes(row, NOW) for row in rows(*ALL))


def test_a_claim_without_a_date_is_never_old():
    [row] = rows(extra(created=None))
    assert not Filter(older_than=timedelta(seconds=1)).takes(row, NOW)


def test_sizes_are_summed_exactly_and_what_is_no_size_is_counted():
    found = totals(
        rows(
            extra("a", capacity="1Gi"),
            extra("b", capacity="1G"),
            extra("c", capacity="what?"),
            extra("d", capacity="1Gi", storage_class=""),
        )
    )
    assert [(one.storage_class, one.count, one.size, one.unreadable) for one in found] == [
        ("", 1, 2**30, 0),
        ("standard", 3, 2**30 + 10**9, 1),
    ]


@given(st.lists(st.sampled_from(["1Gi", "1G", "512Mi", "x", "0.5Gi"])))
def test_no_claim_is_lost_in_the_totals(sizes):
    found = totals(rows(*(extra("a", f"c{n}", capacity=size) for n, size in enumerate(sizes))))
    assert sum(one.count for one in found) == len(sizes)
    assert sum(one.unreadable for one in found) == sizes.count("x")


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (10 * 2**30, "10 Gi"),
        (3 * 2**29, "1.5 Gi"),
        (2**40, "1 Ti"),
        (5 * 2**50, "5 Pi"),
    ],
)
def test_a_size_is_told_as_people_write_it(size, words):
    assert in_words(Fraction(size)) == words
