"""What is wrong in a hub's database: each finding made by hand, and mended as planned, no more."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from jupyterhub import orm, roles
from sqlalchemy import create_engine

from jhub_safety.finding import Severity
from jhub_safety.hubdb import checks, repair
from jhub_safety.hubdb.checks import CODES
from jhub_safety.sessions.model import Server
from tests.unit.hub_database import add_server, opened, tables

DOCS = Path(__file__).parents[2] / "docs"
USERS = ("ada", "bob", "carol")


@pytest.fixture
def file(tmp_path):
    """In good order: three users with roles, sessions, tokens."""
    made = tmp_path / "jupyterhub.sqlite"
    with opened(made) as db:
        for role in roles.get_default_roles():
            roles.create_role(db, role)
        for name in USERS:
            add_server(db, Server(name, ""))
            roles.assign_default_roles(db, entity=orm.User.find(db, name))
    return made


@contextmanager
def transaction(file):
    engine = create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def shell(file, *statements: str) -> None:
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA foreign_keys = OFF")
        for statement in statements:
            database.execute(statement)
        database.commit()


def by_hand(file, table: str) -> None:
    """A table as people make it: the columns, and no constraint."""
    shell(
        file,
        f"CREATE TABLE by_hand AS SELECT * FROM {table}",
        f"DROP TABLE {table}",
        f"ALTER TABLE by_hand RENAME TO {table}",
    )


def codes(file, expected: str = "") -> dict[str, str]:
    with transaction(file) as connection:
        return {one.code: one.story for one in checks.run(connection, expected=expected)}


def test_a_database_in_order_has_nothing_to_say(file):
    ((revision,),) = query(file, "SELECT version_num FROM alembic_version")
    assert codes(file, revision) == {}


def query(file, statement):
    with closing(sqlite3.connect(file)) as database:
        return database.execute(statement).fetchall()


def _users(*statements: str):
    def change(file):
        by_hand(file, "users")
        shell(file, *statements)

    return change


def _plain(*statements: str):
    return lambda file: shell(file, *statements)


def _other(table: str, *statements: str):
    def change(file):
        by_hand(file, table)
        shell(file, *statements)

    return change


#: What was done; what is found beside "db-constraints", in words; codes that are mended.
BROKEN = [
    pytest.param(
        _users(),
        {"db-constraints": "UNIQUE (name), UNIQUE (cookie_id), NOT NULL"},
        id="a table made by hand",
    ),
    pytest.param(
        _users("UPDATE users SET cookie_id = NULL WHERE name = 'ada'"),
        {"db-cookie-missing": "1 users have no cookie_id (ada)"},
        id="NULL",
    ),
    pytest.param(
        _users("UPDATE users SET cookie_id = ''"),
        {"db-cookie-missing": "3 users"},
        id="empty, as in 2017",
    ),
    pytest.param(
        _users("UPDATE users SET cookie_id = 'same' WHERE name != 'carol'"),
        {"db-cookie-shared": "2 users share a cookie_id (ada, bob)"},
        id="shared",
    ),
    pytest.param(
        _plain("DELETE FROM user_role_map"),
        {"db-no-roles": "3 users have no role"},
        id="no roles",
    ),
    pytest.param(
        _plain("UPDATE users SET name = 'Ada' WHERE name = 'bob'"),
        {"db-twins": "(Ada, ada)"},
        id="twins by case",
    ),
    pytest.param(
        _plain(
            "UPDATE users SET name = 'j.doe' WHERE name = 'ada'",
            "UPDATE users SET name = 'j-doe' WHERE name = 'bob'",
        ),
        {"db-twins": "(j-doe, j.doe)"},
        id="twins by dot and dash",
    ),
    pytest.param(
        _plain("DELETE FROM servers WHERE id = 1"),
        {"db-session-lost": "1 sessions point at servers that are not there"},
        id="a session without its server",
    ),
    pytest.param(
        _plain("DELETE FROM users WHERE name = 'ada'"),
        {"db-spawner-ownerless": "1 servers belong to no user"},
        id="a server without its user",
    ),
    pytest.param(
        _other("spawners", "UPDATE spawners SET server_id = 1 WHERE server_id = 2"),
        {"db-server-shared": "1 servers are two sessions' at once"},
        id="two sessions, one server",
    ),
    pytest.param(
        _other("api_tokens", "INSERT INTO api_tokens SELECT * FROM api_tokens WHERE id = 1"),
        {"db-tokens-shared": "1 tokens are there more than once"},
        id="a token twice",
    ),
    pytest.param(
        _plain("DELETE FROM alembic_version"),
        {"db-revision": "not written down"},
        id="no revision",
    ),
    pytest.param(
        _plain("INSERT INTO alembic_version VALUES ('feed')"),
        {"db-revision": "feed"},
        id="two revisions",
    ),
    pytest.param(
        _plain("DROP TABLE alembic_version"),
        {"db-revision": "there is no schema revision"},
        id="no revision's table",
    ),
]


@pytest.mark.parametrize(("change", "found"), BROKEN)
def test_each_fault_is_found_and_only_it(file, change, found):
    change(file)
    said = codes(file)
    assert set(said) - {"db-constraints"} == set(found) - {"db-constraints"}
    for code, words in found.items():
        assert words in said[code], said


def test_another_hubs_schema_is_found(file):
    assert "this JupyterHub's is feed" in codes(file, "feed")["db-revision"]


def test_what_is_no_hubs_database_is_said_and_no_more(tmp_path):
    assert set(codes(tmp_path / "none.sqlite")) == {"db-no-tables"}


@pytest.mark.parametrize(
    ("change", "unsafe"),
    [
        pytest.param(_users(), False, id="no constraints: not yet"),
        pytest.param(_users("UPDATE users SET cookie_id = ''"), True, id="empty"),
        pytest.param(_users("UPDATE users SET cookie_id = 'x'"), True, id="shared"),
        pytest.param(_users("UPDATE users SET cookie_id = NULL"), True, id="NULL"),
        pytest.param(_plain("DELETE FROM user_role_map"), False, id="no roles"),
        pytest.param(_plain("UPDATE users SET name = 'Ada' WHERE name = 'bob'"), False, id="twins"),
    ],
)
def test_nobody_logs_in_where_one_could_arrive_in_anothers_account(file, change, unsafe):
    change(file)
    with transaction(file) as connection:
        assert bool(checks.unsafe(connection)) is unsafe


def test_many_users_are_counted_and_some_are_named(file):
    by_hand(file, "users")
    shell(file, *(f"INSERT INTO users (id, name) VALUES ({n}, 'u{n}')" for n in range(10, 60)))
    story = codes(file)["db-cookie-missing"]
    assert story.startswith("50 users have no cookie_id (u10, u11, u12, ...)")


def test_every_error_names_a_command(file):
    for case in BROKEN:
        copy = file.with_name("copy.sqlite")
        copy.write_bytes(file.read_bytes())
        case.values[0](copy)
        with transaction(copy) as connection:
            for one in checks.run(connection):
                assert one.code in CODES
                assert one.command or one.severity is not Severity.ERROR


def test_the_cases_cover_every_code_that_sqlite_can_have():
    made = {code for case in BROKEN for code in case.values[1]}
    assert made | {"db-no-tables", "db-collation"} == set(CODES)


def test_the_page_of_the_doctor_has_a_line_for_each():
    from jhub_safety.hubdb.files import CODES as FILES

    page = (DOCS / "doctor.md").read_text()
    assert {code for code in (*CODES, *FILES) if f"| `{code}` |" not in page} == set()


# -- mending


def planned(file) -> dict[str, int]:
    with transaction(file) as connection:
        return {one.code: one.rows for one in repair.plan(connection)}


def mend(file) -> dict[str, int]:
    with transaction(file) as connection:
        return {one.code: repair.execute(connection, one) for one in repair.plan(connection)}


def lost(before, after) -> dict[str, list[set[str]]]:
    """By table: columns that changed in each row that did, new rows as all of theirs."""
    found = {}
    for name in before:
        gone = {dict(row).get("id", str(row)): dict(row) for row in before[name] - after[name]}
        came = [dict(row) for row in after[name] - before[name]]
        if gone or came:
            found[name] = [
                {key for key in row if gone.get(row.get("id"), {}).get(key) != row[key]}
                for row in came
            ]
            assert len(came) >= len(gone), f"rows of {name} went"
    return found


def test_nothing_is_planned_for_a_database_in_order(file):
    assert planned(file) == {}


@pytest.mark.parametrize(
    ("change", "code", "rows", "changes"),
    [
        pytest.param(
            _users("UPDATE users SET cookie_id = NULL WHERE name = 'ada'"),
            "db-cookie-missing",
            1,
            {"users": [{"cookie_id"}]},
            id="NULL",
        ),
        pytest.param(
            _users("UPDATE users SET cookie_id = ''"),
            "db-cookie-missing",
            3,
            {"users": [{"cookie_id"}] * 3},
            id="empty",
        ),
        pytest.param(
            _users("UPDATE users SET cookie_id = 'same' WHERE name != 'carol'"),
            "db-cookie-missing",
            2,
            {"users": [{"cookie_id"}] * 2},
            id="shared: nobody keeps it",
        ),
        pytest.param(
            _plain("DELETE FROM servers WHERE id = 1"),
            "db-session-lost",
            1,
            {"spawners": [{"server_id"}]},
            id="a session without its server",
        ),
    ],
)
def test_what_is_mended_is_what_was_planned_and_nothing_else(file, change, code, rows, changes):
    change(file)
    assert planned(file) == {code: rows}
    before = tables(file)
    assert mend(file) == {code: rows}
    assert lost(before, tables(file)) == changes
    assert planned(file) == {}
    cookies = [row[0] for row in query(file, "SELECT cookie_id FROM users")]
    assert all(cookies)
    assert len(set(cookies)) == len(cookies)


def test_users_without_a_role_get_the_one_that_jupyterhub_gives(file):
    before = tables(file)
    shell(file, "DELETE FROM user_role_map")
    assert mend(file) == {"db-no-roles": 3}
    assert tables(file) == before


def test_a_hub_that_has_never_started_gives_roles_itself(tmp_path):
    file = tmp_path / "fresh.sqlite"
    with opened(file) as db:
        db.add(orm.User(name="ada"))
    assert planned(file) == {}


@pytest.mark.parametrize("table", ["roles", "user_role_map", "spawners", "servers", "api_tokens"])
def test_a_database_of_an_early_hub_is_checked_and_mended_as_far_as_it_goes(file, table):
    by_hand(file, "users")
    shell(file, "UPDATE users SET cookie_id = ''", f"DROP TABLE {table}")
    assert "db-cookie-missing" in codes(file)
    assert mend(file)["db-cookie-missing"] == 3


def test_what_is_no_hubs_database_has_no_plan(tmp_path):
    assert planned(tmp_path / "none.sqlite") == {}


def test_looking_and_planning_change_nothing(file):
    by_hand(file, "users")
    shell(file, "UPDATE users SET cookie_id = ''")
    before = file.read_bytes()
    codes(file)
    planned(file)
    assert file.read_bytes() == before
