"""Ctrl-C, a closed terminal and `demo-down` all end a program in the same, orderly way."""

from __future__ import annotations

import signal
from types import FrameType


def _as_ctrl_c(_number: int, _frame: FrameType | None) -> None:
    # SIGINT is what asyncio turns into a cancellation and plain code into KeyboardInterrupt.
    signal.raise_signal(signal.SIGINT)


def treat_all_as_ctrl_c() -> None:
    # A shell starts programs of the background with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _as_ctrl_c)
    signal.signal(signal.SIGHUP, _as_ctrl_c)


def ignore() -> None:
    """For the end, which takes seconds and must not be cut short by an impatient second Ctrl-C."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
