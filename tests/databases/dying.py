"""Inside the process that restores: name every step at which it can die, and die at one of them.

A step is each call that changes a file in one of the given folders (Python reports it before it is
made), and on a server each statement that changes something, each commit, and the end of the
connection. A `sitecustomize` on PYTHONPATH calls :func:`install`; orders come by the environment.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
#: Lies on PYTHONPATH in a folder of its own.
SITECUSTOMIZE = f"""
import sys
if "jhub_safety.hubdb" in sys.orig_argv:
    sys.path.insert(0, {str(ROOT)!r})
    from tests.databases import dying
    dying.install()
"""
#: The step to die at; folders whose files count; the file that gets every step's name.
AT, FOLDERS, REACHED = "JHUB_SAFETY_DIE_AT", "JHUB_SAFETY_DIE_IN", "JHUB_SAFETY_REACHED"
#: Who dies: "worker", "command", or both as when the machine does.
WHO = "JHUB_SAFETY_DIE_WHO"
_CHANGES = ("CREATE", "DROP", "INSERT", "UPDATE", "DELETE", "ALTER", "RENAME", "SELECT SETVAL")
_FILES = {"os.rename", "os.link", "os.remove", "os.chmod", "os.chown", "os.mkdir"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
#: Of times and random names, which are others each time.
_ODD = re.compile(r"\d{8}T\d{6}\.\d+Z?(-[0-9a-f]{8})?")


class Steps:
    """Counted; each has a name that is the same in every run over the same database."""

    def __init__(self) -> None:
        self._at = os.environ.get(AT, "")
        self._folders = tuple(os.environ[FOLDERS].split(os.pathsep))
        self._reached = os.environ[REACHED]
        self._times: Counter[str] = Counter()
        self._busy = self._changing = False

    def file(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._busy or event not in _FILES | {"open"}:
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & _WRITING):
            return
        # os.link and os.rename: what is to be, rather than what is.
        paths = [os.fspath(one) for one in arguments[:2] if isinstance(one, str | os.PathLike)]
        mine = [one for one in paths if str(one).startswith(self._folders)]
        if mine:
            self._step(f"{event} {Path(str(mine[-1])).name}")

    def statement(self, connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        words = " ".join(statement.split()[:3])
        if connection.dialect.name != "sqlite" and words.upper().startswith(_CHANGES):
            self._changing = True
            self._step(words)

    def commit(self, connection: Any) -> None:
        if connection.dialect.name != "sqlite" and self._changing:
            self._step("commit")

    def disposed(self, engine: Any) -> None:
        if engine.dialect.name != "sqlite" and self._changing:
            self._step("end")

    def _step(self, what: str) -> None:
        self._busy = True
        what = _ODD.sub("...", what)
        self._times[what] += 1
        name = f"{what}#{self._times[what]}"
        with open(self._reached, "a") as stream:  # noqa: PTH123 - nothing that imports, in a hook
            stream.write(name + "\n")
        if name == self._at:
            who = os.environ.get(WHO, "both")
            if who in ("command", "both"):
                os.kill(os.getppid(), signal.SIGKILL)
            if who in ("worker", "both"):
                os.kill(os.getpid(), signal.SIGKILL)
        self._busy = False


def install() -> None:
    """Count from now on."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    steps = Steps()
    sys.addaudithook(steps.file)
    event.listen(Engine, "before_cursor_execute", steps.statement)
    event.listen(Engine, "commit", steps.commit)
    event.listen(Engine, "engine_disposed", steps.disposed)
