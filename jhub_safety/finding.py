"""Finding: one thing that a check of a hub has to say; ``doctor`` prints it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """From worst to best. The values are stable: scripts read them from ``doctor --json``."""

    #: It does not work as configured, for somebody or for all.
    ERROR = "error"
    #: It works, and will surprise somebody.
    WARNING = "warning"
    #: It could not be looked at. Says nothing about whether it is in order.
    UNKNOWN = "unknown"
    #: It was looked at and is in order; the story may be a note.
    OK = "ok"


@dataclass(frozen=True, slots=True)
class Finding:
    """*code* is stable (docs/doctor.md has a line for each); *subject* is what it is about.

    *command* is the whole line to run next, or "".
    """

    severity: Severity
    code: str
    subject: str
    story: str
    command: str = ""

    def record(self) -> dict[str, str]:
        """JSON-ready."""
        found: dict[str, Any] = asdict(self)
        return {key: str(value) for key, value in found.items()}

    def __str__(self) -> str:
        told = f"{self.subject}: {self.story}"
        return f"{told}. Run: {self.command}" if self.command else told
