"""A process that stays the same one: its pid together with its start time."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path


def boot() -> str:
    """The kernel's id of this boot: start times repeat after a reboot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _started(pid: int) -> int | None:
    """Start time in clock ticks since boot; None when there is no such living process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The program's name comes in brackets and may hold blanks and brackets itself.
    state, *rest = text.rpartition(")")[2].split()
    return None if state in ("Z", "X") else int(rest[18])


@dataclass(frozen=True)
class Identity:
    """A pid alone may be somebody else's by the time a signal is sent.

    started: clock ticks since boot (/proc/PID/stat, field 22).
    boot: the boot in which both were read.
    """

    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """The process that has this pid now; None when there is none."""
        started = _started(pid)
        return None if started is None else cls(pid, started, boot())

    def alive(self) -> bool:
        return self.boot == boot() and _started(self.pid) == self.started

    def send(self, number: signal.Signals) -> bool:
        """Send a signal to exactly this process; False when it is gone."""
        try:
            # Once opened, the handle cannot come to mean another process.
            handle = os.pidfd_open(self.pid)
        except OSError:
            return False
        try:
            if not self.alive():
                return False
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        return True

    def end(self, grace: float) -> None:
        """SIGTERM, and SIGKILL after `grace` seconds."""
        for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
            if not self.send(number):
                return
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline:
                if not self.alive():
                    return
                time.sleep(0.05)
