"""The API server's own record of who asked for what."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLAIMS = "persistentvolumeclaims"
PODS = "pods"
WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclass(frozen=True)
class Call:
    """One finished call. name: "" where no single object was meant, as in a LIST."""

    user: str
    verb: str
    resource: str
    namespace: str
    name: str
    status: int
    uri: str

    def __str__(self) -> str:
        return f"{self.verb} {self.resource} {self.name or '-'}: {self.status}"


class AuditLog:
    """The log from a mark on. A call is in it before its caller has the answer."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._mark = 0
        self.mark()

    def mark(self) -> None:
        """Forget what has been so far."""
        self._mark = self.file.stat().st_size

    def calls(
        self,
        *,
        user: str | None = None,
        namespace: str | None = None,
        resource: str | None = None,
        verbs: Collection[str] | None = None,
    ) -> list[Call]:
        """What has been asked since the mark, oldest first; None is "any"."""
        with self.file.open("rb") as log:
            log.seek(self._mark)
            lines = log.read().splitlines(keepends=True)
        wanted = {"user": user, "namespace": namespace, "resource": resource}
        return [
            call
            for call in (_call(json.loads(line)) for line in lines if line.endswith(b"\n"))
            if all(value is None or getattr(call, key) == value for key, value in wanted.items())
            and (verbs is None or call.verb in verbs)
        ]

    def count(self, **wanted: Any) -> dict[str, int]:
        """How many calls of each verb since the mark; verbs that did not occur are left out."""
        counted: dict[str, int] = {}
        for call in self.calls(**wanted):
            counted[call.verb] = counted.get(call.verb, 0) + 1
        return counted


def _call(record: dict[str, Any]) -> Call:
    target = record.get("objectRef") or {}
    return Call(
        user=record["user"].get("username", ""),
        verb=record["verb"],
        resource=target.get("resource", ""),
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        status=(record.get("responseStatus") or {}).get("code", 0),
        uri=record["requestURI"],
    )
