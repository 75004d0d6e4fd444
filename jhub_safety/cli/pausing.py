"""``jhub-safety sessions pause`` and ``resume``: the switch is in the cluster, no hub is needed."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import click

from jhub_safety.cli.connection import console, notes, shown
from jhub_safety.cli.hubaccess import Site, with_site
from jhub_safety.errors import Doubt

#: Nobody remembers a pause after that.
LONGEST = timedelta(days=30)
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def _length(_context: Any, _argument: Any, text: str) -> timedelta:
    """From 30m, 2h, 1d or 1d12h."""
    if not re.fullmatch(r"([0-9]{1,6}[mhd])+", text):
        raise click.BadParameter(f"{text!r} is no length of time; write 30m, 2h or 1d")
    parts = re.findall(r"([0-9]+)([mhd])", text)
    length = sum((timedelta(**{_UNITS[unit]: int(n)}) for n, unit in parts), timedelta())
    if not timedelta() < length <= LONGEST:
        raise click.BadParameter(f"{text!r} is not between one minute and {LONGEST.days} days")
    return length


@click.command()
@click.argument("length", callback=_length)
@click.option("--why", required=True, help="Told to everybody who asks why nothing is done.")
@with_site
async def pause(site: Site, length: timedelta, why: str) -> None:
    """Let passes only look for LENGTH (30m, 2h, 1d), whatever happens to the hub meanwhile.

    What operators ask for by command is still done.
    """
    # A terminal may have sent bytes that are no UTF-8.
    why = why.encode(errors="replace").decode()
    notes.print(shown(site.header()))
    until = await site.pause.begin(length, why)
    console.print(shown(f"Paused until {until:%Y-%m-%d %H:%M} UTC ({why})."))
    notes.print("To end it earlier: jhub-safety sessions resume")


@click.command()
@with_site
async def resume(site: Site) -> None:
    """End a pause."""
    notes.print(shown(site.header()))
    try:
        paused = bool(await site.pause.why())
    except Doubt:
        # It is not readable, or there was no answer; deleting it tells which.
        paused = True
    await site.pause.end()
    console.print("Passes act again." if paused else "It was not paused.")
