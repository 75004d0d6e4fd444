"""The one copier of tables: snapshots, restores and moves between engines all go through it."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Connection,
    MetaData,
    Table,
    create_engine,
    event,
    func,
    inspect,
    select,
    text,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from jhub_safety.errors import SafetyError
from jhub_safety.hubdb import content
from jhub_safety.hubdb.content import Content, Hasher, Kind, Row, Value, kind
from jhub_safety.hubdb.engines import Address, EngineName, cause, raw, server_writing, sync
from jhub_safety.hubdb.tables import translate

#: Told a table and the number of rows done since.
Progress = Callable[[str, int], None]
#: Runs on what is to be put in place before anybody sees it; raises to have nothing changed.
Afterwards = Callable[[Connection], None]
#: Before names of tables on MySQL, which cannot undo what was done to tables.
NEW, OLD = content.UNDER_WAY


def _quiet(_table: str, _rows: int) -> None:
    pass


def copy_tables(
    source: Connection,
    target: Connection,
    *,
    prefix: str = "",
    progress: Progress = _quiet,
) -> dict[str, Content]:
    """Make every table of *source* in *target*, which has none of them, and fill it.

    Returns what was read, for comparing with what the target then says. Neither commits nor
    cleans up: that is the caller's.

    Raises:
        SafetyError: the target refuses a value. Doubt: the source has no tables.
    """
    engine = _engine(target)
    found = content.reflected(source)
    made = translate(found, engine, mariadb=_is_mariadb(target), prefix=prefix)
    made.create_all(target, checkfirst=False)
    # The driver's own, too: some rows go past SQLAlchemy.
    refusals = (SQLAlchemyError, target.dialect.loaded_dbapi.Error, ValueError, OverflowError)
    read = {}
    for table in found.sorted_tables:
        hasher = Hasher(table)
        writer = _writer(target, made.tables[prefix + table.name], table)
        for batch in content.rows(source, table):
            hasher.add(batch)
            try:
                writer(batch)
            except refusals as error:
                raise SafetyError(
                    f"table {table.name} was not copied: {cause(error)}. What does not fit is "
                    "told by: jhub-safety db migrate --to ... --dry-run"
                ) from error
            progress(table.name, len(batch))
        read[table.name] = hasher.content()
    if engine == "postgresql":
        _set_sequences(target, made)
    return read


def _engine(target: Connection) -> EngineName:
    # With an address of mariadb:// SQLAlchemy has another name for the same thing.
    name = target.dialect.name
    return "mysql" if name == "mariadb" else name  # type: ignore[return-value]


def _is_mariadb(target: Connection) -> bool:
    return bool(getattr(target.dialect, "is_mariadb", False))


# -- values of the one form, as an engine takes them


def _writer(target: Connection, made: Table, source: Table) -> Callable[[Sequence[Row]], None]:
    name = target.dialect.name
    names = [one.name for one in source.columns]
    if name == "sqlite":
        # By the driver itself: a value is stored as it is, a text that is no time as well.
        quote = target.dialect.identifier_preparer.quote
        insert = (
            f"INSERT INTO {quote(made.name)} ({', '.join(map(quote, names))}) "  # noqa: S608
            f"VALUES ({', '.join('?' * len(names))})"
        )
        return lambda batch: _sqlite_insert(target, insert, batch)
    convert = [_TO_SERVER[kind(one)] for one in source.columns]

    def values(batch: Sequence[Row]) -> Iterator[list[Any]]:
        for row in batch:
            yield [
                None if value is None else one(value)
                for one, value in zip(convert, row, strict=True)
            ]

    if target.dialect.driver == "psycopg":
        quote = target.dialect.identifier_preparer.quote
        into = f"COPY {quote(made.name)} ({', '.join(map(quote, names))}) FROM STDIN"
        return lambda batch: _copy(target, into, values(batch))
    statement = made.insert()

    def insert_many(batch: Sequence[Row]) -> None:
        target.execute(statement, [dict(zip(names, row, strict=True)) for row in values(batch)])

    return insert_many


def _sqlite_insert(target: Connection, insert: str, batch: Sequence[Row]) -> None:
    target.connection.driver_connection.executemany(insert, batch)  # type: ignore[union-attr]


def _copy(target: Connection, into: str, values: Iterator[list[Any]]) -> None:
    """COPY is two to five times as fast as INSERT (100,000 users: 3.2 s, 8 s)."""
    driver: Any = target.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(into) as stream:
        for row in values:
            stream.write_row(row)


def _time(cls: Any) -> Callable[[Value], Any]:
    return lambda value: cls.fromisoformat(value) if isinstance(value, str) else value


def _same(value: Value) -> Any:
    return value


def _bool(value: Value) -> Any:
    return bool(value) if value in (0, 1) else value


def _decimal(value: Value) -> Any:
    return Decimal(value) if isinstance(value, (str, int)) else value


_TO_SERVER: Mapping[Kind, Callable[[Value], Any]] = {
    "bool": _bool,
    "int": _same,
    "float": _same,
    "numeric": _decimal,
    "datetime": _time(datetime),
    "date": _time(date),
    "time": _time(time),
    "text": _same,
    "bytes": _same,
}


def _set_sequences(target: Connection, made: MetaData) -> None:
    """The next user's id is the highest plus one; rows that bring their own do not count it up."""
    quote = target.dialect.identifier_preparer.quote
    for table in made.sorted_tables:
        serial = table.autoincrement_column
        if serial is None:
            continue
        of = func.pg_get_serial_sequence(quote(table.name), serial.name)
        target.execute(select(func.setval(of, func.coalesce(func.max(serial), 0) + 1, False)))


# -- whole targets


def write_file(
    source: Connection, file: Path, *, progress: Progress = _quiet
) -> dict[str, Content]:
    """Copy into a SQLite file that is not there yet; returns what was read.

    Raises:
        SafetyError: it is there, or refuses a value. Nothing is left of it then.
    """
    try:
        file.touch(mode=0o600, exist_ok=False)
    except OSError as error:
        raise SafetyError(f"{file} cannot be made: {error.strerror}") from error
    try:
        with _sqlite(file) as target:
            read = copy_tables(source, target, progress=progress)
        sync(file)
        return read
    except BaseException:
        for end in ("", "-journal"):
            file.with_name(file.name + end).unlink(missing_ok=True)
        raise


@contextmanager
def _sqlite(file: Path, *, cascade: bool = False) -> Iterator[Connection]:
    engine = create_engine(f"sqlite:///{file}", poolclass=NullPool)
    if cascade:
        event.listen(engine, "connect", _cascade)
    try:
        with engine.connect() as connection, connection.begin():
            # Nobody else sees the file yet: no need to wait for the disk at each step.
            yield connection
    except SQLAlchemyError as error:
        raise SafetyError(f"{file} was not written: {cause(error)}") from error
    finally:
        engine.dispose()


def _cascade(connection: Any, _record: Any) -> None:
    """As every other engine, and as JupyterHub has it: no row names one that was deleted."""
    connection.execute("PRAGMA foreign_keys = ON")


def change_file(file: Path, afterwards: Sequence[Afterwards]) -> None:
    """Let each of *afterwards* change a SQLite file that nobody has open, or none of them."""
    if afterwards:
        with _sqlite(file, cascade=True) as target:
            for change in afterwards:
                change(target)
        sync(file)


def write_server(
    source: Connection,
    target: Address,
    *,
    replace: bool,
    expected: Mapping[str, Content] | None = None,
    progress: Progress = _quiet,
) -> dict[str, Content]:
    """Copy into PostgreSQL or MySQL, compare what is there then, and only then let it count.

    A target that has tables is refused, or with *replace* its tables give way to the new ones.
    PostgreSQL does all in one transaction. MySQL cannot: the new tables are made under other names,
    and all change names in one statement, which it does whole or not at all.

    *expected*: what the source is known to hold.

    Raises:
        SafetyError: it was refused or failed; the target is as it was.
    """
    with server_writing(target) as connection:
        there = content.table_names(connection)
        if there and not replace:
            raise SafetyError(
                f"the database {target} is not empty: it has {len(there)} tables. "
                "Name one without tables"
            )
        if target.engine == "postgresql":
            return _write_postgresql(connection, source, there, expected, progress)
        return _write_mysql(connection, source, there, expected, progress)


def _write_postgresql(
    connection: Connection,
    source: Connection,
    there: Sequence[str],
    expected: Mapping[str, Content] | None,
    progress: Progress,
) -> dict[str, Content]:
    quote = connection.dialect.identifier_preparer.quote
    if there:
        connection.execute(text(f"DROP TABLE {', '.join(map(quote, there))}"))
    read = copy_tables(source, connection, progress=progress)
    found = content.measure(connection)
    require_equal(found, expected or read)
    return read


def _write_mysql(
    connection: Connection,
    source: Connection,
    there: Sequence[str],
    expected: Mapping[str, Content] | None,
    progress: Progress,
) -> dict[str, Content]:
    left = [name for name in inspect(connection).get_table_names() if name not in there]
    # Of a restore that was cut off. Those that gave way go only where the new ones are in place,
    # which is so for all or none of them; a verified snapshot was made of them.
    gave_way = [name.removeprefix(OLD) for name in left if name.startswith(OLD)]
    if lost := [name for name in gave_way if name not in there]:
        raise SafetyError(
            f"tables {OLD}... are there, and no table {lost[0]}: a restore was cut off, and then "
            "something else was changed. Nothing was done; rename or drop them by hand"
        )
    _drop(connection, left)
    done = False
    try:
        read = copy_tables(source, connection, prefix=NEW, progress=progress)
        connection.commit()
        found = {
            name.removeprefix(NEW): one
            for name, one in content.measure(connection, under_way=True).items()
            if name.startswith(NEW)
        }
        require_equal(found, expected or read)
        connection.commit()
        _exchange(connection, there, list(read))
        done = True
    finally:
        if not done:
            connection.rollback()
            now = inspect(connection).get_table_names()
            _drop(connection, [name for name in now if name.startswith(NEW)])
    _drop(connection, [OLD + name for name in there])
    return read


def _exchange(connection: Connection, there: Sequence[str], new: Sequence[str]) -> None:
    quote = connection.dialect.identifier_preparer.quote
    renames = [f"{quote(name)} TO {quote(OLD + name)}" for name in there]
    renames += [f"{quote(NEW + name)} TO {quote(name)}" for name in new]
    connection.execute(text(f"RENAME TABLE {', '.join(renames)}"))


def _drop(connection: Connection, names: Sequence[str]) -> None:
    """Tables of ours, in whatever order they name one another."""
    if not names:
        return
    quote = connection.dialect.identifier_preparer.quote
    connection.execute(text("SET SESSION foreign_key_checks = 0"))
    try:
        connection.execute(text(f"DROP TABLE {', '.join(map(quote, names))}"))
    finally:
        connection.execute(text("SET SESSION foreign_key_checks = 1"))


def require_equal(found: content.Contents, expected: content.Contents) -> None:
    """Raises SafetyError when two contents differ."""
    if different := content.differences(found, expected):
        raise SafetyError(f"what was written is not what was read: {'; '.join(different)}")


@dataclass(frozen=True, slots=True)
class Soundness:
    """What SQLite itself finds wrong with a file, in words; nothing when it is sound."""

    damage: tuple[str, ...] = ()
    #: Rows that name rows which are gone. An old hub's database may have some; they do no harm.
    references: tuple[str, ...] = ()


def check_file(file: Path) -> Soundness:
    """Look through every page of it.

    Raises:
        Doubt: it cannot be read.
    """
    try:
        with closing(raw(file)) as connection:
            found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(10)")]
            broken = connection.execute("PRAGMA foreign_key_check").fetchall()
    except sqlite3.DatabaseError as error:
        return Soundness((str(error),))
    pairs = Counter((str(row[0]), str(row[2])) for row in broken)
    return Soundness(
        () if found == ["ok"] else tuple(found),
        tuple(
            f"{rows} rows of {one} name rows of {other} that are gone"
            for (one, other), rows in sorted(pairs.items())
        ),
    )
