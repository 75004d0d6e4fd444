"""Browser sessions end; labs' tokens and people's own stay."""

from __future__ import annotations

import pytest
from jupyterhub import orm
from sqlalchemy import create_engine

from jhub_safety.errors import Doubt
from jhub_safety.hubdb.logout import LoggedOut, logout
from jhub_safety.sessions.model import Server
from tests.unit.hub_database import add_server, opened, tables


@pytest.fixture
def file(tmp_path):
    """Two users, each with a lab, a browser's token and code, and a token of their own."""
    made = tmp_path / "jupyterhub.sqlite"
    with opened(made) as db:
        for name in ("ada", "bob"):
            add_server(db, Server(name, ""))
            user = orm.User.find(db, name)
            orm.APIToken.new(user=user, note="my own")
            orm.APIToken.new(user=user, note="browser", session_id=f"session-of-{name}")
    return made


def run(file, user=None) -> LoggedOut:
    engine = create_engine(f"sqlite:///{file}")
    try:
        with engine.begin() as connection:
            return logout(connection, user)
    finally:
        engine.dispose()


def changed(before, after):
    return {
        name: (before[name] - after[name], after[name] - before[name])
        for name in before
        if before[name] != after[name]
    }


def test_a_user_is_logged_out_and_nothing_else_changes(file):
    before = tables(file)
    assert run(file, "ada") == LoggedOut(1, 1)
    found = changed(before, tables(file))
    assert set(found) == {"users", "api_tokens", "oauth_codes"}
    (gone,), (came,) = found["users"]
    gone, came = dict(gone), dict(came)
    assert gone.pop("cookie_id") != came.pop("cookie_id")
    assert gone == came
    assert gone["name"] == "ada"
    (token,), none = found["api_tokens"]
    assert (dict(token)["session_id"], none) == ("session-of-ada", set())
    (_code,), none = found["oauth_codes"]
    assert none == set()


def test_everybody_is_logged_out(file):
    before = tables(file)
    assert run(file) == LoggedOut(2, 2)
    found = changed(before, tables(file))
    cookies = [dict(row)["cookie_id"] for row in tables(file)["users"]]
    assert len(set(cookies)) == 2
    assert {name: (len(gone), len(came)) for name, (gone, came) in found.items()} == {
        "users": (2, 2),
        "api_tokens": (2, 0),
        "oauth_codes": (2, 0),
    }
    notes = {dict(row)["note"] for row in tables(file)["api_tokens"]}
    assert notes >= {"my own", "Server at /user/ada/", "Server at /user/bob/"}


@pytest.mark.parametrize("name", ["nobody", "ADA", "ad%", ""])
def test_a_user_whom_nobody_knows_is_an_error_and_nobody_is_logged_out(file, name):
    before = tables(file)
    with pytest.raises(Doubt, match="no user"):
        run(file, name)
    assert tables(file) == before


def test_an_empty_hub_has_nobody_to_log_out(tmp_path):
    file = tmp_path / "empty.sqlite"
    with opened(file):
        pass
    assert run(file) == LoggedOut(0, 0)


def test_what_is_no_hubs_database_is_an_error(tmp_path):
    with pytest.raises(Doubt, match="no table"):
        run(tmp_path / "none.sqlite")
