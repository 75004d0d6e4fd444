"""What can go wrong, said so that the reader knows what to do next.

Each message says what happened, to whom, that nothing was lost, and the one command to run.
"""

from __future__ import annotations


class SafetyError(Exception):
    """Base of all errors of this library."""


class ConfigError(SafetyError):
    """A setting cannot be used. The message names class, trait, wanted form and value."""


class Doubt(SafetyError):
    """The cluster did not give a whole, well-formed answer.

    Never means "absent". *retryable* is True when the same question may be answered later
    without anybody doing anything (a time-out, 429, 5xx), False for 401 and 403.
    """

    def __init__(self, message: str, *, status: int | None = None, retryable: bool = True) -> None:
        super().__init__(message)
        self.status = status
        self.retryable = retryable


class Conflict(SafetyError):
    """What was to be changed has changed since it was read; nothing was written."""
