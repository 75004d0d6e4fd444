"""``python -m jhub_safety.hubdb``: what :mod:`jhub_safety.hubdb.worker` starts."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from jhub_safety.errors import SafetyError
from jhub_safety.hubdb import migrate, restore, snapshot
from jhub_safety.hubdb.engines import (
    Address,
    address,
    cause,
    opened_file,
    other_clients,
    reading,
)
from jhub_safety.hubdb.identity import Identity
from jhub_safety.hubdb.retention import Policy, superfluous
from jhub_safety.hubdb.snapshot import Shelf
from jhub_safety.hubdb.stores import open_store
from jhub_safety.hubdb.worker import ERRORS

Request = Mapping[str, Any]
#: Seconds until a server has forgotten a connection that was closed.
_GONE = 1.0
_ENDINGS = (signal.SIGTERM, signal.SIGINT)


def tell(what: str, value: Any) -> None:
    sys.stdout.write(json.dumps({what: value}) + "\n")
    sys.stdout.flush()


def progress(what: str, done: int) -> None:
    tell("progress", [what, done])


def _shelf(request: Request) -> Shelf:
    store = open_store(request["destination"], request["store_class"])
    return Shelf(store, request["hub"], request["prefix"], tuple(request["keys"]))


def _database(request: Request) -> Address:
    return address(request["db_url"], request.get("connect_args"))


def backup(request: Request) -> dict[str, Any]:
    shelf = _shelf(request)
    manifest = snapshot.take(_database(request), shelf, progress=progress)
    if request.get("keep") is None:
        tidied: dict[str, Any] = {"removed": [], "problem": ""}
    else:
        tidied = _tidied(request, lambda: manifest.identity)
    return {"snapshot": manifest.record(), **tidied}


def tidy(request: Request) -> dict[str, Any]:
    """Remove what may go. A problem is told: old ones that are left go next time."""
    return _tidied(request, lambda: _identity_now(_database(request)))


def _identity_now(where: Address) -> str:
    # Not as one state of it all, for which a SQLite file is copied.
    with opened_file(where.file) if where.file else reading(where) as connection:
        return snapshot.identity_in(connection)


def _tidied(request: Request, whose: Callable[[], str | None]) -> dict[str, Any]:
    shelf = _shelf(request)
    policy = Policy(request["keep"], timedelta(days=request["keep_days"]))
    removed: list[str] = []
    try:
        listed = {one.name: one for one in snapshot.listing(shelf)}
        kept = (one.kept() for one in listed.values())
        names = superfluous(kept, policy, datetime.now(UTC), whose())
        for name in names:
            snapshot.remove(shelf, listed[name])
            removed.append(name)
    except SafetyError as error:
        return {"removed": removed, "problem": str(error)}
    return {"removed": removed, "problem": ""}


def listing(request: Request) -> dict[str, Any]:
    found = snapshot.listing(_shelf(request))
    newest = ours = snapshot.newest_verified(found)
    with suppress(SafetyError):
        known = (None, "", _identity_now(_database(request)))
        mine = [one for one in found if one.manifest and one.manifest.identity in known]
        ours = snapshot.newest_verified(mine)
    return {
        "snapshots": [one.record() for one in found],
        "newest": newest and newest.name,
        "ours": ours and ours.name,
    }


def verify(request: Request) -> dict[str, Any]:
    manifest = snapshot.verify(_shelf(request), request["snapshot"], progress=progress)
    return {"snapshot": manifest.record()}


def identify(request: Request) -> dict[str, Any]:
    """Of one whose manifest does not say it."""
    with (
        snapshot.opened(_shelf(request), request["snapshot"], progress=progress) as (_, file),
        opened_file(file) as connection,
    ):
        return {"identity": snapshot.identity_in(connection)}


def propose_restore(request: Request) -> dict[str, Any]:
    target = _database(request)
    found = restore.propose(
        target,
        _shelf(request),
        request["snapshot"],
        afterwards=request["afterwards"],
        progress=progress,
    )
    return {
        **found.record(),
        "manifest": found.manifest.record(),
        "clients": _clients(target, request.get("besides")),
    }


def _clients(target: Address, besides: int | None) -> list[str]:
    """Who stays connected: a server lists those who have just gone, us too, a moment longer."""
    found = other_clients(target, besides=besides)
    if found:
        time.sleep(_GONE)
        found = other_clients(target, besides=besides)
    return list(found)


def do_restore(request: Request) -> dict[str, Any]:
    former = request.get("former")
    return restore.execute(
        _database(request),
        _shelf(request),
        request["snapshot"],
        identity=request["identity"],
        afterwards=request["afterwards"],
        former=Identity(*former) if former else None,
        progress=progress,
    ).record()


def propose_migrate(request: Request) -> dict[str, Any]:
    source, target = _database(request), address(request["target"])
    return migrate.propose(source, target, progress=progress).record()


def do_migrate(request: Request) -> dict[str, Any]:
    source, target = _database(request), address(request["target"])
    return migrate.execute(source, target, progress=progress).record()


WORK: Mapping[str, Callable[[Request], dict[str, Any]]] = {
    "backup": backup,
    "tidy": tidy,
    "list": listing,
    "verify": verify,
    "identify": identify,
    "propose-restore": propose_restore,
    "restore": do_restore,
    "propose-migrate": propose_migrate,
    "migrate": do_migrate,
}


def _end(_signal: int, _frame: object) -> NoReturn:
    """As an exception: what was begun is undone, temporary files are removed."""
    # Ctrl-C reaches this process from the terminal, and SIGTERM from its parent right after: the
    # second must not cut off the undoing.
    for one in _ENDINGS:
        signal.signal(one, signal.SIG_IGN)
    raise SystemExit(1)


def end_in_order() -> None:
    """Have both ways of being ended lead to :func:`_end`."""
    for one in _ENDINGS:
        signal.signal(one, _end)


def main() -> int:
    """One request from standard input, its answer to standard output."""
    end_in_order()
    # Not 19: on a machine without cgroups around the hub, others left such a worker 1 % of a core.
    os.nice(10)
    try:
        request = json.load(sys.stdin)
        tell("result", WORK[request["do"]](request))
    except SafetyError as error:
        # The first of its classes that the other side knows, too.
        known = next(cls.__name__ for cls in type(error).__mro__ if cls.__name__ in ERRORS)
        tell("error", {"type": known, "message": str(error)})
        return 1
    except Exception as error:  # noqa: BLE001 - no traceback: it would show values of rows
        tell("error", {"type": "SafetyError", "message": f"{type(error).__name__}: {cause(error)}"})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
