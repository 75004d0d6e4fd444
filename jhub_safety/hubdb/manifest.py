"""What is written down about a snapshot when it is taken: all that is compared later."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

from jhub_safety import __version__
from jhub_safety.hubdb.content import Content
from jhub_safety.hubdb.packing import Damaged, Sum

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a snapshot must hold. It names no user."""

    name: str
    hub: str
    made: datetime
    #: Of the source: ``sqlite``, ``postgresql``, ``mysql``.
    engine: str
    #: Schema revision of JupyterHub (alembic's).
    revision: str
    highest_user_id: int | None
    raw: Sum
    stored: Sum
    tables: Mapping[str, Content]
    journal_mode: str = ""
    #: References that were broken in the source already.
    references: tuple[str, ...] = ()
    #: Why it was made; "" for one of the schedule, or of an operator.
    purpose: str = ""
    #: Of the database that it is of (:mod:`jhub_safety.hubdb.identity`). "": it had no mark; None:
    #: of an early release, which did not note it.
    identity: str | None = None
    library: str = __version__

    @property
    def users(self) -> int:
        return self.tables["users"].rows

    @property
    def encrypted(self) -> bool:
        return self.name.endswith(".fernet")

    def record(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "name": self.name,
            "hub": self.hub,
            "made": self.made.isoformat(),
            "engine": self.engine,
            "revision": self.revision,
            "users": self.users,
            "highest_user_id": self.highest_user_id,
            "raw": self.raw.record(),
            "stored": self.stored.record(),
            "tables": {name: one.record() for name, one in sorted(self.tables.items())},
            "journal_mode": self.journal_mode,
            "references": list(self.references),
            "library": self.library,
            **({"purpose": self.purpose} if self.purpose else {}),
            **({} if self.identity is None else {"identity": self.identity}),
        }

    def encode(self) -> bytes:
        """JSON that ends in its own checksum. Every byte of it counts."""
        record = self.record()
        record["seal"] = _seal(record)
        return (json.dumps(record, indent=1) + "\n").encode()

    @classmethod
    def decode(cls, data: bytes, name: str) -> Manifest:
        """Raises Damaged when a single byte is not as it was written, or *name* is another's."""
        try:
            record = json.loads(data)
            tables = {
                key: Content(tuple(one["columns"]), one["rows"], one["digest"])
                for key, one in record["tables"].items()
            }
            made = cls(
                name=record["name"],
                hub=record["hub"],
                made=datetime.fromisoformat(record["made"]),
                engine=record["engine"],
                revision=record["revision"],
                highest_user_id=record["highest_user_id"],
                raw=Sum(**record["raw"]),
                stored=Sum(**record["stored"]),
                tables=MappingProxyType(tables),
                journal_mode=record["journal_mode"],
                references=tuple(record["references"]),
                purpose=record.get("purpose", ""),
                identity=record.get("identity"),
                library=record["library"],
            )
            if record["format"] != FORMAT:
                raise Damaged(f"the manifest of {name} is of a newer version of this library")
            same = made.encode() == data and made.name == name
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Damaged(f"the manifest of {name} cannot be read") from error
        if not same:
            raise Damaged(f"the manifest of {name} is not as it was written")
        return made


def _seal(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
