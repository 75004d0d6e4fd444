"""Snapshots while the hub runs, and the newest good one put back when its database was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import astuple, replace
from functools import wraps
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from jupyterhub.app import JupyterHub

from jhub_safety.errors import Doubt, SafetyError
from jhub_safety.hub.apart import apart
from jhub_safety.hub.schema import newest_revision
from jhub_safety.hubdb import condition, worker
from jhub_safety.hubdb.backup import Backups, DatabaseBackup
from jhub_safety.hubdb.choosing import Candidate, Passed, choose, told, why_not
from jhub_safety.hubdb.condition import State
from jhub_safety.hubdb.guarding import Fingerprint
from jhub_safety.hubdb.identity import Identity
from jhub_safety.hubdb.packing import Damaged, OtherKey
from jhub_safety.hubdb.review import Review
from jhub_safety.journal import Journal

#: What is done to a restored database before anybody sees it: its sessions are of another time, and
#: whoever has a copy of it has its logins, too.
AFTERWARDS = ("stop-servers", "log-out")


def backups_of(app: JupyterHub, hub_name: str, journal: str | None) -> Backups:
    settings = DatabaseBackup(config=app.config, log=app.log)
    kept = Journal(Path(journal) if journal else None, log=app.log)
    arguments = app.db_kwargs.get("connect_args")
    return Backups(settings, app.db_url, hub_name, connect_args=arguments, journal=kept)


async def restore_newest(
    backups: Backups,
    url: str,
    before: Fingerprint,
    *,
    about_to: Callable[[Mapping[str, Any]], None] = lambda _: None,
    keeping: Collection[int] = (),
) -> dict[str, Any] | None:
    """Put the newest good snapshot of this very database in the place of the lost one.

    *before*: what is known of it. The restored copy has its identity and epoch from its first
    moment: a hub that was killed right after would take it for an older copy, and hold. *about_to*
    is told what comes back before anything is changed, in the form of what is returned; raises to
    have nothing changed. *keeping*: as :func:`jhub_safety.hubdb.worker.run` has it.

    None: there is no place for snapshots, or none there that holds users. Else what was done:
    ``snapshot``, ``users``, ``aside`` for what was there before, ``review``
    (:func:`restored_for_review`), and ``passed`` for what was passed over, in words.

    Raises:
        SafetyError: it is not known whether there is one, none may be taken, or it could not be
            restored. The database is as it was.
    """
    where = backups.settings.where(url)
    if not where or _never_made(backups.settings, where):
        return None
    found = choose((await backups.list())["snapshots"], before)
    passed, timeout = list(found.passed), backups.settings.timeout
    for one in found.candidates:
        asked: dict[str, Any] = {"snapshot": one.name, "afterwards": list(AFTERWARDS)}
        try:
            if why := await _why_not_inside(backups, one, before):
                passed.append(Passed(one.name, why))
                continue
            proposal = await worker.run(
                backups.request("propose-restore", **asked), timeout=timeout
            )
        except OtherKey:
            # As it was written: with the right key it is the one.
            raise
        except Damaged as damage:
            backups.settings.log.error("%s. It is marked so; an older one is taken", damage)  # noqa: TRY400 - it says all there is to say
            passed.append(Passed(one.name, "is damaged"))
            continue
        if refusals := proposal["plan"]["refusals"]:
            raise Doubt(f"snapshot {one.name} is not restored: {refusals[0]['reason']}")
        newer = told(each for each in passed if each.name > one.name)
        come = {"snapshot": one.name, "review": proposal["review"], "passed": newer}
        about_to(come)
        asked["identity"] = proposal["identity"]
        former = Identity(before.identity, before.epoch, unfinished=one.name)
        request = backups.request("restore", **asked, former=astuple(former))
        return {**come, **await worker.run(request, timeout=timeout, keeping=keeping)}
    if passed:
        raise Doubt(
            f"no snapshot may be taken without a person: {told(passed)}. See them with: "
            "jhub-safety db list. To take one all the same: jhub-safety db restore NAME"
        )
    return None


async def _why_not_inside(backups: Backups, one: Candidate, before: Fingerprint) -> str:
    """As :func:`why_not`, of one whose manifest does not say which database it is of."""
    if one.identity is not None:
        return ""
    request = backups.request("identify", snapshot=one.name)
    found = await worker.run(request, timeout=backups.settings.timeout)
    return why_not(replace(one, identity=found["identity"]), before, marked=False)


def restored_for_review(restored: Mapping[str, Any], configured: Collection[str]) -> Review:
    """What a person should look through, of what :func:`restore_newest` did.

    *configured*: administrators by the configuration. :meth:`Review.lines` is for the log,
    :meth:`Review.brief` for the journal.
    """
    return Review.parse(restored["review"]).marked(configured)


def before_upgrade(app: JupyterHub, hub_name: str, journal: str | None) -> None:
    """A snapshot before the hub changes the schema of its database. Blocking.

    JupyterHub keeps a copy of a SQLite file, and of other databases nothing (dbutil.py:131, 6.1.1).
    One that cannot be made is an error in the log, and the hub starts all the same: what it would
    lose is made again from the cluster.
    """
    if not app.upgrade_db:
        return
    arguments = app.db_kwargs.get("connect_args")
    found = condition.look(app.db_url, thorough=False, connect_args=arguments)
    if found.state is not State.USABLE or found.revision == newest_revision():
        return
    backups = backups_of(app, hub_name, journal)
    try:
        made = apart(lambda: backups.run_once(tidy=False))
    except SafetyError as error:
        app.log.error(  # noqa: TRY400 - it says all there is to say
            "The schema of the hub's database is upgraded without a snapshot of it before: %s",
            error,
        )
    else:
        name = made["snapshot"]["name"]
        app.log.warning(
            "The schema of the hub's database is upgraded. As it was before, it is snapshot %s; to "
            "go back, with the former JupyterHub: jhub-safety db restore %s",
            name,
            name,
        )


def _never_made(settings: DatabaseBackup, where: str) -> bool:
    """The folder of the default, beside the database, which the first snapshot makes.

    A place that was configured and is not there is a doubt: it may only not be mounted.
    """
    return not settings.destination and not Path(url2pathname(urlsplit(where).path)).exists()


def wire(app: JupyterHub, hub_name: str, journal: str | None) -> None:
    """Make snapshots on schedule, from the hub's start to its end."""
    start, cleanup = app.start, app.cleanup
    task: list[asyncio.Task[None]] = []

    async def serve() -> None:
        try:
            await backups_of(app, hub_name, journal).serve()
        except Exception:
            # The hub serves; what is missing is said.
            app.log.exception("No snapshots of the hub's database are made")

    @wraps(start)
    async def started() -> None:
        await start()
        if app._start_future.done():
            task.append(asyncio.ensure_future(serve()))

    @wraps(cleanup)
    async def cleaned_up() -> None:
        for one in task:
            one.cancel()
        await asyncio.gather(*task, return_exceptions=True)
        await cleanup()

    app.start, app.cleanup = started, cleaned_up
