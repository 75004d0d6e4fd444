"""All that is looked for in a hub's database and around it: by commands, and once at the start."""

from __future__ import annotations

import asyncio
from functools import wraps
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from jhub_safety.finding import Finding
from jhub_safety.hub.checking import tell
from jhub_safety.hub.schema import newest_revision
from jhub_safety.hubdb import checks, condition
from jhub_safety.hubdb.files import check_files, check_holders
from jhub_safety.volumes.slugs import escape, safe

if TYPE_CHECKING:
    from jupyterhub.app import JupyterHub

#: How KubeSpawner up to 6, and 7, write a user's name into those of claims and labs.
FORMS = (escape, safe)


def in_rows(connection: Connection) -> list[Finding]:
    """1 s at 100,000 users."""
    return checks.run(connection, expected=newest_revision(), forms=FORMS)


def around(url: str, config: Any, *, hub: bool = False) -> list[Finding]:
    """Of the file, its volume, the cookie secret, and who has the file open. Blocking.

    *hub*: this process is the hub.
    """
    file = condition.sqlite_path(url)
    opened = check_holders(file, hub=hub) if file is not None else []
    return [*check_files(url, config), *opened]


def wire(app: JupyterHub) -> None:
    """Look once, beside the loop, when the hub has started; what is found is in the log."""
    start, cleanup = app.start, app.cleanup
    tasks: list[asyncio.Task[None]] = []

    @wraps(start)
    async def started() -> None:
        await start()
        # "jupyterhub token" and "upgrade-db" return from start() at once.
        if app._start_future.done():
            tasks.append(asyncio.ensure_future(_look(app)))

    @wraps(cleanup)
    async def cleaned_up() -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await cleanup()

    app.start, app.cleanup = started, cleaned_up


async def _look(app: JupyterHub) -> None:
    try:
        for finding in await asyncio.to_thread(_found, app):
            tell(app, finding)
    except Exception as error:  # noqa: BLE001 - the hub serves; what is missing is said
        app.log.warning("The hub's database was not looked at whole: %s", type(error).__name__)


def _found(app: JupyterHub) -> list[Finding]:
    url = app.db_url
    if url.startswith("sqlite") and condition.sqlite_path(url) is None:
        # In memory: it is new, and nobody else's.
        return []
    found = around(url, app.config, hub=True)
    try:
        engine = condition.open_engine(url, app.db_kwargs.get("connect_args"))
        try:
            # No transaction: on SQLite the hub could not commit as long as it is open.
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                return [*found, *in_rows(connection)]
        finally:
            engine.dispose()
    except (SQLAlchemyError, ImportError) as error:
        app.log.warning("The hub's database was not looked at: %s", type(error).__name__)
        return found
