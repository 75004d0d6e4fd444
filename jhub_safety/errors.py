"""What can go wrong, said so that the reader knows what to do next.

Each message says what happened, to whom, that nothing was lost, and the one command to run.
"""

from __future__ import annotations

import html

from tornado.web import HTTPError


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


class SpawnRefused(HTTPError):
    """A server was not started because doing so might have cost its user their files.

    An HTTPError below 500, so that JupyterHub 6 logs no traceback and does not count it
    towards ``consecutive_failure_limit`` (jupyterhub/handlers/base.py:1248, 6.1.1): five
    users with two claims must not restart the hub. ``jupyterhub_message`` is what the
    spawn page shows (jupyterhub/utils.py:1032).
    """

    def __init__(self, code: str, story: str, message: str, *, retryable: bool) -> None:
        # JupyterHub logs this three times; the whole story is logged once, by the spawner. As an
        # argument: tornado formats log_message, and a user name may hold a '%'.
        super().__init__(409, "%s", f"refused ({code}); see jhub-safety's line above")
        # Heads the page, and labels JupyterHub 6's metric of failed spawns.
        self.reason = "Home not mounted"
        self.code = code
        self.story = story
        self.retryable = retryable
        self.jupyterhub_message = message
        # User and claim names are hostile input on an HTML page.
        self.jupyterhub_html_message = html.escape(message).replace("\n", "<br>")

    def __str__(self) -> str:
        return self.story
