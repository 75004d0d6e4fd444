"""``claims export``: which claims go into the file, which volumes are kept, and the file itself."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import pytest

from jhub_safety.errors import Conflict, Doubt, SafetyError
from jhub_safety.journal import Journal
from jhub_safety.volumes.export import execute, pair, plan_retaining, refuse_existing, write
from tests.unit.cluster_double import holding
from tests.unit.given import ALICE, BOB, claim, ours
from tests.unit.volumes_double import VolumesDouble, bound, volume


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "journal", log=logging.getLogger("tests.unit.export"))


HOME, DISK = bound(ours(ALICE, "home"))


@pytest.mark.parametrize(
    ("one", "volumes", "left_out"),
    [
        pytest.param(HOME, [DISK], None, id="bound"),
        pytest.param(replace(HOME, volume=""), [DISK], ("no data", False), id="no volume yet"),
        pytest.param(replace(HOME, deleting=True), [DISK], None, id="its end is not over"),
        pytest.param(HOME, [], ("not in the cluster", True), id="volume gone"),
        pytest.param(
            HOME, [volume(DISK.name, claim("x"))], ("not bound to it", True), id="another's volume"
        ),
        pytest.param(HOME, [volume(DISK.name)], ("not bound to it", True), id="nobody's volume"),
    ],
)
def test_a_claim_is_in_the_file_with_its_volume_or_it_is_said_why_not(one, volumes, left_out):
    entries, out = pair({one.name: one}, {pv.name: pv for pv in volumes})
    if left_out is None:
        assert [(entry.claim.name, entry.volume.name) for entry in entries] == [("home", DISK.name)]
        assert out == ()
    else:
        (told,) = out
        assert (entries, told.name, told.lost) == ((), "home", left_out[1])
        assert left_out[0] in told.why


def three():
    """Alice's volume is deleted with its claim, Bob's is kept, Carol's is of another policy."""
    pairs = [
        bound(ours(ALICE, "a"), reclaim="Delete"),
        bound(ours(BOB, "b")),
        bound(claim("c"), reclaim="Recycle"),
    ]
    cluster = holding(*(one for one, _ in pairs))
    return cluster, VolumesDouble(cluster).put(*(pv for _, pv in pairs))


def plan_for(cluster, volumes):
    entries, _ = pair(cluster.stored, volumes.stored)
    return plan_retaining(cluster.stored, volumes.stored, entries), entries


def test_only_volumes_that_would_go_with_their_claims_are_in_the_plan():
    plan, _ = plan_for(*three())
    assert [(one.kind, one.name) for one in plan.actions] == [
        ("retain-volume", "pv-a"),
        ("retain-volume", "pv-c"),
    ]
    assert plan.actions[0].reason == "of claim a, alice of hub hub, 10Gi: Delete -> Retain"


def test_the_plan_says_which_claim_is_being_deleted():
    cluster, volumes = three()
    cluster.put(replace(cluster.stored["a"], deleting=True))
    plan, _ = plan_for(cluster, volumes)
    assert plan.actions[0].reason == (
        "of claim a, alice of hub hub, 10Gi, which is being deleted: Delete -> Retain"
    )


async def test_every_volume_is_kept_afterwards_and_nothing_else_has_changed(journal):
    cluster, volumes = three()
    before = dict(volumes.stored)
    plan, entries = plan_for(cluster, volumes)
    outcomes = await execute(plan, entries, volumes, journal)
    assert [one.result for one in outcomes] == ["done", "done"]
    assert {name: pv.reclaim for name, pv in volumes.stored.items()} == dict.fromkeys(
        before, "Retain"
    )
    assert {name: pv.holder for name, pv in volumes.stored.items()} == {
        name: pv.holder for name, pv in before.items()
    }
    assert cluster.writes() == []
    assert plan_for(cluster, volumes)[0].actions == ()


async def test_one_volume_that_cannot_be_kept_does_not_stop_the_others(journal):
    cluster, volumes = three()
    plan, entries = plan_for(cluster, volumes)
    volumes.faults["patch"] = [Doubt("HTTP 500")]
    outcomes = await execute(plan, entries, volumes, journal)
    assert [(one.action.name, one.result) for one in outcomes] == [
        ("pv-a", "failed: HTTP 500"),
        ("pv-c", "done"),
    ]
    lines = [json.loads(line) for line in journal.path.read_text().splitlines()]
    assert [(line["name"], line["outcome"]) for line in lines] == [
        ("pv-a", "failed: HTTP 500"),
        ("pv-c", "done"),
    ]


async def test_a_volume_that_is_another_claims_meanwhile_is_left_as_it_is(journal):
    cluster, volumes = three()
    plan, entries = plan_for(cluster, volumes)
    volumes.put(volume("pv-a", claim("thief"), phase="Bound", reclaim="Delete"))
    outcomes = await execute(plan, entries, volumes, journal)
    assert [one.failed for one in outcomes] == [True, False]
    assert volumes.stored["pv-a"].reclaim == "Delete"


async def test_a_second_run_changes_nothing_and_fails_nothing(journal):
    cluster, volumes = three()
    plan, entries = plan_for(cluster, volumes)
    await execute(plan, entries, volumes, journal)
    writes = volumes.writes()
    outcomes = await execute(plan, entries, volumes, journal)
    assert [one.failed for one in outcomes] == [False, False]
    assert volumes.writes() == writes
    assert json.loads(journal.path.read_text().splitlines()[-1])["outcome"] == "unchanged"


async def test_the_double_refuses_what_the_real_one_refuses():
    _, volumes = three()
    with pytest.raises(Conflict):
        await volumes.retain("pv-a", "another uid")


# -- the file


def names_in(folder) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def test_the_file_is_whole_and_for_its_owner_alone(tmp_path):
    path = tmp_path / "claims.json"
    write(path, "ü\n", overwrite=False)
    assert path.read_text(encoding="utf-8") == "ü\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert names_in(tmp_path) == ["claims.json"]


@pytest.mark.parametrize("kind", ["file", "link", "dangling link"])
def test_what_is_there_is_kept(tmp_path, kind):
    path = tmp_path / "claims.json"
    if kind == "file":
        path.write_text("old")
    else:
        path.symlink_to(tmp_path / "elsewhere")
        if kind == "link":
            (tmp_path / "elsewhere").write_text("old")
    before = names_in(tmp_path)
    for attempt in (lambda: refuse_existing(path), lambda: write(path, "new", overwrite=False)):
        with pytest.raises(SafetyError, match="exists; nothing was changed"):
            attempt()
    assert names_in(tmp_path) == before
    assert kind == "dangling link" or path.read_text() == "old"


def test_overwriting_is_one_step_and_does_not_follow_a_link(tmp_path):
    path, other = tmp_path / "claims.json", tmp_path / "other"
    other.write_text("old")
    path.symlink_to(other)
    write(path, "new", overwrite=True)
    assert (path.read_text(), other.read_text(), path.is_symlink()) == ("new", "old", False)


def test_a_file_that_cannot_be_written_whole_is_not_there(tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jhub_safety.volumes.export.os.fsync", full)
    with pytest.raises(SafetyError, match="No space left on device; nothing was exported"):
        write(tmp_path / "claims.json", "x", overwrite=True)
    assert names_in(tmp_path) == []


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(SafetyError, match="cannot be written"):
        write(tmp_path / "none" / "claims.json", "x", overwrite=False)
