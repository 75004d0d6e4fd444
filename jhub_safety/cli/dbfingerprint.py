"""What is known of the hub's database, read and moved along by commands."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from jhub_safety.cli.connection import notes, shown
from jhub_safety.cluster.notes import Note
from jhub_safety.errors import SafetyError
from jhub_safety.hubdb.guard import DatabaseGuard
from jhub_safety.hubdb.known import had_homes, known_of

if TYPE_CHECKING:
    from jhub_safety.cli.hubaccess import Site


def guard_of(site: Site) -> DatabaseGuard:
    """The configured guard, with the operator's own connection."""
    guard = DatabaseGuard(config=site.hub.everything)
    place = (site.cluster.api, site.namespace, site.hub.hub_name)
    known = known_of(guard.fingerprint_file, partial(Note, *place))
    guard.attach(site.db_url, known, partial(had_homes, *place), connect_args=site.hub.connect_args)
    return guard


def after_forgetting(site: Site) -> Callable[[], Awaitable[None]]:
    """To be called when a user was forgotten while the hub is down: one fewer is as it should be.

    Otherwise the hub's next start finds fewer users than known, and holds after more than twenty.
    """
    guard = guard_of(site)

    async def move() -> None:
        if not guard.enabled:
            return
        try:
            before = await guard.known.read()
            if before is not None:
                await guard.take(like=before, deleted=1)
        except SafetyError as error:
            notes.print(
                f"[yellow]What is known of the hub's database was not moved along[/]: "
                f"{shown(error)}. Where the hub holds because of fewer users: jhub-safety db accept"
            )

    return move
