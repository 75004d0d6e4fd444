"""People put into a hub's database: beside what is there, as JupyterHub itself would."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jupyterhub import orm, roles
from sqlalchemy import create_engine

from jhub_safety.errors import Doubt
from jhub_safety.recovery.rebuild import Home, People
from jhub_safety.recovery.writing import BATCH, Written, write
from jhub_safety.sessions.model import Server
from tests.unit.hub_database import add_server, add_user, opened, tables

VERSION = "7.1.0"


@pytest.fixture
def file(tmp_path):
    """A hub's database that has its roles and nobody in it."""
    made = tmp_path / "jupyterhub.sqlite"
    with opened(made) as db:
        for role in roles.get_default_roles():
            roles.create_role(db, role)
    return made


def put(file, people: People, **more) -> Written:
    engine = create_engine(f"sqlite:///{file}")
    try:
        with engine.begin() as connection:
            return write(connection, people, version=VERSION, **more)
    finally:
        engine.dispose()


def query(file, statement: str):
    with closing(sqlite3.connect(file)) as database:
        return database.execute(statement).fetchall()


def of(*users: str, **homes: str) -> People:
    return People(
        frozenset(users),
        {(user, ""): Home(name, "jhub", user) for user, name in homes.items()},
    )


def test_users_are_as_jupyterhub_makes_them(file, tmp_path):
    """Row by row, but for what is random or a time."""
    put(file, of("ada", "bob"), admins={"bob"})
    theirs = tmp_path / "theirs.sqlite"
    with opened(theirs) as db:
        for role in roles.get_default_roles():
            roles.create_role(db, role)
        for name in ("ada", "bob"):
            user = orm.User(name=name, admin=name == "bob")
            db.add(user)
            db.commit()
            roles.assign_default_roles(db, entity=user)
    columns = "SELECT name, admin, typeof(created), length(cookie_id), encrypted_auth_state"
    for statement in (
        f"{columns} FROM users ORDER BY name",
        (
            "SELECT users.name, roles.name FROM user_role_map JOIN users ON users.id = user_id "
            "JOIN roles ON roles.id = role_id ORDER BY 1, 2"
        ),
    ):
        assert query(file, statement) == query(theirs, statement)


def test_the_hub_reads_what_was_written(file):
    put(file, of("ada", ada="claim-ada"), admins={"ada"})
    with opened(file) as db:
        user = orm.User.find(db, "ada")
        assert user.admin
        assert {role.name for role in user.roles} == {"user", "admin"}
        assert user.created is not None
        assert user.orm_spawners[""].state == {
            "pvc_name": "claim-ada",
            "namespace": "jhub",
            "kubespawner_version": VERSION,
        }
        assert user.orm_spawners[""].server is None


def test_everybody_has_a_cookie_id_of_their_own(file):
    names = [f"user-{number}" for number in range(3 * BATCH + 1)]
    assert put(file, of(*names)) == Written(len(names), 0, len(names))
    cookies = [cookie for (cookie,) in query(file, "SELECT cookie_id FROM users")]
    assert len(set(cookies)) == len(names)
    assert {len(cookie) for cookie in cookies} == {32}


def test_what_is_there_is_not_changed(file):
    with opened(file) as db:
        add_server(db, Server("ada", ""), {"pvc_name": "claim-of-today", "notes": "mine"})
        add_user(db, "bob").admin = True
    before = tables(file)
    done = put(file, of("ada", "bob", "carol", ada="claim-old", bob="claim-bob"), admins={"ada"})
    assert done == Written(1, 1, 1)
    after = tables(file)
    assert {name for name in before if before[name] - after[name]} == set()
    added = {
        name: len(after[name] - before[name]) for name in before if after[name] != before[name]
    }
    assert added == {"users": 1, "user_role_map": 1, "spawners": 1}


@pytest.mark.parametrize(
    ("state", "claim"),
    [
        pytest.param(None, "claim-ada", id="none"),
        pytest.param("{}", "claim-ada", id="empty"),
        pytest.param('{"pod_name": "x"}', None, id="without a claim, but not empty"),
        pytest.param('{"pvc_name": "claim-mine"}', "claim-mine", id="with a claim"),
        pytest.param("not json", None, id="unreadable"),
        pytest.param("[1]", "claim-ada", id="no state at all"),
    ],
)
def test_only_an_empty_state_is_filled_in(file, state, claim):
    with opened(file) as db:
        add_server(db, Server("ada", ""), running=False)
    with closing(sqlite3.connect(file)) as database:
        database.execute("UPDATE spawners SET state = ?", (state,))
        database.commit()
    put(file, of("ada", ada="claim-ada"))
    ((found,),) = query(file, "SELECT state FROM spawners")
    if claim is None:
        assert found == state
    else:
        assert json.loads(found)["pvc_name"] == claim


def test_doing_it_again_changes_nothing(file):
    people = of("ada", "bob", ada="claim-ada")
    put(file, people, admins={"bob"})
    before = tables(file)
    assert put(file, people, admins={"bob"}) == Written(0, 0, 0)
    assert tables(file) == before


def test_servers_of_a_hub_that_never_named_them_are_found(file):
    """Early rows have no name; it is the default server."""
    with opened(file) as db:
        add_server(db, Server("ada", ""), {"pvc_name": "claim-ada"}, running=False)
    with closing(sqlite3.connect(file)) as database:
        database.execute("UPDATE spawners SET name = NULL")
        database.commit()
    assert put(file, of("ada", ada="claim-x")).servers == 0


def test_a_hub_that_has_never_started_gives_roles_itself(tmp_path):
    file = tmp_path / "fresh.sqlite"
    with opened(file):
        pass
    assert put(file, of("ada"), admins={"ada"}) == Written(1, 0, 0)


def test_the_columns_that_there_are_are_enough(file):
    """Of JupyterHub 5.5, and of 6 without those that it added."""
    with closing(sqlite3.connect(file)) as database:
        have = {row[1] for row in database.execute("PRAGMA table_info(user_role_map)")}
        if "managed_by_auth" in have:
            database.execute("ALTER TABLE user_role_map DROP COLUMN managed_by_auth")
        database.execute("ALTER TABLE users DROP COLUMN state")
        database.commit()
    assert put(file, of("ada", ada="claim-ada"), admins={"ada"}) == Written(1, 1, 2)


@pytest.mark.parametrize("gone", ["users", "spawners", "roles", "user_role_map"])
def test_a_database_without_a_hubs_tables_is_refused_whole(file, gone):
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA foreign_keys = OFF")
        database.execute(f"DROP TABLE {gone}")
        database.commit()
    before = file.read_bytes()
    with pytest.raises(Doubt, match=gone):
        put(file, of("ada"))
    assert file.read_bytes() == before


def test_cut_off_half_way_nothing_was_written(file):
    before = tables(file)

    class Cut(Exception):
        pass

    def cut(_: int) -> None:
        raise Cut

    with pytest.raises(Cut):
        put(file, of(*(f"user-{number}" for number in range(2 * BATCH))), advance=cut)
    assert tables(file) == before


def test_progress_adds_up(file):
    told: list[int] = []
    put(file, of(*(f"user-{number}" for number in range(2 * BATCH + 7))), advance=told.append)
    assert sum(told) == 2 * BATCH + 7


_names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60)


@settings(max_examples=30, deadline=None)
@given(st.sets(_names, max_size=30), st.sets(_names, max_size=10))
def test_any_name_comes_back_as_it_was(tmp_path_factory, users, admins):
    file = tmp_path_factory.mktemp("names") / "hub.sqlite"
    with closing(sqlite3.connect(file)) as database:
        database.execute(
            "CREATE TABLE users (id INTEGER PRIMARY KEY, name UNIQUE, admin, cookie_id)"
        )
        database.execute("CREATE TABLE spawners (id INTEGER PRIMARY KEY, user_id, name, state)")
        database.execute("CREATE TABLE roles (id INTEGER PRIMARY KEY, name)")
        database.execute("CREATE TABLE user_role_map (user_id, role_id)")
        database.commit()
    put(file, of(*users), admins=admins)
    found = dict(query(file, "SELECT name, admin FROM users"))
    assert found == {name: int(name in admins) for name in users}
