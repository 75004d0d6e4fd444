"""What the session commands print: three records side by side, a plan, what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from jhub_safety.cli.connection import notes, shown
from jhub_safety.sessions.model import Verdict

Record = Mapping[str, Any]

#: A table beside the answer; wide, so that no name is broken over two lines.
aside = Console(stderr=True, highlight=False, emoji=False, width=400)

_COLOURS = {Verdict.IN_STEP: "green", Verdict.DOUBT: "red"}
_UNDER_WAY = (Verdict.BUSY, Verdict.TERMINATING, Verdict.FOREIGN)


def name_of(record: Record) -> str:
    """``user`` or ``user/server``, of a finding or an action; "?" when it is not known."""
    if not record.get("user"):
        return "?"
    return f"{record['user']}/{record['server']}" if record["server"] else str(record["user"])


def in_order(findings: Collection[Record]) -> list[Record]:
    """By user and server; those of nobody last."""
    return sorted(
        findings,
        key=lambda one: (one["user"] is None, one["user"] or "", one["server"] or ""),
    )


def table_of(findings: Collection[Record], *, hub_runs: bool) -> Table:
    """One line a server."""
    table = Table(box=None, pad_edge=False)
    for title in ("SERVER", "SESSION", "ROUTE", "LAB", "VERDICT", "WHY"):
        table.add_column(title, overflow="fold")
    for one in findings:
        verdict = Verdict(one["verdict"])
        colour = _COLOURS.get(verdict, "default" if verdict in _UNDER_WAY else "yellow")
        table.add_row(
            shown(name_of(one)),
            shown(_session(one["session"])),
            shown(one["route"] or ("-" if hub_runs else "?")),
            shown(_lab(one["lab"])),
            f"[{colour}]{verdict}[/]",
            shown(one["why"]),
        )
    return table


def _session(session: Record | None) -> str:
    if session is None:
        return "-"
    words = session["address"] or "no address"
    if session["pending"]:
        return f"{words}, pending {session['pending']}"
    return words if session["ready"] else f"{words}, not ready"


def _lab(lab: Record | None) -> str:
    if lab is None:
        return "-"
    return " ".join(filter(None, (lab["name"], lab["words"], lab["ip"])))


def summary(findings: Collection[Record]) -> str:
    counts = Counter(one["verdict"] for one in findings)
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])
    servers = "1 server" if len(findings) == 1 else f"{len(findings)} servers"
    return f"{servers}: {told}" if told else servers


def print_plan(plan: Record) -> None:
    for action in plan["actions"]:
        notes.print(shown(f"  {describe(action)}: {action['reason']}"))
    for refusal in plan["refusals"]:
        if refusal["code"] == "not-pending":
            # There is nothing to do, which is said anyway.
            continue
        whose = f" {shown(refusal['who'])}" if refusal["who"] else ""
        notes.print(f"  [yellow]not now[/]{whose}: {shown(refusal['reason'])}")


def describe(action: Record) -> str:
    """What is done to what: ``end-session ada (jupyter-ada)``."""
    if not action.get("user"):
        return f"{action['kind']} {action['name']}"
    lab = "" if action["kind"] == "forget-user" or not action["name"] else f" ({action['name']})"
    return f"{action['kind']} {name_of(action)}{lab}"
