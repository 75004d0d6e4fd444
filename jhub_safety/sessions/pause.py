"""The pause switch, and what a version of this library does first: nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from jhub_safety.cluster.notes import Note
from jhub_safety.errors import Doubt


class Pause:
    """Kept in the cluster: it survives a restart of the hub, and the loss of its database."""

    def __init__(
        self, note: Note, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._note, self._now = note, now

    async def why(self) -> str:
        """Why passes change nothing just now; "" when they do.

        Raises:
            Doubt: that could not be found out.
        """
        text = await self._note.read()
        if text is None:
            return ""
        try:
            until = datetime.fromisoformat(text["until"])
            over = self._now() >= until
        except (KeyError, TypeError, ValueError) as error:
            # TypeError: a time without a zone.
            raise Doubt(f"secret {self._note.name} does not say until when") from error
        if over:
            return ""
        return f"paused until {until:%Y-%m-%d %H:%M} UTC ({text.get('why') or 'no reason given'})"

    async def begin(self, length: timedelta, why: str) -> datetime:
        """Pause from now on; replaces an earlier pause. The time until when.

        Raises:
            Conflict, Doubt: it was not written down.
        """
        until = (self._now() + length).astimezone(UTC)
        await self._note.write({"until": until.isoformat(), "why": why})
        return until

    async def end(self) -> None:
        """Raises Doubt when it may still be there."""
        await self._note.delete()


class FirstPass:
    """The first pass of a version is dry: what it would do can be read before it does it."""

    def __init__(self, note: Note, version: str) -> None:
        self._note, self._version = note, version
        self._known = False

    async def is_news(self) -> bool:
        """True until a pass of this version was whole, however often the hub restarts.

        Raises:
            Doubt: that could not be found out.
        """
        if not self._known:
            text = await self._note.read()
            self._known = text is not None and text.get("version") == self._version
        return not self._known

    async def done(self) -> None:
        """A whole pass of this version said what it would do.

        Raises:
            Conflict, Doubt: that was not written down; the next pass is dry, too.
        """
        if not self._known:
            await self._note.write({"version": self._version})
            self._known = True
