"""A hub whose database was lost: from which snapshot it comes back, and that all of it is done."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from traitlets.config import Config

from jhub_safety.errors import Doubt
from jhub_safety.hub import guarding
from jhub_safety.hub.guarded import GuardedHub
from jhub_safety.hub.guarding import HubGuard
from jhub_safety.hub.recovering import Gathered
from jhub_safety.hub.settling import SETTLED
from jhub_safety.hub.snapshots import backups_of
from jhub_safety.hubdb import snapshot
from jhub_safety.hubdb.condition import look, mark_file
from jhub_safety.hubdb.guarding import Row, Verdict
from jhub_safety.hubdb.known import FiledKnown
from jhub_safety.hubdb.snapshot import DAMAGED, MANIFEST, Shelf
from jhub_safety.hubdb.stores import FolderStore
from jhub_safety.recovery.rebuild import People
from tests.unit.hub_database import add_user, opened

USERS = 60


class Killed(BaseException):
    """The hub's process ends here."""


@dataclass
class Site:
    """A hub's database with its snapshots, in a cluster that knows *cluster*."""

    app: Any
    file: Path
    kept: Path
    folder: Path
    monkeypatch: pytest.MonkeyPatch
    cluster: frozenset[str] = frozenset({"newcomer"})

    def guard(self, **more: Any) -> HubGuard:
        """Of a process that starts now."""
        made = HubGuard(GuardedHub(self.app, None), **more)

        async def everybody() -> Gathered:
            return Gathered(People(self.cluster), ())

        self.monkeypatch.setattr(made.hub, "gather", everybody)
        # Where it listens is another test's business.
        self.monkeypatch.setattr(made, "_page", lambda: None)
        return made

    def start(self) -> HubGuard:
        """One that comes to serve."""
        made = self.guard()
        made.before_database()
        return made

    def known(self) -> None:
        asyncio.run(self.guard().hub.with_guard(lambda one: one.take()))

    def snapshot(self, *, tidy: bool = False) -> str:
        """As ``db backup`` makes it, of whatever is there; its name."""
        backups = backups_of(self.app, self.guard().hub.hub_name, None)
        return str(asyncio.run(backups.run_once(tidy=tidy))["snapshot"]["name"])

    def recover(self) -> str | None:
        guard = self.guard()
        case, decision = guard._look()
        assert decision.verdict is Verdict.RECOVER, decision
        return guard._recover(case, decision)

    def users(self) -> set[str]:
        with closing(sqlite3.connect(self.file)) as database:
            return {name for (name,) in database.execute("SELECT name FROM users")}

    def journal(self, kind: str) -> list[dict[str, Any]]:
        lines = (self.folder / "jhub-safety.journal").read_text().splitlines()
        return [one for one in map(json.loads, lines) if one["kind"] == kind]

    def rewrite(self, name: str, change: Callable[[snapshot.Manifest], snapshot.Manifest]) -> None:
        """Its manifest."""
        made = snapshot.read_manifest(FolderStore(str(self.kept)), name)
        (self.kept / (name + MANIFEST)).write_bytes(change(made).encode())


OURS = {f"user-{number}" for number in range(USERS)}


def fill(file: Path, count: int, name: str = "user") -> None:
    with opened(file) as db:
        for number in range(count):
            add_user(db, f"{name}-{number}")


@pytest.fixture
def site(tmp_path, monkeypatch) -> Site:
    """Its database is known, and there is a snapshot of it."""
    file = tmp_path / "volume" / "jupyterhub.sqlite"
    file.parent.mkdir()
    fill(file, USERS)
    config = Config()
    config.DatabaseGuard.fingerprint_file = str(tmp_path / "fingerprint.json")
    config.DatabaseBackup.destination = str(tmp_path / "kept")
    app = SimpleNamespace(
        config=config,
        log=logging.getLogger("test"),
        db_url=f"sqlite:///{file}",
        db_kwargs={},
        reset_db=False,
    )
    # For its journal.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(guarding, "HOLDING", 0.0)
    made = Site(app, file, tmp_path / "kept", tmp_path, monkeypatch)
    made.known()
    return made


def put_another_in_its_place(site: Site, users: int) -> None:
    """Another hub's, with a mark of its own."""
    other = site.folder / "other"
    other.mkdir()
    fill(other / "hub.sqlite", users, "stranger")
    config = Config()
    config.DatabaseGuard.fingerprint_file = str(other / "fingerprint.json")
    theirs = SimpleNamespace(**{**vars(site.app), "config": config})
    theirs.db_url = f"sqlite:///{other / 'hub.sqlite'}"
    asyncio.run(GuardedHub(theirs, None).with_guard(lambda one: one.take()))
    site.file.unlink()
    shutil.copyfile(other / "hub.sqlite", site.file)


def without_a_mark(site: Site, users: int) -> None:
    site.file.unlink()
    fill(site.file, users, "stranger")


def with_fewer_users(site: Site, users: int) -> None:
    with closing(sqlite3.connect(site.file)) as database:
        database.execute("DELETE FROM users WHERE id > ?", (users,))
        database.commit()


# -- whose


WRONG = [
    pytest.param(put_another_in_its_place, 60, Row.ANOTHER, "of another database", id="another's"),
    pytest.param(without_a_mark, 60, Row.ANOTHER, "without this one's mark", id="one unmarked"),
    pytest.param(with_fewer_users, 2, Row.FEWER_USERS, "has 2 users, and 60", id="a small rest"),
]


@pytest.mark.parametrize(("put", "users", "row", "why"), WRONG)
def test_what_the_guard_holds_as_wrong_never_comes_back_out_of_a_snapshot(
    site, put, users, row, why
):
    """``db backup`` in a hub that held made one; then the file went, and that one was taken."""
    ours = site.snapshot()
    put(site, users)
    assert site.guard()._look()[1].row is row
    theirs = site.snapshot()
    site.file.unlink()
    assert site.recover() is None
    assert site.users() == OURS | site.cluster
    (done,) = site.journal("recover-database")
    assert done["snapshot"] == ours
    (begun,) = site.journal("restore-database")
    assert begun["passed"].startswith(theirs)
    assert why in begun["passed"]


@pytest.mark.parametrize(
    ("put", "users", "row", "why"), [one for one in WRONG if one.id == "another's"]
)
def test_where_only_such_ones_are_the_hub_holds_and_says_what_to_run(site, put, users, row, why):
    put(site, users)
    theirs = site.snapshot()
    site.file.unlink()
    known = site.folder.joinpath("fingerprint.json").read_text()
    problem = site.recover()
    assert f"{theirs} {'is ' if 'of' in why else ''}" in problem
    assert why in problem
    assert "jhub-safety db list" in problem
    assert "jhub-safety db restore NAME" in problem
    assert not site.file.exists()
    assert site.folder.joinpath("fingerprint.json").read_text() == known


def test_users_who_came_since_the_last_snapshot_are_no_reason_to_hold(site):
    """The first week of a semester: half of all users within the hour."""
    name = site.snapshot()
    with opened(site.file) as db:
        for number in range(USERS):
            add_user(db, f"fresher-{number}")
    site.known()
    site.file.unlink()
    assert site.recover() is None
    (done,) = site.journal("recover-database")
    assert (done["snapshot"], done["restored_users"]) == (name, USERS)
    assert site.users() == OURS | site.cluster


def test_one_from_before_the_mark_is_ours_where_nothing_says_otherwise(site):
    with closing(sqlite3.connect(site.file)) as database:
        database.execute("DROP TABLE jhub_safety")
    name = site.snapshot()
    site.known()
    site.file.write_bytes(b"")
    assert site.recover() is None
    assert site.journal("recover-database")[0]["snapshot"] == name
    assert site.users() == OURS | site.cluster


@pytest.mark.parametrize("ours", [True, False])
def test_of_one_whose_manifest_does_not_say_it_is_looked_into(site, ours):
    """As releases before this one wrote it."""
    if not ours:
        put_another_in_its_place(site, USERS)
    name = site.snapshot()
    site.rewrite(name, lambda made: replace(made, identity=None))
    site.file.unlink()
    problem = site.recover()
    if ours:
        assert problem is None
        assert site.users() == OURS | site.cluster
    else:
        assert f"{name} is of another database" in problem
        assert not site.file.exists()


def test_two_clusters_that_share_a_place_and_a_name_leave_each_others_snapshots(site):
    site.app.config.DatabaseBackup.keep = 1
    site.app.config.DatabaseBackup.keep_days = 0.0
    ours = site.snapshot(tidy=True)
    put_another_in_its_place(site, USERS)
    names = [site.snapshot(tidy=True) for _ in range(3)]
    found = snapshot.listing(Shelf(FolderStore(str(site.kept)), "", ours.split("/")[0]))
    assert {one.name for one in found} == {ours, names[-1]}


def test_anothers_snapshot_is_no_reason_to_make_none(site):
    """Each found the other's newest one young enough, and whoever came second made none."""
    ours = site.snapshot()
    right = site.file.read_bytes()
    put_another_in_its_place(site, USERS)
    theirs = site.snapshot()
    site.file.write_bytes(right)
    found = asyncio.run(backups_of(site.app, site.guard().hub.hub_name, None).list())
    assert (found["newest"], found["ours"]) == (theirs, ours)


# -- damaged


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def test_a_damaged_newest_one_is_not_in_the_way_of_a_good_one(site, caplog):
    older = site.snapshot()
    newest = site.snapshot()
    flip(site.kept / newest)
    site.file.write_bytes(b"")
    assert site.recover() is None
    assert site.users() == OURS | site.cluster
    (begun,) = site.journal("restore-database")
    assert (begun["snapshot"], begun["passed"]) == (older, f"{newest} is damaged")
    assert f"snapshot {newest} is not as it was written" in caplog.text
    assert (site.kept / (newest + DAMAGED)).exists()
    # It does not count as the newest good one any more, nor for its age.
    backups = backups_of(site.app, site.guard().hub.hub_name, None)
    assert asyncio.run(backups.newest_verified())["name"] == older


def test_where_all_are_damaged_the_hub_holds_however_often_it_tries(site):
    name = site.snapshot()
    flip(site.kept / name)
    site.file.write_bytes(b"")
    for _ in range(2):
        assert f"{name} is damaged" in site.recover()
    assert site.file.read_bytes() == b""


def test_a_place_that_cannot_be_read_is_doubt_and_no_damage(site, monkeypatch):
    names = [site.snapshot() for _ in range(2)]
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    site.app.config.DatabaseBackup.store_class = "tests.unit.store_doubles.OutOfReach"
    site.file.write_bytes(b"")
    assert site.recover() == "HTTP 503. Nothing was deleted"
    assert not [name for name in names if (site.kept / (name + DAMAGED)).exists()]
    assert site.file.read_bytes() == b""


def test_with_another_key_it_is_held_and_nothing_counts_as_damaged(site, monkeypatch):
    fernet = pytest.importorskip("cryptography.fernet").Fernet
    monkeypatch.setenv("JHUB_SAFETY_SNAPSHOT_KEYS", fernet.generate_key().decode())
    names = [site.snapshot() for _ in range(2)]
    monkeypatch.setenv("JHUB_SAFETY_SNAPSHOT_KEYS", fernet.generate_key().decode())
    site.file.write_bytes(b"")
    assert "another key" in site.recover()
    assert not [name for name in names if (site.kept / (name + DAMAGED)).exists()]


# -- to its end


def killed(*_: Any, **__: Any) -> None:
    raise Killed


def failing_once(work: Callable[..., Any]) -> Callable[..., Any]:
    failed: list[bool] = []

    def once(*args: Any, **more: Any) -> Any:
        if not failed:
            failed.append(True)
            raise Doubt("the hub's database cannot be used: OperationalError")
        return work(*args, **more)

    return once


def is_done(site: Site, name: str, guard: HubGuard) -> None:
    """The snapshot, what the cluster knows, and all that is told of it."""
    assert site.users() == OURS | site.cluster
    assert guard.to_relink == ()
    found = look(site.app.db_url)
    assert (found.unfinished, found.renewed) == ("", True)
    done = [one for one in site.journal("recover-database") if one["outcome"] == "done"]
    assert [one["snapshot"] for one in done] == [name]
    # Who came back was written down before.
    (begun,) = site.journal("restore-database")
    assert begun["outcome"] == "begun"
    assert begun["review"]["problem"] == ""
    assert begun["review"]["admins_in_all"] == 0


@pytest.mark.parametrize("step", ["rebuild", "finished"])
def test_killed_after_the_snapshot_is_in_place_the_next_start_does_the_rest(
    site, monkeypatch, step, caplog
):
    """Users newer than the snapshot, and their running labs, were lost for good."""
    name = site.snapshot()
    site.file.write_bytes(b"")
    with monkeypatch.context() as patch:
        patch.setattr(guarding, step, killed)
        with pytest.raises(Killed):
            site.guard().before_database()
    assert look(site.app.db_url).unfinished == name
    if step == "finished":
        (site.folder / "jhub-safety.journal").write_text(
            "".join(
                line + "\n"
                for line in (site.folder / "jhub-safety.journal").read_text().splitlines()
                if '"recover-database"' not in line
            )
        )
    guard = site.guard()
    told: list[str] = []
    monkeypatch.setattr(guard, "_tell", lambda reason, _: told.append(reason))
    guard.before_database()
    is_done(site, name, guard)
    assert told == ["HubDatabaseRecovered"]
    assert f"jhub-safety db restore {name} --dry-run --json" in caplog.text
    # Once.
    before = len(site.journal("recover-database"))
    site.start()
    assert len(site.journal("recover-database")) == before


def test_one_that_fails_after_the_snapshot_is_in_place_is_tried_again(site, monkeypatch):
    name = site.snapshot()
    site.file.write_bytes(b"")
    monkeypatch.setattr(guarding, "rebuild", failing_once(guarding.rebuild))
    monkeypatch.setattr(guarding, "RETRY", 0.0)
    guard = site.guard()
    guard.before_database()
    is_done(site, name, guard)
    failed, done = site.journal("recover-database")
    assert failed["outcome"].startswith("failed: the hub's database cannot be used")
    assert done["outcome"] == "done"


def test_one_that_cannot_be_finished_is_not_served(site, monkeypatch, caplog):
    """The cluster does not answer: labs of users whom the hub does not know would be deleted."""
    site.snapshot()
    site.file.write_bytes(b"")
    with monkeypatch.context() as patch:
        patch.setattr(guarding, "rebuild", killed)
        with pytest.raises(Killed):
            site.guard().before_database()
    guard = site.guard()
    monkeypatch.setattr(guard.hub, "gather", failing_once(guard.hub.gather))
    monkeypatch.setattr(guarding, "RETRY", 0.0)
    with caplog.at_level(logging.CRITICAL):
        guard.before_database()
    (said,) = (one.getMessage() for one in caplog.records if one.levelno == logging.CRITICAL)
    assert "Not recovered" in said
    assert site.users() == OURS | site.cluster


def test_told_to_ignore_it_is_served_as_it_is(site, monkeypatch):
    site.snapshot()
    site.file.write_bytes(b"")
    with monkeypatch.context() as patch:
        patch.setattr(guarding, "rebuild", killed)
        with pytest.raises(Killed):
            site.guard().before_database()
    site.app.config.DatabaseGuard.on_loss = "ignore"
    site.start()
    assert site.users() == OURS


def test_a_database_made_by_the_cluster_alone_is_finished_too(site, monkeypatch):
    """Killed after the users were written: nobody was told of anything."""
    site.kept.mkdir()
    site.file.write_bytes(b"")
    with monkeypatch.context() as patch:
        patch.setattr(guarding, "finished", killed)
        with pytest.raises(Killed):
            site.guard().before_database()
    site.start()
    done = [one for one in site.journal("recover-database") if one["outcome"] == "done"]
    assert [one["snapshot"] for one in done] == ["", ""]
    assert look(site.app.db_url).unfinished == ""


# -- while somebody is at it


class Steps:
    """Time that passes while the hub holds, and what an operator does meanwhile."""

    def __init__(self, *steps: Callable[[], object], every: float = 5.0) -> None:
        self._steps, self._every, self.now = iter(steps), every, 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, _seconds: float) -> None:
        self.now += self._every
        next(self._steps, killed)()


def older_copy(site: Site) -> bytes:
    """Puts one back, as a hub holds on; gives the right one."""
    content = site.file.read_bytes()
    site.known()
    right = site.file.read_bytes()
    site.file.write_bytes(content)
    assert site.guard()._look()[1].row is Row.OLDER
    return right


def test_putting_the_right_file_back_slowly_recovers_nothing_in_between(site, monkeypatch):
    """It was made again from a snapshot, and the half-copied file was moved aside."""
    site.snapshot()
    right = older_copy(site)
    part = len(right) // 7 + 1
    chunks = [right[: end * part] for end in range(1, 8)]
    steps = Steps(
        lambda: site.file.rename(site.folder / "bad"),
        lambda: None,
        lambda: site.file.write_bytes(b""),
        lambda: None,
        *(lambda chunk=chunk: site.file.write_bytes(chunk) for chunk in chunks),
    )
    monkeypatch.setattr(guarding, "time", steps)
    site.guard(clock=steps.monotonic).before_database()
    assert site.users() == OURS
    assert site.file.read_bytes() == right
    assert steps.now > SETTLED
    assert {one.name for one in site.file.parent.iterdir()} == {
        site.file.name,
        mark_file(site.file).name,
    }


def test_a_file_that_is_being_put_back_while_the_cluster_is_asked_stays(site):
    """Half of it looks as the quarter did."""
    right = site.file.read_bytes()
    site.file.write_bytes(right[: len(right) // 4])
    guard = site.guard()
    case, decision = guard._look()
    assert decision.row is Row.CORRUPT
    everybody = guard.hub.gather

    async def slowly() -> Gathered:
        site.file.write_bytes(right[: len(right) // 2])
        return await everybody()

    site.monkeypatch.setattr(guard.hub, "gather", slowly)
    assert guard._recover(case, decision) is None
    assert site.file.read_bytes() == right[: len(right) // 2]


@pytest.mark.parametrize("on_hold", [True, False])
def test_a_loss_that_stays_is_made_again_also_by_a_hub_that_has_held(site, monkeypatch, on_hold):
    site.snapshot()
    if on_hold:
        older_copy(site)
        steps = Steps(site.file.unlink, *(lambda: None for _ in range(10)))
    else:
        site.file.unlink()
        steps = Steps()
    monkeypatch.setattr(guarding, "time", steps)
    site.guard(clock=steps.monotonic).before_database()
    assert site.users() == OURS | site.cluster
    assert steps.now == (5.0 + SETTLED if on_hold else 0.0)


def test_what_is_known_survives_all_of_it(site):
    name = site.snapshot()
    site.file.write_bytes(b"")
    known = FiledKnown(site.folder / "fingerprint.json")
    before = asyncio.run(known.read())
    site.start()
    after = asyncio.run(known.read())
    assert (after.identity, after.users) == (before.identity, USERS + 1)
    assert after.epoch > before.epoch
    assert (site.kept / name).exists()
