"""Whether the hub's database may say who is unknown: by what is in it, and by its guard."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from jhub_safety.checked import check_section
from jhub_safety.cli.connection import Connection
from jhub_safety.cli.dbfingerprint import guard_of
from jhub_safety.cli.dbguard import NEXT
from jhub_safety.cli.hubaccess import Site
from jhub_safety.cli.hubalive import row_of_hold
from jhub_safety.errors import SafetyError
from jhub_safety.hubconfig import understand_sessions
from jhub_safety.hubdb.alone import alone
from jhub_safety.hubdb.guard import DatabaseGuard
from jhub_safety.hubdb.guarding import Row as GuardRow
from jhub_safety.hubdb.guarding import Verdict
from jhub_safety.volumes.deletion import doubt_of
from jhub_safety.volumes.selection import Known, Row

_STATUS = "jhub-safety db status"
_START = "start the hub, which does the rest, and run the command again"
_THERE = "run it where the hub runs: kubectl exec -it deploy/hub -- jhub-safety claims delete ..."


async def be_sure_who_is_unknown(
    connection: Connection,
    known: Known | None,
    rows: Iterable[Row],
    *,
    again: bool = False,
) -> None:
    """Before claims are deleted because nobody knows their owner, and *again* meanwhile.

    Raises:
        SafetyError: nobody can be called unknown by this database.
    """
    why = doubt_of(known, rows, connection.hub.hub_name)
    then = "To see which owners it does not know: jhub-safety claims list --orphaned"
    if not why:
        why, then = await _doubt_of_guard(connection, thorough=not again)
    if why:
        done = "nothing more is deleted" if again else "nothing was deleted"
        raise SafetyError(f"{why}. Nobody can be called unknown by it; {done}. {then}")


async def _doubt_of_guard(connection: Connection, *, thorough: bool) -> tuple[str, str]:
    """Why the guard does not say plainly that a hub serves on it, or ""; and what to do then.

    Of a hub without a guard nothing is known, and there is nothing to compare (``first-guarded``).
    """
    everything = connection.hub.everything
    check_section(DatabaseGuard, everything)
    hub = understand_sessions(everything, connection.claims.namespace)
    site = Site(connection.cluster, hub, connection.options)
    guard = guard_of(site)
    case, decision = await guard.look(thorough=thorough)
    if decision.row is GuardRow.OLDER:
        # The hub takes a fingerprint every few minutes: maybe between our two readings.
        case, decision = await guard.look(thorough=thorough)
    if decision.verdict is not Verdict.SERVE:
        return (
            f"the database guard: {decision.why} ({decision.row}, {decision.verdict})",
            f"Next: {NEXT.get(decision.row, _STATUS)}",
        )
    if case.before is None and (case.condition.identity or guard.fingerprint_file):
        # It is guarded, and what is known of it is somewhere else: not "never".
        where = f" in {guard.fingerprint_file}" if guard.fingerprint_file else ""
        return f"the database guard: no fingerprint is known here{where}", f"Next: {_THERE}"
    if case.condition.renewed:
        # Served, for labs to become sessions again; until then not all that was known is in it.
        return "the hub's database was made again, and that is not over yet", f"Next: {_START}"
    if at_work := await asyncio.to_thread(_at_work, site.db_url, hub.connect_args):
        return at_work, f"See how it stands: {_STATUS}"
    if (held := await row_of_hold(hub)) is not None:
        return f"the hub holds ({held})", f"See why: {_STATUS}"
    return "", ""


def _at_work(url: str, connect_args: Mapping[str, Any] | None) -> str:
    """Why a database in good order may be the half of one, as a hub asks before it serves."""
    try:
        with alone(url, connect_args, looking=True):
            return ""
    except SafetyError as error:
        return str(error)
