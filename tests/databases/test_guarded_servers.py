"""The guard on real database servers: what is noticed, made again, repaired and logged out."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from jupyterhub import orm, roles
from sqlalchemy import MetaData, create_engine, make_url, text
from sqlalchemy.exc import IntegrityError
from traitlets.config import Config

from jhub_safety.finding import Severity
from jhub_safety.hub.guarded import GuardedHub
from jhub_safety.hub.guarding import HubGuard
from jhub_safety.hub.recovering import former_identity, rebuild
from jhub_safety.hubdb import checks, condition, identity, repair
from jhub_safety.hubdb.condition import State, look
from jhub_safety.hubdb.guard import DatabaseGuard
from jhub_safety.hubdb.guarding import Row, Verdict
from jhub_safety.hubdb.known import FiledKnown
from jhub_safety.hubdb.logout import LoggedOut, logout
from jhub_safety.recovery.rebuild import Home, People
from tests.databases.waiting import until_it_is

NAMES = [f"user-{number}" for number in range(40)] + ["zoë", "john.doe", "john-doe"]
PEOPLE = People(frozenset(NAMES), {("zoë", ""): Home("claim-zo", "jhub", "zoë")})


@pytest.fixture(params=["postgresql", "mariadb"])
def url(request, new_database) -> str:
    """A hub's database with users who have roles."""
    made = new_database(request.param)
    fill(made)
    if request.param == "mariadb":
        mend(made)
    return made


def mend(url: str) -> dict[str, int]:
    with transaction(url) as connection:
        return {one.code: repair.execute(connection, one) for one in repair.plan(connection)}


def fill(url: str, names=NAMES) -> None:
    db = orm.new_session_factory(url)()
    for role in roles.get_default_roles():
        roles.create_role(db, role)
    for name in names:
        user = orm.User(name=name)
        db.add(user)
        db.commit()
        roles.assign_default_roles(db, entity=user)
    db.commit()
    db.close()
    db.get_bind().dispose()


@contextmanager
def transaction(url: str):
    engine = create_engine(url)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


@pytest.fixture
async def guard(url, tmp_path) -> DatabaseGuard:
    made = guard_of(url, tmp_path)
    await made.take()
    return made


def guard_of(url: str, tmp_path) -> DatabaseGuard:
    async def homes() -> bool:
        return True

    made = DatabaseGuard()
    made.attach(url, FiledKnown(tmp_path / "fingerprint.json"), homes)
    return made


def drop_all(url: str) -> None:
    with transaction(url) as connection:
        tables = MetaData()
        tables.reflect(connection)
        tables.drop_all(connection)


def empty(url: str) -> None:
    with transaction(url) as connection:
        connection.execute(text("DELETE FROM user_role_map"))
        connection.execute(text("DELETE FROM users"))


async def seen(guard: DatabaseGuard) -> tuple[Row, Verdict]:
    _, decision = await guard.look()
    return decision.row, decision.verdict


async def test_it_is_as_it_was(guard):
    assert await seen(guard) == (Row.AS_BEFORE, Verdict.SERVE)
    assert (await guard.take()).epoch == 2


@pytest.mark.parametrize(
    ("lose", "row"),
    [
        pytest.param(drop_all, Row.NO_TABLES, id="tables dropped"),
        pytest.param(empty, Row.NO_USERS, id="users deleted"),
    ],
)
async def test_a_lost_one_is_made_again_and_stays_the_same_database(guard, url, lose, row):
    known = await guard.known.read()
    lose(url)
    case, decision = await guard.look()
    assert (decision.row, decision.verdict) == (row, Verdict.RECOVER)
    rebuild(url, PEOPLE, admins={"zoë"}, db_kwargs={}, former=former_identity(case))
    found = look(url)
    assert (found.users, found.identity, found.renewed) == (len(NAMES), known.identity, True)
    assert found.unsafe == "", "it would not be served"
    again = rebuild(url, PEOPLE, admins={"zoë"}, db_kwargs={})
    assert (again.users, again.servers, again.roles) == (0, 0, 0)


async def test_an_empty_database_beside_it_is_another_address(guard, new_database, tmp_path, url):
    other = new_database("postgresql" if "postgresql" in url else "mariadb")
    assert await seen(guard_of(other, tmp_path)) == (Row.ANOTHER_ADDRESS, Verdict.HOLD)
    # Neither looked-at database was changed by that.
    assert look(other).state is State.NO_TABLES


async def test_another_hubs_database_is_held(guard, new_database, tmp_path, url):
    other = new_database("postgresql" if "postgresql" in url else "mariadb")
    fill(other)
    row, verdict = await seen(guard_of(other, tmp_path))
    assert verdict is Verdict.HOLD
    # On a server's default collation names are compared without case: that row comes first.
    assert row is (Row.ANOTHER if "postgresql" in url else Row.UNSAFE)


def test_a_wrong_password_is_unreachable_and_is_not_told(url):
    wrong = make_url(url).set(username="nobody-knows", password="s3cr3t-Pa55", port=1)
    found = look(wrong.render_as_string(hide_password=False))
    assert found.state is State.UNREACHABLE
    assert "s3cr3t-Pa55" not in repr(found)


def test_nothing_is_left_open(url):
    until_it_is(1, lambda: _connections(url))
    for _ in range(3):
        look(url)
    until_it_is(1, lambda: _connections(url))


def _connections(url: str) -> int:
    """This one, and all others."""
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        if "postgresql" in url
        else "SELECT count(*) FROM information_schema.processlist WHERE db = DATABASE()"
    )
    with transaction(url) as connection:
        return int(connection.execute(text(query)).scalar() or 0)


def test_what_is_wrong_is_found_and_mended(url):
    with transaction(url) as connection:
        connection.execute(text("UPDATE users SET cookie_id = '' WHERE name = 'zoë'"))
        connection.execute(text("DELETE FROM user_role_map"))
    with transaction(url) as connection:
        codes = {one.code for one in checks.run(connection)}
        assert codes >= {"db-cookie-missing", "db-no-roles", "db-twins"}
        plan = repair.plan(connection)
        assert {one.code: one.rows for one in plan} == {
            "db-cookie-missing": 1,
            "db-no-roles": len(NAMES),
        }
        for one in plan:
            assert repair.execute(connection, one) == one.rows
    with transaction(url) as connection:
        assert repair.plan(connection) == []
        assert {one.code for one in checks.run(connection)} == {"db-twins"}


def test_names_that_are_compared_without_case_or_accents_are_unsafe(new_database):
    url = new_database("mariadb")
    fill(url, ["alice"])
    assert "älice" in look(url).unsafe
    with transaction(url) as connection:
        (found,) = (one for one in checks.run(connection) if one.code == "db-collation")
        assert found.severity is Severity.ERROR
    assert mend(url) == {"db-collation": 1}
    assert look(url).unsafe == ""
    assert mend(url) == {}
    # What could not be told apart now is.
    with transaction(url) as connection:
        connection.execute(text("INSERT INTO users (name, cookie_id) VALUES ('älice', 'x')"))
        connection.execute(text("INSERT INTO users (name, cookie_id) VALUES ('Alice', 'y')"))
    assert look(url).users == 3


def test_a_name_is_still_its_users_alone(url):
    with (
        pytest.raises(IntegrityError),
        transaction(url) as connection,
    ):
        connection.execute(text("INSERT INTO users (name, cookie_id) VALUES ('zoë', 'x')"))


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"])
def test_a_hub_that_makes_its_database_is_not_held_on_it_at_its_next_start(engine, new_database):
    url = new_database(engine)
    db = orm.new_session_factory(url)()
    app = SimpleNamespace(config=Config(), log=logging.getLogger("test"), db=db)
    guard = HubGuard(GuardedHub(app, None))
    guard._first = True
    guard.settle()
    db.add(orm.User(name="ada"))
    db.commit()
    db.close()
    db.get_bind().dispose()
    assert look(url).unsafe == ""


def test_logging_out(url):
    with transaction(url) as connection:
        assert logout(connection, "zoë") == LoggedOut(1, 0)
        assert logout(connection).users == len(NAMES)


def test_the_hubs_own_arguments_are_used(url):
    name = "application_name" if "postgresql" in url else "program_name"
    engine = condition.open_engine(url, {name: "guard"})
    try:
        with engine.connect() as connection:
            assert connection.execute(text("SELECT 1")).scalar() == 1
    finally:
        engine.dispose()


@contextmanager
def read_only(url: str):
    """A server that takes no writes but those of accounts with that right; gives one without."""
    with transaction(url) as connection:
        connection.execute(text("CREATE OR REPLACE USER plain@localhost"))
        database = make_url(url).database
        connection.execute(text(f"GRANT ALL ON `{database}`.* TO plain@localhost"))
        connection.execute(text("SET GLOBAL read_only = 1"))
    try:
        yield make_url(url).set(username="plain").render_as_string(hide_password=False)
    finally:
        with transaction(url) as connection:
            connection.execute(text("SET GLOBAL read_only = 0"))


def test_a_mariadb_that_takes_no_writes_is_not_served(new_database):
    """It was served: everybody's login failed."""
    url = new_database("mariadb")
    fill(url)
    mend(url)
    with read_only(url) as plain:
        found = look(plain)
        assert (found.state, found.why) == (State.READ_ONLY, "the server takes no writes")
        # An account that may write all the same serves.
        assert look(url).state is State.USABLE
    assert look(plain).state is State.USABLE
    assert look(url).users == len(NAMES)


class Killed(BaseException):
    """The process ends here."""


async def test_one_that_is_killed_before_its_mark_leaves_no_users_without_one(
    guard, url, monkeypatch
):
    """MySQL commits when a table is made: such users were held as another database's."""
    drop_all(url)
    case, _ = await guard.look()

    def kill(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(identity, "_write", kill)
        with pytest.raises(Killed):
            rebuild(url, PEOPLE, admins=(), db_kwargs={}, former=former_identity(case))
    assert await seen(guard) == (Row.NO_USERS, Verdict.RECOVER)
    rebuild(url, PEOPLE, admins=(), db_kwargs={}, former=former_identity(case))
    assert await seen(guard) == (Row.AS_BEFORE, Verdict.SERVE)
