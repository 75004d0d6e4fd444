"""Every executed action, one JSON line each."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jhub_safety.errors import SafetyError
from jhub_safety.plan import Action


class NotWritten(SafetyError):
    """A line is in the log alone, and what it is about must not be done so."""


def _now() -> datetime:
    return datetime.now(UTC)


class Journal:
    """Appends to a file, and to the log.

    The file is opened for each line: it may be rotated, and a volume that is read-only now
    may be writable later. A journal that cannot be written never stops the action it is
    about: the line is then in the log alone, and that is said once. But for :meth:`keep`.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        log: logging.Logger | logging.LoggerAdapter[Any] | None = None,
        now: Callable[[], datetime] = _now,
    ) -> None:
        self.path = path
        self._log = log or logging.getLogger(__name__)
        self._now = now
        self._warned = False

    def lines(self) -> Iterator[dict[str, Any]]:
        """What was written before; lines that are none of ours, or were cut off, are left out."""
        try:
            text = self.path.read_text(errors="replace") if self.path else ""
        except OSError:
            return
        for line in text.splitlines():
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict):
                yield found

    def write(self, action: Action, outcome: str, **more: Any) -> None:
        """Record that *action* ended with *outcome* (``done``, ``unchanged``, ``failed: ...``)."""
        line = self._line(action, outcome, more)
        if self.path is None:
            return
        try:
            self._append(self.path, line)
        except OSError as error:
            if not self._warned:
                self._warned = True
                self._log.warning(
                    "The journal %s cannot be written (%s); its lines are in this log only. "
                    "Set SafeKubeSpawner.journal to a path on a writable volume.",
                    self.path,
                    error,
                )

    def keep(self, action: Action, outcome: str, **more: Any) -> None:
        """As :meth:`write`, about what cannot be taken back and must not go unrecorded.

        Raises:
            NotWritten: it is in the log alone.
        """
        line = self._line(action, outcome, more)
        if self.path is None:
            raise NotWritten("there is no journal")
        try:
            self._append(self.path, line)
        except OSError as error:
            raise NotWritten(
                f"the journal {self.path} cannot be written ({error.strerror})"
            ) from error

    def _line(self, action: Action, outcome: str, more: dict[str, Any]) -> str:
        line = json.dumps(
            {"time": self._now().isoformat(), "outcome": outcome, **action.record(), **more},
            ensure_ascii=True,
        )
        self._log.info("journal %s", line)
        return line

    @staticmethod
    def _append(path: Path, line: str) -> None:
        """Raises OSError."""
        # One write of one line in append mode: lines of two processes do not mix.
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            text = line.encode() + b"\n"
            if os.write(handle, text) < len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(handle)
