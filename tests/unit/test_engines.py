"""What an address is, and that reading leaves no trace."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError

from jhub_safety.errors import Doubt, SafetyError
from jhub_safety.hubdb import engines
from jhub_safety.hubdb.engines import address, cause, name_of, reading


@pytest.mark.parametrize(
    ("url", "engine", "file"),
    [
        pytest.param("sqlite:///hub.sqlite", "sqlite", Path.cwd() / "hub.sqlite", id="relative"),
        pytest.param("sqlite:////srv/hub.sqlite", "sqlite", Path("/srv/hub.sqlite"), id="absolute"),
        pytest.param("/srv/hub.sqlite", "sqlite", Path("/srv/hub.sqlite"), id="bare path"),
        pytest.param(
            "sqlite:///file:/srv/hub.sqlite?uri=true", "sqlite", Path("/srv/hub.sqlite"), id="URI"
        ),
        pytest.param(
            "sqlite:///file:/srv/the%20hub.sqlite?uri=true&timeout=9",
            "sqlite",
            Path("/srv/the hub.sqlite"),
            id="URI with escapes",
        ),
        pytest.param(
            "sqlite:///file:hub.sqlite", "sqlite", Path.cwd() / "file:hub.sqlite", id="no URI"
        ),
        pytest.param("postgresql://u:p@host/hub", "postgresql", None, id="postgresql"),
        pytest.param("postgresql+psycopg2://u:p@host/hub", "postgresql", None, id="with driver"),
        pytest.param("mysql+pymysql://u:p@host/hub", "mysql", None, id="mysql"),
        pytest.param("mariadb+pymysql://u:p@host/hub", "mysql", None, id="mariadb"),
    ],
)
def test_what_an_address_names(url, engine, file):
    found = address(url)
    assert (found.engine, found.file) == (engine, file)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:hub?mode=memory&uri=true",
        "sqlite+pysqlcipher://:s3cret@/hub.sqlite",
        "oracle://u:s3cret@host/hub",
        "://s3cret",
        "what://s3cret",
    ],
)
def test_what_is_no_database_of_a_hub_is_refused_without_a_secret(url):
    with pytest.raises(SafetyError) as caught:
        address(url)
    assert "s3cret" not in str(caught.value)


def test_a_password_is_never_printed():
    found = address("postgresql://hub:s3cret@host/hub")
    assert "s3cret" not in f"{found} {found!r}"
    assert "s3cret" in found.plain


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://hub:s3cret@host/hub",
        "postgresql:///hub?host=/sock&user=hub&password=s3cret",
        "postgresql://hub@host/hub?sslmode=require&sslpassword=s3cret",
        "mysql+pymysql://hub@host/hub?passwd=s3cret&charset=utf8mb4",
    ],
)
def test_a_password_is_hidden_wherever_it_stands(url):
    named = name_of(url)
    assert "s3cret" not in named
    assert "hub" in named
    for other in ("sslmode=require", "charset=utf8mb4", "host="):
        assert (other in named) == (other in url)
    assert "s3cret" not in f"{address(url)} {address(url)!r}"


def test_arguments_of_a_connection_are_never_printed():
    found = address("postgresql://hub@host/hub", {"password": "s3cret"})
    assert "s3cret" not in f"{found} {found!r}"


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        pytest.param(
            'duplicate key value violates "u"\nDETAIL: Key (cookie_id)=(s3cret) already exists.',
            "duplicate key",
            id="postgresql's second line",
        ),
        pytest.param(
            'invalid input syntax for type integer: "s3cret"', "type integer", id="its first line"
        ),
        pytest.param(
            "(1062, \"Duplicate entry 's3cret' for key 'name'\")", "for key 'name'", id="mariadb"
        ),
        pytest.param(
            "(1366, \"Incorrect integer value: 's3cret' for column 'port'\")",
            "for column 'port'",
            id="mariadb's types",
        ),
    ],
)
def test_a_drivers_words_are_told_without_the_rows_values(words, kept):
    found = cause(DBAPIError("INSERT INTO users ...", {"cookie_id": "s3cret"}, Exception(words)))
    assert kept in found
    assert "s3cret" not in found


@pytest.mark.parametrize("name", ["hub.sqlite", "with space.sqlite", "odd?name#1%20.sqlite"])
def test_reading_makes_and_changes_nothing(tmp_path, name):
    file = tmp_path / name
    with (
        pytest.raises(Doubt, match="not there"),
        reading(engines.Address(address("sqlite:////x").url, "sqlite", file)),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE users (id INTEGER)")
    before = file.read_bytes(), file.stat().st_mtime_ns
    with reading(engines.Address(address("sqlite:////x").url, "sqlite", file)) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM users").scalar() == 0
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_a_server_that_does_not_answer_is_doubt():
    for url in ("postgresql+psycopg://u:p@127.0.0.1:1/x", "mysql+pymysql://u:p@127.0.0.1:1/x"):
        with pytest.raises(Doubt, match="cannot be read"), reading(address(url)):
            pass


def test_paths_that_do_not_exist_yet_count_as_their_folder(tmp_path):
    assert engines.same_volume(tmp_path / "a" / "b", tmp_path / "c")
    assert not engines.same_volume(tmp_path, Path("/proc/self"))
