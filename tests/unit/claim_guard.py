"""What a guard knows of the database of :mod:`tests.unit.claim_site`: a file, and no cluster."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jhub_safety.cli import claimguard
from jhub_safety.hubdb.guard import DatabaseGuard
from jhub_safety.hubdb.guarding import Fingerprint
from jhub_safety.hubdb.known import FiledKnown


def install(monkeypatch: Any, folder: Path) -> SimpleNamespace:
    """*holds*: the row for which a hub that answers holds; *looks*: one for each look;
    *settings*: of the guard."""
    made = SimpleNamespace(file=folder / "fingerprint.json", holds=None, looks=[], settings={})

    async def homes() -> bool:
        return True

    async def row_of_hold(_: Any) -> str | None:
        return made.holds

    true_guard_of = claimguard.guard_of

    def guard_of(site: Any) -> DatabaseGuard:
        made.looks.append(site.db_url)
        guard = true_guard_of(site)
        connect_args = site.hub.connect_args
        guard.attach(site.db_url, FiledKnown(made.file), homes, connect_args=connect_args)
        for name, value in made.settings.items():
            setattr(guard, name, value)
        return guard

    monkeypatch.setattr(claimguard, "guard_of", guard_of)
    monkeypatch.setattr(claimguard, "row_of_hold", row_of_hold)
    return made


def take(guard: SimpleNamespace, url: str, **fields: Any) -> Fingerprint:
    """A fingerprint of the database at *url* as a hub takes it, but for *fields*."""
    made = DatabaseGuard()
    made.attach(url, FiledKnown(guard.file), lambda: None)  # type: ignore[arg-type,return-value]
    taken = replace(asyncio.run(made.take()), **fields)
    write(guard, taken)
    return taken


def write(guard: SimpleNamespace, taken: Fingerprint) -> None:
    guard.file.write_text(json.dumps(taken.record()))
