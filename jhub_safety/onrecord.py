"""Extra volumes in the hub's records: this server's own, and those of others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy.orm import object_session

from jhub_safety.cluster.claims import Claim
from jhub_safety.hubdb.records import VOLUMES, same_home, servers_with_volumes
from jhub_safety.owner import Owner
from jhub_safety.starts import StartsMixin
from jhub_safety.volumes.extra import Wanted, at_stake
from jhub_safety.volumes.names import Generation


class OnRecordMixin(StartsMixin):
    """Which claims the hub's database names for this server's extra volumes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: This server's own record: claim by volume.
        self._extra_claims: dict[str, str] = {}
        super().__init__(*args, **kwargs)

    def get_state(self) -> dict[str, Any]:
        state: dict[str, Any] = super().get_state()
        if self._extra_claims:
            state[VOLUMES] = dict(self._extra_claims)
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        found = state.get(VOLUMES)
        self._extra_claims = dict(found) if isinstance(found, dict) else {}

    def _owner_of_volume(self, volume: str, server: str | None = None) -> Owner:
        name = (self.name or "") if server is None else server
        per_server = Generation(volume, volume, "safe").per_server
        return replace(self._safety_owner(), server=name if per_server else "")

    async def _word_on(self, wanted: Wanted, names: set[str]) -> str | None:
        shared = not wanted.generations[0].per_server
        return await self._given_up(wanted.owner, wanted.volume.name, names, shared=shared)

    def _without_record(self, wanted: Wanted, given_up: set[str]) -> Wanted:
        """The same question, without this server's own record."""
        wanted = replace(wanted, saved=None)
        if self._names_on_record(wanted) - given_up:
            # Other servers have another claim. When that is gone as well there is one word for
            # the two of them; both could never be given up.
            for record in (self._extra_claims, self._claims_made):
                record.pop(wanted.volume.name, None)
        return wanted

    def _names_on_record(self, wanted: Wanted) -> set[str]:
        """This server's own record; without one, what the user's other servers have.

        Of a volume that they share. Its loss would else be noticed by some of them only, and the
        next server to start would make an empty one for them all.
        """
        if wanted.saved is not None:
            return {wanted.saved}
        if wanted.generations[0].per_server:
            return set()
        return {one.claim for one in self._kept_elsewhere(wanted.volume.name)}

    def _with_former_names(self, wanted: Wanted) -> Wanted:
        """Also those that only the user's other servers have on record.

        This server may have been started first when they had the new name, and no claim may be
        annotated.
        """
        if wanted.generations[0].per_server:
            return wanted
        by_name = replace(wanted.owner, identity=None)
        kept = self._kept_elsewhere(wanted.volume.name)
        former = {name for one in kept if one.claim == wanted.saved for name in one.former}
        return replace(
            wanted,
            former=(*wanted.former, *(replace(by_name, user=name) for name in sorted(former))),
        )

    def _recorded_for_others(self, wanted: Wanted, found: Mapping[str, Claim]) -> dict[str, Owner]:
        db = object_session(self.orm_spawner)
        if db is None:
            return {}
        per_server = wanted.generations[0].per_server
        others: dict[str, Owner] = {}
        for claim, servers in servers_with_volumes(db, at_stake(wanted, found)).items():
            for one in servers:
                if not same_home(one, self.user.name, self.name, per_server=per_server):
                    others[claim] = Owner(wanted.owner.hub, one.user, one.server)
        return others
