"""``jhub-safety sessions``: what an operator sees, is asked, and what is then done."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from importlib import import_module

import pytest

from jhub_safety.errors import Conflict, Doubt
from jhub_safety.sessions.absence import Absences
from jhub_safety.sessions.model import Lab, LabIdentity, LabState, Server
from tests.unit.given import HUB, NAMESPACE
from tests.unit.session_world import ADA, BOB, EVE, GPU, Labs, lab_of, refused, run, surroundings
from tests.unit.test_commands import HOSTILE, SPELLED_OUT


@pytest.fixture
def world(monkeypatch):
    with surroundings(monkeypatch) as made:
        yield made


@pytest.fixture
def hub(world):
    """One that runs and answers."""
    world.start_hub()
    return world.hub


# -- what is asked for wrongly


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["list", "--server=gpu"], "--server needs a USER", id="whose server"),
        pytest.param(["list", "--verdict=dead"], "known are in-step, busy", id="no such verdict"),
        pytest.param(
            ["list", "--watch"], "--watch repaints a terminal", id="watch without a terminal"
        ),
        pytest.param(["list", "--watch", "--json"], "goes with nothing else", id="watch as JSON"),
        pytest.param(["delete"], "Missing argument 'USER'", id="delete nobody"),
        pytest.param(
            ["delete", "ada", "--server=gpu", "--forget-user"],
            "--forget-user is about the whole user",
            id="forget a server",
        ),
        pytest.param(["unstick"], "Missing argument 'USER'", id="unstick nobody"),
        pytest.param(["pause", "2h"], "Missing option '--why'", id="pause without a reason"),
        pytest.param(["pause", "--why=x"], "Missing argument 'LENGTH'", id="pause for how long"),
        *(
            pytest.param(["pause", "--why=x", "--", text], words, id=f"pause {text or 'empty'}")
            for text, words in (
                ("", "no length of time"),
                ("2", "no length of time"),
                ("two hours", "no length of time"),
                ("1.5h", "no length of time"),
                ("-1h", "no length of time"),
                ("1w", "no length of time"),
                ("2H", "no length of time"),
                ("2h ", "no length of time"),
                ("٢h", "no length of time"),
                ("0m", "not between one minute and 30 days"),
                ("31d", "not between one minute and 30 days"),
                ("30d1m", "not between one minute and 30 days"),
                ("9999999d", "no length of time"),
                ("999999d", "not between one minute and 30 days"),
            )
        ),
    ],
)
def test_what_is_asked_for_wrongly_is_a_usage_error_and_nothing_is_done(hub, arguments, words):
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in " ".join(result.stderr.split())
    assert hub.done == []


@pytest.mark.parametrize("command", ["list", "delete", "unstick", "reconcile", "pause", "resume"])
def test_help_needs_no_hub(command):
    assert "Usage: " in run(command, "-h").stdout


# -- list


def test_each_server_is_one_line_with_three_records_a_verdict_and_why(world, hub):
    world.has(ADA, GPU, BOB, EVE)
    del Labs.there[lab_of(BOB)]
    del hub.targets[GPU]
    world.runs(Server("zoe"), ip="10.0.0.7")
    Labs.there["somebody"] = (
        Lab("somebody", LabState.RUNNING, "Running"),
        LabIdentity("uid", NAMESPACE, None),
    )

    result = run("list")

    assert result.exit_code == 0
    title, *rows = result.stdout.splitlines()
    assert title.split() == ["SERVER", "SESSION", "ROUTE", "LAB", "VERDICT", "WHY"]
    cells = [[cell for cell in row.split("  ") if cell.strip()] for row in rows]
    lab = lab_of(ADA)
    assert [cell.strip() for cell in cells[1]] == [
        "ada",
        "10.0.0.1:8888",
        "http://10.0.0.1:8888",
        f"{lab} Running 10.0.0.1",
        "in step",
    ]
    told = {line[0].strip(): [cell.strip() for cell in line[1:]] for line in cells}
    assert list(told) == [SPELLED_OUT, "ada", "ada/gpu", "bob", "zoe", "?"]
    assert told["ada/gpu"][-2:] == ["route missing", "the proxy has no route to it"]
    assert told["ada/gpu"][1] == "-"
    assert told["bob"][2:4] == ["-", "stale"]
    assert told["zoe"][:2] == ["-", "-"]
    assert told["zoe"][3] == "orphan"
    assert told["?"][-2:] == ["foreign", "lab somebody names no user"]
    assert "\x1b" not in result.output
    assert "6 servers: 2 in step, 1 stale, 1 orphan, 1 foreign, 1 route missing; " in result.stderr
    assert f"namespace {NAMESPACE}, hub {HUB}" in result.stderr
    assert hub.done == []


@pytest.mark.parametrize(
    ("arguments", "servers"),
    [
        pytest.param([], ["ada", "ada/gpu", "bob", "zoe"], id="everybody"),
        pytest.param(["ada"], ["ada", "ada/gpu"], id="one user"),
        pytest.param(["ada", "--server="], ["ada"], id="their default server"),
        pytest.param(["ada", "--server=gpu"], ["ada/gpu"], id="a named server"),
        pytest.param(["nobody"], [], id="nobody"),
        pytest.param(["--verdict=in-step"], ["ada", "ada/gpu"], id="with a hyphen"),
        pytest.param(["--verdict=in step"], ["ada", "ada/gpu"], id="as it is printed"),
        pytest.param(["--verdict=stale", "--verdict=orphan"], ["bob", "zoe"], id="two verdicts"),
        pytest.param(["ada", "--verdict=stale"], [], id="none of theirs"),
    ],
)
def test_the_list_can_be_narrowed(world, hub, arguments, servers):
    world.has(ADA, GPU, BOB)
    del Labs.there[lab_of(BOB)]
    world.runs(Server("zoe"))
    told = json.loads(run("list", "--json", *arguments).stdout)
    assert [str(Server(one["user"], one["server"])) for one in told["findings"]] == servers
    assert told["hub_runs"] is True
    assert told["plan"]["actions"] == []


def test_a_pause_is_said_beside_the_list(world, hub):
    world.has(ADA)
    world.paused = "paused until 2030-01-01 10:00 UTC (\x1b[2Jupgrade)"
    result = run("list")
    assert "Passes change nothing just now: paused until 2030-01-01 10:00 UTC" in result.stderr
    assert "\x1b" not in result.output
    assert "paused" not in result.stdout


@pytest.mark.parametrize(
    "command", [["list"], ["delete", "ada"], ["reconcile", "--yes"]], ids=" ".join
)
def test_when_the_labs_are_not_known_it_is_one_sentence_and_nothing_is_changed(world, hub, command):
    world.has(ADA)
    Labs.doubt = "listing labs in namespace jupyter: HTTP 503"
    assert refused(run(*command)) == f"{Labs.doubt}. Nothing was changed"
    assert hub.done == []


# -- delete


def test_the_records_and_the_plan_are_shown_before_the_question(world, hub):
    world.has(ADA, GPU)
    result = run("delete", "ada", answer="n\n")
    err = result.stderr
    assert result.exit_code == 1
    places = [
        err.index(words)
        for words in (
            f"namespace {NAMESPACE}",
            "http://10.0.0.1:8888",
            "end-session ada (",
            "Go on?",
        )
    ]
    assert places == sorted(places)
    assert "end-session ada/gpu" in err
    assert (hub.done, len(hub.rows)) == ([], 2)


@pytest.mark.parametrize(
    ("arguments", "done"),
    [
        pytest.param(["ada"], ["stop ada", "stop ada/gpu", "check-routes "], id="all of a user"),
        pytest.param(["ada", "--server="], ["stop ada", "check-routes "], id="the default one"),
        pytest.param(["ada", "--server=gpu"], ["stop ada/gpu", "check-routes "], id="a named one"),
        pytest.param(["zoe"], [], id="an orphan"),
        pytest.param(["--", HOSTILE], [f"stop {HOSTILE}", "check-routes "], id="a hostile name"),
    ],
)
def test_what_was_asked_for_is_deleted_and_asking_again_does_nothing(world, hub, arguments, done):
    world.has(ADA, GPU, BOB, EVE)
    world.runs(Server("zoe"))
    first = run("delete", "--yes", *arguments)
    assert first.exit_code == 0, first.output
    assert [" ".join(one) for one in hub.done] == done
    assert {line.rpartition(": ")[2] for line in first.stdout.splitlines()} == {"done"}
    left = {one.user for one in hub.rows}, set(Labs.there)

    again = run("delete", "--yes", *arguments)

    assert (again.exit_code, again.stdout) == (0, "")
    assert "There is nothing to do: " in again.stderr
    assert [" ".join(one) for one in hub.done] == done
    assert ({one.user for one in hub.rows}, set(Labs.there)) == left
    assert "\x1b" not in first.output + again.output


def test_of_several_the_one_that_fails_is_named_and_the_exit_status_says_so(world, hub):
    world.has(ADA)
    world.runs(GPU)
    hub.faults["ada"] = Conflict("the lab \x1b[2J does not end")
    result = run("delete", "ada", "--yes", "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    outcomes = {(one["kind"], one["server"]): one["outcome"] for one in told["outcomes"][:2]}
    assert outcomes == {
        ("end-session", ""): "failed: the lab \x1b[2J does not end",
        ("delete-lab", "gpu"): "done",
    }
    assert told["plan"]["actions"][0].items() <= told["outcomes"][0].items()
    printed = run("delete", "ada", "--yes")
    assert printed.stdout.startswith(f"end-session ada ({lab_of(ADA)}): failed: the lab \\x1b[2J")


def test_another_hubs_lab_is_left_alone(world, hub):
    world.runs(ADA)
    lab, identity = Labs.there[lab_of(ADA)]
    Labs.there[lab_of(ADA)] = (lab, replace(identity, hub="theirs"))
    result = run("delete", "ada", "--yes")
    assert result.exit_code == 0
    assert "is hub theirs's" in result.stderr
    assert "There is nothing to do" in result.stderr
    assert lab_of(ADA) in Labs.there


def test_forgetting_a_user_names_the_home_that_stays(world, hub):
    world.write_database(ADA, GPU, BOB)
    world.has(ADA)
    declined = run("delete", "ada", "--forget-user", answer="n\n")
    assert "The hub forgets ada: the user's row, tokens, groups" in declined.stderr
    assert "The home stays, with every file (claim claim-ada)." in declined.stderr
    assert "Whoever logs in as ada later gets that home again." in declined.stderr
    assert "bob" not in declined.stderr
    assert hub.done == []

    assert list(world.directory.rglob("*.verified")) == []

    agreed = run("delete", "ada", "--forget-user", answer="y\n")
    assert agreed.exit_code == 0
    # Tokens, groups and roles of theirs are in no other place.
    (snapshot,) = world.directory.rglob("*.verified")
    assert snapshot.name.removesuffix(".verified") in agreed.stderr.replace("\n", "")
    assert agreed.stdout.splitlines()[-1] == "forget-user ada: done"
    assert hub.done[-1] == ("forget-user", "ada")


def test_forgetting_somebody_whom_the_hub_does_not_know_does_nothing(world, hub):
    world.write_database(BOB)
    result = run("delete", "ada", "--forget-user", "--yes")
    assert (result.exit_code, result.stdout, hub.done) == (0, "", [])
    assert "nothing to do: ada has no session, no route, no lab, no user." in result.stderr


def test_nobody_is_forgotten_of_whom_no_snapshot_can_be_made_unless_told(world, hub):
    world.write_database(BOB)
    world.has(ADA, BOB)
    world.extra = f"\nc.DatabaseBackup.destination = 'file://{world.database}/in-a-file'\n"
    world.write_config()
    why = refused(run("delete", "bob", "--forget-user", "--yes"))
    assert "Nothing was changed" in why
    assert "jhub-safety sessions delete bob --forget-user --no-snapshot" in why
    assert hub.done == []
    told = run("delete", "bob", "--forget-user", "--no-snapshot", "--yes")
    assert told.stdout.splitlines()[-1] == "forget-user bob: done"
    # Without it, nothing is lost that the hub could not make again.
    assert run("delete", "ada", "--yes").exit_code == 0


def test_a_user_whose_server_does_not_end_is_not_forgotten(world, hub):
    world.write_database(ADA)
    world.has(ADA)
    hub.faults["ada"] = Doubt("HTTP 503")
    result = run("delete", "ada", "--forget-user", "--yes")
    assert result.exit_code == 1
    assert (
        result.stdout.splitlines()[-1] == "forget-user ada: failed: ada still has a running server"
    )
    assert hub.users == {"ada"}


# -- unstick


def test_only_what_is_pending_is_given_up(world, hub):
    world.has(ADA, GPU, BOB)
    hub.busy = {GPU: "spawn", BOB: "stop"}
    result = run("unstick", "ada", "--yes")
    assert result.exit_code == 0
    assert result.stdout == f"unstick ada/gpu ({lab_of(GPU)}): done: pending spawn was given up\n"
    assert hub.done == [("unstick", "ada/gpu")]
    again = run("unstick", "ada", "--yes")
    assert (again.exit_code, again.stdout) == (0, "")
    assert "nothing of ada is pending" in again.stderr


def test_what_hangs_since_the_cluster_does_not_answer_can_be_given_up(world, hub):
    world.has(ADA, BOB)
    hub.busy = {ADA: "check", BOB: "check"}
    Labs.doubt = "listing labs in namespace jupyter: HTTP 503"
    result = run("unstick", "ada", answer="y\n")
    assert result.exit_code == 0
    assert Labs.doubt in result.stderr
    assert hub.done == [("unstick", "ada")]


# -- reconcile


@pytest.fixture
def quick(world, monkeypatch):
    """A minute of the hub's passes in a tenth of a second."""
    monkeypatch.setattr(import_module("jhub_safety.cli.sessions"), "APART", 0.1)
    Labs.absences = Absences(clock=lambda: time.monotonic() * 600)


def test_two_looks_a_minute_apart_clear_what_is_missing(quick, world):
    world.start_hub()
    world.has(ADA, BOB)
    del Labs.there[lab_of(BOB)]
    once = run("reconcile", "--yes")
    assert (once.exit_code, once.stdout) == (0, "")
    assert "not now bob: it must be missing twice" in once.stderr
    assert "add --wait" in once.stderr
    result = run("reconcile", "--wait", "--yes")
    assert (result.exit_code, result.stdout) == (0, f"clear-session bob ({lab_of(BOB)}): done\n")
    assert "Looking again in" in result.stderr
    assert set(world.hub.rows) == {ADA}


def test_without_anything_missing_nobody_waits(world, hub):
    world.has(ADA)
    started = time.monotonic()
    assert run("reconcile", "--wait", "--yes").exit_code == 0
    assert time.monotonic() - started < 20


def test_a_dry_run_prints_the_plan_and_does_nothing(world, hub):
    world.has(ADA)
    del hub.targets[ADA]
    result = run("reconcile", "--dry-run", "--json")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["outcomes"], hub.done) == (0, None, [])
    assert [one["kind"] for one in told["plan"]["actions"]] == ["check-routes"]
    assert "check-routes proxy: 1 servers whose route is missing or dead" in result.stderr


@pytest.mark.parametrize(
    ("paused", "words"),
    [
        pytest.param("paused until 2030 (x)", "jhub-safety sessions resume", id="paused"),
        pytest.param("SessionReconciler.dry_run is on", "run it without --yes", id="dry_run"),
    ],
)
def test_what_keeps_the_hubs_passes_back_is_overridden_by_a_person_alone(world, hub, paused, words):
    world.has(ADA)
    del hub.targets[ADA]
    world.paused = paused
    said = refused(run("reconcile", "--yes"))
    assert said.startswith("nothing was done.")
    assert words in said
    assert run("reconcile", answer="n\n").exit_code == 1
    assert hub.done == []
    agreed = run("reconcile", answer="y\n")
    assert agreed.stderr.index(paused) < agreed.stderr.index("Go on?")
    assert (agreed.exit_code, hub.done) == (0, [("check-routes", "")])


def test_more_than_is_plausible_is_for_a_person_to_say(world, hub):
    many = [Server(f"user-{number}") for number in range(4)]
    world.write_database(*many)
    world.has(*many)
    Labs.there.clear()
    result = run("reconcile", "--yes")
    assert result.exit_code == 1
    assert result.stderr.count("too many are missing at once") == 4
    assert "add --over-cap" in result.stderr
    assert list(world.directory.rglob("*.verified")) == []
    said = run("reconcile", "--over-cap", "--yes")
    assert said.exit_code == 0
    assert said.stdout.count(": done\n") == 4
    assert hub.rows == {}
    assert len(list(world.directory.rglob("*.verified"))) == 1
