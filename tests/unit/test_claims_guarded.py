"""What stops ``claims delete`` half-way and before: the guard, new mounts, no journal."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from jupyterhub import orm

from jhub_safety.cli import claimdelete, claimfilter, cli, connection
from jhub_safety.cli.connection import Options
from jhub_safety.errors import Doubt, SafetyError
from jhub_safety.hubdb import identity
from jhub_safety.hubdb.alone import alone
from jhub_safety.journal import Journal
from jhub_safety.volumes.deletion import by_filter
from jhub_safety.volumes.selection import Filter
from tests.unit import claim_guard, claim_site
from tests.unit.claim_rows import extra, home
from tests.unit.claim_site import CLUSTER
from tests.unit.given import HUB
from tests.unit.hub_database import add_user, opened

SCRIPT = ("--yes", f"--hub={HUB}", f"--cluster={CLUSTER}")
LONG_AGO = datetime.now(UTC) - timedelta(days=100)
#: Of users whom the database does not know, and of two that it knows.
LEFT = tuple(extra(user, created=LONG_AGO) for user in ("left-1", "left-2", "left-3"))
CLAIMS = (
    *LEFT,
    extra("ada", created=LONG_AGO),
    extra("bob", created=LONG_AGO),
    home("ada", created=LONG_AGO),
)
ALL = {one.name for one in CLAIMS}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


@pytest.fixture
def guard(monkeypatch, elsewhere):
    return claim_guard.install(monkeypatch, elsewhere)


@pytest.fixture
def site(monkeypatch, guard):
    made = claim_site.install(monkeypatch)
    made.on(*CLAIMS)
    return made


@pytest.fixture
def database(elsewhere):
    return claim_site.write_database(elsewhere)


def run(*arguments, answer=""):
    return CliRunner().invoke(cli, ["claims", *arguments], input=answer)


def lines(elsewhere):
    file = elsewhere / "state" / "jhub-safety" / "journal.jsonl"
    text = file.read_text() if file.exists() else ""
    found = map(json.loads, text.splitlines())
    return [(one["name"], one["outcome"]) for one in found]


def after(site, verb, name, do):
    """*do*, as somebody else's doing, when claim *name* has been *verb*."""

    def meanwhile(called, about):
        if (called, about) == (verb, name):
            do()

    site.cluster.meanwhile = meanwhile


# -- the guard of the database


def known_300(elsewhere, guard, database):
    """The hub's database has 300 users, a guard that knows it, and then 260: who left is known."""
    with opened(elsewhere / "jupyterhub.sqlite") as db:
        for number in range(258):
            db.add(orm.User(name=f"user-{number}"))
    return claim_guard.take(guard, database, users=300)


def test_a_database_with_many_fewer_users_than_its_guard_knows_calls_nobody_an_orphan(
    site, elsewhere, guard, database
):
    taken = known_300(elsewhere, guard, database)
    result = run("delete", "--orphaned", *SCRIPT)
    assert isinstance(result.exception, SafetyError)
    told = str(result.exception)
    for words in (
        f"it has 260 users, and had 300 on {taken.taken} (fewer-users, hold)",
        "nothing was deleted",
        "Next: put the former database back, or: jhub-safety db accept",
    ):
        assert words in told
    assert (set(site.cluster.stored), site.cluster.writes()) == (ALL, [])
    assert lines(elsewhere) == []


def test_by_owner_the_database_is_not_asked_and_neither_is_its_guard(
    site, elsewhere, guard, database
):
    known_300(elsewhere, guard, database)
    assert run("delete", "--owner=left-1", *SCRIPT).exit_code == 0
    assert set(site.cluster.stored) == ALL - {"data-left-1"}
    assert guard.looks == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        pytest.param({"users": 100}, "fewer-users", id="fewer users"),
        pytest.param({"identity": "0" * 32}, "another-database", id="another, or a stale file"),
        pytest.param({"epoch": 7}, "older-copy", id="an older copy"),
    ],
)
@pytest.mark.parametrize("on_loss", ["recover", "hold", "ignore"])
def test_whatever_a_hub_does_about_an_alarm_nobody_is_an_orphan(
    site, guard, database, fields, words, on_loss
):
    claim_guard.take(guard, database, **fields)
    guard.settings["on_loss"] = on_loss
    for more in (SCRIPT, ("--dry-run",)):
        result = run("delete", "--orphaned", *more)
        assert isinstance(result.exception, SafetyError)
        assert words in str(result.exception)
    assert site.cluster.writes() == []


def test_a_guard_that_cannot_be_asked_is_doubt(site, guard, database):
    guard.file.write_text("{")
    result = run("delete", "--orphaned", *SCRIPT)
    assert isinstance(result.exception, SafetyError)
    assert "what is known of it from before cannot be read (fingerprint-unknown" in str(
        result.exception
    )
    assert "Next: see why Secrets cannot be read" in str(result.exception)
    assert site.cluster.writes() == []


@pytest.mark.parametrize("marked", [True, False], ids=["marked", "fingerprint_file"])
def test_that_no_fingerprint_is_here_is_not_that_there_never_was_one(site, guard, database, marked):
    """On an operator's machine with a file of the hub's that is not there, or another namespace."""
    if marked:
        claim_guard.take(guard, database)
        guard.file.unlink()
    else:
        guard.settings["fingerprint_file"] = "/elsewhere/fingerprint.json"
    result = run("delete", "--orphaned", *SCRIPT)
    assert "no fingerprint is known here" in str(result.exception)
    assert "run it where the hub runs: kubectl exec -it deploy/hub" in str(result.exception)
    assert site.cluster.writes() == []


def test_while_the_hub_holds_nobody_is_an_orphan(site, guard, database):
    guard.holds = "recovering"
    result = run("delete", "--orphaned", *SCRIPT)
    assert "the hub holds (recovering)" in str(result.exception)
    assert "jhub-safety db status" in str(result.exception)
    assert site.cluster.writes() == []


def test_while_the_database_is_made_again_nobody_is_an_orphan(site, guard, database):
    """It is in good order, and half of its users are not in it yet."""
    with alone(database):
        result = run("delete", "--orphaned", *SCRIPT)
    assert "another process is making the database again" in str(result.exception)
    assert site.cluster.writes() == []
    assert run("delete", "--orphaned", *SCRIPT).exit_code == 0


def test_a_database_that_was_made_again_calls_nobody_an_orphan_before_the_hub_has_ended_that(
    site, elsewhere, guard, database
):
    taken = claim_guard.take(guard, database)
    former = identity.Identity(taken.identity, taken.epoch)
    with opened(elsewhere / "jupyterhub.sqlite") as db:
        identity.renew(db.connection(), former)
    result = run("delete", "--orphaned", *SCRIPT)
    assert "was made again, and that is not over yet" in str(result.exception)
    assert site.cluster.writes() == []
    with opened(elsewhere / "jupyterhub.sqlite") as db:
        identity.relinked(db.connection())
    assert run("delete", "--orphaned", *SCRIPT).exit_code == 0


@pytest.mark.parametrize("known", [True, False], ids=["as-before", "first-guarded"])
def test_where_the_guard_would_serve_orphans_go(site, guard, database, known):
    if known:
        claim_guard.take(guard, database)
    result = run("delete", "--orphaned", *SCRIPT)
    assert result.exit_code == 0, result.output
    assert set(site.cluster.stored) == ALL - {one.name for one in LEFT}


def test_a_fingerprint_that_the_hub_takes_while_we_look_is_no_alarm(
    site, guard, database, monkeypatch
):
    """Seen as older-copy: the epoch was read before, and the fingerprint after."""
    taken = claim_guard.take(guard, database)
    true_look = claim_guard.DatabaseGuard.look
    first = True

    async def look(self, **options):
        nonlocal first
        claim_guard.write(guard, replace(taken, epoch=taken.epoch + first))
        first = False
        return await true_look(self, **options)

    monkeypatch.setattr(claim_guard.DatabaseGuard, "look", look)
    assert run("delete", "--orphaned", *SCRIPT).exit_code == 0


def test_an_alarm_while_claims_are_deleted_ends_it(site, elsewhere, guard, database, monkeypatch):
    monkeypatch.setattr(claimdelete, "_FRESH", -1)
    taken = claim_guard.take(guard, database)
    alarm = replace(taken, users=300)
    after(site, "delete", "data-left-1", lambda: claim_guard.write(guard, alarm))
    result = run("delete", "--orphaned", *SCRIPT)
    assert isinstance(result.exception, SafetyError)
    assert "fewer-users" in str(result.exception)
    assert "nothing more is deleted" in str(result.exception)
    assert "Stopped: 1 of 3 were gone through. Run the same command again" in result.stderr
    assert set(site.cluster.stored) == ALL - {"data-left-1"}
    assert lines(elsewhere) == [("data-left-1", "begun"), ("data-left-1", "done")]

    claim_guard.write(guard, taken)
    site.cluster.meanwhile = lambda *_: None
    assert run("delete", "--orphaned", *SCRIPT).exit_code == 0
    assert set(site.cluster.stored) == ALL - {one.name for one in LEFT}


def test_who_comes_back_while_claims_are_deleted_keeps_theirs_also_from_a_script(
    site, elsewhere, database, monkeypatch
):
    monkeypatch.setattr(claimdelete, "_FRESH", -1)

    def come_back():
        with opened(elsewhere / "jupyterhub.sqlite") as db:
            add_user(db, "left-2")

    after(site, "delete", "data-left-1", come_back)
    result = run("delete", "--orphaned", *SCRIPT)
    assert "data-left-2: skipped: the hub knows left-2 by now" in result.stdout
    assert set(site.cluster.stored) == ALL - {"data-left-1", "data-left-3"}


def test_a_database_that_is_younger_by_then_than_a_claim_does_not_say_who_is_unknown(
    site, elsewhere, database, monkeypatch
):
    monkeypatch.setattr(claimdelete, "_FRESH", -1)
    now = datetime.now(UTC)
    site.on(*CLAIMS, *(extra("ada", f"new-{n}", created=now) for n in range(10)))

    def begin_anew():
        with opened(elsewhere / "jupyterhub.sqlite") as db:
            for user in db.query(orm.User):
                user.created = now - timedelta(days=60)

    after(site, "delete", "data-left-1", begin_anew)
    result = run("delete", "--orphaned", *SCRIPT)
    assert "data-left-2: skipped: it is older than the hub's database by now" in result.stdout
    assert {"data-left-2", "data-left-3"} <= set(site.cluster.stored)


# -- mounts


@pytest.mark.parametrize("asked", ["--owner=left-2", "--unmounted", "data-left-2", "--orphaned"])
def test_a_claim_that_is_mounted_after_a_scripts_plan_is_skipped(site, database, asked):
    site.mounts = [{}, {"data-left-2": ("jupyter-left-2",)}]
    result = run("delete", asked, *SCRIPT)
    assert result.exit_code == 1
    assert "data-left-2: skipped: it is mounted by jupyter-left-2 since the plan" in result.stdout
    assert "data-left-2" in site.cluster.stored


def test_a_claim_that_was_mounted_when_it_was_shown_is_no_new_mount(site, database):
    site.mounts = {"data-left-2": ("jupyter-left-2",)}
    assert run("delete", "data-left-2", *SCRIPT).exit_code == 0
    assert "data-left-2" not in site.cluster.stored


def test_pods_are_listed_for_the_plan_and_once_more_and_not_for_each_claim(site, database):
    site.on(*CLAIMS, *(extra("zoe", f"zoe-{n}", created=LONG_AGO) for n in range(50)))
    assert run("delete", "--owner=zoe", *SCRIPT).exit_code == 0
    assert len(site.looks) == 2
    assert set(site.cluster.stored) == ALL


class Clock:
    """Each deletion takes two seconds, each look at the pods eight."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


async def test_mounts_are_read_again_every_few_seconds_while_claims_are_deleted(
    site, elsewhere, monkeypatch
):
    many = [extra("zoe", f"zoe-{n}", created=LONG_AGO) for n in range(9)]
    site.on(*CLAIMS, *many)
    clock = Clock()
    after_seconds = {0: {}, 14: {"zoe-4": ("jupyter-zoe",)}, 28: {"zoe-8": ("jupyter-zoe",)}}

    async def read(*_):
        found = after_seconds.get(clock.now, {"zoe-0": ("jupyter-zoe",)})
        site.looks.append(clock.now)
        clock.now += 8
        return found

    def meanwhile(verb, _):
        clock.now += 2 * (verb == "delete")

    monkeypatch.setattr(claimfilter.mounts, "read", read)
    site.cluster.meanwhile = meanwhile
    async with connection.connected(Options(None, None, None, None)) as place:
        seen = await claimfilter.look(place, pods=False)
        asked = Filter(owners=["zoe"])
        deletion = by_filter(
            seen.rows, asked, hub=HUB, homes=(), oldest=None, now=datetime.now(UTC)
        )
        work = claimdelete._Work(place, asked, seen, None, clock=clock)
        outcomes = await work.do(deletion, Journal(elsewhere / "journal.jsonl"))
    # Three deletions are six seconds; what a look itself takes does not count.
    assert site.looks == [0, 14, 28]
    skipped = {one.action.name for one in outcomes if not one.done}
    assert skipped == {"zoe-4", "zoe-8"}
    assert set(site.cluster.stored) == ALL | skipped


def test_doubt_about_mounts_ends_it_and_it_may_be_run_again(site, elsewhere, database, monkeypatch):
    monkeypatch.setattr(claimdelete, "_FRESH", -1)
    answers = [{}, {}, Doubt("listing the pods: HTTP 503")]

    async def read(*_):
        answer = answers.pop(0) if answers else {}
        if isinstance(answer, Doubt):
            raise answer
        return answer

    monkeypatch.setattr(claimfilter.mounts, "read", read)
    result = run("delete", "--orphaned", *SCRIPT)
    assert isinstance(result.exception, Doubt)
    assert "Stopped: 1 of 3 were gone through. Run the same command again" in result.stderr
    assert set(site.cluster.stored) == ALL - {"data-left-1"}
    assert run("delete", "--orphaned", *SCRIPT).exit_code == 0
    assert set(site.cluster.stored) == ALL - {one.name for one in LEFT}
    assert [outcome for _, outcome in lines(elsewhere)] == ["begun", "done"] * 3


# -- the journal

CHANGES = [("delete", "--owner=left-1"), ("resize", "--owner=left-1", "--to=2Gi")]


@pytest.mark.parametrize("change", CHANGES, ids=lambda one: one[0])
@pytest.mark.parametrize("place", ["state", "state/jhub-safety", "state/jhub-safety/journal.jsonl"])
def test_without_a_journal_nothing_is_begun(site, elsewhere, database, change, place):
    """A file where its folder belongs, or a folder in its own place: it cannot be written."""
    wrong = elsewhere / place
    wrong.parent.mkdir(parents=True, exist_ok=True)
    wrong.mkdir() if wrong.suffix else wrong.touch()
    result = run(*change, *SCRIPT)
    assert isinstance(result.exception, SafetyError)
    told = str(result.exception)
    assert f"the journal {elsewhere}/state/jhub-safety/journal.jsonl cannot be written" in told
    assert "nothing was changed" in told
    assert "XDG_STATE_HOME=FOLDER jhub-safety claims" in told
    assert site.cluster.calls == []
    assert run(*change, "--dry-run").exit_code == 0


@pytest.mark.parametrize("change", CHANGES, ids=lambda one: one[0])
def test_a_journal_that_is_full_by_then_ends_it_before_a_claim_is_touched(
    site, database, change, monkeypatch
):
    monkeypatch.setattr("jhub_safety.journal.os.write", lambda *_: 0)
    result = run(*change, *SCRIPT)
    assert isinstance(result.exception, SafetyError)
    told = str(result.exception)
    assert "(No space left on device); nothing more was done. Name another folder" in told
    assert "Stopped: 0 of 1 were gone through" in result.stderr
    assert site.cluster.writes() == []
