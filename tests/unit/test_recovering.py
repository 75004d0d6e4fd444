"""A lost database is made again; killed at any step, the next start completes it."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from contextlib import closing
from types import SimpleNamespace

import pytest
from jupyterhub import orm
from traitlets.config import Config

from jhub_safety.errors import Conflict, Doubt
from jhub_safety.hub import recovering
from jhub_safety.hub.recovering import (
    configured_admins,
    former_identity,
    gather,
    rebuild,
    set_aside,
)
from jhub_safety.hubdb.condition import State, look
from jhub_safety.hubdb.guard import DatabaseGuard
from jhub_safety.hubdb.guarding import Row, Verdict
from jhub_safety.hubdb.known import FiledKnown
from jhub_safety.recovery.rebuild import Home, People
from jhub_safety.sessions.model import LabIdentity, LabState, Server
from tests.unit.hub_database import add_user, opened

#: Fewer than there were: 100 users had no claim.
PEOPLE = People(
    frozenset(f"user-{number}" for number in range(200)),
    {("user-0", ""): Home("claim-user-0", "jhub", "user-0")},
)
BEFORE = 300


class Inventory:
    """Labs as the cluster lists them, at each listing; and whose could be read."""

    def __init__(self, *listed: dict[str, str], unreadable: Collection[str] = ()) -> None:
        self._listed = iter(listed)
        self._unreadable = unreadable

    async def take(self, _sessions):
        labs = {name: (lab(name, state),) for name, state in next(self._listed).items()}
        return SimpleNamespace(labs=labs)

    async def identify(self, labs):
        return {
            ("jhub", one.name): identity(one.name)
            for one in labs
            if one.name not in self._unreadable
        }


def lab(name: str, state: str) -> SimpleNamespace:
    return SimpleNamespace(name=name, state=LabState(state))


def identity(name: str) -> LabIdentity:
    return LabIdentity(uid=name, namespace="jhub", server=Server(name, ""), hub="jhub")


class Claims:
    async def list(self):
        return {}


async def gathered(inventory: Inventory) -> tuple[set[str], set[str]]:
    """Users, and labs that are to be sessions again."""
    found = await gather(inventory, Claims(), "jhub")
    return set(found.people.users), {one.name for one in found.labs}


async def test_users_of_labs_that_do_not_run_yet_count_and_only_running_ones_are_taken_up():
    listed = {"a": "running", "b": "pending", "c": "lost", "d": "terminating", "e": "ended"}
    assert await gathered(Inventory(listed)) == ({"a", "b", "c", "d"}, {"a"})


async def test_nothing_is_decided_while_it_is_not_known_whose_lab_one_is():
    """It was left out without a word, and its user with it."""
    listed = {"a": "running", "b": "running"}
    with pytest.raises(Doubt, match="whose lab b is"):
        await gathered(Inventory(listed, listed, unreadable=["b"]))


async def test_a_lab_that_has_gone_meanwhile_is_nobodys():
    both = {"a": "running", "b": "running"}
    found = await gathered(Inventory(both, {"a": "running"}, unreadable=["b"]))
    assert found == ({"a"}, {"a"})


class Killed(BaseException):
    """The hub's process ends here."""


@pytest.fixture
def file(tmp_path):
    made = tmp_path / "volume" / "jupyterhub.sqlite"
    made.parent.mkdir()
    with opened(made) as db:
        for number in range(BEFORE):
            db.add(orm.User(name=f"user-{number}"))
    return made


@pytest.fixture
async def guard(file, tmp_path):
    async def homes() -> bool:
        return True

    made = DatabaseGuard()
    made.attach(f"sqlite:///{file}", FiledKnown(tmp_path / "fingerprint.json"), homes)
    await made.take()
    return made


async def recover(guard: DatabaseGuard, steps=lambda _: None) -> Row:
    """As the hub does it before it opens its database; *steps* is told after each."""
    case, decision = await guard.look()
    assert decision.verdict is Verdict.RECOVER, decision
    steps("decided")
    if decision.row is not Row.NO_USERS:
        set_aside(guard.url)
    steps("moved aside")
    rebuild(
        guard.url,
        PEOPLE,
        admins=(),
        db_kwargs={},
        former=former_identity(case),
        advance=lambda _: steps("writing"),
    )
    steps("written")
    await guard.take()
    return decision.row


def emptied(file):
    file.write_bytes(b"")


def damaged(file):
    file.write_bytes(b"no database" * 1000)


def deleted(file):
    file.unlink()


def without_users(file):
    with closing(sqlite3.connect(file)) as database:
        database.execute("DELETE FROM users")
        database.commit()


LOSSES = [
    pytest.param(emptied, Row.ZERO_BYTES, id="emptied"),
    pytest.param(damaged, Row.CORRUPT, id="damaged"),
    pytest.param(deleted, Row.MISSING, id="deleted"),
    pytest.param(without_users, Row.NO_USERS, id="without users"),
]


def users(file) -> set[str]:
    with closing(sqlite3.connect(file)) as database:
        return {name for (name,) in database.execute("SELECT name FROM users")}


@pytest.mark.parametrize(("lose", "row"), LOSSES)
async def test_after_recovery_it_serves_as_the_same_database(guard, file, lose, row):
    known = await guard.known.read()
    lose(file)
    assert await recover(guard) is row
    case, decision = await guard.look()
    assert (decision.row, decision.verdict) == (Row.AS_BEFORE, Verdict.SERVE)
    assert case.condition.identity == known.identity
    assert case.condition.renewed
    assert users(file) == PEOPLE.users


@pytest.mark.parametrize("step", ["decided", "moved aside", "writing"])
@pytest.mark.parametrize(("lose", "row"), LOSSES)
async def test_killed_before_it_is_written_the_next_start_does_it_again(
    guard, file, lose, row, step
):
    lose(file)

    def kill(now: str) -> None:
        if now == step:
            raise Killed

    with pytest.raises(Killed):
        await recover(guard, kill)
    await recover(guard)
    assert users(file) == PEOPLE.users
    assert (await guard.look())[1].verdict is Verdict.SERVE


@pytest.mark.parametrize(("lose", "row"), LOSSES)
async def test_killed_before_the_fingerprint_is_taken_it_knows_its_own_database(
    guard, file, lose, row
):
    """Although it has many users fewer than are known."""
    lose(file)

    def kill(now: str) -> None:
        if now == "written":
            raise Killed

    with pytest.raises(Killed):
        await recover(guard, kill)
    case, decision = await guard.look()
    assert (decision.row, decision.verdict) == (Row.AS_BEFORE, Verdict.SERVE)
    assert case.condition.renewed, "running labs are still to be taken up"


async def test_two_hubs_that_make_it_again_make_it_once(guard, file):
    """On one server; the second finds everybody there."""
    emptied(file)
    case, _ = await guard.look()
    first = rebuild(guard.url, PEOPLE, admins=(), db_kwargs={}, former=former_identity(case))
    second = rebuild(guard.url, PEOPLE, admins=(), db_kwargs={}, former=former_identity(case))
    assert (first.users, second.users) == (200, 0)
    assert users(file) == PEOPLE.users


# -- moved aside


def names(file) -> dict[str, bytes]:
    return {
        one.name: one.read_bytes() for one in file.parent.iterdir() if not one.name.startswith(".")
    }


async def test_what_is_moved_aside_is_whole_with_all_that_belongs_to_it(guard, file, monkeypatch):
    monkeypatch.setattr(recovering.time, "strftime", lambda _: "T")
    for suffix in ("-journal", "-wal", "-shm"):
        file.with_name(file.name + suffix).write_text(suffix)
    before = names(file)
    assert set_aside(guard.url) == file.with_name(f"{file.name}.lost-T")
    assert names(file) == {
        name.replace(file.name, f"{file.name}.lost-T"): content for name, content in before.items()
    }


def test_nothing_that_is_there_is_overwritten(tmp_path, monkeypatch):
    monkeypatch.setattr(recovering.time, "strftime", lambda _: "T")
    file = tmp_path / "jupyterhub.sqlite"
    file.write_text("damaged")
    taken = tmp_path / "jupyterhub.sqlite.lost-T"
    taken.write_text("an earlier one")
    with pytest.raises(Conflict, match="is there already"):
        set_aside(f"sqlite:///{file}")
    assert (file.read_text(), taken.read_text()) == ("damaged", "an earlier one")


def test_files_of_zero_bytes_do_not_pile_up(tmp_path):
    file = tmp_path / "jupyterhub.sqlite"
    file.touch()
    assert set_aside(f"sqlite:///{file}") is None
    assert {one.name for one in tmp_path.iterdir()} == {file.name}


@pytest.mark.parametrize("url", ["sqlite://", "postgresql://db/hub", "sqlite:////nowhere/x.sqlite"])
def test_where_there_is_no_file_nothing_is_moved(url):
    assert set_aside(url) is None


# -- written


def test_a_database_that_cannot_be_used_is_doubt(tmp_path):
    file = tmp_path / "jupyterhub.sqlite"
    file.write_bytes(b"no database" * 1000)
    with pytest.raises(Doubt, match="cannot be used"):
        rebuild(f"sqlite:///{file}", PEOPLE, admins=(), db_kwargs={})
    assert file.read_bytes() == b"no database" * 1000


def test_a_password_is_not_in_the_error():
    url = "postgresql://hub:s3cr3t@127.0.0.1:1/hub"
    with pytest.raises(Doubt) as error:
        rebuild(url, PEOPLE, admins=(), db_kwargs={})
    assert "s3cr3t" not in str(error.value)


def test_a_database_of_an_older_schema_is_left_to_jupyterhub(file):
    with closing(sqlite3.connect(file)) as database:
        database.execute("UPDATE alembic_version SET version_num = '3ec6993fe20c'")
        database.commit()
    with pytest.raises(Doubt, match="DatabaseSchemaMismatch"):
        rebuild(f"sqlite:///{file}", PEOPLE, admins=(), db_kwargs={})
    assert len(users(file)) == BEFORE


def test_the_hubs_own_arguments_are_used(tmp_path):
    url = f"sqlite:///{tmp_path / 'hub.sqlite'}"
    rebuild(url, PEOPLE, admins=(), db_kwargs={"connect_args": {"timeout": 7}})
    assert look(url).state is State.USABLE


def test_users_that_are_there_stay(tmp_path):
    file = tmp_path / "hub.sqlite"
    with opened(file) as db:
        add_user(db, "ada")
    rebuild(f"sqlite:///{file}", PEOPLE, admins=(), db_kwargs={})
    assert users(file) == PEOPLE.users | {"ada"}


# -- admins


def _config(text: str) -> Config:
    c = Config()
    exec(text, {"c": c})
    return c


@pytest.mark.parametrize(
    ("text", "admins"),
    [
        pytest.param("", set(), id="none"),
        pytest.param('c.Authenticator.admin_users = {"ada"}', {"ada"}, id="a set"),
        pytest.param(
            'c.Authenticator.admin_users = ["ada", "Bob"]', {"ada", "Bob", "bob"}, id="a list"
        ),
        pytest.param('c.Authenticator.admin_users.add("ada")', {"ada"}, id="added to the default"),
        pytest.param('c.Authenticator.admin_users.update({"ada"})', {"ada"}, id="updated"),
        pytest.param('c.GitHubOAuthenticator.admin_users = {"ada"}', {"ada"}, id="the class's own"),
        pytest.param('c.JupyterHub.admin_users = {"ada"}', {"ada"}, id="of early releases"),
        pytest.param(
            'c.Authenticator.admin_users = {"ada"}; c.DummyAuthenticator.admin_users = {"bob"}',
            {"ada", "bob"},
            id="two sections",
        ),
        pytest.param("c.Authenticator.admin_users = None", set(), id="no set"),
    ],
)
def test_admins_are_found_wherever_they_are_configured(text, admins):
    assert configured_admins(_config(text)) == admins


def test_a_folder_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    file = tmp_path / "jupyterhub.sqlite"
    file.write_text("damaged")

    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(recovering.Path, "rename", refuse)
    with pytest.raises(Conflict, match="cannot be moved aside: Read-only"):
        set_aside(f"sqlite:///{file}")
    assert file.read_text() == "damaged"
