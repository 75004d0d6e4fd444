"""What a failing step says: what failed, and whose log explains it."""

from __future__ import annotations

from pathlib import Path

TAIL_LINES = 20


class ClusterError(Exception):
    """A step failed. `log` is the log of the component concerned, when there is one."""

    def __init__(self, what: str, log: Path | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.log = log

    def __str__(self) -> str:
        lines = [self.what]
        if self.log is not None:
            lines.append(f"The last lines of {self.log}:")
            lines += [f"  {line}" for line in tail(self.log)]
            lines.append(f"The whole log: {self.log}")
        return "\n".join(lines)


def tail(log: Path, count: int = TAIL_LINES) -> list[str]:
    """The last lines of a log; a missing file gives one line that says so."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            # 400 bytes a line is more than the components write on average.
            file.seek(max(0, file.tell() - count * 400))
            text = file.read().decode(errors="replace")
    except OSError as error:
        return [f"({error})"]
    return [line[:200] for line in text.splitlines()[-count:]]
