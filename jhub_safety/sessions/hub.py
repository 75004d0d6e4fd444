"""What sessions ask of a hub: the running one, or its database while it is down."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from jhub_safety.sessions.model import LabIdentity, Live, Server, Session


class Hub(Protocol):
    """The hub's own records, and the hub's own ways to change them.

    Each of the changes may be run again: what is done already is success. Errors are
    :class:`~jhub_safety.errors.Conflict` (it has changed since) and
    :class:`~jhub_safety.errors.Doubt`.
    """

    async def sessions(self) -> tuple[Session, ...]:
        """Every session, read off the event loop."""

    async def session(self, server: Server) -> Session | None:
        """This server's session as it is now; None when it has none."""

    async def known_users(self, names: Collection[str]) -> frozenset[str]:
        """Those of these names that the hub has a user of."""

    async def live(self) -> Mapping[Server, Live] | None:
        """What the hub has in memory; None when none runs."""

    def pending(self, server: Server) -> str:
        """What the hub is doing about this server just now; "" for nothing."""

    async def routes(self) -> Mapping[Server, str] | None:
        """The proxy's target of each server; None when the proxy did not answer."""

    async def clear(self, session: Session, why: str, *, ended: bool = False) -> None:
        """End a session whose lab is gone: route, row, token, OAuth client, and its hooks.

        *ended*: the lab is still there, and has ended; it is cleared away, by its uid.
        *why* is told to the user at their next start. The user, their claims and the server's
        saved state stay.
        """

    async def stop(self, session: Session, why: str) -> None:
        """Stop a server cleanly, its lab included."""

    async def relink(self, server: Server, name: str, identity: LabIdentity) -> None:
        """Make the running lab this server's session; nothing happens to the lab."""

    async def check_routes(self) -> None:
        """The hub's own comparison of servers and routes."""

    async def unstick(self, server: Server) -> str:
        """End whatever the hub is doing about a server. What it came to, as an outcome."""

    async def forget_user(self, name: str) -> None:
        """Remove a user's row, and none of their claims.

        Raises:
            Conflict: a server of theirs still has a session.
        """
