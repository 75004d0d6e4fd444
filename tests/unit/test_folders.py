"""Homes on one shared claim: the table of docs/folders.md, and the look of the init container."""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jhub_safety.cluster.labs import InitState
from jhub_safety.errors import ConfigError
from jhub_safety.owner import Owner
from jhub_safety.volumes import looking
from jhub_safety.volumes.folders import (
    Kind,
    Mode,
    Question,
    Row,
    Seen,
    check_template,
    decide,
    folders,
    generations,
    readings,
    valid_folder,
)
from jhub_safety.volumes.names import Place

ERIN = Owner("hub", "erin@school.edu")
OLD, TODAY = "erin-40school-2eedu", "erin-school-edu---7c0ec5fa"
PLACE = Place("jhub", "jhub")
EVERY = generations("{username}", [])
TAKER = Owner("hub", OLD)


def asked(**fields) -> Question:
    return Question(**{"owner": ERIN, "today": TODAY, "names": (TODAY, OLD), **fields})


def seen(today="absent", old="absent", **fields) -> Seen:
    return Seen({TODAY: Kind(today), OLD: Kind(old)}, **fields)


SAVED = {"saved": frozenset({OLD})}
GUESSED = {"guesses": {TODAY: "somebody"}}
TABLE = [
    pytest.param(asked(), seen(), Row.NEW, TODAY, id="none: today's is made"),
    pytest.param(asked(), seen("folder"), Row.TODAY, TODAY, id="today's alone"),
    pytest.param(asked(), seen(old="folder"), Row.EARLIER, OLD, id="an earlier one alone"),
    pytest.param(asked(), seen("folder", "folder"), Row.SEVERAL, None, id="two"),
    pytest.param(asked(), seen("link"), Row.ODD, None, id="a link"),
    pytest.param(asked(), seen("folder", "other"), Row.ODD, None, id="a file beside a folder"),
    pytest.param(asked(), seen(empty=True), Row.EMPTY, None, id="all homes are gone"),
    pytest.param(asked(), Seen(fault="no image"), Row.INCOMPLETE, None, id="could not look"),
    pytest.param(asked(), Seen({TODAY: Kind.ABSENT}), Row.INCOMPLETE, None, id="half a look"),
    pytest.param(
        asked(**SAVED), seen("folder", "folder"), Row.KNOWN, OLD, id="on record, whatever else"
    ),
    pytest.param(asked(**SAVED), seen("folder"), Row.GONE, None, id="on record and gone"),
    pytest.param(asked(**SAVED), seen(old="link"), Row.ODD, None, id="on record, and a link"),
    pytest.param(asked(**SAVED), Seen(fault="x"), Row.INCOMPLETE, None, id="on record, not seen"),
    pytest.param(
        asked(saved=frozenset({OLD, TODAY})),
        seen("folder", "folder"),
        Row.CONFLICT,
        None,
        id="two servers, two records",
    ),
    pytest.param(
        asked(chosen=TODAY, **SAVED), seen("folder", "folder"), Row.CHOSEN, TODAY, id="chosen"
    ),
    pytest.param(
        asked(chosen=TODAY, saved=frozenset({OLD, TODAY})),
        seen("folder"),
        Row.CHOSEN,
        TODAY,
        id="chosen between two records",
    ),
    pytest.param(
        asked(chosen=TODAY, rivals={TODAY: "renamed"}),
        seen("folder"),
        Row.UNPROVEN,
        None,
        id="chosen, and on another's record",
    ),
    pytest.param(
        asked(chosen=TODAY, rivals={TODAY: "renamed"}, saved=frozenset({TODAY})),
        seen("folder"),
        Row.UNPROVEN,
        None,
        id="chosen, on record, and on another's record",
    ),
    pytest.param(
        asked(chosen=TODAY, may_be_new=True, rivals={TODAY: "renamed"}),
        seen(),
        Row.UNPROVEN,
        None,
        id="chosen, may be new, and on another's record",
    ),
    pytest.param(
        asked(chosen=TODAY, rivals={TODAY: "renamed"}),
        Seen(fault="not looked yet"),
        Row.UNPROVEN,
        None,
        id="chosen, and on another's record: refused before a look",
    ),
    pytest.param(
        asked(chosen=TODAY, rivals={OLD: "rival"}),
        seen("folder", "folder"),
        Row.CHOSEN,
        TODAY,
        id="chosen, and another's record names another",
    ),
    pytest.param(asked(chosen=TODAY), seen(old="folder"), Row.GONE, None, id="chosen, not there"),
    pytest.param(
        asked(chosen=TODAY, may_be_new=True),
        seen(old="folder"),
        Row.CHOSEN,
        TODAY,
        id="chosen, may be new",
    ),
    pytest.param(
        asked(rivals={OLD: "rival"}),
        seen(old="folder"),
        Row.UNPROVEN,
        None,
        id="an earlier one that a known user may have",
    ),
    pytest.param(
        asked(rivals={OLD: "rival"}),
        seen("folder"),
        Row.TODAY,
        TODAY,
        id="what a rival may have is not there",
    ),
    pytest.param(
        asked(guesses={OLD: "nobody"}),
        seen(old="folder"),
        Row.EARLIER,
        OLD,
        id="an earlier one that only an unknown name would have",
    ),
    pytest.param(
        asked(**GUESSED), seen("folder"), Row.UNPROVEN, None, id="a name made to fit a folder"
    ),
    pytest.param(
        asked(ran=True, **GUESSED), seen("folder"), Row.TODAY, TODAY, id="it ran there before"
    ),
    pytest.param(
        asked(ran=True, rivals={TODAY: "rival"}),
        seen("folder"),
        Row.UNPROVEN,
        None,
        id="it ran there before, and a known user may have it",
    ),
    pytest.param(asked(**GUESSED), seen(), Row.NEW, TODAY, id="a guess about nothing"),
]


@pytest.mark.parametrize(("question", "what", "row", "folder"), TABLE)
def test_decision(question, what, row, folder):
    decision = decide(question, what)
    assert (decision.row, decision.folder) == (row, folder)
    assert decision.retryable == (row in (Row.INCOMPLETE, Row.EMPTY))
    # Choosing a folder is no answer to a claim that cannot be looked at.
    assert bool(decision.command) == (folder is None and not decision.retryable)


def test_every_row_has_a_case():
    assert {case.values[2] for case in TABLE} == set(Row)


# -- names


def test_both_styles_of_every_template_are_looked_for():
    every = generations("{username}", ["home/{username}"])
    assert folders(ERIN, every, PLACE) == (TODAY, OLD, f"home/{TODAY}", f"home/{OLD}")


def test_a_plain_name_has_one_folder():
    assert folders(Owner("hub", "ada"), EVERY, PLACE) == ("ada",)


def test_a_renamed_user_is_looked_for_under_the_former_name():
    assert folders(Owner("hub", "ada"), EVERY, PLACE, ["bob.b"])[-1:] == ("bob-2eb",)


def test_a_name_made_to_fit_anothers_folder_is_read_back():
    (one,) = [guess.user for _, guess in readings(OLD, TAKER, EVERY, PLACE) if not guess.many]
    assert one == ERIN.user


@pytest.mark.parametrize("name", ["", ".", "..", "/x", "x/", "a//b", "a/../b", "x\0", "x" * 256])
def test_what_is_no_folder_below_the_root(name):
    assert not valid_folder(name)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        pytest.param("shared", "same for every user", id="the same for all"),
        pytest.param("{userid}/{username}", "userid", id="user id"),
        pytest.param("../{username}", "no path", id="upwards"),
        pytest.param("/{username}", "no path", id="absolute"),
        pytest.param("{nobody}", "not known", id="unknown field"),
        pytest.param("{username", "template", id="lone brace"),
    ],
)
def test_a_template_that_cannot_be_used(template, words):
    with pytest.raises(ConfigError, match=words):
        check_template(template)


# -- the look itself, by this machine's shell


def look(root: Path, mode: Mode, names, *, had=False) -> InitState:
    log = root.parent / "log"
    log.write_text("")
    done = subprocess.run(
        ["sh", "-c", looking.SCRIPT, "look", str(root), str(log), mode, str(int(had)), *names],
        env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
        capture_output=True,
        check=False,
    )
    return InitState(done.returncode, log.read_text())


def make(root: Path, name: str, kind: str) -> None:
    path = root / name
    if kind == "folder":
        path.mkdir(parents=True)
    elif kind == "link":
        path.symlink_to(root.parent)
    elif kind == "other":
        path.write_text("x")


QUESTIONS = {
    "nothing known": asked(),
    "on record": asked(**SAVED),
    "chosen": asked(chosen=TODAY),
    "chosen, new": asked(chosen=TODAY, may_be_new=True),
    "rivalled": asked(rivals={TODAY: "rival"}),
    "guessed": asked(**GUESSED),
}


@pytest.mark.parametrize("had", [False, True])
@pytest.mark.parametrize("what", QUESTIONS)
def test_a_lab_goes_on_exactly_when_the_table_would_mount_what_it_mounts(what, had, tmp_path):
    question = QUESTIONS[what]
    names = tuple(dict.fromkeys((question.expected, *question.names)))
    for number, kinds in enumerate(itertools.product(Kind, repeat=2)):
        root = tmp_path / str(number) / "root"
        root.mkdir(parents=True)
        for name, kind in zip((TODAY, OLD), kinds, strict=True):
            make(root, name, kind)
        state = look(root, question.mode, names, had=had)
        nothing = set(kinds) == {Kind.ABSENT}
        decision = decide(question, seen(*kinds, empty=had and nothing))
        goes_on = decision.folder == question.expected
        assert (state.exit_code == 0) == goes_on, (kinds, state, decision)
        if not goes_on:
            assert decide(question, looking.understand(state, names)) == decision


HOSTILE = ["$(touch pwned)", "`id`", "a b", "-rf", "*", "new\nline", "tail\n", "'\"\\", "é"]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("there", [True, False])
def test_hostile_names_are_looked_for_letter_by_letter(name, there, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "another").mkdir()
    if there:
        (root / name).mkdir()
    state = look(root, Mode.NONE, [name])
    assert state.exit_code == (looking.REPORT if there else 0)
    assert sorted(path.name for path in root.iterdir()) == sorted(
        ["another", *([name] if there else [])]
    )
    assert name not in state.message


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=60))
def test_kubernetes_gives_the_container_the_very_name(name):
    argument = looking.container("v", "i", 1, Mode.MAY, [name], had=False).args[2]
    # third_party/forked/golang/expansion: "$$" is a dollar, "$(" begins a variable.
    assert "$(" not in argument.replace("$$", "")
    assert argument.replace("$$", "$") == name


def test_a_nested_folder_below_a_link_is_a_link(tmp_path):
    root = tmp_path / "root"
    (root / "real" / "erin").mkdir(parents=True)
    (root / "home").symlink_to(root / "real")
    state = look(root, Mode.ONLY, ["home/erin"])
    assert looking.understand(state, ["home/erin"]).kinds == {"home/erin": Kind.LINK}


def test_a_root_that_cannot_be_read_is_doubt(tmp_path):
    state = look(tmp_path / "not-mounted", Mode.MAY, ["x"])
    assert state.exit_code == looking.BLIND
    assert looking.understand(state, ["x"]).fault


def test_a_file_where_a_folder_leads_to_the_home_is_no_absence(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "home").write_text("x")
    state = look(root, Mode.ONLY, ["home/erin"])
    assert state.exit_code == looking.REPORT
    assert looking.understand(state, ["home/erin"]).kinds == {"home/erin": Kind.OTHER}


@pytest.mark.parametrize(
    "state",
    [
        pytest.param(InitState(None, "", "ImagePullBackOff"), id="no image"),
        pytest.param(InitState(137, ""), id="killed"),
        pytest.param(InitState(127, "0 absent\n"), id="no shell"),
        pytest.param(InitState(looking.BLIND, "blind root"), id="blind"),
        pytest.param(InitState(looking.REPORT, ""), id="no report"),
        pytest.param(InitState(looking.REPORT, "0 absent\n"), id="half a report"),
        pytest.param(InitState(looking.REPORT, "0 absent\n1 gone\n"), id="another word"),
        pytest.param(InitState(looking.REPORT, "0 absent\n7 folder\n"), id="another number"),
        pytest.param(InitState(looking.REPORT, "0 absent\n-1 folder\n"), id="a negative number"),
    ],
)
def test_what_is_no_whole_report_is_doubt(state):
    assert looking.over(state)
    decision = decide(asked(), looking.understand(state, [TODAY, OLD]))
    assert (decision.row, decision.retryable) == (Row.INCOMPLETE, True)


@pytest.mark.parametrize(
    "state",
    [
        pytest.param(None, id="not there yet"),
        pytest.param(InitState(), id="running"),
        pytest.param(InitState(0), id="went on"),
        pytest.param(InitState(None, "", "PodInitializing"), id="waiting"),
        pytest.param(InitState(None, "", "ErrImagePull"), id="first try of the image"),
    ],
)
def test_what_may_still_go_on(state):
    assert not looking.over(state)
