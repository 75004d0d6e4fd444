"""The source's tables as another engine makes them: same columns, keys and indexes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    String,
    Table,
    Text,
    TextClause,
    Time,
    UniqueConstraint,
    text,
    types,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

from jhub_safety.hubdb.content import kind
from jhub_safety.hubdb.engines import EngineName

#: PostgreSQL cuts longer ones off, and then two may be equal.
_LONGEST_NAME = 60
#: Of a text that has a key on MySQL, where a key needs a length.
KEY_LENGTH = 255
#: A number or a quoted text, and PostgreSQL's cast behind it.
_LITERAL = re.compile(
    r"\(?('(?:[^']|'')*'|-?[0-9]+(?:\.[0-9]+)?|true|false)\)?(::[a-z ]+)?", re.IGNORECASE
)


def translate(
    source: MetaData, engine: EngineName, *, mariadb: bool = True, prefix: str = ""
) -> MetaData:
    """Tables for *engine* that hold every value of *source* unchanged.

    Constraints keep their names where these are free on the target (MySQL counts names by table,
    the others by database). *prefix* goes before each table's name.

    On MySQL: times with microseconds (the hub's own tables there have none), text and bytes without
    a limit of 64 KiB, and a collation for which different text is different (with a common one, a
    login as ``älice`` came in as ``alice``).
    """
    made = MetaData()
    names = _Names(source, drop=bool(prefix))
    options: dict[str, Any] = {}
    if engine == "mysql":
        wanted = {
            "engine": "InnoDB",
            "charset": "utf8mb4",
            # MySQL itself does not pad with this one, and knows no nopad_bin.
            "collate": "utf8mb4_nopad_bin" if mariadb else "utf8mb4_0900_bin",
        }
        # An address of mariadb:// does not read those of mysql, and says nothing.
        for dialect in ("mysql", "mariadb"):
            options |= {f"{dialect}_{key}": value for key, value in wanted.items()}
    for table in source.sorted_tables:
        keyed = _keyed(table)
        columns = [
            Column(
                one.name,
                _type(one, engine, keyed=one.name in keyed),
                primary_key=one.primary_key,
                nullable=one.nullable,
                server_default=_default(one, engine),
            )
            for one in table.columns
        ]
        constraints = list(_constraints(table, names, prefix))
        Table(prefix + table.name, made, *columns, *constraints, **options)
    return made


def _keyed(table: Table) -> set[str]:
    found = {one.name for one in table.primary_key.columns}
    found |= {one.name for index in table.indexes for one in index.columns}
    for constraint in table.constraints:
        if isinstance(constraint, (UniqueConstraint, ForeignKeyConstraint)):
            found |= {one.name for one in constraint.columns}
    for other in table.metadata.tables.values():
        for key in other.foreign_keys:
            if key.column.table is table:
                found.add(key.column.name)
    return found


def _type(of: Column[Any], engine: EngineName, *, keyed: bool) -> TypeEngine[Any]:
    name = kind(of)
    ours = engine == "mysql"
    declared = of.type
    made: TypeEngine[Any]
    if name == "text":
        length = declared.length if isinstance(declared, types.String) else None
        if length is not None and not isinstance(declared, types.Text):
            made = String(length)
        elif ours:
            made = String(KEY_LENGTH) if keyed else mysql.LONGTEXT()
        else:
            made = Text()
    elif name == "int":
        big = isinstance(declared, types.BigInteger)
        small = isinstance(declared, types.SmallInteger)
        made = BigInteger() if big else SmallInteger() if small else Integer()
    elif name == "numeric":
        precision = getattr(declared, "precision", None)
        # Without a precision MySQL would take whole numbers only.
        made = Numeric(precision or 38, getattr(declared, "scale", None) or (0 if precision else 9))
        if engine == "sqlite":
            # As SQLite reads it back: text keeps all digits, its own numbers do not.
            made = Numeric(getattr(declared, "precision", None), getattr(declared, "scale", None))
    else:
        made = {
            "bool": Boolean(),
            "float": mysql.DOUBLE() if ours else Float(53),
            "datetime": mysql.DATETIME(fsp=6) if ours else DateTime(),
            "date": Date(),
            "time": mysql.TIME(fsp=6) if ours else Time(),
            "bytes": mysql.LONGBLOB() if ours else LargeBinary(),
        }[name]
    return made


def _default(of: Column[Any], engine: EngineName) -> TextClause | None:
    """A literal default; one that is computed belongs to its engine and is left out."""
    given = of.server_default
    if given is None or not hasattr(given, "arg"):
        return None
    found = _LITERAL.fullmatch(str(given.arg))
    if found is None or (engine == "mysql" and kind(of) == "bytes"):
        return None
    literal = found[1]
    if kind(of) == "bool":
        true = literal.strip("'").lower() in ("1", "true", "t")
        literal = ("true" if true else "false") if engine == "postgresql" else str(int(true))
    unlimited = not isinstance(of.type, types.String) or of.type.length is None
    if engine == "mysql" and kind(of) == "text" and unlimited:
        # MySQL itself takes a default of a LONGTEXT only as an expression.
        literal = f"({literal})"
    return text(literal)


def _constraints(
    table: Table, names: _Names, prefix: str
) -> Iterator[UniqueConstraint | ForeignKeyConstraint | Index]:
    for one in sorted(table.constraints, key=lambda one: str(one.name)):
        columns = [column.name for column in getattr(one, "columns", ())]
        if isinstance(one, UniqueConstraint):
            yield UniqueConstraint(*columns, name=names.of(one.name, "uq", table, columns))
        elif isinstance(one, ForeignKeyConstraint):
            elements = list(one.elements)
            yield ForeignKeyConstraint(
                columns,
                [f"{prefix}{key.column.table.name}.{key.column.name}" for key in elements],
                name=names.of(one.name, "fk", table, columns, needed=False),
                ondelete=one.ondelete,
                onupdate=one.onupdate,
            )
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        columns = [column.name for column in index.columns]
        if columns:
            name = names.of(index.name, "ix", table, columns)
            yield Index(name, *columns, unique=index.unique)


class _Names:
    """Names of constraints that no other constraint or table has."""

    def __init__(self, source: MetaData, *, drop: bool) -> None:
        self._drop = drop
        named: list[Any] = [
            one
            for table in source.tables.values()
            for part in (table.constraints, table.indexes)
            for one in part
            if one.name
        ]
        given = Counter(str(one.name).lower() for one in named)
        self._free = {name for name, times in given.items() if times == 1}
        self._free -= {name.lower() for name in source.tables}
        self._taken: set[str] = set()

    def of(
        self, given: object, sort: str, table: Table, columns: list[str], *, needed: bool = True
    ) -> str | None:
        if given and str(given).lower() in self._free and len(str(given)) <= _LONGEST_NAME:
            # Beside the tables that are to be replaced, MySQL has no second name for a reference.
            return None if self._drop and not needed else str(given)
        if not needed:
            return None
        made = "_".join([sort, table.name, *columns])[:_LONGEST_NAME]
        number = 1
        while made.lower() in self._taken:
            number += 1
            made = f"{made[: _LONGEST_NAME - 4]}_{number}"
        self._taken.add(made.lower())
        return made
