"""Who comes back with a snapshot, on a terminal: administrators and tokens to be looked through."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from jhub_safety.cli.connection import console, notes, shown
from jhub_safety.hubdb.review import DEMOTE, REVOKE, SOME, Review

_ADMINS = ("ADMINISTRATOR", "THROUGH GROUP", "IN admin_users", "WAS THERE")
_TOKENS = ("TOKEN", "OWNER", "NOTE", "MADE", "LAST USED", "EXPIRES", "WAS THERE")


def show_review(review: Review, snapshot: str) -> None:
    """Print the first of each list, where the rest is, and what to do about one."""
    if review.problem:
        notes.print(
            "[red]Not known[/]: which administrators and tokens come with it: "
            f"{shown(review.problem)}"
        )
        return
    console.print(shown(review.sum_up()))
    admins = [
        (one.name, ", ".join(one.through), _yes(one.configured), _yes(one.was_there))
        for one in review.admins
    ]
    tokens = [
        (
            one.id,
            one.owner,
            f"{one.note} ({one.client})" if one.client else one.note,
            one.created[:10],
            one.last_used[:10] or "never",
            one.expires[:10] or "never",
            _yes(one.was_there),
        )
        for one in review.tokens
    ]
    _show(_ADMINS, admins, snapshot, DEMOTE)
    _show(_TOKENS, tokens, snapshot, REVOKE)


def _show(
    titles: Sequence[str], rows: Sequence[tuple[str, ...]], snapshot: str, remedy: str
) -> None:
    if not rows:
        return
    table = Table(box=None, pad_edge=False)
    for one in titles:
        table.add_column(one, overflow="fold")
    for row in rows[:SOME]:
        table.add_row(*map(shown, row))
    console.print(table)
    if len(rows) > SOME:
        more = f"jhub-safety db restore {snapshot} --dry-run --json"
        notes.print(shown(f"and {len(rows) - SOME} more; all of them: {more}"))
    notes.print(shown(f"To take it away, when the hub runs: {remedy}"))


def _yes(value: bool) -> str:
    return "yes" if value else "no"
