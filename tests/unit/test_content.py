"""The same rows have the same hash on every engine; other rows have another."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Column, Integer, LargeBinary, MetaData, Table, Text

from jhub_safety.hubdb import content
from jhub_safety.hubdb.content import Hasher
from jhub_safety.hubdb.engines import opened_file

VALUES = (
    st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text() | st.binary(max_size=20)
)
ROWS = st.lists(st.tuples(VALUES, VALUES, VALUES), max_size=8)
TABLE = Table("t", MetaData(), Column("b", Integer), Column("a", Text), Column("c", LargeBinary))


def hashed(rows, table=TABLE):
    hasher = Hasher(table)
    hasher.add(rows)
    return hasher.content()


@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rows, random):
    mixed = list(rows)
    random.shuffle(mixed)
    assert hashed(mixed) == hashed(rows)


@given(ROWS)
def test_the_order_of_columns_does_not_matter(rows):
    other = Table(
        "t", MetaData(), Column("c", LargeBinary), Column("b", Integer), Column("a", Text)
    )
    assert hashed([(c, b, a) for b, a, c in rows], other) == hashed(rows)


@given(ROWS.filter(bool), st.data())
def test_another_value_anywhere_gives_another_hash(rows, data):
    row = data.draw(st.integers(0, len(rows) - 1))
    place = data.draw(st.integers(0, 2))
    new = data.draw(VALUES)
    before = rows[row][place]
    if repr(new) == repr(before):
        return
    changed = list(rows)
    changed[row] = (*rows[row][:place], new, *rows[row][place + 1 :])
    assert hashed(changed).digest != hashed(rows).digest


@given(ROWS.filter(bool))
def test_a_row_too_few_or_twice_gives_another_hash(rows):
    assert hashed(rows[1:]).digest != hashed(rows).digest
    assert hashed([*rows, rows[0]]).digest != hashed(rows).digest


TABLES = {
    "bool": "BOOLEAN",
    "int": "INTEGER",
    "float": "FLOAT",
    "numeric": "NUMERIC(10, 2)",
    "datetime": "DATETIME",
    "date": "DATE",
    "text": "VARCHAR(255)",
    "bytes": "BLOB",
}


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        pytest.param("bool", [True, 1], id="booleans are numbers"),
        pytest.param("float", [1, 1.0, Decimal(1)], id="floats"),
        pytest.param("numeric", [Decimal("1.50"), 1.5, "1.5"], id="numbers with a scale"),
        pytest.param(
            "datetime",
            [
                datetime.fromisoformat("2026-01-02T03:04:05"),
                "2026-01-02 03:04:05",
                "2026-01-02 03:04:05.000000",
                datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
                datetime(2026, 1, 2, 4, 4, 5, tzinfo=timezone(timedelta(hours=1))),
            ],
            id="moments",
        ),
        pytest.param("date", [date(2026, 1, 2), "2026-01-02"], id="days"),
        pytest.param("time", [time(3, 4), "03:04:00"], id="times of day"),
        pytest.param("bytes", [b"\0\xff", bytearray(b"\0\xff"), memoryview(b"\0\xff")], id="bytes"),
    ],
)
def test_what_drivers_give_for_one_value_is_one_value(kind, values):
    assert len({content._CONVERT[kind](one) for one in values}) == 1


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([None, "", "NULL", b""], id="nothing"),
        pytest.param(["1", 1, b"1"], id="one"),
        pytest.param(['{"a": 1}', '{"a":1}'], id="JSON is text"),
        pytest.param(["ä", "a\u0308", "a"], id="accents"),
        pytest.param(["a", "a ", "A"], id="spaces and case"),
        pytest.param(["a\0b", "a", "ab"], id="NUL"),
        pytest.param(["61", b"a", "bytes"], id="bytes and their digits"),
    ],
)
def test_different_values_stay_different(values):
    digests = {hashed([(content._CONVERT["text"](one), 0, 0)]).digest for one in values}
    assert len(digests) == len(values)


# SQLite holds NULL for what is no number.
@given(st.lists(st.tuples(*[VALUES.filter(lambda value: repr(value) != "nan")] * 2), max_size=5))
def test_every_value_that_sqlite_holds_is_read(tmp_path_factory, rows):
    file = tmp_path_factory.mktemp("db") / "x.sqlite"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("CREATE TABLE t (a BLOB, b)")
        # Surrogates have no form in UTF-8.
        clean = [
            tuple(v.encode(errors="replace").decode() if isinstance(v, str) else v for v in row)
            for row in rows
        ]
        connection.executemany("INSERT INTO t VALUES (?, ?)", clean)
        connection.commit()
    with opened_file(file) as connection:
        table = content.reflected(connection).tables["t"]
        found = [row for batch in content.rows(connection, table) for row in batch]
    assert sorted(map(repr, found)) == sorted(map(repr, clean))


def test_text_that_is_no_utf8_is_read_and_told_apart(tmp_path):
    file = tmp_path / "x.sqlite"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE t (a TEXT)")
        connection.execute("INSERT INTO t VALUES (CAST(x'ff41' AS TEXT)), (CAST(x'fe41' AS TEXT))")
        connection.commit()
    with opened_file(file) as connection:
        table = content.reflected(connection).tables["t"]
        found = {row for batch in content.rows(connection, table) for row in batch}
    assert len(found) == 2
