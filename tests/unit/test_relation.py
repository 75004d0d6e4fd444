"""Whose a claim is, by what is written on it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jhub_safety import owner as marks
from jhub_safety.owner import Owner
from jhub_safety.volumes.relation import Relation, describe, owner_of, relation
from tests.unit.given import ALICE, BOB, GPU, HUB, claim, hub_label, kubespawner, ours

WITH_ID = replace(ALICE, identity="sub-1")
OURS, KUBESPAWNER, UNMARKED, RELEASED, OTHER = Relation


@pytest.mark.parametrize(
    ("owner", "found", "how"),
    [
        pytest.param(ALICE, ours(ALICE), OURS, id="ours"),
        pytest.param(ALICE, ours(BOB), OTHER, id="another's"),
        pytest.param(ALICE, ours(GPU), OTHER, id="of a named server"),
        pytest.param(GPU, ours(ALICE), OTHER, id="of the default server"),
        pytest.param(ALICE, claim("x"), UNMARKED, id="nobody's"),
        pytest.param(ALICE, claim("x", labels=hub_label(HUB)), UNMARKED, id="this hub's, nobody's"),
        pytest.param(ALICE, claim("x", labels=hub_label("other")), OTHER, id="another hub's"),
        pytest.param(
            Owner("A hub!", "alice"), ours(Owner("A hub!", "alice")), OURS, id="a hub's odd name"
        ),
        pytest.param(
            ALICE, claim("x", ALICE.annotations("x")), OURS, id="of a hub without a label"
        ),
        pytest.param(
            replace(ALICE, hub="renamed"),
            claim("x", ALICE.annotations("x")),
            OURS,
            id="only a label makes it another hub's",
        ),
        pytest.param(ALICE, ours(ALICE, released=True), RELEASED, id="taken away"),
        pytest.param(
            ALICE, ours(replace(ALICE, hub="o"), released=True), OTHER, id="taken away elsewhere"
        ),
        pytest.param(ALICE, kubespawner("x", "alice"), KUBESPAWNER, id="KubeSpawner's"),
        pytest.param(GPU, kubespawner("x", "alice", "gpu"), KUBESPAWNER, id="KubeSpawner's, named"),
        pytest.param(GPU, kubespawner("x", "alice"), OTHER, id="KubeSpawner's, other server"),
        pytest.param(ALICE, kubespawner("x", "bob"), OTHER, id="KubeSpawner's, other user"),
        pytest.param(ALICE, kubespawner("x", "Alice"), OTHER, id="KubeSpawner's, other case"),
        pytest.param(
            ALICE,
            kubespawner("x", "alice", labels={"component": "extra-pvc"}),
            OTHER,
            id="an extra volume",
        ),
        pytest.param(
            ALICE,
            claim("x", {marks.KUBESPAWNER_USER: "alice", **BOB.annotations("x")}),
            OTHER,
            id="ours outweighs KubeSpawner's",
        ),
        pytest.param(WITH_ID, ours(WITH_ID), OURS, id="by identity"),
        pytest.param(replace(WITH_ID, user="x"), ours(WITH_ID), OURS, id="renamed account"),
        pytest.param(replace(WITH_ID, identity="2"), ours(WITH_ID), OTHER, id="recycled name"),
        pytest.param(WITH_ID, ours(ALICE), OURS, id="claim without identity"),
        pytest.param(ALICE, ours(WITH_ID), OURS, id="hub without identities"),
        pytest.param(replace(WITH_ID, server="gpu"), ours(WITH_ID), OTHER, id="identity, server"),
    ],
)
def test_relation(owner, found, how):
    assert relation(owner, found) is how


@pytest.mark.parametrize(
    ("found", "who"),
    [
        (claim("x"), "nobody"),
        (ours(ALICE), "alice of hub hub"),
        (ours(GPU), "alice/gpu of hub hub"),
        (kubespawner("x", "bob"), "bob"),
        (kubespawner("x", "bob", "gpu"), "bob/gpu"),
    ],
    ids=["nobody", "ours", "named server", "KubeSpawner's", "KubeSpawner's named server"],
)
def test_an_owner_is_told_in_words(found, who):
    assert owner_of(found) == who
    assert who in describe(found)
