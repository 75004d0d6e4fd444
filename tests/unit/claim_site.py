"""A place where the claim commands work without a cluster: claims in memory, a database on disk."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jupyterhub import orm
from traitlets.config import Config

from jhub_safety.cli import claimdelete, claimfilter, connection, volumeasking
from jhub_safety.cli.connection import Connection
from jhub_safety.hubconfig import understand
from tests.unit.claim_rows import ENTRY
from tests.unit.cluster_double import holding
from tests.unit.given import HUB, NAMESPACE
from tests.unit.hub_database import opened

CLUSTER = "https://k8s"
USERS = ("ada", "bob")
VOLUMES = [{"name": ENTRY, "capacity": "4Gi", "overrides": {"groups": {"db": {"capacity": "8Gi"}}}}]


def install(monkeypatch: Any) -> SimpleNamespace:
    """*mounts*: what pods use, one answer or one for each look; *given_up*: claim by hash and
    volume; *looks*, *retained*: what was asked for."""
    made = SimpleNamespace(
        cluster=None, mounts={}, looks=[], retained=[], context="admin", given_up={}
    )

    def on(*claims: Any) -> Any:
        made.cluster = holding(*claims)
        return made.cluster

    @asynccontextmanager
    async def connected(options: Any):
        settings = {"hub_name": HUB, "extra_pvcs": VOLUMES, "storage_capacity": "20Gi"}
        hub = understand(Config({"SafeKubeSpawner": settings}), NAMESPACE)
        seen = SimpleNamespace(server=CLUSTER, context=made.context, api=None)
        yield Connection(seen, hub, made.cluster, options)

    async def read(_: Any, namespace: str) -> Any:
        made.looks.append(namespace)
        return made.mounts.pop(0) if isinstance(made.mounts, list) else made.mounts

    async def retain(_: Any, volume: str, uid: str) -> None:
        made.retained.append((volume, uid))

    async def phase(_: Any, __: str) -> str:
        return "Bound"

    async def recall(_: Any, __: str, owner: Any, volume: str = "") -> str | None:
        return made.given_up.get((owner.hash, volume))

    async def give_up(_: Any, __: str, owner: Any, claim: str, volume: str = "") -> None:
        made.given_up[owner.hash, volume] = claim

    made.on = on
    monkeypatch.setattr(connection, "connected", connected)
    monkeypatch.setattr(claimfilter.mounts, "read", read)
    monkeypatch.setattr(claimdelete.volumes, "retain", retain)
    monkeypatch.setattr(claimdelete.volumes, "phase", phase)
    monkeypatch.setattr(volumeasking.forgotten, "read", recall)
    monkeypatch.setattr(volumeasking.forgotten, "write", give_up)
    return made


def write_database(folder: Path, **states: dict[str, Any]) -> str:
    """Known are ada, in group db, and bob; since long ago, and until now. Its address.

    *states*: of their default servers; ada's names her home.
    """
    states = {"ada": {"pvc_name": "claim-ada"}} | states
    with opened(folder / "jupyterhub.sqlite") as db:
        for name in USERS:
            made = orm.User(name=name, created=datetime(2020, 1, 1, tzinfo=UTC))
            made.last_activity = datetime.now(UTC)
            db.add(made)
            db.flush()
            if name in states:
                db.add(orm.Spawner(name="", user_id=made.id, state=states[name]))
        db.add(orm.Group(name="db", users=[orm.User.find(db, "ada")]))
    return f"sqlite:///{folder / 'jupyterhub.sqlite'}"
