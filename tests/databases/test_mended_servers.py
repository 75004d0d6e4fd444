"""What keeps users apart, added again on real servers; and tokens that are there twice."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from jupyterhub import orm
from sqlalchemy import create_engine, inspect, select, text
from sqlalchemy.exc import IntegrityError

from jhub_safety.hubdb import checks, constraints, repair

TOKENS = orm.APIToken.__table__


@pytest.fixture(params=["postgresql", "mariadb"])
def url(request, new_database) -> str:
    """Of three users with two tokens each; nothing keeps one from being there twice."""
    made = new_database(request.param)
    db = orm.new_session_factory(made)()
    db.add(orm.OAuthClient(identifier="jupyterhub"))
    for name in ("ada", "bob", "carol"):
        user = orm.User(name=name)
        db.add(user)
        db.commit()
        for note in ("one", "two"):
            user.new_api_token(note=note)
    db.commit()
    db.close()
    db.get_bind().dispose()
    with transaction(made) as connection:
        for table in ("users", "api_tokens"):
            inspector = inspect(connection)
            unique = {one["name"] for one in inspector.get_unique_constraints(table)}
            unique |= {one["name"] for one in inspector.get_indexes(table) if one["unique"]}
            what = "CONSTRAINT" if request.param == "postgresql" else "INDEX"
            for name in unique:
                if name in {one["name"] for one in inspector.get_unique_constraints(table)}:
                    connection.execute(text(f"ALTER TABLE {table} DROP {what} {name}"))
                else:
                    on = "" if request.param == "postgresql" else f" ON {table}"
                    connection.execute(text(f"DROP INDEX {name}{on}"))
        connection.execute(
            text(
                "ALTER TABLE users ALTER COLUMN cookie_id DROP NOT NULL"
                if request.param == "postgresql"
                else "ALTER TABLE users MODIFY cookie_id VARCHAR(255) NULL"
            )
        )
        for one in repair.plan(connection):
            repair.execute(connection, one)
    return made


@contextmanager
def transaction(url: str):
    engine = create_engine(url)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def test_what_keeps_users_apart_is_added(url):
    with transaction(url) as connection:
        before = connection.execute(text("SELECT * FROM users ORDER BY id")).all()
        wanted = ["UNIQUE (name)", "UNIQUE (cookie_id)", "NOT NULL (cookie_id)"]
        assert constraints.lacking(connection) == wanted
        assert constraints.add(connection) == wanted
    with transaction(url) as connection:
        assert constraints.lacking(connection) == []
        assert connection.execute(text("SELECT * FROM users ORDER BY id")).all() == before
    for change in ("cookie_id = 'same'", "cookie_id = NULL", "name = 'ada'"):
        with pytest.raises(IntegrityError), transaction(url) as connection:
            connection.execute(text(f"UPDATE users SET {change}"))


def test_of_tokens_that_are_there_twice_those_of_two_owners_go(url):
    with transaction(url) as connection:
        rows = connection.execute(select(TOKENS).order_by(TOKENS.c.id)).all()
        # Ada's first is Bob's, too; Carol's first is there twice.
        for row, hashed in ((2, rows[0].hashed), (5, rows[4].hashed)):
            change = TOKENS.update().where(TOKENS.c.id == rows[row].id)
            connection.execute(change.values(hashed=hashed))
        assert "1 tokens have two owners" in checks.unsafe(connection)
        (one,) = repair.plan(connection)
        assert (one.code, one.rows) == ("db-tokens-shared", 2)
        repair.execute(connection, one)
        left = connection.execute(select(TOKENS.c.hashed).order_by(TOKENS.c.hashed)).scalars().all()
        assert left == sorted(rows[number].hashed for number in (1, 3, 4))
        assert checks.unsafe(connection) == ""
        assert repair.plan(connection) == []
