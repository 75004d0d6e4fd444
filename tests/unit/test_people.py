"""Whom a hub's database knows, in which groups, and since when."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from jupyterhub import orm
from sqlalchemy import create_engine, text

from jhub_safety.errors import Doubt
from jhub_safety.hubdb import people
from tests.unit.hub_database import opened


@pytest.fixture
def file(tmp_path):
    return tmp_path / "hub.sqlite"


def read(file):
    return people.read(f"sqlite:///{file}")


def test_users_groups_and_dates_are_those_that_jupyterhub_wrote(file):
    with opened(file) as db:
        for name, day, active in (("ada", 1, 20), ("bob", 5, None), ("eve", 9, 11)):
            user = orm.User(name=name, created=datetime(2026, 1, day, tzinfo=UTC))
            user.last_activity = datetime(2026, 1, active, tzinfo=UTC) if active else None
            db.add(user)
        db.add(orm.Group(name="db", users=[orm.User.find(db, "ada"), orm.User.find(db, "eve")]))
        db.add(orm.Group(name="nobody"))
        db.add(orm.Group(name="lab", users=[orm.User.find(db, "ada")]))
    found = read(file)
    assert found.users == {"ada", "bob", "eve"}
    assert {user: set(groups) for user, groups in found.groups.items()} == {
        "ada": {"db", "lab"},
        "eve": {"db"},
    }
    assert found.oldest == datetime(2026, 1, 1, tzinfo=UTC)
    assert found.newest == datetime(2026, 1, 20, tzinfo=UTC)


def test_an_empty_database_has_no_dates(file):
    with opened(file):
        pass
    found = read(file)
    assert (found.users, dict(found.groups), found.oldest, found.newest) == (set(), {}, None, None)


def test_a_file_that_is_not_there_is_doubt_and_is_not_made(file):
    with pytest.raises(Doubt, match="cannot be read"):
        read(file)
    assert not file.exists()


def test_tables_that_are_not_jupyterhubs_are_doubt(file):
    engine = create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE users (id INTEGER, name TEXT)"))
    engine.dispose()
    with pytest.raises(Doubt, match="cannot be read"):
        read(file)
