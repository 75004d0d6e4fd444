"""A hub with a database of JupyterHub's own, claims and operators' words in memory.

Starts, renames and losses as JupyterHub and people make them: what a start has settled is saved, a
rename is written down before anybody is told, and a hub that is killed has saved nothing since.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jupyterhub import orm
from traitlets.config import Config

from jhub_safety.cluster import events, forgotten, landmark
from jhub_safety.cluster.claims import Claim
from jhub_safety.errors import Conflict
from jhub_safety.homes import HomesMixin
from jhub_safety.hubdb.records import FORMER_USERS, VOLUMES, remember_former_user
from jhub_safety.owner import Owner
from jhub_safety.spawner import SafeKubeSpawner
from tests.unit.cluster_double import ClusterDouble
from tests.unit.given import HUB
from tests.unit.hub_database import add_user

SHARED = {"name": "postgres-{username}", "capacity": "1Gi"}
PER_SERVER = {"name": "db-{user_server}", "capacity": "1Gi"}
HASHED = {"name": "data-{owner_slug}-{owner_hash}", "capacity": "1Gi"}
#: The home.
HOME = ""


@dataclass
class Dated(ClusterDouble):
    """Claims that say when they were made."""

    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    async def create(self, manifest: Any) -> Claim:
        made = await super().create(manifest)
        self.stored[made.name] = replace(made, created=self.now)
        return self.stored[made.name]


@dataclass
class VolumeHub:
    folder: Path
    db: Any
    cluster: Dated = field(default_factory=Dated)
    #: By the Secret's name would be the same: by owner's hash and volume.
    words: dict[tuple[str, str], forgotten.Word] = field(default_factory=dict)
    #: What was asked of the Secrets.
    asked: list[str] = field(default_factory=list)
    #: What deleting one raises next.
    faults: list[Exception] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    people: dict[str, Any] = field(default_factory=dict)
    servers: dict[tuple[str, str], Any] = field(default_factory=dict)

    def later(self) -> None:
        self.cluster.now += timedelta(hours=1)

    # -- JupyterHub

    def server(self, user: str, server: str = "") -> Any:
        """The spawner of this server, which a hub keeps until it is restarted."""
        person = self.people.setdefault(
            user,
            SimpleNamespace(name=user, id=1, url="/user/x/", groups=[], get_auth_state=_nothing),
        )
        row = self.row(user, server)
        if (user, server) not in self.servers:
            config = Config()
            config.SafeKubeSpawner.update(
                hub_name=HUB,
                journal=str(self.folder / "journal"),
                extra_pvcs=[SHARED],
                sessions="off",
                homes="off",
            )
            config.SafeKubeSpawner.update(self.settings)
            made = SafeKubeSpawner(_mock=True, user=person, orm_spawner=row, config=config)
            made._claims_api = lambda: self.cluster
            made.load_state(row.state or {})
            self.servers[user, server] = made
        return self.servers[user, server]

    def row(self, user: str, server: str = "") -> Any:
        owner = add_user(self.db, user)
        row = owner.orm_spawners.get(server)
        if row is None:
            row = orm.Spawner(name=server, user=owner, state={})
            self.db.add(row)
            self.db.commit()
        return row

    async def start(self, user: str, server: str = "", *, killed: bool = False) -> Any:
        """Settle what a start settles; *killed*: before its end, with all that was in memory."""
        made = self.server(user, server)
        await made.load_user_options()
        if killed:
            self.restart()
        else:
            self.save()
        return made

    def save(self) -> None:
        for (user, server), made in self.servers.items():
            self.row(user, server).state = made.get_state()
        self.db.commit()

    def restart(self) -> None:
        self.db.rollback()
        self.servers.clear()
        self.people.clear()

    async def rename_user(self, old: str, new: str) -> None:
        """PATCH /users/OLD; what is raised is what the log gets."""
        user = orm.User.find(self.db, old)
        told = remember_former_user(user.orm_spawners.values(), old)
        user.name = new
        self.db.commit()
        self.people[new] = person = self.people.pop(old)
        person.name = new
        for name, server in [one for one in self.servers if one[0] == old]:
            self.servers[new, server] = self.servers.pop((name, server))
        for row in told:
            await self.server(new, row.name).user_renamed(old, new)

    async def rename_server(self, user: str, old: str, new: str) -> None:
        """PATCH /users/USER/servers/OLD."""
        await self.server(user, old).rename(old, new)
        self.row(user, old).name = new
        self.db.commit()
        self.db.expire_all()
        del self.servers[user, old]

    def on_record(self, user: str, server: str = "") -> dict[str, str]:
        return dict((self.row(user, server).state or {}).get(VOLUMES, {}))

    def former(self, user: str, server: str = "") -> list[str]:
        return list((self.row(user, server).state or {}).get(FORMER_USERS, ()))

    # -- people

    def give_up(self, claim: str, owner: Owner, volume: str) -> None:
        """``claims forget``."""
        key = owner.hash, volume
        self.words[key] = forgotten.Word(claim, f"uid-{self.cluster.now}", self.cluster.now)

    def lose(self, claim: str) -> None:
        del self.cluster.stored[claim]
        self.later()


async def _nothing() -> None:
    return None


def install(monkeypatch: Any, hub: VolumeHub) -> VolumeHub:
    async def word(_: Any, __: str, owner: Owner, volume: str = "", **___: Any) -> Any:
        hub.asked.append("read")
        return hub.words.get((owner.hash, volume))

    async def take_down(
        _: Any, __: str, owner: Owner, said: forgotten.Word, volume: str = "", **___: Any
    ) -> None:
        hub.asked.append("delete")
        if hub.faults:
            raise hub.faults.pop(0)
        now = hub.words.get((owner.hash, volume))
        if now is not None and now.uid != said.uid:
            raise Conflict("the UID in the precondition differs")
        hub.words.pop((owner.hash, volume), None)

    async def nothing(*_: Any, **__: Any) -> None:
        return None

    monkeypatch.setattr("kubespawner.spawner.load_config", lambda **_: None)
    monkeypatch.setattr("kubespawner.spawner.shared_client", lambda _: None)
    monkeypatch.setattr(HomesMixin, "_said", set())
    monkeypatch.setattr(HomesMixin, "_listings", {})
    monkeypatch.setattr(HomesMixin, "_marks", {})
    monkeypatch.setattr(forgotten, "word", word)
    monkeypatch.setattr(forgotten, "take_down", take_down)
    for module, name in ((events, "warn_about_claim"), (landmark, "set_up"), (landmark, "uid")):
        monkeypatch.setattr(module, name, nothing)
    return hub
