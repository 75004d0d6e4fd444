"""``claims resize`` without a cluster: whom it believes, what it shows, and what it leaves out."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from jhub_safety.cli import claimfilter, cli
from jhub_safety.errors import Doubt, SafetyError
from tests.unit import claim_site
from tests.unit.claim_rows import extra, home
from tests.unit.claim_site import CLUSTER
from tests.unit.given import HUB

SCRIPT = ("--yes", f"--hub={HUB}", f"--cluster={CLUSTER}")
LONG_AGO = datetime.now(UTC) - timedelta(days=100)
CLAIMS = (
    extra("ada", created=LONG_AGO),
    extra("bob", created=LONG_AGO),
    home("ada", created=LONG_AGO),
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


@pytest.fixture
def site(monkeypatch):
    made = claim_site.install(monkeypatch)
    made.on(*CLAIMS)
    return made


@pytest.fixture
def database(elsewhere):
    return claim_site.write_database(elsewhere)


def run(*arguments, answer=""):
    return CliRunner().invoke(cli, ["claims", *arguments], input=answer)


@pytest.mark.parametrize(
    ("word", "told"),
    [
        (["--hub=other", f"--cluster={CLUSTER}"], "this is hub hub, not other"),
        ([f"--hub={HUB}", "--cluster=prod"], "(context admin), not prod"),
        ([f"--hub={HUB}", "--cluster=k8s"], "not k8s"),
    ],
)
@pytest.mark.parametrize("yes", [["--yes"], []], ids=["a script", "a person"])
@pytest.mark.parametrize("chosen", ["data-ada", "--owner=ada"], ids=["by name", "by filter"])
def test_a_script_that_means_another_hub_or_cluster_enlarges_nothing(
    site, database, word, told, yes, chosen
):
    result = run("resize", chosen, "--to=2Gi", *yes, *word, answer="hub\n")
    assert isinstance(result.exception, SafetyError)
    assert told in str(result.exception)
    assert "nothing was enlarged" in str(result.exception)
    assert site.cluster.calls == []


def test_inside_a_pod_a_cluster_goes_by_its_address_only_for_resize_too(site, database):
    site.context = "in-cluster"
    result = run("resize", "data-ada", "--to=2Gi", "--yes", f"--hub={HUB}", "--cluster=in-cluster")
    assert isinstance(result.exception, SafetyError)
    assert run("resize", "data-ada", "--to=2Gi", *SCRIPT).exit_code == 0
    assert site.cluster.stored["data-ada"].capacity == "2Gi"


def test_a_filter_leaves_homes_as_they_are_and_says_so(site, database):
    result = run("resize", "--owner=ada", "--to=50Gi", "--over-limit", *SCRIPT, "--json")
    assert result.exit_code == 0, result.output
    assert "left out: 1 a home: only by its name (claim-ada)" in result.stderr
    told = json.loads(result.stdout)
    assert told["left_out"] == {"a home: only by its name": ["claim-ada"]}
    sizes = {name: one.capacity for name, one in site.cluster.stored.items()}
    assert sizes == {one.name: one.capacity for one in CLAIMS} | {"data-ada": "50Gi"}


def test_what_the_database_has_on_record_as_a_home_grows_only_by_its_name(site, elsewhere):
    claim_site.write_database(elsewhere, ada={"pvc_name": "data-ada"})
    assert run("resize", "--component=extra-pvc", "--to=2Gi", *SCRIPT).exit_code == 0
    assert site.cluster.stored["data-ada"].capacity == "1Gi"
    assert site.cluster.stored["data-bob"].capacity == "2Gi"
    assert run("resize", "data-ada", "--to=2Gi", *SCRIPT).exit_code == 0
    assert site.cluster.stored["data-ada"].capacity == "2Gi"


def test_by_its_name_a_home_grows_and_which_are_mounted_is_shown_before(site, database):
    site.mounts = {"claim-ada": ("jupyter-ada", "jupyter-ada--gpu")}
    result = run("resize", "claim-ada", "data-bob", "--to=30Gi", "--over-limit", answer="hub\n")
    assert result.exit_code == 0, result.output
    shown = result.stderr[: result.stderr.index("To enlarge 2 claims, type the name of the hub")]
    assert "home of ada: from 10Gi to 30Gi (mounted by jupyter-ada, jupyter-ada--gpu)" in shown
    assert "extra-pvc of bob: from 1Gi to 30Gi\n" in shown
    assert "1 of 2 are mounted now" in shown
    assert site.cluster.stored["claim-ada"].capacity == "30Gi"


def test_that_it_is_not_known_what_pods_use_enlarges_nothing(site, database, monkeypatch):
    async def read(*_):
        raise Doubt("listing the pods: HTTP 403")

    monkeypatch.setattr(claimfilter.mounts, "read", read)
    result = run("resize", "data-ada", "--to=2Gi", *SCRIPT)
    assert isinstance(result.exception, Doubt)
    assert site.cluster.writes() == []
