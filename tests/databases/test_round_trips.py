"""Every table arrives unchanged on every engine, and back."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text

from jhub_safety.errors import SafetyError
from jhub_safety.hubdb import content, copying, migrate
from jhub_safety.hubdb.engines import address, opened_file, reading
from tests import awkward

ENGINES = ("sqlite", "postgresql", "mariadb")


def measured(url: str):
    with reading(address(url)) as connection:
        return content.measure(connection)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> str:
    file = awkward.make(tmp_path_factory.mktemp("source") / "hub.sqlite")
    return f"sqlite:///{file}"


@pytest.mark.hub
@pytest.mark.parametrize(
    "way",
    [
        pytest.param(("postgresql", "mariadb", "sqlite"), id="postgresql-mariadb-sqlite"),
        pytest.param(("mariadb", "postgresql", "sqlite"), id="mariadb-postgresql-sqlite"),
        pytest.param(("sqlite", "mariadb", "mariadb"), id="sqlite-mariadb-mariadb"),
        pytest.param(("postgresql", "postgresql"), id="postgresql-postgresql"),
    ],
)
def test_every_table_is_the_same_after_a_way_through_several_engines(source, new_database, way):
    first = measured(source)
    assert len(first) == len(awkward.FOREIGN.split("CREATE TABLE")) - 1 + 16
    assert all(one.rows for name, one in first.items() if name != "empty_one")
    here = source
    for engine in way:
        there = new_database(engine)
        migrate.execute(address(here), address(there))
        assert content.differences(measured(there), first) == ()
        here = there
    assert content.differences(measured(source), first) == ()


@pytest.mark.parametrize("engine", ENGINES)
def test_keys_references_and_indexes_travel(source, new_database, engine):
    there = new_database(engine)
    migrate.execute(address(source), address(there))
    back = new_database("sqlite")
    migrate.execute(address(there), address(back))
    assert structure(back) == structure(source)


def structure(url: str):
    """Keys, references and unique columns by table; not how they are called."""
    engine = create_engine(url)
    look = inspect(engine)
    found = {}
    for name in look.get_table_names():
        unique = {tuple(sorted(one["column_names"])) for one in look.get_unique_constraints(name)}
        indexes = {tuple(sorted(one["column_names"])) for one in look.get_indexes(name)}
        unique |= {
            tuple(sorted(one["column_names"])) for one in look.get_indexes(name) if one["unique"]
        }
        found[name] = {
            "key": look.get_pk_constraint(name)["constrained_columns"],
            "references": sorted(
                (
                    *one["constrained_columns"],
                    one["referred_table"],
                    *one["referred_columns"],
                    one["options"].get("ondelete", ""),
                )
                for one in look.get_foreign_keys(name)
            ),
            "unique": sorted(unique),
            # MySQL makes one for each reference by itself.
            "indexes": sorted(
                indexes
                - unique
                - {tuple(one["constrained_columns"]) for one in look.get_foreign_keys(name)}
            ),
            # A key never is, whatever SQLite says.
            "not null": sorted(
                one["name"]
                for one in look.get_columns(name)
                if not one["nullable"]
                and one["name"] not in look.get_pk_constraint(name)["constrained_columns"]
            ),
        }
    engine.dispose()
    return found


@pytest.mark.parametrize("engine", ENGINES)
def test_the_next_user_gets_the_next_id(source, new_database, engine):
    there = new_database(engine)
    migrate.execute(address(source), address(there))
    engine_there = create_engine(there)
    with engine_there.begin() as connection:
        highest = connection.execute(text("SELECT max(id) FROM users")).scalar()
        connection.execute(
            text("INSERT INTO users (name, cookie_id, admin) VALUES ('zoe', 'zoe', :no)"),
            {"no": False},
        )
        made = connection.execute(text("SELECT id FROM users WHERE name = 'zoe'")).scalar()
    engine_there.dispose()
    assert made == highest + 1


def test_an_address_of_mariadb_is_the_same_as_one_of_mysql(source, new_database):
    there = new_database("mariadb").replace("mysql+pymysql://", "mariadb+pymysql://")
    migrate.execute(address(source), address(there))
    assert content.differences(measured(there), measured(source)) == ()


def test_names_that_mariadb_usually_takes_for_one_stay_two(source, new_database):
    there = new_database("mariadb")
    migrate.execute(address(source), address(there))
    engine = create_engine(there)
    with engine.connect() as connection:
        asked = text("SELECT name FROM users WHERE name = :name")
        for name in ("alice", "älice", "ALICE", "trailing space", "trailing space "):
            assert connection.execute(asked, {"name": name}).scalars().all() == [name]
    engine.dispose()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_target_that_holds_something_is_refused_and_stays_as_it_is(source, new_database, engine):
    there = new_database(engine)
    migrate.execute(address(source), address(there))
    before = measured(there)
    with pytest.raises(SafetyError, match=r"not empty|there already"):
        migrate.execute(address(source), address(there))
    assert measured(there) == before


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"])
def test_a_copy_that_fails_leaves_an_empty_target_empty(tmp_path, new_database, engine):
    file = awkward.make(tmp_path / "hub.sqlite")
    database = create_engine(f"sqlite:///{file}")
    with database.begin() as connection:
        connection.execute(text("UPDATE servers SET port = 's3cret' WHERE id = 4"))
    database.dispose()
    there = new_database(engine)
    with pytest.raises(SafetyError, match="table servers was not copied") as caught:
        migrate.execute(address(f"sqlite:///{file}"), address(there))
    assert "s3cret" not in str(caught.value)
    with reading(address(there)) as connection:
        assert inspect(connection).get_table_names() == []


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"])
def test_a_server_is_read_as_one_state_while_it_is_written_to(source, new_database, engine):
    there = new_database(engine)
    migrate.execute(address(source), address(there))
    before = measured(there)
    writer = create_engine(there)
    with reading(address(there)) as connection:
        with writer.begin() as other:
            other.execute(text("DELETE FROM api_tokens"))
            other.execute(text("UPDATE users SET cookie_id = concat('x', id)"))
        assert content.measure(connection) == before
    writer.dispose()
    assert measured(there)["api_tokens"].rows == 0


def test_nul_characters_travel_to_mariadb_and_back(tmp_path, new_database):
    file = awkward.make(tmp_path / "hub.sqlite", nul=True)
    there, back = new_database("mariadb"), tmp_path / "back.sqlite"
    migrate.execute(address(f"sqlite:///{file}"), address(there))
    with reading(address(there)) as connection:
        copying.write_file(connection, back)
    with opened_file(back) as connection:
        found = content.measure(connection)
    assert content.differences(found, measured(f"sqlite:///{Path(file)}")) == ()
