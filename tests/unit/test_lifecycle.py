"""A home's later life: handed to a new name, or deleted; only ever its owner's."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import pytest

from jhub_safety import owner as marks
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.journal import Journal
from jhub_safety.owner import Owner
from jhub_safety.volumes.lifecycle import delete_own, hand_over, is_home_of
from jhub_safety.volumes.model import Verdict
from tests.unit.cluster_double import holding
from tests.unit.given import ALICE, BOB, GPU, HUB, claim, kubespawner, ours, question
from tests.unit.resolver_double import Stage

RENAMED = Owner(HUB, "alice.smith")


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "journal", log=logging.getLogger("tests.unit.lifecycle"))


@pytest.mark.parametrize(
    ("found", "generation"),
    [
        (ours(ALICE, "claim-alice"), "jhub-safety"),
        (kubespawner("claim-alice", "alice"), "saved-state"),
    ],
    ids=["ours", "KubeSpawner's"],
)
async def test_a_renamed_owner_keeps_the_claim(journal, found, generation):
    cluster = holding(found)
    changed = await hand_over(cluster, "claim-alice", ALICE, RENAMED, journal)
    assert changed == cluster.stored["claim-alice"]
    assert changed.uid == found.uid
    assert {
        key: changed.annotations[key] for key in RENAMED.annotations(generation)
    } == RENAMED.annotations(generation)
    [line] = map(json.loads, journal.path.read_text().splitlines())
    assert (line["kind"], line["name"], line["outcome"]) == (
        "annotate-claim",
        "claim-alice",
        "done",
    )


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (kubespawner("claim-alice", "alice"), ALICE.claim_name),
        (ours(ALICE), replace(ALICE, spare=1).claim_name),
    ],
    ids=["KubeSpawner's", "by our own name"],
)
async def test_whoever_has_the_old_name_next_gets_a_home_of_their_own(
    journal, tmp_path, found, name
):
    """They find it neither by our annotation nor by KubeSpawner's, which is still on it."""
    cluster = holding(found, ours(BOB))
    await hand_over(cluster, found.name, ALICE, RENAMED, journal)
    decision = await Stage(cluster, tmp_path).resolver.resolve(question())
    assert (decision.verdict, decision.name) == (Verdict.CREATE, name)


async def test_a_renamed_server_keeps_the_claim(journal):
    cluster = holding(ours(GPU))
    changed = await hand_over(cluster, GPU.claim_name, GPU, replace(GPU, server="big"), journal)
    assert changed.annotations[marks.SERVER] == "big"


@pytest.mark.parametrize(
    "found",
    [[], [ours(BOB, "claim-alice")], [claim("claim-alice")], [kubespawner("claim-alice", "bob")]],
    ids=["none", "another's", "nobody's", "KubeSpawner's for another"],
)
async def test_a_claim_that_is_not_the_old_owners_is_not_handed_over(journal, found):
    cluster = holding(*found)
    assert await hand_over(cluster, "claim-alice", ALICE, RENAMED, journal) is None
    assert cluster.writes() == []
    assert not journal.path.exists()


@pytest.mark.parametrize("error", [Conflict("modified"), Doubt("HTTP 403", status=403)], ids=str)
async def test_a_claim_that_cannot_be_handed_over_is_an_error(journal, error):
    """The rename is refused then: the next user of the old name would find it."""
    cluster = holding(ours(ALICE))
    cluster.faults["annotate"] = [error]
    with pytest.raises(type(error)):
        await hand_over(cluster, ALICE.claim_name, ALICE, RENAMED, journal)
    assert cluster.stored[ALICE.claim_name] == ours(ALICE)
    assert not journal.path.exists() or '"done"' not in journal.path.read_text()


@pytest.mark.parametrize("found", [ours(ALICE, "c"), kubespawner("c", "alice")], ids=["ours", "ks"])
async def test_an_own_claim_is_deleted(found):
    cluster = holding(found)
    assert await delete_own(cluster, "c", ALICE) == "deleted"
    assert cluster.stored == {}


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        ([], "there is none"),
        ([ours(BOB, "c")], "kept: it is not alice's"),
        ([claim("c")], "kept: it is not alice's"),
        ([ours(replace(ALICE, hub="other"), "c")], "kept: it is not alice's"),
        ([ours(ALICE, "c", released=True)], "kept: it is not alice's"),
        ([ours(GPU, "c")], "kept: it is not alice's"),
    ],
    ids=["none", "another's", "nobody's", "another hub's", "taken away", "another server's"],
)
async def test_any_other_claim_is_kept(found, outcome):
    """KubeSpawner deletes whatever has the name, when the user or server is deleted."""
    cluster = holding(*found)
    assert await delete_own(cluster, "c", ALICE) == outcome
    assert cluster.writes() == []


async def test_a_claim_that_cannot_be_read_is_kept():
    cluster = holding(ours(ALICE, "c"))
    cluster.faults["read"] = [Doubt("HTTP 500")]
    with pytest.raises(Doubt):
        await delete_own(cluster, "c", ALICE)
    assert cluster.writes() == []


async def test_a_claim_made_anew_since_it_was_read_is_kept():
    cluster = holding(ours(ALICE, "c"))
    other = ours(BOB, "c", uid="made-anew")
    cluster.meanwhile = lambda verb, _: verb == "delete" and cluster.put(other)
    with pytest.raises(Conflict):
        await delete_own(cluster, "c", ALICE)
    assert cluster.stored == {"c": other}


@pytest.mark.parametrize(
    ("owner", "found", "is_home"),
    [
        (ALICE, ours(ALICE), True),
        (ALICE, kubespawner("c", "alice"), True),
        (ALICE, claim("c"), False),
        (ALICE, ours(BOB), False),
        (ALICE, ours(GPU), False),
    ],
    ids=["ours", "KubeSpawner's", "nobody's", "another's", "another server's"],
)
def test_only_an_annotation_makes_a_claim_somebodys_home(owner, found, is_home):
    assert is_home_of(owner, found) is is_home
