"""``claims export`` and ``reattach`` without a cluster: questions, places, what is printed."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from traitlets.config import Config

from jhub_safety.cli import cli, moving
from jhub_safety.cli import connection as connections
from jhub_safety.cli.connection import Connection
from jhub_safety.cluster import namespaces
from jhub_safety.errors import Doubt, SafetyError
from jhub_safety.hubconfig import understand
from tests.unit.cluster_double import holding
from tests.unit.given import ALICE, BOB, HUB, NAMESPACE, kubespawner, ours
from tests.unit.volumes_double import VolumesDouble, bound

HOSTILE = "[red]\x1b[2Jeve\n[/]"
FORBIDDEN = 'volumes is forbidden: User "hub" cannot list resource "persistentvolumes"'


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Two bound claims, a hub, and an empty folder to stand in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    pairs = [bound(ours(ALICE, "a"), reclaim="Delete"), bound(kubespawner("b", HOSTILE))]
    cluster = holding(*(one for one, _ in pairs))
    volumes = VolumesDouble(cluster).put(*(pv for _, pv in pairs))
    cluster.meanwhile = lambda verb, name: volumes.bind()
    place = SimpleNamespace(
        cluster=cluster, volumes=volumes, hub=HUB, namespace=NAMESPACE, directory=tmp_path
    )

    @asynccontextmanager
    async def connected(options: Any):
        namespace = options.namespace or place.namespace
        cluster.namespace = namespace
        hub = understand(Config({"SafeKubeSpawner": {"hub_name": place.hub}}), namespace)
        seen = SimpleNamespace(server="https://k8s", context="admin", api=None)
        yield Connection(seen, hub, cluster, options)

    async def active(api: Any, name: str) -> None:
        place.asked = name

    for module in (connections, moving):
        monkeypatch.setattr(module, "connected", connected)
    monkeypatch.setattr(moving, "VolumesApi", lambda api, **_: volumes)
    monkeypatch.setattr(namespaces, "must_be_active", active)
    return place


def run(*arguments: str, answer: str = ""):
    return CliRunner().invoke(cli, ["claims", *arguments], input=answer)


def exported(place, *options: str):
    result = run("export", "f.json", *options)
    assert result.exception is None, result.output
    return json.loads((place.directory / "f.json").read_text())


# -- export


def test_export_says_how_many_volumes_would_go_with_their_claims_and_what_keeps_them(place):
    body = exported(place)
    assert [one["claim"]["name"] for one in body["claims"]] == ["a", "b"]
    assert (body["cluster"], body["namespace"], body["hub"]) == ("https://k8s", NAMESPACE, HUB)
    told = run("export", "g.json")
    assert "1 of 2 volumes are DELETED with their claims" in told.stderr
    assert "jhub-safety claims export g.json --retain --overwrite" in told.stderr
    assert told.stdout == "2 claims with their volumes are in g.json\n"
    assert place.volumes.writes() == place.cluster.writes() == []


@pytest.mark.parametrize(
    ("answer", "policy"), [("y\n", "Retain"), ("n\n", "Delete")], ids=["agreed", "declined"]
)
def test_volumes_are_kept_after_a_yes_only(place, answer, policy):
    result = run("export", "f.json", "--retain", answer=answer)
    agreed = answer == "y\n"
    assert "retain-volume pv-a: of claim a, alice of hub hub, 10Gi: Delete -> Retain" in (
        result.stderr
    )
    assert (result.exit_code == 0) is agreed
    assert place.volumes.stored["pv-a"].reclaim == policy
    assert (place.directory / "f.json").exists() is agreed
    if agreed:
        body = json.loads((place.directory / "f.json").read_text())
        spec = body["claims"][0]["volume"]["spec"]
        assert spec["persistentVolumeReclaimPolicy"] == "Retain"
        assert "DELETED" not in result.stderr


def test_a_volume_that_could_not_be_kept_is_told_and_the_exit_code_is_1(place):
    place.volumes.faults["patch"] = [Doubt("switching volume pv-a: HTTP 500")]
    result = run("export", "f.json", "--retain", "--yes")
    assert result.exit_code == 1
    assert "retain-volume pv-a: failed: switching volume pv-a: HTTP 500" in result.stderr
    assert "1 of 2 volumes are DELETED" in result.stderr
    assert (place.directory / "f.json").exists()


@pytest.mark.parametrize("double", ["cluster", "volumes"])
def test_a_listing_that_failed_is_no_export(place, double):
    getattr(place, double).faults["list"] = [Doubt(FORBIDDEN, status=403)]
    result = run("export", "f.json")
    assert isinstance(result.exception, SafetyError)
    assert "needs get, list and patch of persistentvolumes" in str(result.exception)
    assert str(result.exception).endswith("Nothing was exported")
    assert not (place.directory / "f.json").exists()


def test_a_file_that_exists_is_kept_and_nothing_is_asked(place):
    (place.directory / "f.json").write_text("old")
    result = run("export", "f.json", "--retain", "--yes")
    assert isinstance(result.exception, SafetyError)
    assert place.volumes.calls == place.cluster.calls == []
    assert (place.directory / "f.json").read_text() == "old"
    assert run("export", "f.json", "--overwrite").exit_code == 0


def test_a_claim_that_lost_its_volume_is_told_and_the_others_are_exported(place):
    del place.volumes.stored["pv-b"]
    result = run("export", "f.json", "--json")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["claims"]) == (1, 1)
    assert told["left_out"] == [
        {"name": "b", "why": "its volume pv-b is not in the cluster", "lost": True}
    ]
    assert told["deleted_with_their_claims"] == ["pv-a"]


# -- reattach


def lose(place) -> None:
    for name, pv in place.volumes.stored.items():
        spec = {**pv.spec, "persistentVolumeReclaimPolicy": "Retain"}
        place.volumes.stored[name] = replace(pv, spec=spec)
    place.volumes.lose_namespace()
    place.cluster.calls.clear()


def test_the_plan_is_shown_with_its_place_and_nothing_happens_without_a_yes(place):
    exported(place)
    lose(place)
    result = run("reattach", "f.json", answer="n\n")
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert lines[0] == f"cluster https://k8s (context admin), namespace {NAMESPACE}, hub {HUB}"
    assert lines[1].startswith("from a file of 20")
    assert "cluster https://k8s, namespace jupyter, hub hub" in lines[1]
    assert lines[2] == (
        "  reserve-volume, create-claim, bind-claim a (alice of hub hub), 10Gi: "
        "volume pv-a is Released"
    )
    assert "\x1b" not in result.output
    assert "[red]\\x1b[2Jeve\\n[/]" in lines[3]
    assert place.cluster.writes() == place.volumes.writes() == []
    assert place.asked == NAMESPACE


def test_a_dry_run_changes_nothing_and_tells_what_would_be_refused(place):
    exported(place)
    lose(place)
    assert run("reattach", "f.json", "--dry-run", "--yes").exit_code == 0
    place.cluster.put(replace(ours(BOB, "a"), volume="pv-new"))
    assert run("reattach", "f.json", "--dry-run", "--yes").exit_code == 1
    assert place.cluster.writes() == place.volumes.writes() == []


def test_after_a_yes_all_are_reattached_and_a_second_time_there_is_nothing_to_do(place):
    exported(place)
    lose(place)
    result = run("reattach", "f.json", answer="y\n")
    assert (result.exit_code, result.stdout) == (
        0,
        "2 reattached, 0 were bound already, 0 refused, 0 failed\n",
    )
    again = run("reattach", "f.json")
    assert (again.exit_code, again.stdout) == (
        0,
        "0 reattached, 2 were bound already, 0 refused, 0 failed\n",
    )


def test_only_the_named_claims_are_reattached(place):
    exported(place)
    lose(place)
    assert run("reattach", "f.json", "--only=b", "--yes").exit_code == 0
    assert set(place.cluster.stored) == {"b"}
    unknown = run("reattach", "f.json", "--only=c", "--yes")
    assert str(unknown.exception) == "f.json has no claim c; nothing was changed"


def test_a_refusal_among_others_is_told_with_the_command_and_the_exit_code_is_1(place):
    exported(place)
    lose(place)
    place.cluster.put(replace(ours(BOB, "a"), volume="pv-new"))
    result = run("reattach", "f.json", "--yes", "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == 1
    assert [one["code"] for one in told["refusals"]] == ["name-taken"]
    assert {one["claim"]: one["row"] for one in told["claims"]} == {
        "a": "name-taken",
        "b": "rebind",
    }
    assert "Run: jhub-safety claims delete a" in result.stderr
    assert place.cluster.stored["a"].volume == "pv-new"
    assert place.cluster.stored["b"].phase == "Bound"


def test_before_volumes_are_made_anew_the_danger_is_said(place):
    exported(place)
    lose(place)
    place.volumes.stored.clear()
    result = run("reattach", "f.json", "--create-volumes", answer="n\n")
    assert "Two clusters that mount one disk destroy its file system" in result.stderr
    assert "csi disk.example disk-of-pv-a" in result.stderr
    assert place.volumes.writes() == []


@pytest.mark.parametrize(
    ("hub", "namespace", "options", "words"),
    [
        pytest.param(HUB, "other", [], "--to-namespace other", id="another namespace"),
        pytest.param("hub2", NAMESPACE, [], "--hub hub2", id="another hub"),
        pytest.param(
            "hub2", "other", ["--to-namespace=other"], "--hub hub2", id="another hub, too"
        ),
        pytest.param(
            "hub2", NAMESPACE, ["--hub=hub"], "this is hub hub2, not hub", id="not this hub"
        ),
        pytest.param(HUB, NAMESPACE, ["--hub=hub2"], "this is hub hub, not hub2", id="mistyped"),
    ],
)
def test_another_place_than_the_files_is_refused_unless_it_was_said(
    place, hub, namespace, options, words
):
    exported(place)
    lose(place)
    place.hub, place.namespace = hub, namespace
    result = run("reattach", "f.json", "--yes", *options)
    assert isinstance(result.exception, SafetyError)
    assert words in str(result.exception)
    assert "nothing was changed" in str(result.exception)
    assert place.cluster.calls == []


def test_another_place_that_was_said_gets_the_claims(place):
    exported(place)
    lose(place)
    place.hub = "hub2"
    moved = ("--to-namespace=other", "--hub=hub2")
    result = run("reattach", "f.json", "--yes", *moved)
    assert result.exit_code == 0, result.output
    made = place.cluster.stored["a"]
    assert (made.namespace, made.annotations["jhub-safety/hub"]) == ("other", "hub2")


def test_two_different_namespaces_are_a_usage_error(place):
    exported(place)
    result = run("reattach", "f.json", "--to-namespace=other", "-n", NAMESPACE)
    assert result.exit_code == 2


def test_a_listing_that_failed_changes_nothing(place):
    exported(place)
    lose(place)
    place.volumes.faults["list"] = [Doubt(FORBIDDEN, status=403)]
    result = run("reattach", "f.json", "--yes")
    assert isinstance(result.exception, SafetyError)
    assert str(result.exception).endswith("Nothing was changed")
    assert place.cluster.writes() == []


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda path: path.write_bytes(b"\xff\xfe"), id="no text"),
        pytest.param(lambda path: path.write_text("{}"), id="another file"),
        pytest.param(lambda path: None, id="none"),
        pytest.param(lambda path: path.write_text("x\x1b[2J"), id="escape sequence"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(place, make):
    make(place.directory / "f.json")
    result = run("reattach", "f.json", "--yes")
    assert isinstance(result.exception, SafetyError)
    assert str(result.exception).startswith("f.json ")
    assert place.cluster.calls == []
