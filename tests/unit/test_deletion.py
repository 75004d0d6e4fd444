"""What is deleted, what never is, and that an interruption costs nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jhub_safety import owner as marks
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.journal import Journal, NotWritten
from jhub_safety.owner import Owner
from jhub_safety.volumes.deletion import (
    FEW,
    by_filter,
    by_name,
    cap,
    doubt_of,
    execute,
    leaving,
)
from jhub_safety.volumes.selection import Filter
from tests.unit.claim_rows import NOW, ago, extra, home, known, names, recipes, rows
from tests.unit.cluster_double import holding
from tests.unit.given import HUB, claim

EXTRAS = Filter(components=["extra-pvc"])
PROTECTED = {marks.PROTECT: "true"}
WITH_ID = Owner(HUB, "zoe", identity="sub-1").annotations("extra")


def chosen(*claims, asked=EXTRAS, homes=(), **more):
    database = more.get("known")
    oldest = database.oldest if database else None
    return by_filter(rows(*claims, **more), asked, hub=HUB, homes=homes, oldest=oldest, now=NOW)


# -- by filter


@pytest.mark.parametrize(
    ("one", "why"),
    [
        pytest.param(extra("bob"), "", id="an extra volume of this hub"),
        pytest.param(extra("bob", hub="other"), "another hub's: never", id="another hub's"),
        pytest.param(home("bob"), "a home: only by its name", id="a home"),
        pytest.param(
            claim("x", created=ago(days=3)), "a home: only by its name", id="what may be a home"
        ),
        pytest.param(extra("bob", "on-record"), "a home: only by its name", id="on record as home"),
        pytest.param(
            claim("hub-db-dir", {}, {"component": "hub"}, created=ago(days=3)),
            "no user's: never",
            id="the hub's own",
        ),
        pytest.param(
            recipes("bob"), "without this hub's label: only by its name", id="without a label"
        ),
        pytest.param(
            extra("bob", annotations=PROTECTED),
            "protected by jhub-safety/protect: never",
            id="protected",
        ),
        pytest.param(extra("bob", deleting=True), "being deleted already", id="being deleted"),
    ],
)
def test_a_filter_takes_extra_volumes_of_this_hub_and_says_why_not_others(one, why):
    found = chosen(one, asked=Filter(older_than=timedelta(days=0)), homes={"on-record"})
    assert names(found.plan.actions) == ([] if why else [one.name])
    assert dict(found.left_out) == ({why: (one.name,)} if why else {})


def test_what_a_filter_did_not_ask_for_is_not_spoken_of():
    found = chosen(home("bob"), extra("zoe", hub="other"), asked=Filter(owners=["ada"]))
    assert (found.plan.actions, dict(found.left_out)) == ((), {})


def test_an_account_with_a_stable_id_may_have_been_renamed_and_is_no_orphan_for_certain():
    one = extra("zoe", annotations=WITH_ID)
    database = known("ada")
    assert names(chosen(one, asked=Filter(owners=["zoe"]), known=database).rows) == ["data-zoe"]
    found = chosen(one, asked=Filter(orphaned=True), known=database)
    assert found.rows == ()
    assert "which may have been renamed" in next(iter(found.left_out))


def test_a_lab_of_somebody_unknown_casts_doubt_on_the_database_and_keeps_its_volume():
    one, mounts = extra("zoe"), {"data-zoe": ("jupyter-zoe",)}
    found = chosen(one, asked=Filter(orphaned=True), known=known("ada"), mounts=mounts)
    assert found.rows == ()
    assert "in use, though the hub knows no such user" in next(iter(found.left_out))
    named = by_name(rows(one, known=known("ada"), mounts=mounts), ["data-zoe"], hub=HUB, deleted={})
    assert names(named.rows) == ["data-zoe"]


def test_a_database_that_was_begun_anew_knows_nothing_of_who_has_not_come_back_yet():
    """Of 20 users of the former one 10 are back; the claims of 30 new ones outnumber theirs."""
    back, away = ([f"{kind}-{n}" for n in range(10)] for kind in ("back", "away"))
    new = [f"new-{n}" for n in range(30)]
    claims = (
        *(extra(user, created=ago(days=200)) for user in (*back, *away)),
        *(extra(user, created=ago(days=30)) for user in new),
        extra("left", created=ago(days=50)),
        extra("a-minute-too-old", created=ago(days=60, minutes=1)),
    )
    database = known(*back, *new, oldest=ago(days=60))
    assert doubt_of(database, rows(*claims, known=database), HUB) == ""
    found = chosen(*claims, asked=Filter(orphaned=True), known=database)
    assert names(found.plan.actions) == names(found.rows) == ["data-left"]
    assert dict(found.left_out) == {
        "older than the hub's database: only by its name": (
            "data-a-minute-too-old",
            *(f"data-{user}" for user in away),
        )
    }


@pytest.mark.parametrize(
    ("made", "oldest"), [(None, ago(days=60)), (ago(days=30), None)], ids=["a claim", "users"]
)
def test_without_a_date_nobody_is_an_orphan(made, oldest):
    database = known("ada", oldest=oldest)
    asked = Filter(orphaned=True)
    found = chosen(extra("zoe", created=made), asked=asked, known=database)
    assert found.rows == ()
    assert names(chosen(extra("zoe", created=made), known=database).rows) == ["data-zoe"]


_any_claims = st.lists(
    st.builds(
        lambda number, kind, hub, protect, deleting: replace(
            {"home": home, "extra": extra}[kind](f"u{number}", f"c{number}", hub),
            deleting=deleting,
            annotations=MappingProxyType(
                {
                    **{"home": home, "extra": extra}[kind](f"u{number}", hub=hub).annotations,
                    **({} if protect is None else {marks.PROTECT: protect}),
                }
            ),
        ),
        st.integers(0, 9),
        st.sampled_from(["home", "extra"]),
        st.sampled_from([HUB, "other"]),
        st.sampled_from([None, "true", "false", ""]),
        st.booleans(),
    ),
    unique_by=lambda one: one.name,
)
_any_filter = st.builds(
    Filter,
    components=st.lists(st.sampled_from(["home", "extra-pvc"]), max_size=2),
    owners=st.lists(st.sampled_from(["u1", "u2", "u3"]), max_size=2),
    orphaned=st.sampled_from([None, True]),
    older_than=st.sampled_from([None, timedelta(days=1), timedelta(days=60)]),
)


@given(_any_claims, _any_filter)
def test_no_filter_ever_takes_a_home_or_what_is_protected_or_another_hubs(claims, asked):
    found = chosen(*claims, asked=asked, known=known("u1", "u2"))
    allowed = {
        one.name
        for one in claims
        if one.labels["component"] == "extra-pvc"
        and one.annotations[marks.HUB] == HUB
        and one.annotations.get(marks.PROTECT, "false") == "false"
        and not one.deleting
    }
    assert set(names(found.plan.actions)) <= allowed
    assert names(found.rows) == names(found.plan.actions)
    uids = {one.name: one.uid for one in claims}
    assert all(action.uid == uids[action.name] for action in found.plan.actions)


# -- by name


@pytest.mark.parametrize(
    ("one", "code"),
    [
        pytest.param(extra("bob"), "", id="an extra volume"),
        pytest.param(home("bob"), "", id="a home"),
        pytest.param(recipes("bob"), "", id="without a label"),
        pytest.param(claim("x"), "", id="without anything"),
        pytest.param(extra("bob", hub="other"), "other-hub", id="another hub's"),
        pytest.param(home("bob", hub="other"), "other-hub", id="another hub's home"),
        pytest.param(
            claim("x", {marks.HUB: "other"}), "other-hub", id="another hub's by annotation"
        ),
        pytest.param(extra("bob", annotations=PROTECTED), "protected", id="protected"),
        pytest.param(claim("hub-db-dir", {}, {"component": "hub"}), "no-users", id="the hub's own"),
    ],
)
def test_a_named_claim_goes_unless_it_is_another_hubs_or_protected_or_no_users(one, code):
    found = by_name(rows(one), [one.name], hub=HUB, deleted={})
    assert [refusal.code for refusal in found.plan.refusals] == ([code] if code else [])
    assert names(found.plan.actions) == ([] if code else [one.name])


def test_a_name_that_is_gone_is_a_mistake_unless_the_journal_knows_it():
    found = by_name(
        rows(extra("bob")), ["data-bob", "gone", "typo"], hub=HUB, deleted={"gone": "today"}
    )
    assert names(found.plan.actions) == ["data-bob"]
    assert [(one.code, one.who) for one in found.plan.refusals] == [("missing", "typo")]
    assert dict(found.left_out) == {"gone: by the journal it was deleted before": ("gone",)}


def test_a_claim_that_is_named_twice_is_deleted_once():
    found = by_name(rows(extra("bob")), ["data-bob", "data-bob"], hub=HUB, deleted={})
    assert names(found.plan.actions) == ["data-bob"]


# -- whether the database can say who is an orphan

USERS = ("ada", "bob")
THEIRS = (extra("ada"), extra("bob"), extra("zoe"))


@pytest.mark.parametrize(
    ("database", "claims", "words"),
    [
        pytest.param(known(*USERS), THEIRS, "", id="whole"),
        pytest.param(known(*USERS), (), "", id="no claims"),
        pytest.param(None, THEIRS, "cannot be read", id="unreadable"),
        pytest.param(known(), THEIRS, "has no user at all", id="empty"),
        pytest.param(known("root"), THEIRS, "knows no owner", id="another hub's"),
        pytest.param(
            known(*USERS, oldest=ago(days=2)), THEIRS, "most claims are older", id="begun anew"
        ),
        pytest.param(
            known(*USERS, oldest=ago(days=2)),
            (*THEIRS, *(extra("ada", f"new-{n}", created=ago(days=1)) for n in range(4))),
            "",
            id="only a few are older: their users have left",
        ),
        pytest.param(
            known(*USERS, newest=ago(days=40)), THEIRS, "an older copy", id="an older copy"
        ),
        pytest.param(
            known(*USERS, newest=ago(days=30, minutes=30)), THEIRS, "", id="minutes are no proof"
        ),
        pytest.param(known(*USERS, oldest=None), THEIRS, "not known since when", id="no dates"),
        pytest.param(
            known(*USERS), (*THEIRS, extra("x", created=None)), "not known since", id="no date"
        ),
        pytest.param(
            known(*USERS),
            (*THEIRS, *(extra(f"o{n}", hub="other", created=None) for n in range(9))),
            "",
            id="another hub's claims say nothing",
        ),
    ],
)
def test_a_database_that_may_be_lost_calls_nobody_an_orphan(database, claims, words):
    told = doubt_of(database, rows(*claims, known=database), HUB)
    assert words in told
    assert bool(told) is bool(words)


@pytest.mark.parametrize(
    ("count", "most"), [(0, FEW), (10, FEW), (50, FEW), (100, 20), (1000, 200)]
)
def test_only_a_part_of_a_hubs_claims_is_deleted_as_orphaned_without_being_asked_for(count, most):
    many = (extra("a", f"c{n}") for n in range(count))
    others = (extra("a", f"o{n}", hub="other") for n in range(500))
    assert cap(rows(*many, *others), HUB) == most


# -- acting


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "journal.jsonl")


def outcomes_of(journal):
    return [(line["name"], line["outcome"]) for line in journal.lines()]


async def run(deletion, cluster, journal, **more):
    found = await execute(deletion, cluster, journal, **more)
    return {one.action.name: one.result for one in found}


FOUR = tuple(extra(user) for user in ("ada", "bob", "eve", "zoe"))


async def test_exactly_the_planned_claims_go_and_each_is_in_the_journal_before_and_after(journal):
    others = (home("ada"), extra("bob", "other-hubs", hub="other"), claim("unlabelled"))
    cluster = holding(*FOUR, *others)
    deletion = chosen(*FOUR[:2], asked=EXTRAS)
    assert await run(deletion, cluster, journal) == {"data-ada": "done", "data-bob": "done"}
    assert set(cluster.stored) == {"data-eve", "data-zoe", *names(others)}
    assert outcomes_of(journal) == [
        ("data-ada", "begun"),
        ("data-ada", "done"),
        ("data-bob", "begun"),
        ("data-bob", "done"),
    ]
    assert all(line["volume"].startswith("pv-") for line in journal.lines())


@pytest.mark.parametrize(
    ("now", "why"),
    [
        pytest.param(None, "it is gone", id="gone"),
        pytest.param(
            extra("ada", uid="another"), "it is another claim of that name", id="made anew"
        ),
        pytest.param(extra("ada", deleting=True), "it is being deleted already", id="going"),
        pytest.param(
            extra("ada", annotations=PROTECTED), "its annotations changed", id="protected"
        ),
        pytest.param(
            extra("bob", "data-ada", uid="uid-of-data-ada"),
            "its annotations changed",
            id="given to somebody else",
        ),
        pytest.param(extra("ada", capacity="2Gi"), "its capacity changed", id="grown"),
        pytest.param(extra("ada", volume="pv-2"), "its volume changed", id="another volume"),
    ],
)
async def test_what_changed_since_the_plan_is_left_alone(journal, now, why):
    deletion = chosen(extra("ada"), extra("bob"))
    cluster = holding(extra("bob"), *([now] if now else []))
    result = await run(deletion, cluster, journal)
    assert result["data-ada"].startswith(f"skipped: {why}")
    assert result["data-bob"] == "done"
    assert [call for call in cluster.writes() if call[1] == "data-ada"] == []


async def test_a_claim_that_is_protected_between_the_last_look_and_the_deletion_stays(journal):
    cluster = holding(*FOUR)
    marked = extra("ada", annotations=PROTECTED, resource_version="2")

    def meanwhile(verb, name):
        if (verb, name) == ("delete", "data-ada"):
            cluster.put(marked)

    cluster.meanwhile = meanwhile
    result = await run(chosen(*FOUR), cluster, journal)
    assert result["data-ada"].startswith("failed: ")
    assert cluster.stored == {"data-ada": marked}


async def test_one_that_fails_is_told_and_the_others_go(journal):
    cluster = holding(*FOUR)
    cluster.faults["delete"] = [None, Doubt("HTTP 500")]
    result = await run(chosen(*FOUR), cluster, journal)
    assert list(result.values()) == ["done", "failed: HTTP 500", "done", "done"]
    assert set(cluster.stored) == {"data-bob"}


@pytest.mark.parametrize("error", [Conflict("it is another's"), Doubt("HTTP 403")], ids=type)
async def test_without_what_must_come_first_nothing_is_deleted(journal, error):
    """A volume that could not be switched to Retain would go with its claim."""

    async def retain(claim):
        raise error

    cluster = holding(*FOUR)
    result = await run(chosen(*FOUR), cluster, journal, before=retain)
    assert set(result.values()) == {f"failed: {error}"}
    assert (set(cluster.stored), cluster.writes()) == ({one.name for one in FOUR}, [])


async def test_who_turns_up_again_meanwhile_keeps_their_claim(journal):
    cluster = holding(*FOUR)
    result = await run(
        chosen(*FOUR), cluster, journal, still=lambda row: "known" if row.user == "eve" else ""
    )
    assert result["data-eve"] == "skipped: known"
    assert set(cluster.stored) == {"data-eve"}


async def test_doubt_about_what_is_looked_at_again_ends_it_and_it_may_be_run_again(journal):
    """Who mounts what, and whom the hub knows, is no matter of one claim."""
    cluster = holding(*FOUR)
    left = 2

    async def fresh():
        nonlocal left
        left -= 1
        if left < 0:
            raise Doubt("HTTP 503")

    with pytest.raises(Doubt):
        await run(chosen(*FOUR), cluster, journal, fresh=fresh)
    assert set(cluster.stored) == {"data-eve", "data-zoe"}
    result = await run(chosen(*FOUR), cluster, journal)
    assert list(result.values()) == ["skipped: it is gone"] * 2 + ["done"] * 2
    assert cluster.stored == {}


async def test_nothing_is_deleted_that_the_journal_could_not_take_before(tmp_path):
    """A volume that is filled up meanwhile: of what went each has a line, and the others stay."""
    folder = tmp_path / "state"
    folder.mkdir()
    journal = Journal(folder / "journal.jsonl")
    cluster = holding(*FOUR)

    def meanwhile(verb, name):
        if (verb, name) == ("read", "data-eve"):
            folder.rename(tmp_path / "unmounted")

    cluster.meanwhile = meanwhile
    with pytest.raises(NotWritten, match=r"journal\.jsonl cannot be written"):
        await run(chosen(*FOUR), cluster, journal)
    assert set(cluster.stored) == {"data-eve", "data-zoe"}
    (tmp_path / "unmounted").rename(folder)
    assert outcomes_of(journal) == [
        ("data-ada", "begun"),
        ("data-ada", "done"),
        ("data-bob", "begun"),
        ("data-bob", "done"),
    ]
    cluster.meanwhile = lambda *_: None
    await run(chosen(*FOUR), cluster, journal)
    assert cluster.stored == {}


async def test_without_a_journal_nothing_is_deleted():
    cluster = holding(*FOUR)
    with pytest.raises(NotWritten):
        await run(chosen(*FOUR), cluster, Journal(None))
    assert cluster.writes() == []


class Killed(BaseException):
    pass


@given(st.integers(1, 8), st.sampled_from(["read", "delete"]))
async def test_killed_anywhere_it_is_finished_by_running_it_again(tmp_path_factory, calls, verb):
    """And nothing is gone that the journal does not name."""
    journal = Journal(tmp_path_factory.mktemp("killed") / "journal.jsonl")
    others = (home("ada"), extra("bob", "other-hubs", hub="other"))
    cluster = holding(*FOUR, *others)
    left = calls

    def kill(called, _):
        nonlocal left
        left -= called == verb
        if left == 0:
            raise Killed

    cluster.meanwhile = kill
    try:
        await run(chosen(*cluster.stored.values()), cluster, journal)
    except Killed:
        cluster.meanwhile = lambda *_: None
    gone = {one.name for one in FOUR} - set(cluster.stored)
    assert gone <= {name for name, _ in outcomes_of(journal)}
    assert set(names(others)) <= set(cluster.stored)
    await run(chosen(*cluster.stored.values()), cluster, journal)
    assert set(cluster.stored) == set(names(others))


# -- what stays for a while


async def test_those_that_are_mounted_are_told_and_those_that_nobody_uses_are_waited_for(journal):
    deletion = chosen(*FOUR, mounts={"data-ada": ("jupyter-ada",)})
    cluster = holding(*FOUR)
    found = await execute(deletion, cluster, journal)
    # Kubernetes lets go of data-bob a moment later, of data-ada when its pod ends.
    cluster.put(extra("ada", deleting=True), extra("bob", deleting=True))
    slept = []

    async def sleep(seconds):
        slept.append(seconds)
        cluster.stored.pop("data-bob", None)

    assert await leaving(deletion, found, cluster, sleep=sleep) == ("data-ada",)
    assert len(slept) == 1


async def test_it_does_not_wait_for_ever(journal):
    deletion = chosen(*FOUR)
    cluster = holding(*FOUR)
    found = await execute(deletion, cluster, journal)
    cluster.put(extra("bob", deleting=True))

    async def sleep(_):
        pass

    assert await leaving(deletion, found, cluster, sleep=sleep) == ("data-bob",)


async def test_a_claim_that_was_made_anew_meanwhile_is_not_one_that_stays(journal):
    deletion = chosen(*FOUR)
    cluster = holding(*FOUR)
    found = await execute(deletion, cluster, journal)
    cluster.put(extra("bob", uid="made anew"))
    assert await leaving(deletion, found, cluster) == ()


def test_a_journal_with_a_line_that_was_cut_off_is_read_without_it(tmp_path):
    file = tmp_path / "journal.jsonl"
    file.write_text(json.dumps({"name": "a"}) + '\n{"name": "b\n[1]\n' + json.dumps({"name": "c"}))
    assert [line["name"] for line in Journal(file).lines()] == ["a", "c"]


@pytest.mark.parametrize("path", [None, "none.jsonl"])
def test_a_journal_that_is_not_there_has_no_lines(tmp_path, path):
    assert list(Journal(path and tmp_path / path).lines()) == []
