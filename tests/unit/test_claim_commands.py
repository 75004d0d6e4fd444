"""``claims list``, ``resize`` and ``delete`` without a cluster: what is shown, asked and done."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from jupyterhub import orm

from jhub_safety import owner as marks
from jhub_safety.cli import claimdelete, claimfilter, cli
from jhub_safety.cli.columns import lines
from jhub_safety.errors import Conflict, Doubt, SafetyError
from jhub_safety.volumes import deletion
from tests.unit import claim_guard, claim_site
from tests.unit.claim_rows import extra, home, recipes
from tests.unit.claim_site import CLUSTER
from tests.unit.given import HUB, NAMESPACE, claim, kubespawner
from tests.unit.hub_database import opened

HOSTILE = "[red]\x1b[2Jeve\n[/]"
SPELLED_OUT = "[red]\\x1b[2Jeve\\n[/]"
SCRIPT = ("--yes", f"--hub={HUB}", f"--cluster={CLUSTER}")
LONG_AGO = datetime.now(UTC) - timedelta(days=100)


def old(make, *arguments, **fields):
    return make(*arguments, **{"created": LONG_AGO} | fields)


#: A hub's claims: ada and bob are known, zoe is not.
CLAIMS = (
    old(home, "ada"),
    old(extra, "ada"),
    old(extra, "bob"),
    old(extra, "zoe"),
    old(home, "zoe"),
    old(recipes, "zoe"),
    old(extra, "zoe", "data-other", hub="other"),
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(deletion, "_PAUSE", 0)
    return tmp_path


@pytest.fixture
def site(monkeypatch, elsewhere):
    made = claim_site.install(monkeypatch)
    claim_guard.install(monkeypatch, elsewhere)
    made.on(*CLAIMS)
    return made


@pytest.fixture
def database(elsewhere):
    return claim_site.write_database(elsewhere)


def run(*arguments, answer=""):
    return CliRunner().invoke(cli, ["claims", *arguments], input=answer)


def journal(elsewhere):
    file = elsewhere / "state" / "jhub-safety" / "journal.jsonl"
    if not file.exists():
        return []
    found = [json.loads(line) for line in file.read_text().splitlines()]
    return [(one["kind"], one["name"], one["outcome"]) for one in found]


# -- lines in columns


def test_columns_are_as_wide_as_what_is_in_them_whatever_the_script():
    told = lines(("A", "B"), [("李雷", "x"), ("ada", ""), ("b", None)])
    assert told == ["A     B", "李雷  x", "ada   -", "b     -"]


def test_nothing_in_a_cell_reaches_the_terminal_as_a_command():
    [_, line] = lines(("A", "B"), [(HOSTILE, "x")])
    assert line == f"{SPELLED_OUT}  x"


# -- list


def test_the_list_shows_what_is_known_of_each_claim(site, database):
    result = run("list")
    title, *rows = result.stdout.splitlines()
    assert title.split() == [
        *("CLAIM", "OWNER", "BY", "COMPONENT", "HUB", "PHASE", "SIZE", "WANTED"),
        *("CLASS", "VOLUME", "AGE", "ORPHANED"),
    ]
    told = {row.split()[0]: row.split()[1:] for row in rows}
    assert told["data-ada"] == [
        *("ada", "extra", "extra-pvc", "hub", "Bound", "1Gi", "8Gi", "standard"),
        *("pv-data-ada", "100d", "-"),
    ]
    assert told["data-zoe"][-1] == "yes"
    assert told["claim-ada"][6] == "20Gi"
    assert site.looks == [], "pods are not read"
    assert f"{len(CLAIMS)} claims; cluster {CLUSTER}" in result.stderr
    assert "class standard: 4 claims, 4 Gi" in result.stderr


def test_who_mounts_a_claim_is_looked_up_when_it_is_asked_for(site, database):
    site.mounts = {"data-ada": ("jupyter-ada", "jupyter-ada--gpu")}
    told = {row.split()[0]: row for row in run("list", "--mounted-by").stdout.splitlines()}
    assert told["CLAIM"].endswith("MOUNTED BY")
    assert told["data-ada"].endswith("jupyter-ada, jupyter-ada--gpu")
    only = json.loads(run("list", "--mounted", "--json").stdout)
    assert [(one["name"], one["mounted_by"]) for one in only] == [
        ("data-ada", ["jupyter-ada", "jupyter-ada--gpu"])
    ]
    assert len(site.looks) == 2


def test_what_a_filter_leaves_out_is_counted(site, database):
    result = run("list", "--owner=zoe", "--component=extra-pvc", "--hub=hub")
    assert [row.split()[0] for row in result.stdout.splitlines()[1:]] == ["data-zoe"]
    assert f"1 of {len(CLAIMS)} claims" in result.stderr


def test_without_the_database_what_depends_on_it_is_told_as_not_known(site):
    result = run("list", "--json")
    told = {one["name"]: one for one in json.loads(result.stdout)}
    assert (told["data-ada"]["orphaned"], told["data-ada"]["wanted"]) == (None, None)
    assert told["claim-ada"]["wanted"] == "20Gi"
    assert result.stderr.count("Without the hub's") == 1


def test_csv_has_the_columns_of_the_list_and_no_formula(site, database):
    site.on(kubespawner("a", '=HYPERLINK("http://evil")'), kubespawner("b", HOSTILE))
    first, second = csv.DictReader(io.StringIO(run("list", "--csv").stdout))
    assert first["owner"] == '\'=HYPERLINK("http://evil")'
    assert second["owner"] == SPELLED_OUT
    assert (first["claim"], first["component"], first["volume"]) == ("a", "home", "pv-a")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["list", "--csv", "--json"], "not both"),
        (["list", "--older-than=soon"], "write 180d, 12w or 36h"),
        (["list", "--older-than=0d"], "is no age"),
        (["delete"], "Give CLAIMs or a filter"),
        (["delete", "data-zoe", "--orphaned"], "not both"),
        (["delete", "data-zoe", "--yes"], "--yes needs --hub and --cluster"),
        (["delete", "data-zoe", "--yes", "--hub=hub"], "--yes needs --hub and --cluster"),
        (["resize"], "Give CLAIMs or a filter"),
        (["resize", "data-ada", "--to=2Gi", "--yes"], "--yes needs --hub and --cluster"),
        (["resize", "data-ada", "--to=2Gi", "--yes", "--cluster=x"], "--yes needs --hub and"),
        (["resize", "data-ada", "--to=1500m"], "not a whole number of bytes"),
        (["resize", "data-ada", "--to=lots"], "is no quantity"),
    ],
)
def test_what_is_asked_for_wrongly_is_a_usage_error(site, arguments, words):
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert site.cluster.calls == []


# -- delete: what is shown and asked


@pytest.mark.parametrize("answer", ["y\n", "\n", "HUB\n", "other\n", "", "hub x\n"])
def test_only_the_typed_name_of_the_hub_deletes(site, database, elsewhere, answer):
    result = run("delete", "--owner=zoe", answer=answer)
    assert result.exit_code == 1
    assert site.cluster.writes() == []
    assert journal(elsewhere) == []


def test_with_the_hubs_name_typed_what_was_shown_is_deleted_and_nothing_else(
    site, database, elsewhere
):
    site.mounts = {"data-zoe": ("jupyter-zoe",)}
    result = run("delete", "--owner=zoe", answer="hub\n")
    assert result.exit_code == 0, result.output
    shown = result.stderr[: result.stderr.index("type the name of the hub")]
    assert f"cluster {CLUSTER} (context admin), namespace {NAMESPACE}, hub {HUB}" in shown
    row = next(line for line in shown.splitlines() if line.startswith("data-zoe"))
    assert row.split()[:5] == ["data-zoe", "zoe", "extra-pvc", "Bound", "1Gi"]
    assert row.endswith("jupyter-zoe (goes when that ends)")
    for words in (
        "class standard: 1 claim, 1 Gi",
        "1 of 1 are mounted now",
        "left out: 1 a home: only by its name (claim-zoe)",
        "left out: 1 without this hub's label: only by its name (postgres-zoe)",
        "left out: 1 another hub's: never (data-other)",
        "Their data goes with them",
    ):
        assert words in shown
    assert set(site.cluster.stored) == {one.name for one in CLAIMS} - {"data-zoe"}
    assert journal(elsewhere) == [
        ("delete-claim", "data-zoe", "begun"),
        ("delete-claim", "data-zoe", "done"),
    ]
    assert "1 of 1 deleted, 0 of them later; 0 skipped, 0 failed" in result.stdout


def test_a_claim_that_is_mounted_while_somebody_thinks_is_skipped(site, database):
    site.mounts = [{}, {"data-zoe": ("jupyter-zoe",)}]
    result = run("delete", "--owner=zoe", answer="hub\n")
    assert result.exit_code == 1
    assert "data-zoe: skipped: it is mounted by jupyter-zoe since the plan" in result.stdout
    assert "data-zoe" in site.cluster.stored


def test_a_user_who_comes_back_while_somebody_thinks_keeps_their_volume(
    site, database, elsewhere, monkeypatch
):
    """The list of orphans is made before the question, and the database read again after it."""
    true_ask = claimdelete.ask

    def ask(*arguments):
        with opened(elsewhere / "jupyterhub.sqlite") as db:
            db.add(orm.User(name="zoe"))
        true_ask(*arguments)

    monkeypatch.setattr(claimdelete, "ask", ask)
    result = run("delete", "--orphaned", answer="hub\n")
    assert "data-zoe: skipped: the hub knows zoe by now" in result.stdout
    assert site.cluster.writes() == []


@pytest.mark.parametrize(
    ("word", "told"),
    [
        (["--hub=other", f"--cluster={CLUSTER}"], "this is hub hub, not other"),
        (
            [f"--hub={HUB}", "--cluster=prod"],
            f"this is cluster {CLUSTER} (context admin), not prod",
        ),
        ([f"--hub={HUB}", "--cluster=k8s"], "not k8s"),
    ],
)
@pytest.mark.parametrize("yes", [["--yes"], []], ids=["a script", "a person"])
def test_a_script_that_means_another_hub_or_cluster_deletes_nothing(
    site, database, word, told, yes
):
    result = run("delete", "--owner=zoe", *yes, *word, answer="hub\n")
    assert isinstance(result.exception, SafetyError)
    assert told in str(result.exception)
    assert "nothing was deleted" in str(result.exception)
    assert site.cluster.calls == []


@pytest.mark.parametrize("cluster", [CLUSTER, "admin"], ids=["server", "context"])
def test_a_script_that_means_this_hub_and_cluster_is_not_asked(site, database, cluster):
    result = run("delete", "--owner=zoe", "--yes", f"--hub={HUB}", f"--cluster={cluster}")
    assert result.exit_code == 0
    assert "data-zoe" not in site.cluster.stored


def test_inside_a_pod_the_cluster_goes_by_its_address_only(site, database):
    """Every pod of every cluster calls its own "in-cluster"."""
    site.context = "in-cluster"
    result = run("delete", "--owner=zoe", "--yes", f"--hub={HUB}", "--cluster=in-cluster")
    assert isinstance(result.exception, SafetyError)
    assert site.cluster.calls == []


def test_a_dry_run_shows_the_plan_and_does_nothing(site, database, elsewhere):
    result = run("delete", "--owner=zoe", "--dry-run", "--json")
    told = json.loads(result.stdout)
    assert [one["name"] for one in told["actions"]] == ["data-zoe"]
    assert (told["outcomes"], told["leaving"]) == ([], [])
    assert (site.cluster.writes(), journal(elsewhere)) == ([], [])


def test_run_again_there_is_nothing_left_to_do(site, database):
    assert run("delete", "--owner=zoe", *SCRIPT).exit_code == 0
    again = run("delete", "--owner=zoe", *SCRIPT)
    assert again.exit_code == 0
    assert "There is nothing to delete." in again.stderr


def test_by_name_what_the_journal_says_is_gone_is_no_mistake(site, database):
    names = ("data-zoe", "claim-zoe", "postgres-zoe")
    assert run("delete", *names[:2], *SCRIPT).exit_code == 0
    again = run("delete", *names, *SCRIPT)
    assert again.exit_code == 0, again.output
    assert "left out: 2 gone: by the journal it was deleted before" in again.stderr
    assert set(site.cluster.stored) == {"claim-ada", "data-ada", "data-bob", "data-other"}


def test_by_name_one_that_is_another_hubs_is_refused_and_the_others_go(site, database):
    result = run("delete", "data-other", "data-zoe", "typo", *SCRIPT)
    assert result.exit_code == 1
    assert "refused data-other: it is of hub other, this is hub hub" in result.stderr
    assert "refused typo: there is no such claim" in result.stderr
    assert set(site.cluster.stored) == {one.name for one in CLAIMS} - {"data-zoe"}


def test_claims_on_record_are_told_with_the_command_that_their_users_need(site, database):
    result = run("delete", "claim-ada", "--dry-run")
    assert "1 of 1 are on record" in result.stderr
    assert "jhub-safety claims forget CLAIM --user=USER" in result.stderr


# -- delete: orphans


def test_orphans_are_those_whose_owner_the_database_does_not_know(site, database):
    result = run("delete", "--orphaned", *SCRIPT)
    assert result.exit_code == 0, result.output
    assert set(site.cluster.stored) == {one.name for one in CLAIMS} - {"data-zoe"}


def test_without_a_database_there_are_no_orphans_to_delete(site):
    result = run("delete", "--orphaned", *SCRIPT)
    assert isinstance(result.exception, SafetyError)
    assert "the hub's database cannot be read" in str(result.exception)
    assert site.cluster.writes() == []


def test_a_lost_database_deletes_nobodys_volume(site, elsewhere):
    with opened(elsewhere / "jupyterhub.sqlite"):
        pass
    result = run("delete", "--orphaned", *SCRIPT)
    assert "has no user at all" in str(result.exception)
    assert site.cluster.writes() == []


def test_many_orphans_need_an_operators_word(site, database):
    site.on(*CLAIMS, *(old(extra, f"left{n}", f"left-{n}") for n in range(15)))
    refused = run("delete", "--orphaned", *SCRIPT)
    assert "16 orphaned claims are more than 10" in str(refused.exception)
    assert site.cluster.writes() == []
    done = run("delete", "--orphaned", "--max-orphaned=16", *SCRIPT)
    assert done.exit_code == 0
    assert set(site.cluster.stored) == {one.name for one in CLAIMS} - {"data-zoe"}


# -- delete: volumes


def test_retain_comes_before_each_deletion(site, database, elsewhere):
    site.on(*CLAIMS, old(extra, "zoe", "unbound", volume=""))
    result = run("delete", "--owner=zoe", "--reclaim=retain", *SCRIPT)
    assert result.exit_code == 0
    assert site.retained == [("pv-data-zoe", "uid-of-data-zoe")]
    assert "Their volumes are kept" in result.stderr
    assert {"data-zoe", "unbound"} & set(site.cluster.stored) == set()


def test_a_volume_that_cannot_be_retained_keeps_its_claim(site, database, monkeypatch):
    async def retain(*_):
        raise Conflict("switching volume pv to Retain: HTTP 403")

    monkeypatch.setattr(claimdelete.volumes, "retain", retain, raising=False)
    result = run("delete", "--owner=zoe", "--reclaim=retain", *SCRIPT)
    assert result.exit_code == 1
    assert "data-zoe: failed: switching volume" in result.stdout
    assert site.cluster.writes() == []


def test_that_it_is_not_known_what_pods_use_stops_everything(site, database, monkeypatch):
    async def read(*_):
        raise Doubt("listing the pods: HTTP 403")

    monkeypatch.setattr(claimfilter.mounts, "read", read)
    result = run("delete", "--owner=zoe", *SCRIPT)
    assert isinstance(result.exception, Doubt)
    assert site.cluster.writes() == []


# -- resize


def test_each_grows_to_its_configured_size_after_the_hubs_name(site, database, elsewhere):
    site.on(*CLAIMS, old(extra, "bob", "larger", capacity="9Gi"))
    result = run("resize", "--component=extra-pvc", "--owner=ada", "--owner=bob", answer="hub\n")
    assert "data-ada: extra-pvc of ada: from 1Gi to 8Gi" in result.stderr
    assert "enlarge 2 claims: 10 Gi more" in result.stderr
    assert "refused larger: claim larger has 9Gi, configured is 4Gi: a volume" in result.stderr
    sizes = {name: one.capacity for name, one in site.cluster.stored.items()}
    assert (sizes["data-ada"], sizes["data-bob"], sizes["larger"]) == ("8Gi", "4Gi", "9Gi")
    assert sizes["data-zoe"] == "1Gi"
    assert result.stdout == "2 of 2 done\n"
    assert journal(elsewhere) == [
        ("resize-claim", "data-ada", "begun"),
        ("resize-claim", "data-ada", "done"),
        ("resize-claim", "data-bob", "begun"),
        ("resize-claim", "data-bob", "done"),
    ]


@pytest.mark.parametrize("answer", ["y\n", "n\n", "\n", "other\n", ""])
def test_only_the_typed_name_of_the_hub_lets_anything_grow(site, database, elsewhere, answer):
    result = run("resize", "data-ada", "--to=2Gi", answer=answer)
    assert result.exit_code == 1
    assert site.cluster.writes() == []
    assert journal(elsewhere) == []


def test_more_than_tenfold_needs_a_flag(site, database):
    refused = run("resize", "data-ada", "--to=100Gi", *SCRIPT)
    assert refused.exit_code == 1
    assert "if it is meant, add --over-limit" in refused.stderr
    assert site.cluster.writes() == []
    assert run("resize", "data-ada", "--to=100Gi", "--over-limit", *SCRIPT).exit_code == 0
    assert site.cluster.stored["data-ada"].capacity == "100Gi"


def test_a_protected_claim_is_left_by_both(site, database):
    one = old(extra, "zoe", annotations={marks.PROTECT: "until the exam"})
    site.on(one)
    assert run("resize", "data-zoe", "--to=2Gi", *SCRIPT).exit_code == 1
    assert run("delete", "data-zoe", *SCRIPT).exit_code == 1
    assert run("delete", "--component=extra-pvc", *SCRIPT).exit_code == 0
    assert site.cluster.stored == {"data-zoe": one}


def test_names_are_hostile_input_in_a_plan_too(site, database):
    site.on(claim("c", {marks.USER: HOSTILE, marks.HUB: HUB, marks.VOLUME: "x"}, CLAIMS[1].labels))
    result = run("delete", "c", "--dry-run")
    assert SPELLED_OUT in result.stderr
    assert "\x1b" not in result.stderr
