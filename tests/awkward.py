"""A hub's database, of this JupyterHub's schema, with every table full of awkward values."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from jupyterhub import orm
from sqlalchemy import MetaData, Table, UniqueConstraint, create_engine, types

#: What an authenticator (nativeauthenticator) and other plugins add.
FOREIGN = """
CREATE TABLE users_info (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    username VARCHAR(128) NOT NULL UNIQUE,
    password BLOB NOT NULL,
    is_authorized BOOLEAN DEFAULT 0,
    email VARCHAR,
    has_2fa BOOLEAN,
    otp_secret VARCHAR(16)
);
CREATE TABLE "odd table" (
    "select" BIGINT PRIMARY KEY,
    "with space" TEXT DEFAULT 'it''s',
    ratio FLOAT,
    price NUMERIC(20, 6),
    day DATE,
    moment DATETIME
);
CREATE TABLE without_key (word VARCHAR(40), number INTEGER);
CREATE INDEX "index of word" ON without_key (word);
CREATE TABLE empty_one (id INTEGER PRIMARY KEY);
"""
TEXTS = (
    "plain",
    "trailing space ",
    "trailing space",
    "ALICE",
    "alice",
    "älice",
    "a\u0308lice",
    "emoji \U0001f9ea\U0001f469\u200d\U0001f52c",
    "'; DROP TABLE users; --",
    'back\\slash "quote" %s %(x)s :name ?',
    "line\nbreak\ttab\r\n",
    "\\N",
    "\x01\x1b[31mred",
    "{'json': \"not\"}",
    '{"a": [1, 2.50, null], "a": "\\u00e4"}',
    " ",
    "",
    "NULL",
)
BYTES = (b"", b"\x00\x01\xff\xfe", b"\\x41", b"'quoted'", bytes(range(256)), b"\n\\.\n")
INTEGERS = (0, 1, -1, 2**31 - 1, -(2**31), 42)
TIMES = tuple(
    map(
        datetime.fromisoformat,
        ("2017-02-13T04:05:06.000001", "2026-12-31T23:59:59.999999", "1970-01-01", "2024-02-29T12"),
    )
)
ROWS = 24


def make(file: Path, *, nul: bool = False) -> Path:
    """*nul*: with texts that hold NUL characters, which PostgreSQL has no form for."""
    session = orm.new_session_factory(f"sqlite:///{file}")()
    engine = session.get_bind()
    session.close()
    engine.dispose()
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(FOREIGN)
    engine = create_engine(f"sqlite:///{file}")
    found = MetaData()
    found.reflect(engine)
    engine.dispose()
    texts = (*TEXTS, "with\0nul") if nul else TEXTS
    with closing(sqlite3.connect(file)) as connection:
        for table in found.sorted_tables:
            if table.name not in ("alembic_version", "empty_one"):
                _fill(connection, found, table, texts)
        connection.commit()
        assert not connection.execute("PRAGMA foreign_key_check").fetchall()
    return file


def _fill(connection: Any, found: MetaData, table: Table, texts: tuple[str, ...]) -> None:
    connection.execute(f'DELETE FROM "{table.name}"')
    unique = {
        one.name
        for part in (*table.constraints, *table.indexes)
        if isinstance(part, UniqueConstraint) or getattr(part, "unique", False)
        for one in part.columns
    } | {one.name for one in table.primary_key.columns}
    names = ", ".join(f'"{one.name}"' for one in table.columns)
    marks = ", ".join("?" * len(table.columns))
    for number in range(ROWS):
        row = [_value(connection, one, number, texts, one.name in unique) for one in table.columns]
        connection.execute(f'INSERT OR IGNORE INTO "{table.name}" ({names}) VALUES ({marks})', row)
    count = connection.execute(f'SELECT count(*) FROM "{table.name}"').fetchone()[0]
    assert count > 1, table.name


def _value(connection: Any, column: Any, number: int, texts: tuple[str, ...], unique: bool) -> Any:
    for key in column.foreign_keys:
        parent = key.column
        rows = connection.execute(f'SELECT "{parent.name}" FROM "{parent.table.name}"').fetchall()
        return sorted(one[0] for one in rows)[number % len(rows)]
    if column.nullable and not unique and number % 7 == 3:
        return None
    kind = column.type
    if isinstance(kind, types.Boolean):
        return number % 2
    if isinstance(kind, types.Integer):
        return number if unique else INTEGERS[number % len(INTEGERS)]
    if isinstance(kind, types.Float):
        return (1.5, 0.1, 1e300, -0.0, 3.0)[number % 5]
    if isinstance(kind, types.Numeric):
        return ("12345678901234.5", "0.000001", "7")[number % 3]
    if isinstance(kind, types.DateTime):
        moment = TIMES[number % len(TIMES)] + timedelta(days=number)
        return moment.isoformat(" ", "microseconds")
    if isinstance(kind, types.Date):
        return f"2026-01-{number + 1:02}"
    if isinstance(kind, types.LargeBinary):
        return BYTES[number % len(BYTES)]
    text = texts[number % len(texts)]
    length = getattr(kind, "length", None)
    if unique and number >= len(texts):
        text = f"{text}{number}"
    if length is None and number == 5:
        # Larger than MySQL's own TEXT.
        return "ä" * 70_000
    return text if length is None else text[:length]
