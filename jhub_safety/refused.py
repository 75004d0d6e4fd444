"""How a refused start reaches JupyterHub, and with it the person who wanted the server."""

from __future__ import annotations

import html

import jupyterhub
from tornado.web import HTTPError

_STATUS = 409


class _Refused:
    """What both forms carry.

    *code* is stable: the row of the decision table. *story* is for operators, and was logged
    already; what JupyterHub logs (three times) only points there.
    """

    code: str
    story: str
    retryable: bool

    def _fill(self, code: str, story: str, message: str, retryable: bool) -> str:
        self.code, self.story, self.retryable = code, story, retryable
        # Shown on the spawn page (jupyterhub/utils.py:1032); names are hostile input in HTML.
        self.jupyterhub_message = message
        self.jupyterhub_html_message = html.escape(message).replace("\n", "<br>")
        return f"refused ({code}); jhub-safety's line above says why"


if jupyterhub.version_info >= (6,):
    from jupyterhub.spawner import SpawnException

    class SpawnRefused(_Refused, SpawnException):  # type: ignore[misc]
        """A server was not started because doing so might have cost its user their files.

        JupyterHub 6's own form of a refusal by policy: no traceback, not counted towards
        ``consecutive_failure_limit`` (handlers/base.py:1256, 6.1.1).
        """

        def __init__(self, code: str, story: str, message: str, *, retryable: bool) -> None:
            log = self._fill(code, story, message, retryable)
            super().__init__(message, reason=f"home-{code}", log_message=log, status_code=_STATUS)

else:

    class SpawnRefused(_Refused, HTTPError):  # type: ignore[no-redef]
        """A server was not started because doing so might have cost its user their files.

        JupyterHub 5 counts it as a failure (handlers/base.py:1199, 5.5.0): see
        :attr:`jhub_safety.homes.HomesMixin.on_refusal`.
        """

        def __init__(self, code: str, story: str, message: str, *, retryable: bool) -> None:
            self._log = self._fill(code, story, message, retryable)
            # The person's text: JupyterHub 5's REST API knows no jupyterhub_message.
            super().__init__(_STATUS, "%s", message)

        def __str__(self) -> str:
            return self._log
