"""The hub's database on another engine: checked before, compared after, the source untouched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from jhub_safety.errors import SafetyError
from jhub_safety.hubdb import content
from jhub_safety.hubdb.copying import require_equal, write_file, write_server
from jhub_safety.hubdb.engines import Address, reading
from jhub_safety.hubdb.movable import Finding, findings
from jhub_safety.plan import Action, Plan, Refusal

Progress = Callable[[str, int], None]


def _quiet(_what: str, _done: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Proposal:
    """What will be copied, or why not."""

    plan: Plan
    tables: int
    users: int
    findings: tuple[Finding, ...]

    def record(self) -> dict[str, Any]:
        return {
            "plan": self.plan.record(),
            "tables": self.tables,
            "users": self.users,
            "findings": [one.record() for one in self.findings],
        }


def propose(source: Address, target: Address, *, progress: Progress = _quiet) -> Proposal:
    """Look at every value. Nothing is changed.

    Raises:
        Doubt: one of the two cannot be read.
    """
    there, packet = _look_at_target(target)
    with reading(source) as connection:
        tables = content.table_names(connection)
        if "users" not in tables:
            raise SafetyError(f"the database {source} has no table users; it is no hub's")
        found = findings(connection, target.engine, packet=packet, progress=progress)
        users = connection.execute(text("SELECT count(*) FROM users")).scalar_one()
    return Proposal(decide(source, target, there, found), len(tables), users, found)


def decide(source: Address, target: Address, there: int, found: tuple[Finding, ...]) -> Plan:
    """Pure. *there*: tables that the target has already."""
    title = f"Copy {source} to {target}"
    refusals = []
    if source.url == target.url or (source.file is not None and source.file == target.file):
        refusals.append(Refusal("same", str(target), "it is the hub's database already"))
    elif there:
        why = f"it is not empty: it has {there} tables"
        refusals.append(Refusal("not-empty", str(target), why, "jhub-safety db migrate --to ..."))
    refusals += [Refusal(one.code, str(source), str(one)) for one in found]
    if refusals:
        return Plan(title, refusals=tuple(refusals))
    why = f"every table of {source}, which stays as it is"
    return Plan(title, (Action("copy-database", "", str(target), why),))


def _look_at_target(target: Address) -> tuple[int, int | None]:
    """Tables that are there, and the bytes a MySQL server takes at once."""
    if target.file is not None:
        if not target.file.parent.is_dir():
            raise SafetyError(f"the folder {target.file.parent} is not there")
        if not target.file.exists():
            return 0, None
    with reading(target) as connection:
        packet = _packet(connection) if target.engine == "mysql" else None
        return len(content.table_names(connection)), packet


def _packet(connection: Connection) -> int:
    return int(connection.execute(text("SELECT @@max_allowed_packet")).scalar_one())


@dataclass(frozen=True, slots=True)
class Moved:
    """What was copied, and is the same on both sides."""

    tables: int
    rows: int

    def record(self) -> dict[str, Any]:
        return {"tables": self.tables, "rows": self.rows}


def execute(source: Address, target: Address, *, progress: Progress = _quiet) -> Moved:
    """Copy everything, and compare what the target says afterwards.

    Raises:
        SafetyError: it failed; the target is as empty as it was, the source untouched.
    """
    with reading(source) as connection:
        if target.file is not None:
            read = _into_file(connection, target.file, progress)
        else:
            read = write_server(connection, target, replace=False, progress=progress)
    with reading(target) as arrived:
        require_equal(content.measure(arrived), read)
    return Moved(len(read), sum(one.rows for one in read.values()))


def _into_file(source: Connection, file: Path, progress: Progress) -> dict[str, content.Content]:
    if file.exists() and file.stat().st_size:
        raise SafetyError(f"{file} is there already")
    file.unlink(missing_ok=True)
    return write_file(source, file, progress=progress)


def configuration(target: Address) -> str:
    """What to write into the hub's configuration, without the password."""
    shown = str(target)
    kind = {"sqlite": "other", "postgresql": "postgres", "mysql": "mysql"}[target.engine]
    return (
        f"# jupyterhub_config.py\nc.JupyterHub.db_url = {shown!r}\n\n"
        f"# or values of Zero to JupyterHub\nhub:\n  db:\n    type: {kind}\n    url: {shown}\n"
    )
