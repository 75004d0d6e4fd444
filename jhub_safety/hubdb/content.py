"""What a database holds, in one form for all engines: compared, counted and hashed.

The form is how SQLite stores a value, which every engine's own can be turned into without loss:
booleans are 0 and 1, times are text with microseconds, JSON is the text it was written as.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from sqlalchemy import (
    Column,
    Connection,
    MetaData,
    Table,
    Text,
    cast,
    column,
    func,
    inspect,
    select,
    types,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.sql.expression import table as light_table

from jhub_safety.errors import Doubt

#: int, float, text, bytes: the value itself; the others are made from text or numbers.
Kind = Literal["bool", "int", "float", "numeric", "datetime", "date", "time", "text", "bytes"]
#: A value in the one form.
Value = int | float | str | bytes | None
Row = tuple[Value, ...]
#: Before names of tables that a restore on MySQL makes, and of those that have given way to them.
#: No part of a hub's database: of a restore that was cut off they stay until the next one.
UNDER_WAY = ("jhs_new_", "jhs_old_")
#: Rows that are in memory at once.
BATCH = 1000
_WIDTH = 1 << 256


@dataclass(frozen=True, slots=True)
class Content:
    """One table: its columns' names, the number of its rows, and a hash of all of them.

    The hash knows no order, neither of rows (engines sort text differently) nor of columns.
    """

    columns: tuple[str, ...]
    rows: int
    digest: str

    def record(self) -> dict[str, Any]:
        return {"columns": list(self.columns), "rows": self.rows, "digest": self.digest}


Contents = Mapping[str, Content]


def reflected(connection: Connection, *, under_way: bool = False) -> MetaData:
    """Every table that is there, as it is there: the library's version of the hub's schema does
    not matter, and authenticators bring tables of their own.

    *under_way*: with those of a restore that is not done.

    Raises:
        Doubt: it has none.
    """
    found = MetaData()
    found.reflect(connection, only=None if under_way else table_names(connection))
    if not found.tables:
        raise Doubt("the database has no tables")
    return found


def table_names(connection: Connection) -> list[str]:
    """Without those of a restore that is not done."""
    names = inspect(connection).get_table_names()
    if connection.dialect.name not in ("mysql", "mariadb"):
        return names
    return [name for name in names if not name.startswith(UNDER_WAY)]


def kind(of: Column[Any]) -> Kind:
    """What the column was declared to hold. SQLite holds anything in any column all the same."""
    known: tuple[tuple[Any, Kind], ...] = (
        (types.Boolean, "bool"),
        (types.Integer, "int"),
        (types.Float, "float"),
        (types.Numeric, "numeric"),
        (types.DateTime, "datetime"),
        (types.Date, "date"),
        (types.Time, "time"),
        (types.LargeBinary, "bytes"),
        (types._Binary, "bytes"),  # MySQL's BLOB family derives from it
    )
    if isinstance(of.type, mysql.TINYINT) and of.type.display_width == 1:
        return "bool"
    for cls, name in known:
        if isinstance(of.type, cls):
            return name
    return "text"


def rows(connection: Connection, table: Table) -> Iterator[list[Row]]:
    """All rows, some at a time, in the one form, columns as in *table*."""
    kinds = [kind(one) for one in table.columns]
    convert = [_CONVERT[one] for one in kinds]
    plain = light_table(table.name, *(column(one.name) for one in table.columns))
    # By a type that does nothing: what the driver gives is wanted. Types that are more than their
    # text to a driver (JSON, UUID, arrays) are asked for as text.
    wanted = [
        cast(plain.c[one.name], Text) if _needs_cast(connection, one, name) else plain.c[one.name]
        for one, name in zip(table.columns, kinds, strict=True)
    ]
    query = select(*wanted).order_by(*(plain.c[one.name] for one in table.primary_key.columns))
    result = connection.execute(query.execution_options(yield_per=BATCH))
    for part in result.partitions():
        yield [tuple([one(v) for one, v in zip(convert, row, strict=True)]) for row in part]


def _needs_cast(connection: Connection, of: Column[Any], name: Kind) -> bool:
    return (
        connection.dialect.name == "postgresql"
        and name == "text"
        and not isinstance(of.type, types.String)
    )


def measure(
    connection: Connection,
    *,
    under_way: bool = False,
    progress: Callable[[str, int], None] = lambda *_: None,
) -> dict[str, Content]:
    """The content of every table. *progress* is told a table and the rows done since.

    *under_way*: as :func:`reflected` has it.

    Raises:
        Doubt: it has no tables.
    """
    found = {}
    for table in reflected(connection, under_way=under_way).sorted_tables:
        hasher = Hasher(table)
        for batch in rows(connection, table):
            hasher.add(batch)
            progress(table.name, len(batch))
        found[table.name] = hasher.content()
    return found


class Hasher:
    """Adds up the rows of one table."""

    def __init__(self, table: Table) -> None:
        names = [one.name for one in table.columns]
        self._order = sorted(range(len(names)), key=names.__getitem__)
        self._names = tuple(sorted(names))
        self._sum = 0
        self._rows = 0

    def add(self, batch: Sequence[Row]) -> None:
        for row in batch:
            line = json.dumps([_plain(row[index]) for index in self._order])
            self._sum += int.from_bytes(hashlib.sha256(line.encode()).digest(), "big")
        self._rows += len(batch)

    def content(self) -> Content:
        line = json.dumps([self._names, self._rows, f"{self._sum % _WIDTH:064x}"])
        return Content(self._names, self._rows, hashlib.sha256(line.encode()).hexdigest())


def _plain(value: Value) -> Any:
    return {"bytes": value.hex()} if isinstance(value, bytes) else value


def differences(first: Contents, second: Contents) -> tuple[str, ...]:
    """In words, table by table; none when both hold the same."""
    found = []
    for name in sorted(first.keys() | second.keys()):
        one, other = first.get(name), second.get(name)
        if one is None or other is None:
            found.append(f"table {name} is in one of them only")
        elif one.columns != other.columns:
            found.append(f"table {name} has other columns")
        elif one.rows != other.rows:
            found.append(f"table {name} has {one.rows} rows and {other.rows}")
        elif one.digest != other.digest:
            found.append(f"table {name} holds other values in its {one.rows} rows")
    return tuple(found)


def schema_revision(connection: Connection) -> str:
    """JupyterHub's schema, by alembic's table; "" when there is none, or not one row."""
    if not connection.dialect.has_table(connection, "alembic_version"):
        return ""
    found: Any = connection.execute(
        select(column("version_num")).select_from(light_table("alembic_version"))
    ).scalars()
    every = [str(one) for one in found]
    return every[0] if len(every) == 1 else ""


def highest_user_id(connection: Connection) -> int | None:
    """None when there are no users."""
    users = light_table("users", column("id"))
    highest: int | None = connection.execute(select(func.max(users.c.id))).scalar()
    return highest


# -- values


def _any(value: Any) -> Value:
    """The same value, in one of five types."""
    if value is None or type(value) in (int, str, bytes):
        same: Value = value
        return same
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, Decimal):
        return _numeric(value)
    if isinstance(value, (datetime, date, time)):
        return _moment(value)
    return str(value)


def _float(value: Any) -> Value:
    # SQLite may have stored 1.0 as 1.
    return float(value) if isinstance(value, (int, float, Decimal)) else _any(value)


def _numeric(value: Any) -> Value:
    """Text without trailing zeros: 1.50 and 1.5 are one number."""
    if value is None or isinstance(value, bytes):
        return value
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return str(value)
    return format(number.normalize() + 0, "f") if number.is_finite() else str(number)


def _moment(value: Any) -> Value:
    """Text as SQLAlchemy writes it to SQLite: microseconds always, UTC where a zone was given."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            # Somebody wrote it by hand; it stays as it is.
            return str(value)
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            value = value.astimezone(UTC).replace(tzinfo=None)
        return str(value.isoformat(" ", "microseconds"))
    return _date(value)


def _date(value: Any) -> Value:
    return str(value.isoformat()) if isinstance(value, (date, time)) else _any(value)


_CONVERT: Mapping[Kind, Callable[[Any], Value]] = {
    "bool": _any,
    "int": _any,
    "float": _float,
    "numeric": _numeric,
    "datetime": _moment,
    "date": _date,
    "time": _date,
    "text": _any,
    "bytes": _any,
}
