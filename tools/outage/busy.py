"""How much of the machine other programs had meanwhile: what a time that was measured is worth."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Busy:
    """Seconds of processor time until now: of all programs, and of this one."""

    at: float
    all: float
    mine: float

    @classmethod
    def now(cls) -> Busy:
        # user, nice, system, idle, iowait, irq, softirq: proc(5).
        times = [int(one) for one in Path("/proc/stat").read_text().split(maxsplit=8)[1:8]]
        own = os.times()
        return cls(
            time.monotonic(), (sum(times) - times[3] - times[4]) / _TICKS, own.user + own.system
        )

    def others_since(self, before: Busy, ours: float) -> float:
        """Which part of all cores others used; *ours*: seconds of programs that we started."""
        used = self.all - before.all - (self.mine - before.mine) - ours
        return max(0.0, used / ((self.at - before.at) * (os.cpu_count() or 1)))


def seconds_of(pid: int) -> float:
    """Processor time of a process since it began; 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
