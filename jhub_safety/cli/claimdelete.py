"""``jhub-safety claims delete``: what is left over goes, at an operator's typed word."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import click

from jhub_safety.cli.claimchange import (
    Word,
    ask,
    check,
    going_through,
    tell_left_out,
    word_options,
)
from jhub_safety.cli.claimfilter import (
    Seen,
    configured,
    filter_options,
    known_to,
    look,
    who_mounts,
)
from jhub_safety.cli.claimguard import be_sure_who_is_unknown
from jhub_safety.cli.claimlist import age, tell_totals
from jhub_safety.cli.columns import lines
from jhub_safety.cli.connection import (
    Connection,
    command_line_journal,
    console,
    kept_journal,
    notes,
    shown,
    with_connection,
)
from jhub_safety.cluster import volumes
from jhub_safety.cluster.claims import Claim
from jhub_safety.errors import Doubt, SafetyError
from jhub_safety.journal import Journal
from jhub_safety.volumes.deletion import (
    BEGUN,
    DONE,
    Deletion,
    Outcome,
    by_filter,
    by_name,
    cap,
    execute,
    is_older,
    leaving,
)
from jhub_safety.volumes.selection import Filter, Row, rows_of

#: Seconds after which pods and the hub's database are read anew while claims are deleted.
_FRESH = 5.0
_TITLES = ("CLAIM", "OWNER", "COMPONENT", "PHASE", "SIZE", "CLASS", "VOLUME", "AGE", "MOUNTED BY")


@click.command()
@click.argument("names", metavar="[CLAIM]...", nargs=-1)
@filter_options
@click.option(
    "--max-orphaned", type=click.IntRange(min=1), help="So many orphaned ones may be deleted."
)
@click.option(
    "--reclaim",
    type=click.Choice(["retain"]),
    help="retain: keep the volumes with their data, whatever their class says.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan and do nothing.")
@word_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_connection
async def delete(
    connection: Connection,
    names: tuple[str, ...],
    chosen: Filter,
    max_orphaned: int | None,
    reclaim: str | None,
    dry_run: bool,
    word: Word,
    as_json: bool,
) -> None:
    """Delete extra volumes by filter, or CLAIMs by name. Homes go only by name.

    Run it again after an interruption; what is gone already is left alone.
    """
    if bool(names) == bool(chosen):
        raise click.UsageError("Give CLAIMs or a filter (--component, --owner, ...), not both.")
    check(connection, word, "deleted")
    journal = command_line_journal() if dry_run else kept_journal()
    with notes.status("Looking"):
        seen = await look(connection, pods=True)
        if chosen.orphaned:
            await be_sure_who_is_unknown(connection, seen.known, seen.rows)
    deletion = _decide(connection, seen, names, chosen, max_orphaned, journal)
    _show(connection, seen, deletion, reclaim)
    outcomes: tuple[Outcome, ...] = ()
    left: tuple[str, ...] = ()
    if not deletion.plan:
        notes.print("There is nothing to delete.")
    elif not dry_run:
        if not word.yes:
            ask(connection, deletion.plan, "deleted")
        work = _Work(connection, chosen, seen, reclaim)
        outcomes = await work.do(deletion, journal)
        left = await _leaving(connection, deletion, outcomes)
    _tell(deletion, outcomes, left, as_json)
    # Skipped because it changed, failed, or asked for and refused: a person has to look.
    odd = any(not one.done and one.result != "skipped: it is gone" for one in outcomes)
    if odd or deletion.plan.refusals:
        sys.exit(1)


def _decide(
    connection: Connection,
    seen: Seen,
    names: tuple[str, ...],
    chosen: Filter,
    max_orphaned: int | None,
    journal: Journal,
) -> Deletion:
    hub = connection.hub.hub_name
    if names:
        return by_name(seen.rows, names, hub=hub, deleted=_deleted(connection, journal))
    known = seen.known
    deletion = by_filter(
        seen.rows,
        chosen,
        hub=hub,
        homes=known.homes if known else frozenset(),
        oldest=known.oldest if known else None,
        now=seen.now,
    )
    count, most = len(deletion.plan.actions), max_orphaned or cap(seen.rows, hub)
    if chosen.orphaned and count > most:
        raise SafetyError(
            f"{count} orphaned claims are more than {most}; nothing was deleted. Look at them "
            "(jhub-safety claims list --orphaned --component extra-pvc), and if the hub's "
            f"database is whole, say so: --max-orphaned {count}"
        )
    return deletion


def _deleted(connection: Connection, journal: Journal) -> dict[str, str]:
    """Claims that this command has deleted here before, by the journal, and when."""
    return {
        str(line.get("name")): str(line.get("time"))
        for line in journal.lines()
        if line.get("kind") == "delete-claim"
        and line.get("namespace") == connection.claims.namespace
        and line.get("cluster") == connection.cluster.server
        and line.get("outcome") in (BEGUN, DONE)
    }


# -- plan and question


def _show(connection: Connection, seen: Seen, deletion: Deletion, reclaim: str | None) -> None:
    notes.print(shown(connection.header()))
    rows = deletion.rows
    if rows:
        table = lines(_TITLES, [_cells(row, seen) for row in rows])
        # Not by rich, which takes seconds for thousands of lines.
        click.echo("\n".join(table), err=True)
        tell_totals(rows)
    tell_left_out(deletion.left_out)
    for refusal in deletion.plan.refusals:
        notes.print(f"  [red]refused[/] {shown(refusal.who)}: {shown(refusal.reason)}")
    if not rows:
        return
    mounted = [row for row in rows if row.mounted_by]
    if mounted:
        notes.print(
            f"{len(mounted)} of {len(rows)} are mounted now: Kubernetes deletes such a claim when "
            "its pod ends, not before. Until then no new lab can mount it."
        )
    known = seen.known
    on_record = [row for row in rows if known and row.name in known.homes | known.volumes]
    if on_record:
        notes.print(
            f"{len(on_record)} of {len(rows)} are on record: their users' next starts are refused "
            "(gone) until you run: jhub-safety claims forget CLAIM --user=USER"
        )
    notes.print(
        "Their volumes are kept, with the data (policy Retain)."
        if reclaim
        else "[red]Their data goes with them[/], where the volumes' policy is Delete. "
        "To keep the volumes: --reclaim retain"
    )


def _cells(row: Row, seen: Seen) -> tuple[str, ...]:
    claim = row.claim
    pods = ", ".join(row.mounted_by or ())
    return (
        row.name,
        row.owner,
        row.component,
        row.phase,
        claim.capacity,
        claim.storage_class,
        claim.volume,
        age(seen.now - claim.created) if claim.created else "",
        f"{pods} (goes when that ends)" if pods else "",
    )


# -- work


@dataclass
class _Work:
    """What is looked at again while claims are deleted."""

    connection: Connection
    chosen: Filter
    seen: Seen
    reclaim: str | None
    clock: Callable[[], float] = time.monotonic
    mounts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: When, by the clock; never before the first claim.
    looked: float | None = None

    async def do(self, deletion: Deletion, journal: Journal) -> tuple[Outcome, ...]:
        """Raises Doubt when it is not known who mounts what by now; nothing more is deleted then.

        May be run again.
        """
        with going_through("Deleting", len(deletion.rows), journal) as advance:
            return await execute(
                deletion,
                self.connection.claims,
                journal,
                before=self._retain if self.reclaim else None,
                fresh=self._fresh,
                still=self._still,
                progress=advance,
                where=self.connection.cluster.server,
            )

    async def _retain(self, claim: Claim) -> None:
        if claim.volume:
            await volumes.retain(self.connection.cluster.api, claim.volume, claim.uid)

    async def _fresh(self) -> None:
        """Who mounts what, and whom the hub knows: before the first claim, and from time to time.

        A mount leaves no trace on a claim, and whom a plan calls unknown may have logged in since.
        """
        if self.looked is not None and self.clock() - self.looked <= _FRESH:
            return
        self.mounts = await who_mounts(self.connection)
        if self.chosen.orphaned:
            known = known_to(self.connection)
            rows = rows_of(self.seen.claims.values(), configured(self.connection), known)
            await be_sure_who_is_unknown(self.connection, known, rows, again=True)
            self.seen = Seen(self.seen.claims, rows, known, self.seen.now)
        # After it: with many pods it takes seconds, and is not to be done for each claim.
        self.looked = self.clock()

    def _still(self, row: Row) -> str:
        """Why a claim is not to be deleted after all, or ""."""
        new = set(self.mounts.get(row.name, ())) - set(row.mounted_by or ())
        if new:
            return f"it is mounted by {', '.join(sorted(new))} since the plan was made"
        if not self.chosen.orphaned:
            return ""
        known = self.seen.known
        if known is None or row.user in known.users or row.name in known.volumes | known.homes:
            return f"the hub knows {row.owner} by now"
        if is_older(row.claim, known.oldest):
            return "it is older than the hub's database by now"
        return ""


async def _leaving(
    connection: Connection, deletion: Deletion, outcomes: tuple[Outcome, ...]
) -> tuple[str, ...]:
    try:
        with notes.status("Waiting until they are gone"):
            return await leaving(deletion, outcomes, connection.claims)
    except Doubt as doubt:
        notes.print(f"Whether all of them are gone is not known: {shown(doubt)}")
        return ()


def _tell(
    deletion: Deletion, outcomes: tuple[Outcome, ...], left: tuple[str, ...], as_json: bool
) -> None:
    if as_json:
        click.echo(json.dumps(_record(deletion, outcomes, left), indent=2))
        return
    for one in outcomes:
        if not one.done:
            console.print(shown(f"{one.action.name}: {one.result}"))
    using = {row.name: row.mounted_by for row in deletion.rows}
    for name in left:
        pods = ", ".join(using.get(name) or ())
        until = f"goes when pod {pods} ends" if pods else "is still being deleted"
        console.print(shown(f"{name}: {until}"))
    if outcomes:
        done = sum(one.done for one in outcomes)
        failed = sum(one.failed for one in outcomes)
        console.print(
            f"{done} of {len(outcomes)} deleted, {len(left)} of them later; "
            f"{len(outcomes) - done - failed} skipped, {failed} failed"
        )


def _record(
    deletion: Deletion, outcomes: tuple[Outcome, ...], left: tuple[str, ...]
) -> dict[str, Any]:
    return {
        **deletion.plan.record(),
        "left_out": {why: list(names) for why, names in deletion.left_out.items()},
        "outcomes": [{"name": one.action.name, "result": one.result} for one in outcomes],
        "leaving": list(left),
    }
