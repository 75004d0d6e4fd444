"""What of a database would not arrive unchanged on another engine; looked for before a move."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, MetaData, String, Table, Text, and_, func, select, types
from sqlalchemy.sql.elements import ColumnElement

from jhub_safety.hubdb import content
from jhub_safety.hubdb.content import Kind, Value, kind
from jhub_safety.hubdb.engines import EngineName
from jhub_safety.hubdb.tables import KEY_LENGTH

_INT = {types.BigInteger: 63, types.SmallInteger: 15}
#: A row's other values, and the statement around them.
_PACKET_MARGIN = 64 << 10


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that has to be put right in the source first. Holds no value of it."""

    code: str
    table: str
    column: str
    rows: int
    what: str

    def __str__(self) -> str:
        where = f"{self.table}.{self.column}" if self.column else self.table
        return f"{where}: {self.what} ({self.rows} rows)"

    def record(self) -> dict[str, Any]:
        return asdict(self)


_WHAT = {
    "nul": "text with a NUL character, which PostgreSQL cannot hold",
    "encoding": "text that is not UTF-8",
    "long": "text that is longer than the column allows",
    "type": "values of another type than the column's",
    "range": "numbers too large for the column",
    "time": "text that is no time",
    "packet": "values larger than the server takes at once (max_allowed_packet)",
    "reference": "names rows that are gone",
}


def findings(
    source: Connection,
    target: EngineName,
    *,
    packet: int | None = None,
    progress: Callable[[str, int], None] = lambda *_: None,
) -> tuple[Finding, ...]:
    """Everything that the target would refuse or change, by table and column.

    *packet*: bytes that a MySQL server takes at once.

    Raises:
        Doubt: the source has no tables.
    """
    tables = content.reflected(source)
    found = list(_orphans(source, tables)) if target != "sqlite" else []
    for table in tables.sorted_tables:
        checks = [_check(one, target, packet) for one in table.columns]
        seen: Counter[tuple[str, str]] = Counter()
        for batch in content.rows(source, table):
            for row in batch:
                for column, check, value in zip(table.columns, checks, row, strict=True):
                    if value is not None and (code := check(value)):
                        seen[column.name, code] += 1
            progress(table.name, len(batch))
        found += [
            Finding(code, table.name, column, rows, _WHAT[code])
            for (column, code), rows in sorted(seen.items())
        ]
    return tuple(found)


def _check(column: Any, target: EngineName, packet: int | None) -> Callable[[Value], str]:
    """A function that gives the code of what is wrong with a value, or ""."""
    name = kind(column)
    length = _length(column, target)
    bits = next((n for cls, n in _INT.items() if isinstance(column.type, cls)), 31)

    def check(value: Value) -> str:
        if isinstance(value, str) and not _is_utf8(value):
            return "encoding"
        if target == "sqlite":
            return ""
        if not _fits(name, value):
            return "time" if isinstance(value, str) and name in _TIMES else "type"
        if name == "int" and isinstance(value, int) and not -(1 << bits) <= value < 1 << bits:
            return "range"
        if isinstance(value, str):
            if target == "postgresql" and "\0" in value:
                return "nul"
            if length is not None and len(value) > length:
                return "long"
        return "packet" if packet is not None and _size(value) > packet else ""

    return check


def _length(column: Any, target: EngineName) -> int | None:
    """Characters that the target's column takes; None for no limit."""
    if kind(column) != "text":
        return None
    limited = isinstance(column.type, String) and not isinstance(column.type, Text)
    if limited and column.type.length is not None:
        return int(column.type.length)
    return KEY_LENGTH if target == "mysql" and _has_key(column) else None


def _size(value: Value) -> int:
    """Bytes that a value may take in a statement, with what stands around it."""
    if isinstance(value, str):
        return len(value.encode()) * 2 + _PACKET_MARGIN
    return len(value) * 2 + _PACKET_MARGIN if isinstance(value, bytes) else 0


def _has_key(column: Any) -> bool:
    table: Table = column.table
    keyed = {one.name for index in table.indexes for one in index.columns}
    keyed |= {
        one.name for constraint in table.constraints for one in getattr(constraint, "columns", ())
    }
    return column.name in keyed


_TIMES: tuple[Kind, ...] = ("datetime", "date", "time")


def _is_utf8(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _fits(name: Kind, value: Value) -> bool:
    if name == "bool":
        return value in (0, 1) and isinstance(value, int)
    if name in _TIMES:
        return isinstance(value, str) and (name != "datetime" or _is_time(value))
    expected: dict[Kind, tuple[type, ...]] = {
        "int": (int,),
        "float": (int, float),
        "numeric": (str, int),
        "bytes": (bytes,),
        "text": (str,),
    }
    return isinstance(value, expected[name])


def _is_time(value: str) -> bool:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def _orphans(source: Connection, tables: MetaData) -> Iterator[Finding]:
    for table in tables.sorted_tables:
        for key in sorted(table.foreign_key_constraints, key=lambda key: str(key.name)):
            parent = key.referred_table.alias()
            pairs = [(one.parent, parent.c[one.column.name]) for one in key.elements]
            matches: ColumnElement[bool] = and_(*(mine == theirs for mine, theirs in pairs))
            set_ = [mine.is_not(None) for mine, _ in pairs]
            query = (
                select(func.count())
                .select_from(table.outerjoin(parent, matches))
                .where(*set_, pairs[0][1].is_(None))
            )
            if rows := source.execute(query).scalar():
                column = ", ".join(mine.name for mine, _ in pairs)
                what = f"{_WHAT['reference']}, of {key.referred_table.name}"
                yield Finding("reference", table.name, column, rows, what)
