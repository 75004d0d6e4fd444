"""The file of ``claims export``: what goes in comes out, and all else is refused in a sentence."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jhub_safety import owner as marks
from jhub_safety.cluster.claims import Claim
from jhub_safety.cluster.volumes import Volume
from jhub_safety.errors import SafetyError
from jhub_safety.volumes.exported import Entry, Export, LeftOut, bare, dump, handle, in_words, parse
from tests.unit.given import ALICE, NAMESPACE, claim, kubespawner, ours
from tests.unit.volumes_double import bound, csi, volume

FILE = "claims.json"
MADE = "2026-11-21T18:00:00+00:00"
HOME, DISK = bound(ours(ALICE, "home"))
EXPORT = Export(
    MADE,
    "https://old",
    NAMESPACE,
    "hub",
    (bare(HOME, DISK),),
    (LeftOut("pending", "it has no volume yet"), LeftOut("gone", "its volume is gone", lost=True)),
)

# -- round trip

# Halves of surrogate pairs are no text for the API server.
_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
_names = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
_keys = st.from_regex(r"([a-z]{1,8}\.example/)?[A-Za-z0-9]{1,20}", fullmatch=True)
_labels = st.dictionaries(_keys, st.from_regex(r"([A-Za-z0-9]{1,20})?", fullmatch=True), max_size=3)
_annotations = st.dictionaries(_keys, _texts, max_size=3)
_sizes = st.one_of(st.integers(1, 2**50).map(str), st.builds("{}Gi".format, st.integers(1, 10**6)))
_modes = st.lists(
    st.sampled_from(["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"]),
    min_size=1,
    unique=True,
)
_anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), _texts),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(_texts, inner, max_size=2)
    ),
    max_leaves=6,
)
_sources = st.one_of(
    st.builds(
        lambda handle, more: {"csi": {**more, "driver": "d", "volumeHandle": handle}},
        _texts,
        st.dictionaries(_texts, _anything, max_size=2),
    ),
    st.just({"nfs": {"server": "files", "path": "/exports/a"}}),
    st.just({"hostPath": {"path": "/data/a b", "type": ""}}),
    st.just({"local": {"path": "/mnt/disk"}}),
)
_volumes = st.builds(
    lambda name, labels, annotations, where, size, modes, affinity: Volume(
        name,
        labels=MappingProxyType(labels),
        annotations=MappingProxyType(annotations),
        spec=MappingProxyType(
            {
                **where,
                "capacity": {"storage": size},
                "accessModes": modes,
                "nodeAffinity": affinity,
                "persistentVolumeReclaimPolicy": "Retain",
            }
        ),
    ),
    *(_names, _labels, _annotations, _sources, _sizes, _modes),
    st.dictionaries(_texts, _anything, max_size=2),
)
_claims = st.builds(
    lambda name, uid, labels, annotations, **fields: Claim(
        name,
        NAMESPACE,
        uid=uid,
        labels=MappingProxyType(labels),
        annotations=MappingProxyType(annotations),
        **fields,
    ),
    *(_names, st.uuids().map(str), _labels, _annotations),
    capacity=_sizes,
    storage_class=st.one_of(st.just(""), _names),
    access_modes=_modes.map(tuple),
    volume_mode=st.sampled_from(["Filesystem", "Block"]),
    attributes_class=st.one_of(st.just(""), _names),
)
_entries = st.builds(
    lambda claim, volume: Entry(replace(claim, volume=volume.name), volume), _claims, _volumes
)
_exports = st.builds(
    Export,
    *(st.just(MADE), _texts, st.just(NAMESPACE), _texts),
    st.lists(_entries, max_size=3).map(tuple),
    st.lists(st.builds(LeftOut, _texts, _texts, st.booleans()), max_size=2).map(tuple),
)


@given(_exports)
def test_what_was_written_is_what_is_read(export):
    text = dump(export)
    assert parse(text, FILE) == export
    assert text.isascii()


def test_owners_are_told_for_people_and_not_read():
    body = json.loads(dump(EXPORT))
    assert body["claims"][0]["owner"] == "alice of hub hub"
    body["claims"][0]["owner"] = "mallory"
    assert parse(json.dumps(body), FILE) == EXPORT


# -- what is kept


def test_what_kubernetes_wrote_for_itself_is_left_out_of_a_claim():
    written = {
        "pv.kubernetes.io/bind-completed": "yes",
        "pv.kubernetes.io/bound-by-controller": "yes",
        "volume.kubernetes.io/storage-provisioner": "x",
        "volume.kubernetes.io/selected-node": "node-1",
        "volume.beta.kubernetes.io/storage-provisioner": "x",
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
    }
    kept = {marks.KUBESPAWNER_USER: "alice", marks.USER: "alice", "team.example/cost": "7"}
    one, pv = bound(claim("home", {**written, **kept}, {"app.kubernetes.io/name": "x"}))
    entry = bare(one, pv)
    assert entry.claim.annotations == kept
    assert entry.claim.labels == {"app.kubernetes.io/name": "x"}


def test_a_class_as_it_was_written_before_1_6_is_the_claims_class():
    one, pv = bound(claim("home", {"volume.beta.kubernetes.io/storage-class": "gold"}))
    entry = bare(replace(one, storage_class=""), pv)
    assert (entry.claim.storage_class, entry.claim.annotations) == ("gold", {})


def test_a_volume_keeps_what_its_driver_knows_it_by_and_not_its_claim():
    written = {
        "pv.kubernetes.io/provisioned-by": "disk.example",
        "volume.kubernetes.io/provisioner-deletion-secret-name": "s",
        "pv.kubernetes.io/bound-by-controller": "yes",
    }
    one, pv = bound(claim("home"), annotations=written)
    entry = bare(one, pv)
    assert set(entry.volume.annotations) == {
        "pv.kubernetes.io/provisioned-by",
        "volume.kubernetes.io/provisioner-deletion-secret-name",
    }
    assert dict(entry.volume.spec) == {k: v for k, v in pv.spec.items() if k != "claimRef"}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param(csi("a"), csi("a"), True, id="one disk"),
        pytest.param(csi("a"), csi("b"), False, id="two disks"),
        pytest.param(
            {"csi": {**csi("a")["csi"], "fsType": "xfs"}}, csi("a"), True, id="mounted otherwise"
        ),
        pytest.param(
            {"csi": {"driver": "x", "volumeHandle": "a"}},
            {"csi": {"driver": "y", "volumeHandle": "a"}},
            False,
            id="two drivers",
        ),
        pytest.param(
            {"nfs": {"server": "a", "path": "/x"}},
            {"nfs": {"path": "/x", "server": "a"}},
            True,
            id="in another order",
        ),
        pytest.param(
            {"hostPath": {"path": "/x"}, "nodeAffinity": {"on": "a"}},
            {"hostPath": {"path": "/x"}, "nodeAffinity": {"on": "b"}},
            False,
            id="two nodes",
        ),
    ],
)
def test_two_volumes_are_one_disk_by_where_the_data_is(one, other, same):
    handles = {handle(volume("a", spec=one)), handle(volume("b", spec=other))}
    assert (len(handles) == 1) is same


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        pytest.param(csi("vol-1"), "csi disk.example vol-1", id="csi"),
        pytest.param({"nfs": {"server": "a", "path": "/x"}}, "nfs a /x", id="nfs"),
        pytest.param({"hostPath": {"path": "/x", "type": ""}}, "hostPath /x", id="host path"),
    ],
)
def test_a_plan_says_where_the_data_is(spec, words):
    assert in_words(volume("a", spec=spec)) == words


# -- what is no such file


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("", "it is no JSON", id="empty"),
        pytest.param(dump(EXPORT)[:-30], "it is no JSON", id="cut off"),
        pytest.param("[" * 100_000, "it is no JSON", id="too deep"),
        pytest.param("[]", "no format", id="a list"),
        pytest.param("null", "no format", id="null"),
        pytest.param('{"kind": "List", "items": []}', "no format", id="of kubectl"),
        pytest.param('{"format": "jhub-safety/claims", "version": NaN}', "no JSON", id="NaN"),
        pytest.param('{"format": "jhub-safety/claims"}', "version None", id="no version"),
        pytest.param('{"format": "jhub-safety/claims", "version": 2}', "version 2", id="newer"),
        pytest.param(
            '{"format": "jhub-safety/claims", "version": true}', "version True", id="true"
        ),
        pytest.param('{"format": "jhub-safety/claims", "version": "1"}', "version '1'", id="text"),
        pytest.param('{"format": "jhub-safety/claims", "version": 1}', "namespace", id="no more"),
    ],
)
def test_what_is_no_such_file_is_said_in_a_sentence(text, words):
    with pytest.raises(SafetyError, match=re.escape(words)) as error:
        parse(text, FILE)
    assert str(error.value).startswith(FILE)


ESCAPE = "home\x1b[2J"
LONG = "a" * 300


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param("namespace", "../kube-system", id="namespace with a path"),
        pytest.param("namespace", "a" * 64, id="long namespace"),
        pytest.param("namespace", None, id="no namespace"),
        pytest.param("hub", 7, id="hub is a number"),
        pytest.param("claims", {}, id="claims are no list"),
        pytest.param("claims", ["home"], id="claims are no objects"),
        pytest.param("run", "rm -rf", id="unknown key at the top"),
        pytest.param("left_out.0.lost", "yes", id="lost is no truth"),
        pytest.param("claims.0.more", 1, id="unknown key of an entry"),
        pytest.param("claims.0.claim", [], id="claim is a list"),
        pytest.param("claims.0.claim.name", "../home", id="claim name with a path"),
        pytest.param("claims.0.claim.name", "a/b", id="claim name with a slash"),
        pytest.param("claims.0.claim.name", ESCAPE, id="claim name with an escape sequence"),
        pytest.param("claims.0.claim.name", "home\n", id="claim name with a line break"),
        pytest.param("claims.0.claim.name", "", id="no claim name"),
        pytest.param("claims.0.claim.name", LONG, id="long claim name"),
        pytest.param("claims.0.claim.name", ["home"], id="claim name is a list"),
        pytest.param("claims.0.claim.uid", "", id="no uid"),
        pytest.param("claims.0.claim.uid", "\x1b[2J", id="uid with an escape sequence"),
        pytest.param("claims.0.claim.capacity", "-1Gi", id="negative size"),
        pytest.param("claims.0.claim.capacity", "1500m", id="no whole bytes"),
        pytest.param("claims.0.claim.capacity", 10, id="size is a number"),
        pytest.param("claims.0.claim.access_modes", [], id="no access mode"),
        pytest.param("claims.0.claim.access_modes", ["Any"], id="unknown access mode"),
        pytest.param("claims.0.claim.access_modes", "ReadWriteOnce", id="access modes are text"),
        pytest.param("claims.0.claim.storage_class", "a b", id="class with a blank"),
        pytest.param("claims.0.claim.volume_mode", "Tape", id="unknown volume mode"),
        pytest.param("claims.0.claim.labels", {"x": "a b"}, id="no value of a label"),
        pytest.param("claims.0.claim.labels", {"x": 1}, id="label is a number"),
        pytest.param("claims.0.claim.annotations", {"a b": "x"}, id="no key of an annotation"),
        pytest.param("claims.0.claim.annotations", {"x": "\ud800"}, id="half a surrogate pair"),
        pytest.param("claims.0.claim.annotations", {"x": None}, id="annotation is null"),
        pytest.param("claims.0.claim.annotations", None, id="no annotations"),
        pytest.param("claims.0.claim.ownerReferences", [], id="unknown key of a claim"),
        pytest.param("claims.0.volume.name", "pv/../x", id="volume name with a path"),
        pytest.param("claims.0.volume.spec", {}, id="empty spec"),
        pytest.param("claims.0.volume.spec.csi.driver", None, id="csi without a driver"),
        pytest.param("claims.0.volume.spec.csi.volumeHandle", 1, id="handle is a number"),
        pytest.param("claims.0.volume.spec.csi", "x", id="source is text"),
        pytest.param("claims.0.volume.spec.emptyDir", {}, id="unknown source beside"),
        pytest.param("claims.0.volume.spec.nfs", {"path": "/"}, id="two sources"),
        pytest.param("claims.0.volume.spec.claimRef", {"name": "x"}, id="given to another claim"),
        pytest.param("claims.0.volume.spec.capacity", "10Gi", id="capacity is text"),
        pytest.param("claims.0.volume.spec.capacity", {"storage": "x"}, id="no size"),
        pytest.param("claims.0.volume.spec.accessModes", None, id="volume without access modes"),
        pytest.param("claims.0.volume.spec.nodeAffinity", "a", id="affinity is text"),
        pytest.param("claims.0.volume.spec.mountOptions", "rw", id="mount options are text"),
        pytest.param("claims.0.volume.spec.storageClassName", ESCAPE, id="class with an escape"),
    ],
)
def test_a_value_of_another_form_is_refused_with_its_place_in_the_file(path, value):
    body = _with(path, value)
    with pytest.raises(SafetyError) as error:
        parse(json.dumps(body), FILE)
    said = str(error.value)
    assert said.startswith(FILE)
    assert said.endswith("; nothing was changed")
    assert said.isprintable()
    assert len(said) < 400


@pytest.mark.parametrize(
    "path",
    ["data", "/data/../etc", "/..", "", "/data\x1b[2J", None, ["/data"]],
    ids=["relative", "up", "root's parent", "empty", "escape sequence", "none", "list"],
)
@pytest.mark.parametrize("kind", ["hostPath", "local", "nfs"])
def test_a_path_that_leads_elsewhere_is_refused(kind, path):
    body = json.loads(dump(EXPORT))
    spec = body["claims"][0]["volume"]["spec"]
    del spec["csi"]
    spec[kind] = {"server": "files", "path": path}
    with pytest.raises(SafetyError, match="path must be"):
        parse(json.dumps(body), FILE)


def _with(path: str, value: Any) -> Any:
    body = json.loads(dump(EXPORT))
    *above, last = path.split(".")
    at = body
    for key in above:
        at = at[int(key)] if key.isdigit() else at[key]
    at[int(last) if last.isdigit() else last] = copy.deepcopy(value)
    return body


_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=10)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=10), inner, max_size=3)
    ),
    max_leaves=8,
)
_places = st.sampled_from(
    [
        *("made", "cluster", "namespace", "hub", "claims", "left_out", "claims.0"),
        *("claims.0.claim", "claims.0.volume", "claims.0.volume.spec", "claims.0.volume.spec.csi"),
        *("claims.0.claim.name", "claims.0.claim.labels", "claims.0.claim.annotations"),
        *("claims.0.claim.access_modes", "claims.0.volume.spec.capacity", "left_out.0"),
    ]
)


@given(_places, _json)
def test_whatever_stands_in_a_file_it_is_read_or_refused_in_a_sentence(place, value):
    try:
        export = parse(json.dumps(_with(place, value)), FILE)
    except SafetyError as error:
        said = str(error)
    else:
        said = FILE
        assert parse(dump(export), FILE) == export
    assert said.startswith(FILE)


def test_a_claim_of_kubespawner_keeps_its_owner():
    entry = bare(*bound(kubespawner("old", "erin@school.edu", "gpu")))
    (read,) = parse(dump(replace(EXPORT, entries=(entry,))), FILE).entries
    assert read.owner == "erin@school.edu/gpu"
