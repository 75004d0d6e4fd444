"""Claims of a hub as commands on many of them see them, written as briefly as a table wants."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from jhub_safety import owner as marks
from jhub_safety.cluster.claims import Claim
from jhub_safety.owner import Owner
from jhub_safety.volumes.selection import Configured, Known, Row, rows_of
from tests.unit.given import HUB, claim, ours

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
ENTRY = "data-{owner_slug}-{owner_hash}"


def ago(**length: float) -> datetime:
    return NOW - timedelta(**length)


def extra(user: str = "alice", name: str = "", hub: str = HUB, **fields: Any) -> Claim:
    """An extra volume that this library has made."""
    owner = Owner(hub, user)
    more = fields.pop("annotations", {})
    fields = {"capacity": "1Gi", "created": ago(days=30), "storage_class": "standard"} | fields
    return claim(
        name or f"data-{user}",
        {**owner.annotations("extra"), marks.VOLUME: ENTRY, **more},
        {"component": "extra-pvc", **owner.labels()},
        **fields,
    )


def home(user: str = "alice", name: str = "", hub: str = HUB, **fields: Any) -> Claim:
    """A home that this library has made."""
    owner = Owner(hub, user)
    fields = {"capacity": "10Gi", "created": ago(days=30)} | fields
    made = ours(owner, name or f"claim-{user}", **fields)
    return claim(
        made.name,
        made.annotations,
        {**made.labels, "component": "singleuser-storage"},
        **fields,
    )


def recipes(user: str, name: str = "", **fields: Any) -> Claim:
    """An extra volume of 2i2c's recipe that was not adopted yet: no label of a hub."""
    fields = {"capacity": "1Gi", "created": ago(days=30)} | fields
    return claim(
        name or f"postgres-{user}",
        {marks.KUBESPAWNER_USER: user},
        {"component": "extra-pvc"},
        **fields,
    )


def known(*users: str, **fields: Any) -> Known:
    """A database that is as old as the hub, and in use."""
    fields = {"oldest": ago(days=1000), "newest": NOW} | fields
    return Known(frozenset(users), **fields)


def rows(
    *claims: Claim,
    known: Known | None = None,
    mounts: dict[str, tuple[str, ...]] | None = None,
    **configured: Any,
) -> tuple[Row, ...]:
    return rows_of(claims, Configured(HUB, **configured), known, mounts)


def names(found: Iterable[Any]) -> list[str]:
    return [one.name for one in found]
