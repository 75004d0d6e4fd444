"""``claims explain`` and ``forget`` about extra volumes, without a cluster."""

from __future__ import annotations

import json
import shlex

import pytest
from click.testing import CliRunner

from jhub_safety.cli import cli
from jhub_safety.errors import SafetyError
from jhub_safety.hubdb.records import VOLUMES
from jhub_safety.owner import Owner
from tests.unit import claim_site
from tests.unit.claim_rows import ENTRY, extra, home
from tests.unit.given import HUB

ADA = Owner(HUB, "ada")
DATA = f"data-ada-{ADA.hash}"
ON_RECORD = {"pvc_name": "claim-ada", VOLUMES: {ENTRY: "data-gone"}}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


@pytest.fixture
def site(monkeypatch):
    made = claim_site.install(monkeypatch)
    made.on(home("ada"))
    return made


def run(*arguments, answer=""):
    return CliRunner().invoke(cli, ["claims", *arguments], input=answer)


def explained(*arguments):
    result = run("explain", *arguments, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    return {one["volume"]: (one["verdict"], one["row"], one["claim"]) for one in told["volumes"]}


def test_a_volume_that_there_is_not_yet_will_be_made_with_its_groups_size(site, elsewhere):
    claim_site.write_database(elsewhere)
    assert explained("ada") == {ENTRY: ("create", "new", DATA)}
    [told] = json.loads(run("explain", "ada", "--json").stdout)["volumes"]
    assert told["capacity"] == "8Gi"


@pytest.mark.parametrize(
    ("claims", "state", "answer"),
    [
        pytest.param([extra("ada", "x")], {}, ("mount", "known", "x"), id="annotated"),
        pytest.param(
            [extra("ada", "x")],
            {VOLUMES: {ENTRY: "x"}},
            ("mount", "known", "x"),
            id="on record",
        ),
        pytest.param([extra("bob", DATA)], {}, ("refuse", "taken", DATA), id="somebody else's"),
        pytest.param(
            [extra("ada", "x"), extra("ada", "y")], {}, ("refuse", "several", DATA), id="two"
        ),
        pytest.param([], {VOLUMES: {ENTRY: "x"}}, ("refuse", "gone", "x"), id="gone"),
        pytest.param([extra("bob", "z")], {}, ("create", "new", DATA), id="another's elsewhere"),
    ],
)
def test_each_declared_volume_is_explained_by_the_rule_of_a_start(
    site, elsewhere, claims, state, answer
):
    claim_site.write_database(elsewhere, ada={"pvc_name": "claim-ada", **state})
    site.on(home("ada"), *claims)
    assert explained("ada") == {ENTRY: answer}
    assert site.cluster.writes() == []


def test_what_anothers_record_names_is_explained_as_refused(site, elsewhere):
    """bob was called ada before, and the claim says so still."""
    claim_site.write_database(elsewhere, bob={VOLUMES: {ENTRY: "x"}})
    site.on(home("ada"), extra("ada", "x"))
    assert explained("ada") == {ENTRY: ("refuse", "taken", "x")}


def test_explaining_everybody_counts_volumes_apart_and_agrees_with_each(site, elsewhere):
    claim_site.write_database(elsewhere, ada=ON_RECORD)
    everybody = json.loads(run("explain", "--all", "--json").stdout)
    for user in ("ada", "bob"):
        [one] = [told for told in everybody if told["user"] == user]
        assert one == json.loads(run("explain", user, "--json").stdout)
    human = run("explain", "--all").stdout
    assert "2 extra volumes: 0 mount, 0 adopt, 1 create, 1 refuse" in human
    assert human.splitlines()[-1].startswith("2 servers: ")


def test_the_command_that_explain_names_gives_a_missing_volume_up(site, elsewhere):
    claim_site.write_database(elsewhere, ada=ON_RECORD)
    human = run("explain", "ada").stdout
    [line] = [one for one in human.splitlines() if "next" in one]
    command = shlex.split(line.split("jhub-safety claims ")[1])
    assert command == ["forget", "data-gone", "--user=ada", f"--volume={ENTRY}"]

    declined = run(*command, answer="n\n")
    assert (declined.exit_code, site.given_up) == (1, {})

    agreed = run(*command, answer="y\n")
    assert agreed.exit_code == 0, agreed.output
    assert f"ada gets a new volume {ENTRY} at the next start" in agreed.stdout
    assert site.given_up == {(ADA.hash, ENTRY): "data-gone"}
    assert explained("ada") == {ENTRY: ("create", "new", DATA)}


def test_which_volume_it_was_is_found_in_the_records(site, elsewhere):
    claim_site.write_database(elsewhere, ada=ON_RECORD)
    assert run("forget", "data-gone", "--user=ada", "--yes").exit_code == 0
    assert site.given_up == {(ADA.hash, ENTRY): "data-gone"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["data-there", f"--volume={ENTRY}"], "data-there exists", id="it exists"),
        pytest.param(
            ["data-else", f"--volume={ENTRY}"], "no record of ada names data-else", id="not that"
        ),
        pytest.param(["data-gone", "--volume=typo"], "no entry called typo", id="no such entry"),
        pytest.param(["data-else"], "names claim-ada, not data-else", id="neither home nor volume"),
    ],
)
def test_only_what_a_record_names_and_is_gone_can_be_given_up(site, elsewhere, arguments, words):
    claim_site.write_database(elsewhere, ada=ON_RECORD)
    site.on(home("ada"), extra("ada", "data-there"))
    result = run("forget", *arguments, "--user=ada", "--yes")
    assert isinstance(result.exception, SafetyError)
    assert words in str(result.exception)
    assert "nothing was changed" in str(result.exception)
    assert site.given_up == {}
