"""The table of ``claims reattach``: which claims are made anew, and which are left alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from jhub_safety import owner as marks
from jhub_safety.cluster.claims import Claim
from jhub_safety.cluster.volumes import Volume
from jhub_safety.owner import label_value
from jhub_safety.volumes import reattach
from jhub_safety.volumes.export import pair
from jhub_safety.volumes.exported import Entry, Export
from jhub_safety.volumes.reattach import Row, Seen, decide_all
from jhub_safety.volumes.remake import (
    REATTACHED,
    Target,
    claim_manifest,
    volume_manifest,
    wanted,
)
from tests.unit.given import ALICE, BOB, HUB, NAMESPACE, claim, kubespawner, ours
from tests.unit.volumes_double import ELSEWHERE, bound, csi, volume

HERE = Target(NAMESPACE, HUB)
MAKING = Target(NAMESPACE, HUB, create_volumes=True)
THERE = Target("other", HUB)
HOME, DISK = bound(ours(ALICE, "home"))
REBIND = ("reserve-volume", "create-claim", "bind-claim")
RESERVED = {"namespace": NAMESPACE, "name": "home"}
HELD = {**RESERVED, "uid": HOME.uid}


def export_of(*pairs: tuple[Claim, Volume]) -> Export:
    claims = {one.name: one for one, _ in pairs}
    entries, left_out = pair(claims, {one.name: one for _, one in pairs})
    assert not left_out
    return Export("2026-11-21T18:00:00+00:00", ELSEWHERE, NAMESPACE, HUB, entries)


EXPORT = export_of((HOME, DISK))
PENDING = replace(HOME, uid="new", phase="Pending")
REBOUND = replace(HOME, uid="new")


def disk(holder: Any = HOME, **fields: Any) -> Volume:
    return volume(DISK.name, holder, **fields)


def decided(
    claims: tuple[Claim, ...],
    volumes: tuple[Volume, ...],
    target: Target = HERE,
    export: Export = EXPORT,
):
    seen = Seen.of({one.name: one for one in claims}, {one.name: one for one in volumes})
    planned = decide_all(export, target, seen)
    return planned.decisions


@pytest.mark.parametrize(
    ("claims", "volumes", "target", "row", "kinds"),
    [
        # The claim exists.
        pytest.param([HOME], [DISK], HERE, "done", (), id="nothing was lost"),
        pytest.param(
            [REBOUND], [disk(REBOUND, phase="Bound")], HERE, "done", (), id="reattached before"
        ),
        pytest.param(
            [replace(REBOUND, deleting=True)],
            [disk(REBOUND, phase="Bound")],
            HERE,
            "terminating",
            (),
            id="still being deleted",
        ),
        pytest.param(
            [replace(PENDING, volume="")], [disk()], HERE, "name-taken", (), id="a new one waits"
        ),
        pytest.param(
            [replace(REBOUND, volume="pv-new")],
            [disk()],
            HERE,
            "name-taken",
            (),
            id="a new and empty one was made by a start",
        ),
        pytest.param(
            [replace(ours(BOB, "home"), volume=DISK.name)],
            [disk()],
            HERE,
            "owner",
            (),
            id="another owner's claim has the volume",
        ),
        pytest.param(
            [replace(PENDING, labels={marks.HUB_LABEL: "hub2"})],
            [disk()],
            HERE,
            "owner",
            (),
            id="another hub's claim has the volume",
        ),
        pytest.param([replace(REBOUND, phase="Lost")], [], MAKING, "lost", (), id="lost"),
        # The volume is gone.
        pytest.param([], [], HERE, "missing", (), id="cluster lost"),
        pytest.param([PENDING], [], HERE, "missing", (), id="cluster lost, claim waits"),
        pytest.param(
            [],
            [],
            MAKING,
            "recreate",
            ("create-volume", "create-claim", "bind-claim"),
            id="cluster lost, volumes to be made",
        ),
        pytest.param(
            [PENDING],
            [],
            MAKING,
            "recreate",
            ("create-volume", "bind-claim"),
            id="volume to be made for a claim that waits",
        ),
        pytest.param(
            [],
            [volume("pv-x", spec=csi(f"disk-of-{DISK.name}"))],
            MAKING,
            "disk-in-use",
            (),
            id="the disk is another volume already",
        ),
        # The volume is there.
        pytest.param(
            [],
            [disk(), volume("pv-x", spec=csi(f"disk-of-{DISK.name}"))],
            HERE,
            "disk-in-use",
            (),
            id="the disk is another volume, too",
        ),
        pytest.param([], [disk()], HERE, "rebind", REBIND, id="namespace lost"),
        pytest.param([], [disk()], MAKING, "rebind", REBIND, id="namespace lost, --create-volumes"),
        pytest.param([], [disk()], THERE, "rebind", REBIND, id="into another namespace"),
        pytest.param(
            [], [disk(None, phase="Available")], HERE, "rebind", REBIND, id="freed by hand"
        ),
        pytest.param(
            [],
            [disk(RESERVED, phase="Available")],
            HERE,
            "rebind",
            REBIND[1:],
            id="killed after reserving",
        ),
        pytest.param(
            [],
            [disk(RESERVED, phase="Pending")],
            HERE,
            "rebind",
            REBIND[1:],
            id="killed after making the volume",
        ),
        pytest.param(
            [PENDING],
            [disk(RESERVED, phase="Available")],
            HERE,
            "wait",
            ("bind-claim",),
            id="killed after making the claim",
        ),
        pytest.param(
            [PENDING],
            [disk({**RESERVED, "uid": "new"}, phase="Bound")],
            HERE,
            "wait",
            ("bind-claim",),
            id="killed while Kubernetes binds them",
        ),
        pytest.param(
            [PENDING],
            [disk()],
            HERE,
            "wait",
            ("reserve-volume", "bind-claim"),
            id="a claim waits for a volume that is not free",
        ),
        pytest.param(
            [],
            [disk({**HELD, "uid": "second"}, annotations={REATTACHED: HOME.uid})],
            HERE,
            "rebind",
            REBIND,
            id="lost a second time",
        ),
        pytest.param([], [disk(size="20Gi")], HERE, "rebind", REBIND, id="grown since"),
        pytest.param(
            [], [disk(deleting=True)], HERE, "volume-deleting", (), id="being deleted by somebody"
        ),
        pytest.param(
            [], [disk(reclaim="Delete")], HERE, "volume-deleting", (), id="to be deleted by policy"
        ),
        pytest.param(
            [], [disk(spec=csi("disk-of-x"))], HERE, "other-volume", (), id="another disk"
        ),
        pytest.param([], [disk(size="5Gi")], HERE, "differs", (), id="smaller"),
        pytest.param(
            [], [disk(spec={"storageClassName": "fast"})], HERE, "differs", (), id="other class"
        ),
        pytest.param(
            [], [disk(spec={"volumeMode": "Block"})], HERE, "differs", (), id="block device"
        ),
        pytest.param(
            [],
            [disk(spec={"accessModes": ["ReadOnlyMany"]})],
            HERE,
            "differs",
            (),
            id="other access modes",
        ),
        pytest.param([], [disk(phase="Bound")], THERE, "in-use", (), id="bound where it was"),
        pytest.param(
            [],
            [disk({**RESERVED, "uid": "x"}, phase="Bound")],
            HERE,
            "in-use",
            (),
            id="bound to a claim that a listing did not show",
        ),
        pytest.param([], [disk(phase="Failed")], HERE, "unusable", (), id="failed"),
        pytest.param([], [disk(phase="")], HERE, "unusable", (), id="without a phase"),
        pytest.param(
            [],
            [disk({**HELD, "name": "home-of-bob"})],
            HERE,
            "not-theirs",
            (),
            id="was another claim's",
        ),
        pytest.param(
            [],
            [disk({**HELD, "namespace": "third"})],
            HERE,
            "not-theirs",
            (),
            id="was another namespace's",
        ),
        pytest.param(
            [],
            [disk({"namespace": NAMESPACE, "name": "bobs"}, phase="Available")],
            HERE,
            "not-theirs",
            (),
            id="reserved for another",
        ),
        pytest.param(
            [],
            [disk({**HELD, "uid": "second"})],
            HERE,
            "not-theirs",
            (),
            id="bound to another claim of that name since",
        ),
    ],
)
def test_the_table(claims, volumes, target, row, kinds):
    (decision,) = decided(tuple(claims), tuple(volumes), target)
    assert (decision.row, tuple(one.kind for one in decision.actions)) == (row, kinds)
    assert decision.refused == (row not in ("done", "wait", "rebind", "recreate"))


def test_every_row_is_in_the_table_above_in_the_docstring_and_in_the_documentation():
    tabled = {
        param.values[3]
        for mark in test_the_table.pytestmark
        if mark.name == "parametrize"
        for param in mark.args[1]
    }
    assert tabled | {"twice"} == {str(row) for row in Row}
    assert reattach.__doc__ is not None
    lines = [line.split() for line in reattach.__doc__.splitlines()]
    order = [words[0] for words in lines if words and words[0] in set(Row)]
    assert order == [str(row) for row in Row]
    text = (Path(__file__).resolve().parents[2] / "docs" / "moving.md").read_text()
    told = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]
    assert [word for word in told if word in set(Row)] == order


@pytest.mark.parametrize(
    ("twin", "disk"),
    [
        pytest.param(ours(BOB, "bobs"), volume("pv-bobs", spec=csi("disk-of-pv-home")), id="disk"),
        pytest.param(replace(ours(BOB, "bobs"), volume="pv-home"), DISK, id="volume"),
        pytest.param(replace(HOME, volume="pv-x"), volume("pv-x"), id="claim"),
    ],
)
def test_two_entries_with_one_thing_in_common_are_both_refused_and_no_other(twin, disk):
    carol = bound(claim("carols"))
    (bare_carol,) = export_of(carol).entries
    two = Entry(replace(twin, volume=disk.name), disk)
    export = replace(EXPORT, entries=(*EXPORT.entries, two, bare_carol))
    rows = [one.row for one in decided((), (), MAKING, export)]
    assert rows == [Row.TWICE, Row.TWICE, Row.RECREATE]


def test_one_directory_on_two_nodes_is_two_volumes():
    def on(node: str, name: str) -> tuple[Claim, Volume]:
        spec = {"hostPath": {"path": "/data"}, "nodeAffinity": {"required": node}}
        one, _ = bound(claim(name))
        return one, volume(one.volume, one, phase="Bound", spec=spec)

    export = export_of(on("one", "a"), on("two", "b"))
    assert {one.row for one in decided((), (), MAKING, export)} == {Row.RECREATE}


def test_a_directory_that_is_made_for_several_may_be_several_volumes():
    spec = {"nfs": {"server": "files", "path": "/shared"}, "accessModes": ["ReadWriteMany"]}

    def on(name: str) -> tuple[Claim, Volume]:
        one, _ = bound(claim(name))
        one = replace(one, access_modes=("ReadWriteMany",))
        return one, volume(one.volume, one, spec=spec)

    pairs = on("a"), on("b")
    other = volume("pv-of-another-hub", spec=spec)
    rows = {one.row for one in decided((), (other,), MAKING, export_of(*pairs))}
    assert rows == {Row.RECREATE}
    there = (*(pv for _, pv in pairs), other)
    assert {one.row for one in decided((), there, HERE, export_of(*pairs))} == {Row.REBIND}


# -- what is made


def test_a_claim_is_made_as_it_was():
    (entry,) = EXPORT.entries
    made = claim_manifest(wanted(EXPORT, entry, HERE))
    assert made.metadata.name == "home"
    assert (made.metadata.annotations, made.metadata.labels) == (HOME.annotations, HOME.labels)
    assert made.spec.access_modes == ["ReadWriteOnce"]
    assert made.spec.resources.requests == {"storage": "10Gi"}
    assert (made.spec.storage_class_name, made.spec.volume_name) == ("standard", DISK.name)


def test_no_class_is_said_so_that_the_default_class_does_not_count():
    (entry,) = EXPORT.entries
    made = claim_manifest(replace(wanted(EXPORT, entry, HERE), storage_class=""))
    assert made.spec.storage_class_name == ""


def test_a_claim_asks_for_no_more_than_its_volume_has():
    """It was about to grow; a claim that asks for more than its volume has is never bound."""
    home, pv = bound(ours(ALICE, "home"))
    export = export_of((replace(home, capacity="50Gi"), pv))
    assert wanted(export, export.entries[0], HERE).capacity == "10Gi"


def test_in_another_hub_the_claims_of_the_exported_one_are_that_hubs_and_no_others():
    foreign = replace(BOB, hub="third")
    export = export_of(
        (HOME, DISK), bound(ours(foreign, "foreign")), bound(kubespawner("old", "x"))
    )
    there = Target("other", "new hub!")
    made = {one.claim.name: wanted(export, one, there) for one in export.entries}
    label = label_value("new hub!")
    assert made["home"].annotations == {**HOME.annotations, marks.HUB: "new hub!"}
    assert made["home"].labels == {**HOME.labels, marks.HUB_LABEL: label}
    assert made["foreign"].annotations == foreign.annotations("jhub-safety")
    assert made["foreign"].labels == foreign.labels()
    assert made["old"].annotations == {marks.KUBESPAWNER_USER: "x"}
    assert {one.namespace for one in made.values()} == {"other"}


def test_a_volume_is_made_for_its_claim_only_and_is_kept():
    home, pv = bound(ours(ALICE, "home"), reclaim="Delete")
    pv = replace(pv, labels=MappingProxyType({"zone": "a"}))
    export = export_of((home, pv))
    made = volume_manifest(export.entries[0], Target("other", HUB, create_volumes=True))
    assert made["metadata"] == {
        "name": pv.name,
        "labels": {"zone": "a"},
        "annotations": {REATTACHED: home.uid},
    }
    assert made["spec"] == {
        **pv.spec,
        "persistentVolumeReclaimPolicy": "Retain",
        "claimRef": {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "namespace": "other",
            "name": "home",
        },
    }
