"""The commands without a cluster: what is asked for wrongly, and what a terminal gets to see."""

from __future__ import annotations

import json
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from hypothesis import given
from jupyterhub import orm
from kubernetes_asyncio.config import kube_config
from rich.text import Text
from traitlets.config import Config

from jhub_safety import __version__
from jhub_safety import owner as marks
from jhub_safety.cli import cli, connection, main
from jhub_safety.cli.connection import Connection, console, shown
from jhub_safety.errors import ConfigError, Doubt, SafetyError
from jhub_safety.hubconfig import understand
from tests.unit.cluster_double import holding
from tests.unit.given import ALICE, BOB, HUB, NAMESPACE, any_text, claim, kubespawner, ours

KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "nowhere",
    "contexts": [{"name": "nowhere", "context": {"cluster": "nowhere", "user": "nobody"}}],
    "clusters": [{"name": "nowhere", "cluster": {"server": "https://127.0.0.1:1"}}],
    "users": [{"name": "nobody", "user": {}}],
}
HOSTILE = "[red]\x1b[2Jeve\n[/]"
SPELLED_OUT = "[red]\\x1b[2Jeve\\n[/]"


def use(monkeypatch, kubeconfig) -> None:
    # The client reads the variable when it is imported.
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """An empty directory, and a kubeconfig whose cluster must not be asked anything."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jupyterhub_config.py").write_text("c = get_config()\n")
    file = tmp_path / "kubeconfig"
    file.write_text(json.dumps(KUBECONFIG))
    use(monkeypatch, file)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


def run(*arguments: str, answer: str = ""):
    return CliRunner().invoke(cli, ["claims", *arguments], input=answer)


@pytest.fixture
def on(monkeypatch):
    """Let the commands work on these claims, of a hub without a database to be read."""

    def on(*claims):
        cluster = holding(*claims)

        @asynccontextmanager
        async def connected(options):
            hub = understand(Config({"SafeKubeSpawner": {"hub_name": HUB}}), NAMESPACE)
            seen = SimpleNamespace(server="https://k8s", context="admin", api=None)
            yield Connection(seen, hub, cluster, options)

        monkeypatch.setattr(connection, "connected", connected)
        return cluster

    return on


# -- what is asked for wrongly


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["explain"], "Give a USER, or --all.", id="explain nobody"),
        pytest.param(["explain", "alice", "--all"], "Give a USER, or --all.", id="explain both"),
        pytest.param(["adopt"], "Give CLAIM and --user, or --from-csv.", id="adopt nothing"),
        pytest.param(["adopt", "claim-a"], "Give CLAIM and --user", id="adopt for nobody"),
        pytest.param(["adopt", "--user=alice"], "Give CLAIM and --user", id="adopt no claim"),
        pytest.param(
            ["adopt", "claim-a", "--from-csv=t.csv"], "or --from-csv", id="adopt claim and table"
        ),
        pytest.param(
            ["adopt", "--user=a", "--from-csv=t.csv"], "or --from-csv", id="adopt user and table"
        ),
        pytest.param(["adopt", "--from-csv=none.csv"], "'none.csv' does not exist", id="no table"),
        pytest.param(["forget", "claim-a"], "Missing option '--user'", id="forget for nobody"),
        pytest.param(["forget", "--user=alice"], "Missing argument 'CLAIM'", id="forget nothing"),
        pytest.param(["remove", "claim-a"], "No such command 'remove'", id="no such command"),
    ],
)
def test_what_is_asked_for_wrongly_is_a_usage_error(elsewhere, arguments, words):
    (elsewhere / "t.csv").write_text("claim,user\n")
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


@pytest.mark.parametrize(
    ("table", "missing"),
    [
        ("claim,server\nclaim-a,gpu\n", "['user']"),
        ("user\nalice\n", "['claim']"),
        ("Claim,User\nclaim-a,alice\n", "['claim', 'user']"),
        ("claim;user\nclaim-a;alice\n", "['claim', 'user']"),
        ("claim-a,alice\n", "['claim', 'user']"),
        ("", "['claim', 'user']"),
    ],
    ids=["no user", "no claim", "capitals", "semicolons", "no title line", "empty"],
)
def test_a_table_without_its_columns_is_refused_and_they_are_named(elsewhere, table, missing):
    (elsewhere / "t.csv").write_text(table)
    result = run("adopt", "--from-csv=t.csv", "--yes")
    assert isinstance(result.exception, SafetyError)
    assert str(result.exception) == f"t.csv: the first line must name the columns {missing}"


def test_a_table_that_is_no_utf8_is_refused_in_words(elsewhere):
    (elsewhere / "t.csv").write_bytes("claim,user\nclaim-a,m\xfcller\n".encode("latin-1"))
    result = run("adopt", "--from-csv=t.csv", "--yes")
    assert result.exception is not None
    if not isinstance(result.exception, SafetyError):
        raise result.exception


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("restored", id="short"),
        pytest.param("restored,", id="no user"),
        pytest.param(",alice", id="no claim"),
    ],
)
def test_a_line_of_a_table_that_names_no_user_or_claim_changes_nothing(on, elsewhere, line):
    cluster = on(claim("restored"))
    (elsewhere / "t.csv").write_text(f"claim,user\n{line}\n")
    result = run("adopt", "--from-csv=t.csv", "--yes")
    assert result.exit_code == 1
    assert isinstance(result.exception, SafetyError | SystemExit)
    assert cluster.writes() == []


def test_without_a_cluster_the_error_says_what_to_do(elsewhere, monkeypatch):
    use(monkeypatch, elsewhere / "none")
    result = run("list")
    assert isinstance(result.exception, ConfigError)
    assert "no cluster to talk to" in str(result.exception)
    assert "set KUBECONFIG" in str(result.exception)


def test_a_context_that_is_not_there_is_no_cluster():
    result = run("list", "--context=elsewhere")
    assert isinstance(result.exception, ConfigError)
    assert "no cluster to talk to" in str(result.exception)


def test_an_error_of_ours_is_one_sentence_on_stderr_and_exit_1(elsewhere, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["jhub-safety", "claims", "list", "--config=[red]none.py"])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (1, "")
    assert err.replace("\n", "") == f"jhub-safety: {elsewhere}/[red]none.py: no such file"


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize("command", [[], ["claims"], ["claims", "adopt"], ["claims", "forget"]])
def test_help_needs_neither_cluster_nor_configuration(elsewhere, monkeypatch, command, option):
    use(monkeypatch, elsewhere / "none")
    (elsewhere / "jupyterhub_config.py").unlink()
    result = CliRunner().invoke(cli, [*command, option])
    assert result.exit_code == 0
    assert "Usage: " in result.stdout


def test_the_version_is_the_packages():
    assert CliRunner().invoke(cli, ["--version"]).stdout.split()[-1] == __version__


# -- what a terminal gets to see


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        pytest.param("alice", "alice", id="plain"),
        pytest.param("[red]alice[/red]", "[red]alice[/red]", id="markup"),
        pytest.param("[/]", "[/]", id="a closing tag of nothing"),
        pytest.param("SCHOOL\\[b]\\x", "SCHOOL\\[b]\\x", id="backslashes"),
        pytest.param("[link=https://evil]x", "[link=https://evil]x", id="link"),
        pytest.param("\x1b[31mred", "\\x1b[31mred", id="escape sequence"),
        pytest.param("\x1b]0;title\x07", "\\x1b]0;title\\x07", id="title of the terminal"),
        pytest.param("\x9b31m", "\\x9b31m", id="8-bit escape sequence"),
        pytest.param("a\r\nb\tc", "a\\r\\nb\\tc", id="line break and tab"),
        pytest.param("ab\u202ecd", "ab\\u202ecd", id="right to left"),
        pytest.param("\ud800", "\\ud800", id="half a surrogate pair"),
        pytest.param("李雷 🦊 ß", "李雷 🦊 ß", id="other scripts"),
        pytest.param(ALICE, "alice", id="an owner"),
    ],
)
def test_a_name_is_printed_as_it_is_and_does_nothing_to_the_terminal(text, seen):
    with console.capture() as capture:
        console.print(shown(text), soft_wrap=True)
    assert capture.get() == seen + "\n"


@given(any_text)
def test_whatever_a_name_holds_only_printable_characters_reach_the_terminal(name):
    seen = Text.from_markup(shown(name), emoji=False)
    assert seen.plain.isprintable()
    assert seen.spans == []
    if name.isprintable():
        assert seen.plain == name


# A name that ends with a backslash is printed with two: rich cannot be told otherwise.
@pytest.mark.parametrize("name", [pytest.param("sub:key:7", id="a picture's name")])
def test_what_rich_would_make_of_a_name_is_not_done(name):
    with console.capture() as capture:
        console.print(shown(name))
    assert capture.get() == name + "\n"


def test_the_list_has_a_line_for_each_claim_whatever_its_owner_is_called(on):
    long = kubespawner("claim-" + "x" * 57, "e" * 80 + "@school.edu")
    on(ours(ALICE, "a"), kubespawner("b", HOSTILE), claim("c"), ours(BOB, "d", released=True), long)
    result = run("list")
    assert (result.exit_code, result.exception) == (0, None)
    _, *rows = result.stdout.splitlines()
    assert [row.split()[0] for row in rows] == ["a", "b", "c", long.name, "d"]
    assert SPELLED_OUT in rows[1]
    assert "\x1b" not in result.stdout
    assert long.annotations[marks.KUBESPAWNER_USER] in rows[3]
    assert rows[4].split()[1:5] == ["bob", "released", "home", "hub"]


def test_json_is_the_whole_answer_on_stdout_and_notes_are_beside_it(on):
    on(kubespawner("claim-eve", HOSTILE, volume=""))
    result = run("explain", "--json", "--", HOSTILE)
    told = json.loads(result.stdout)
    assert (told["user"], told["verdict"], told["claim"]) == (HOSTILE, "adopt", "claim-eve")
    assert "Without the hub's records" in result.stderr


def test_explaining_everybody_finds_those_whom_claims_name(on):
    cluster = on(ours(ALICE, volume=""), kubespawner("b", "bob", "gpu"), kubespawner("b2", "bob"))
    result = run("explain", "--all")
    assert result.stdout.splitlines()[-1] == "3 servers: 1 mount, 2 adopt, 0 create, 0 refuse"
    assert cluster.writes() == []


def test_a_renamed_account_is_told_of_the_claim_that_a_start_gives_it(on, elsewhere):
    """Its stable id is on the claim; its former account still stands in the hub's database."""
    url = f"sqlite:///{elsewhere / 'hub.sqlite'}"
    session = orm.new_session_factory(url)()
    session.add(orm.User(name="alice"))
    session.flush()
    session.add(orm.Spawner(name="", user_id=1, state={"pvc_name": "claim-a"}))
    session.commit()
    session.close()
    session.get_bind().dispose()
    on(ours(replace(ALICE, identity="sub-1"), "claim-a", volume=""))
    told = run("explain", "alice.smith", "--identity=sub-1", f"--db-url={url}", "--json")
    answer = json.loads(told.stdout)
    assert (answer["verdict"], answer["claim"]) == ("mount", "claim-a")


# -- a plan, a question, and only then a change


@pytest.mark.parametrize("answer", ["n\n", "\n", ""], ids=["no", "just Enter", "end of input"])
def test_a_plan_that_is_not_agreed_to_changes_nothing(on, elsewhere, answer):
    cluster = on(claim("restored"))
    result = run("adopt", "restored", "--user=alice", answer=answer)
    assert result.exit_code == 1
    assert "annotate-claim restored: an operator gives it to alice" in result.stderr
    assert result.stderr.index("annotate-claim") < result.stderr.index("Go on?")
    assert cluster.writes() == []
    assert not (elsewhere / "state").exists()


def test_the_cluster_and_the_namespace_are_shown_before_the_question(on):
    on(claim("restored"))
    err = run("adopt", "restored", "--user=alice", answer="n\n").stderr
    header = f"cluster https://k8s (context admin), namespace {NAMESPACE}, hub {HUB}"
    assert header in err
    assert err.index(header) < err.index("Go on?")


def test_a_plan_with_nothing_to_do_does_not_ask(on):
    cluster = on(claim("restored"))
    result = run("adopt", "none", "--user=alice")
    assert isinstance(result.exception, SafetyError)
    assert "refused alice: there is no claim none" in result.stderr
    assert "Go on?" not in result.stderr
    assert cluster.writes() == []


def test_an_item_that_fails_is_named_and_the_exit_status_says_so(on, elsewhere):
    cluster = on(claim("one"), claim("two"))
    cluster.faults["annotate"] = [Doubt("HTTP 500 etcd leader changed")]
    (elsewhere / "t.csv").write_text("claim,user,server,identity\none,alice,,\ntwo,bob,gpu,sub-2\n")

    result = run("adopt", "--from-csv=t.csv", "--yes")

    assert result.exit_code == 1
    assert result.stdout == "one: failed: HTTP 500 etcd leader changed\n1 of 2 done\n"
    assert marks.USER not in cluster.stored["one"].annotations
    given_to = cluster.stored["two"].annotations
    assert (given_to[marks.USER], given_to[marks.SERVER]) == ("bob", "gpu")
    assert marks.IDENTITY in given_to
    journal = (elsewhere / "state" / "jhub-safety" / "journal.jsonl").read_text().splitlines()
    assert [json.loads(line)["outcome"] for line in journal] == [
        "failed: HTTP 500 etcd leader changed",
        "done",
    ]


def test_a_claim_that_exists_cannot_be_given_up(on):
    on(claim("claim-a"))
    result = run("forget", "claim-a", "--user=alice", "--yes")
    assert isinstance(result.exception, SafetyError)
    assert str(result.exception).startswith("claim claim-a exists; nothing was changed.")
    assert "jhub-safety claims adopt OTHER --user=alice" in str(result.exception)
