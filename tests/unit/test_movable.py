"""What would not arrive on another engine is found before anything is copied."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from jhub_safety.hubdb import migrate
from jhub_safety.hubdb.engines import address, opened_file
from jhub_safety.hubdb.movable import findings
from tests import awkward


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return awkward.make(tmp_path_factory.mktemp("source") / "hub.sqlite")


@pytest.fixture
def spoilt(original, tmp_path):
    def run(statement: str):
        file = tmp_path / "hub.sqlite"
        file.write_bytes(original.read_bytes())
        with closing(sqlite3.connect(file)) as connection:
            connection.execute(statement)
            connection.commit()
        return file

    return run


def codes(file, target, **more):
    with opened_file(file) as connection:
        return {(one.code, one.table, one.column) for one in findings(connection, target, **more)}


@pytest.mark.parametrize("target", ["sqlite", "postgresql", "mysql"])
def test_awkward_values_fit_everywhere(original, target):
    assert codes(original, target, packet=16 << 20) == set()


@pytest.mark.parametrize(
    ("statement", "target", "found"),
    [
        pytest.param(
            "UPDATE users SET cookie_id = 'a' || char(0) WHERE id = 3",
            "postgresql",
            ("nul", "users", "cookie_id"),
            id="NUL",
        ),
        pytest.param(
            "UPDATE users SET cookie_id = CAST(x'ff' AS TEXT) WHERE id = 3",
            "mysql",
            ("encoding", "users", "cookie_id"),
            id="no UTF-8",
        ),
        pytest.param(
            f"UPDATE users SET name = '{'x' * 256}' WHERE id = 3",
            "postgresql",
            ("long", "users", "name"),
            id="a name of 256 characters",
        ),
        pytest.param(
            "UPDATE servers SET port = 'http' WHERE id = 3",
            "postgresql",
            ("type", "servers", "port"),
            id="text for a number",
        ),
        pytest.param(
            "UPDATE servers SET port = 3000000000 WHERE id = 3",
            "mysql",
            ("range", "servers", "port"),
            id="too large a number",
        ),
        pytest.param(
            "UPDATE users SET created = 'yesterday' WHERE id = 3",
            "postgresql",
            ("time", "users", "created"),
            id="no time",
        ),
        pytest.param(
            "UPDATE users SET admin = 'yes' WHERE id = 3",
            "postgresql",
            ("type", "users", "admin"),
            id="neither true nor false",
        ),
        pytest.param(
            "UPDATE users SET encrypted_auth_state = 'text' WHERE id = 3",
            "mysql",
            ("type", "users", "encrypted_auth_state"),
            id="text for bytes",
        ),
        pytest.param(
            "UPDATE spawners SET user_id = 999 WHERE id = 3",
            "postgresql",
            ("reference", "spawners", "user_id"),
            id="a server of nobody",
        ),
    ],
)
def test_what_does_not_fit_is_found_and_refused(spoilt, statement, target, found):
    file = spoilt(statement)
    assert codes(file, target) == {found}
    with opened_file(file) as connection:
        every = findings(connection, target)
    plan = migrate.decide(address(str(file)), address(f"{target}://host/hub"), 0, every)
    assert [one.code for one in plan.refusals] == [found[0]]
    assert not plan


def test_a_value_larger_than_the_server_takes_at_once_is_found(original):
    assert {one[0] for one in codes(original, "mysql", packet=100_000)} == {"packet"}


def test_findings_show_no_value(spoilt):
    file = spoilt("UPDATE users SET cookie_id = 's3cret' || char(0) WHERE id = 3")
    with opened_file(file) as connection:
        (one,) = findings(connection, "postgresql")
    assert "s3cret" not in f"{one} {one.record()}"


@pytest.mark.parametrize(
    ("target", "there", "codes"),
    [
        pytest.param("postgresql://host/other", 0, [], id="empty"),
        pytest.param("postgresql://host/other", 3, ["not-empty"], id="not empty"),
        pytest.param("postgresql://host/hub", 16, ["same"], id="itself"),
    ],
)
def test_where_it_may_be_copied_to(target, there, codes):
    plan = migrate.decide(address("postgresql://host/hub"), address(target), there, ())
    assert [one.code for one in plan.refusals] == codes
    assert bool(plan) == (not codes)
