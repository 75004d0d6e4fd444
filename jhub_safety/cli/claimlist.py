"""``jhub-safety claims list``: every claim, whose it is, how large, and whether it is used."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import click

from jhub_safety.cli.claimfilter import filter_options, look
from jhub_safety.cli.columns import lines
from jhub_safety.cli.connection import Connection, notes, shown, spelled, with_connection
from jhub_safety.volumes.selection import Filter, Row, in_words, is_protected, totals

_TITLES = (
    "CLAIM",
    "OWNER",
    "BY",
    "COMPONENT",
    "HUB",
    "PHASE",
    "SIZE",
    "WANTED",
    "CLASS",
    "VOLUME",
    "AGE",
    "ORPHANED",
)
_MOUNTED = "MOUNTED BY"


@click.command("list")
@filter_options
@click.option("--hub", "hubs", multiple=True, help="Of this hub; may be repeated.")
@click.option("--mounted-by", "pods", is_flag=True, help="Also which pods use it (reads pods).")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_connection
async def list_claims(
    connection: Connection,
    chosen: Filter,
    hubs: tuple[str, ...],
    pods: bool,
    as_csv: bool,
    as_json: bool,
) -> None:
    """One line per claim of the namespace, and the sizes of each storage class."""
    if as_csv and as_json:
        raise click.UsageError("Give --csv or --json, not both.")
    chosen = replace(chosen, hubs=hubs)
    pods = pods or chosen.mounted is not None
    seen = await look(connection, pods=pods)
    rows = [row for row in seen.rows if chosen.takes(row, seen.now)]
    if as_json:
        click.echo(json.dumps([record(row) for row in rows], indent=2))
        return
    titles = (*_TITLES, _MOUNTED) if pods else _TITLES
    cells = [_cells(row, seen.now) for row in rows]
    if as_csv:
        _print_csv(titles, cells)
        return
    click.echo("\n".join(lines(titles, cells)))
    tell_totals(rows)
    of = "" if len(rows) == len(seen.rows) else f" of {len(seen.rows)}"
    notes.print(f"{len(rows)}{of} claims; {shown(connection.header())}")


def record(row: Row) -> dict[str, Any]:
    """JSON-ready. ``mounted_by`` is there only when pods were read."""
    return {
        **row.claim.record(),
        "owner": row.owner,
        "user": row.user,
        "server": row.server,
        "by": row.by,
        "component": row.component,
        "hub": row.hub,
        "wanted": row.wanted,
        "orphaned": row.orphaned,
        "protected": is_protected(row.claim),
        **({} if row.mounted_by is None else {"mounted_by": list(row.mounted_by)}),
    }


def _cells(row: Row, now: datetime) -> tuple[str, ...]:
    claim = row.claim
    told = (
        row.name,
        row.owner,
        row.by,
        row.component,
        row.hub,
        row.phase,
        claim.capacity,
        "?" if row.wanted is None else row.wanted,
        claim.storage_class,
        claim.volume,
        age(now - claim.created) if claim.created else "",
        {True: "yes", False: "", None: "?"}[row.orphaned],
    )
    return told if row.mounted_by is None else (*told, ", ".join(row.mounted_by))


def age(length: timedelta) -> str:
    """As kubectl writes it: ``12d``, ``5h``, ``3m``."""
    minutes = max(0, int(length.total_seconds() // 60))
    if minutes >= 2 * 24 * 60:
        return f"{minutes // (24 * 60)}d"
    return f"{minutes // 60}h" if minutes >= 120 else f"{minutes}m"


def tell_totals(rows: Iterable[Row]) -> None:
    """One line for each storage class, on stderr."""
    for one in totals(rows):
        claims = "1 claim" if one.count == 1 else f"{one.count} claims"
        odd = f", {one.unreadable} without a size" if one.unreadable else ""
        notes.print(shown(f"class {one.storage_class or '-'}: {claims}, {in_words(one.size)}{odd}"))


def _print_csv(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([title.lower().replace(" ", "_") for title in titles])
    writer.writerows([[_tame(cell) for cell in row] for row in rows])


def _tame(cell: str) -> str:
    """A spreadsheet runs what begins like a formula; user names are hostile input."""
    text = spelled(cell)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text
