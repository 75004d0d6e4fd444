"""What keeps two users of a hub's database apart, and is not in tables that were made by hand.

A copy of tables, as a snapshot or a move to another engine, has what its source had, so neither
mends it.
"""

from __future__ import annotations

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import (
    Column,
    Connection,
    Integer,
    LargeBinary,
    column,
    func,
    inspect,
    select,
    table,
)
from sqlalchemy.types import NullType

from jhub_safety.errors import SafetyError

_KEY, _NOT_NULL = "PRIMARY KEY (id)", "NOT NULL (cookie_id)"
_UNIQUE = {f"UNIQUE ({name})": name for name in ("name", "cookie_id")}


def lacking(connection: Connection) -> list[str]:
    """Of what JupyterHub gives its table of users (orm.py:277, 6.1.1), in SQL's words."""
    inspector = inspect(connection)
    columns = {one["name"]: one for one in inspector.get_columns("users")}
    key = tuple(inspector.get_pk_constraint("users")["constrained_columns"])
    unique: set[tuple[str | None, ...]] = {
        tuple(one["column_names"]) for one in inspector.get_unique_constraints("users")
    }
    unique |= {
        tuple(one["column_names"]) for one in inspector.get_indexes("users") if one["unique"]
    }
    found = [
        what for what, name in _UNIQUE.items() if name in columns and (name,) not in {*unique, key}
    ]
    if "cookie_id" in columns and columns["cookie_id"]["nullable"]:
        found.append(_NOT_NULL)
    if "id" in columns and key != ("id",):
        found.append(_KEY)
    return found


def add(connection: Connection) -> list[str]:
    """Add what is lacking; the caller commits. On SQLite the table is made anew, with every row.

    Raises:
        SafetyError: rows are in the way. SQLAlchemyError: the engine refuses. Nothing was changed,
            but that MySQL commits each step by itself.
    """
    wanted = lacking(connection)
    if not wanted:
        return []
    _require_different(connection, wanted)
    if connection.dialect.name == "sqlite":
        if connection.exec_driver_sql("PRAGMA foreign_keys").scalar():
            raise SafetyError("this SQLite would delete what belongs to users; nothing was changed")
        # Python's driver begins a transaction for rows only: one that was killed left half of it.
        if not connection.connection.driver_connection.in_transaction:  # type: ignore[union-attr]
            connection.exec_driver_sql("BEGIN")
    operations = Operations(MigrationContext.configure(connection))
    columns = {one["name"]: one["type"] for one in inspect(connection).get_columns("users")}
    # SQLite's CREATE TABLE AS SELECT leaves those without a type that hold bytes.
    untyped = [
        Column(name, LargeBinary()) for name, of in columns.items() if isinstance(of, NullType)
    ]
    with operations.batch_alter_table("users", reflect_args=tuple(untyped)) as users:
        if _KEY in wanted:
            # By this very name SQLite gives new rows their numbers.
            users.alter_column("id", type_=Integer(), nullable=False)
            users.create_primary_key("pk_users", ["id"])
        if _NOT_NULL in wanted:
            of = columns["cookie_id"]
            users.alter_column("cookie_id", nullable=False, existing_type=of)
        for what, name in _UNIQUE.items():
            if what in wanted:
                users.create_unique_constraint(f"uq_users_{name}", [name])
    return wanted


def _require_different(connection: Connection, wanted: list[str]) -> None:
    """Raises SafetyError."""
    for name in ("id", "name", "cookie_id"):
        if not any(f"({name})" in one for one in wanted):
            continue
        one = table("users", column(name)).c[name]
        twice = select(one).group_by(one).having(func.count() > 1)
        count = connection.execute(select(func.count()).select_from(twice.subquery())).scalar()
        missing = connection.execute(select(func.count()).where(one.is_(None))).scalar()
        if count or missing:
            raise SafetyError(
                f"users have the same {name}, or none ({(count or 0) + (missing or 0)} such): the "
                "table stays as it is. Nothing was changed. See which: jhub-safety db check"
            )
