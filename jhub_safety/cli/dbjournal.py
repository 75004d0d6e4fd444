"""What operators do to the hub's database is written down: what came of it, and by whom."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jhub_safety.cli.connection import command_line_journal
from jhub_safety.errors import SafetyError
from jhub_safety.plan import Action


def account() -> str:
    """Who runs this command; in a pod it may have a number alone."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


@contextmanager
def written_down(action: Action) -> Iterator[dict[str, Any]]:
    """One line, when it is done or has failed, with all that was put into the dictionary."""
    journal = command_line_journal()
    more: dict[str, Any] = {}
    try:
        yield more
    except SafetyError as error:
        journal.write(action, f"failed: {error}", by=account(), **more)
        raise
    journal.write(action, "done", by=account(), **more)
