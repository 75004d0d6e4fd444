"""What is done to JupyterHub's application object, and when.

Methods of the application that are wrapped here have public names and are undocumented;
the tests with the marker ``hub`` hold each of them for JupyterHub 5.5 and 6.1.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

import jupyterhub
from jupyterhub import orm
from jupyterhub.app import JupyterHub
from kubespawner import KubeSpawner
from sqlalchemy import event

from jhub_safety.checked import check_section, check_settings, safe_class
from jhub_safety.homes import HomesMixin
from jhub_safety.hub import checking, dbchecking, guarding, reconciling, snapshots
from jhub_safety.hub.counting import session_count
from jhub_safety.hub.running import drop_tokens
from jhub_safety.hubdb.backup import DatabaseBackup
from jhub_safety.hubdb.guard import DatabaseGuard
from jhub_safety.hubdb.records import remember_former_user
from jhub_safety.labs import LabsMixin
from jhub_safety.sessions.reconciler import SessionReconciler
from jhub_safety.settings import effective
from jhub_safety.spawner import SafetyMixin

log = logging.getLogger("jhub_safety")

_MARK = "_jhub_safety_setup"


def attach(app: JupyterHub) -> None:
    """Take part in the start of *app*, once; called while its configuration is loaded."""
    if not getattr(app, _MARK, False):
        setattr(app, _MARK, True)
        # The last moment before the database opens: configuration is complete.
        _before(app, "init_db", lambda: _before_database(app))


def _before_database(app: JupyterHub) -> None:
    finish(app)
    check_section(DatabaseGuard, app.config)
    check_section(DatabaseBackup, app.config)
    spawner_class = app.spawner_class
    on_kubernetes = issubclass(spawner_class, KubeSpawner)
    guard = guarding.wire(app, spawner_class if on_kubernetes else None)
    snapshots.wire(app, guard.hub.hub_name, guard.hub.journal)
    dbchecking.wire(app)
    guard.before_database()
    snapshots.before_upgrade(app, guard.hub.hub_name, guard.hub.journal)


def finish(app: JupyterHub) -> None:
    """Choose the effective spawner class and check every setting; nothing is open yet.

    Raises:
        ConfigError: with class, trait, wanted form and value. The hub does not start.
    """
    chosen = app.spawner_class
    safe = safe_class(chosen)
    check_section(SessionReconciler, app.config)
    if safe is None:
        app.log.warning(
            "jhub-safety: %s.%s is no KubeSpawner; its homes are left to it.",
            chosen.__module__,
            chosen.__qualname__,
        )
        if not SessionReconciler(config=app.config).on_kubernetes:
            watch_sessions(app, chosen)
        return
    if safe is not chosen:
        app.log.info(
            "jhub-safety: spawner class %s.%s runs as %s",
            chosen.__module__,
            chosen.__qualname__,
            safe.__name__,
        )
        app.spawner_class = safe
    check_settings(safe, app.config)
    follow_renamed_users(app)
    LabsMixin.count_sessions = staticmethod(session_count(app))
    LabsMixin.on_gone = staticmethod(
        lambda spawner: drop_tokens(app.db, spawner.user, spawner.name)
    )
    if jupyterhub.version_info < (6,):
        HomesMixin.on_refusal = staticmethod(lambda _: _uncount_failure(app))
    watch_sessions(app, safe)
    checking.wire(app, safe)


def watch_sessions(app: JupyterHub, spawner_class: type) -> None:
    """Compare sessions, routes and labs from the hub's start to its end."""
    sessions = effective(spawner_class, app.config, "sessions") or "enforce"
    if SessionReconciler(config=app.config).enabled and sessions != "off":
        reconciling.wire(app, spawner_class)


def _uncount_failure(app: JupyterHub) -> None:
    """Keep a refused spawn out of ``consecutive_failure_limit`` on JupyterHub 5.

    There every failed spawn counts (handlers/base.py:1199, 5.5.0), and z2jh sets a limit of 5:
    one user with two claims, pressing the button five times, would restart the hub. JupyterHub 6
    does not count answers below 500.
    """
    # Not the users' settings: tornado's application works on a copy of those.
    settings = app.tornado_application.settings
    settings["failure_count"] = settings.get("failure_count", 0) - 1


def follow_renamed_users(app: JupyterHub) -> None:
    """Let homes and extra volumes follow users whom an administrator renames (PATCH /users/NAME).

    JupyterHub tells no spawner of it (apihandlers/users.py:394, 6.1.1), so the row itself is
    watched. The former name goes into the servers' state, in the same transaction; the claims
    are annotated right after.
    """

    def renamed(user: orm.User, new: str, old: object, _: object) -> None:
        if not isinstance(old, str) or old == new or user.id is None:
            return
        servers = remember_former_user(user.orm_spawners.values(), old)
        if servers:
            names = [server.name for server in servers]
            task = asyncio.ensure_future(_hand_over(app, user.id, names, old, new))
            _tasks.add(task)
            task.add_done_callback(_tasks.discard)

    # With the former name read when it is not in memory: after a rollback (any error of the
    # database, anywhere in the hub) it is not, and the rename passed unseen.
    event.listen(orm.User.name, "set", renamed, active_history=True)


#: asyncio keeps only weak references to tasks.
_tasks: set[asyncio.Future[None]] = set()


async def _hand_over(app: JupyterHub, user_id: int, servers: list[str], old: str, new: str) -> None:
    # The handler that renames has not committed yet; let it finish first.
    await asyncio.sleep(0)
    for server in servers:
        spawner = app.users[user_id].get_spawner(server)
        try:
            if spawner.user.name == new and isinstance(spawner, SafetyMixin):
                await spawner.user_renamed(old, new)
        except Exception as error:  # noqa: BLE001 - the next start does it again
            app.log.warning(
                "Not every claim of %s carries the new name instead of %s: %s. Nothing was lost, "
                "and nobody else gets them; they are annotated at the next start.",
                new,
                old,
                error,
            )


def _before(app: JupyterHub, method: str, action: Callable[[], None]) -> None:
    """Run *action* just before the application's *method*, on this instance alone."""
    original = getattr(app, method)

    @wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        action()
        return original(*args, **kwargs)

    setattr(app, method, wrapped)
