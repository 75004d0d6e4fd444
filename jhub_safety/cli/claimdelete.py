"""``jhub-safety claims delete``: what is left over goes, at an operator's typed word."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import click
from rich.progress import Progress

from jhub_safety.cli.claimfilter import (
    Seen,
    configured,
    filter_options,
    known_to,
    look,
    who_mounts,
)
from jhub_safety.cli.claimlist import age, tell_totals
from jhub_safety.cli.columns import lines
from jhub_safety.cli.connection import (
    Connection,
    command_line_journal,
    console,
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
    doubt_of,
    execute,
    leaving,
)
from jhub_safety.volumes.selection import Filter, Row, rows_of

#: Seconds after which the hub's database is read anew while claims are deleted.
_FRESH = 5.0
#: Names of what is left out that are printed; the others are counted.
_NAMED = 5
_TITLES = ("CLAIM", "OWNER", "COMPONENT", "PHASE", "SIZE", "CLASS", "VOLUME", "AGE", "MOUNTED BY")


@dataclass(frozen=True, slots=True)
class Word:
    """What stands in the place of a typed answer."""

    yes: bool
    hub: str | None
    cluster: str | None


def _word_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a script, handed on as one :class:`Word`."""

    @click.option("--yes", is_flag=True, help="Do not ask; needs --hub and --cluster.")
    @click.option("--hub", help="The hub's name, as it must be.")
    @click.option("--cluster", help="Context or server address, as it must be.")
    @wraps(function)
    def command(yes: bool, hub: str | None, cluster: str | None, **arguments: Any) -> Any:
        if yes and not (hub and cluster):
            raise click.UsageError("--yes needs --hub and --cluster, so that no script errs.")
        return function(word=Word(yes, hub, cluster), **arguments)

    return command


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
@_word_options
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
    _check(connection, word)
    with notes.status("Looking"):
        seen = await look(connection, pods=True)
    journal = command_line_journal()
    deletion = _decide(connection, seen, names, chosen, max_orphaned, journal)
    _show(connection, seen, deletion, reclaim)
    outcomes: tuple[Outcome, ...] = ()
    left: tuple[str, ...] = ()
    if not deletion.plan:
        notes.print("There is nothing to delete.")
    elif not dry_run:
        if not word.yes:
            _ask(connection, deletion)
        work = _Work(connection, chosen, seen, reclaim, asked=not word.yes)
        outcomes = await work.do(deletion, journal)
        left = await _leaving(connection, deletion, outcomes)
    _tell(deletion, outcomes, left, as_json)
    # Skipped because it changed, failed, or asked for and refused: a person has to look.
    odd = any(not one.done and one.result != "skipped: it is gone" for one in outcomes)
    if odd or deletion.plan.refusals:
        sys.exit(1)


def _check(connection: Connection, word: Word) -> None:
    """What a script says it is working on must be what is there."""
    if word.hub is not None and word.hub != connection.hub.hub_name:
        raise SafetyError(
            f"this is hub {connection.hub.hub_name}, not {word.hub}; nothing was "
            "deleted. Name another one with --config and --namespace"
        )
    server, context = connection.cluster.server, connection.cluster.context
    # Every pod calls its cluster so: that says nothing.
    right = {server} if context == "in-cluster" else {server, context}
    if word.cluster is not None and word.cluster not in right:
        raise SafetyError(
            f"this is cluster {server} (context {context}), not {word.cluster}; nothing was "
            "deleted. Name another one with --context"
        )


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
    if chosen.orphaned and (doubt := doubt_of(seen.known, seen.rows, hub)):
        raise SafetyError(
            f"{doubt}. Nobody can be called unknown by it; nothing was deleted. "
            "To see which owners it does not know: jhub-safety claims list --orphaned"
        )
    homes = seen.known.homes if seen.known else frozenset()
    deletion = by_filter(seen.rows, chosen, hub=hub, homes=homes, now=seen.now)
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
    for why, names in deletion.left_out.items():
        told = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
        notes.print(shown(f"  left out: {len(names)} {why} ({told})"))
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


def _ask(connection: Connection, deletion: Deletion) -> None:
    hub = connection.hub.hub_name
    question = f"To {deletion.plan.title}, type the name of the hub"
    word = click.prompt(question, default="", show_default=False, err=True)
    if word != hub:
        raise SafetyError(f"{word!r} is not the name of the hub; nothing was deleted")


# -- work


@dataclass
class _Work:
    """What is looked at again while claims are deleted."""

    connection: Connection
    chosen: Filter
    seen: Seen
    reclaim: str | None
    #: Somebody was asked, and may have taken their time.
    asked: bool
    mounts: Mapping[str, tuple[str, ...]] | None = None
    looked: float = field(default_factory=time.monotonic)

    async def do(self, deletion: Deletion, journal: Journal) -> tuple[Outcome, ...]:
        """Raises Doubt when it is not known who mounts what by now; nothing was deleted then."""
        if self.asked:
            self.mounts = await who_mounts(self.connection)
        count = 0
        with Progress(console=notes, transient=True) as progress:
            task = progress.add_task("Deleting", total=len(deletion.rows))

            def advance(_: Outcome) -> None:
                nonlocal count
                count += 1
                progress.advance(task)

            try:
                return await execute(
                    deletion,
                    self.connection.claims,
                    journal,
                    before=self._retain if self.reclaim else None,
                    still=self._still,
                    progress=advance,
                    where=self.connection.cluster.server,
                )
            except asyncio.CancelledError:
                notes.print(
                    f"Interrupted: {count} of {len(deletion.rows)} were gone through. Run the same "
                    f"command again; what was done is in {shown(journal.path)}"
                )
                raise

    async def _retain(self, claim: Claim) -> None:
        if claim.volume:
            await volumes.retain(self.connection.cluster.api, claim.volume, claim.uid)

    def _still(self, row: Row) -> str:
        """Why a claim is not to be deleted after all, or ""."""
        if self.mounts is not None:
            new = set(self.mounts.get(row.name, ())) - set(row.mounted_by or ())
            if new:
                return f"it is mounted by {', '.join(sorted(new))} since the plan was made"
        if not self.chosen.orphaned:
            return ""
        if time.monotonic() - self.looked > _FRESH or self.asked:
            # Whom a plan calls unknown may have logged in since.
            known = known_to(self.connection)
            rows = rows_of(self.seen.claims.values(), configured(self.connection), known)
            if doubt := doubt_of(known, rows, self.connection.hub.hub_name):
                return doubt
            self.seen = Seen(self.seen.claims, rows, known, self.seen.now)
            self.looked, self.asked = time.monotonic(), False
        known = self.seen.known
        if known is None or row.user in known.users or row.name in known.volumes | known.homes:
            return f"the hub knows {row.owner} by now"
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
