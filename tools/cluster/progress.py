"""Progress of long steps: what runs, how long it takes about, how long it has taken."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner

# Without a terminal nothing can be redrawn: one line in a while shows that it still goes on.
LINE_EVERY_SECONDS = 15.0


def _minutes(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"


class Progress:
    """Reports steps on standard error; with `quiet` it says nothing at all."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._quiet = quiet

    def say(self, text: str) -> None:
        self._console.print(text, markup=False)

    @contextmanager
    def step(self, title: str, about: str = "") -> Iterator[None]:
        """Report one step. `about` says how long it takes about, e.g. "8 minutes"."""
        began = time.monotonic()
        heading = f"{title} (takes about {about})" if about else title
        if self._quiet:
            yield
            return
        try:
            if self._console.is_terminal:
                with self._redrawn(heading, began):
                    yield
            else:
                with self._line_by_line(heading, began):
                    yield
        except BaseException:
            self.say(f"  failed  {title} after {_minutes(time.monotonic() - began)}")
            raise
        self.say(f"  done    {title} in {_minutes(time.monotonic() - began)}")

    @contextmanager
    def _redrawn(self, heading: str, began: float) -> Iterator[None]:
        spinner = Spinner("dots", text=heading)

        class Elapsed:
            def __rich__(self) -> Spinner:
                spinner.update(text=f"{heading}: {_minutes(time.monotonic() - began)}")
                return spinner

        with Live(Elapsed(), console=self._console, refresh_per_second=4, transient=True):
            yield

    @contextmanager
    def _line_by_line(self, heading: str, began: float) -> Iterator[None]:
        ended = threading.Event()

        def lines() -> None:
            while not ended.wait(LINE_EVERY_SECONDS):
                self.say(f"  ...     {heading}: {_minutes(time.monotonic() - began)} so far")

        self.say(f"  begin   {heading}")
        thread = threading.Thread(target=lines, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
