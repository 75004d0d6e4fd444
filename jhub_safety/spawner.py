"""SafeKubeSpawner: a KubeSpawner whose users always get their own home.

Owner -> home -> pod. KubeSpawner 7 offers no hook for the choice of a claim; what is overridden
of it here and in :mod:`jhub_safety.homes`:

- ``load_user_options``: the first thing ``_start`` awaits, and the last before it looks at
  claims; profiles have been applied then. The home is settled there.
- ``_make_create_pvc_request``: makes nothing; see there.
- ``_expand_user_properties``: our template fields.
- ``stop``: a refused start has no pod of its own to delete.
- ``rename``, ``delete_forever``: touch only a claim that is this owner's.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from jupyterhub.utils import maybe_future
from kubespawner import KubeSpawner
from tornado.web import HTTPError

from jhub_safety.cluster import landmark
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.folders import FoldersMixin
from jhub_safety.hubdb.records import FORMER_USERS, former_users
from jhub_safety.owner import Owner
from jhub_safety.refused import SpawnRefused
from jhub_safety.sessions.records import PLACE
from jhub_safety.volumes.lifecycle import delete_own, hand_over, hand_over_volume, is_home_of
from jhub_safety.volumes.model import Verdict
from jhub_safety.volumes.names import Generation


class SafetyMixin(FoldersMixin):
    """Put in front of a KubeSpawner class: ``class MySpawner(SafetyMixin, MyKubeSpawner)``.

    Override :meth:`owner_identity` where the login provider's stable id is not in auth_state.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: The user's name that all of their claims carry, as far as a start has seen.
        self._claims_name: str | None = None
        self._home_settled = False
        super().__init__(*args, **kwargs)

    # -- the spawn

    def start(self) -> asyncio.Future[Any]:
        # Until a lab is asked for. user.spawn calls stop() after any failure, and KubeSpawner's
        # stop would delete the pod of that name: a live lab that the hub has lost track of.
        self._nothing_started, self._home_settled = True, False
        starting: asyncio.Future[Any] = super().start()
        # Whatever refused it, once for each start that JupyterHub counts as failed.
        starting.add_done_callback(self._tell_of_a_refusal)
        return starting

    def _tell_of_a_refusal(self, starting: asyncio.Future[Any]) -> None:
        # By the class: a function that is a class attribute would get the spawner twice.
        told = type(self).on_refusal
        if told is None or starting.cancelled():
            return
        if isinstance(starting.exception(), SpawnRefused):
            told(self)

    async def load_user_options(self) -> None:
        await maybe_future(super().load_user_options())
        self._made, self._claims_name = [], None
        home_is_named = await self._settle()
        if await self._settle_extras() and home_is_named:
            self._claims_name = self._safety_owner().user
        await self._settle_folder()
        if self.sessions == "enforce":
            self._saved_place = await self._set_up(landmark.PLACE)
        if self.sessions == "enforce" or self._words:
            self._save_state()
        await self._take_words_down()

    async def _settle(self) -> bool:
        """Whether the home carries the owner's present name."""
        if self.homes == "off" or not self.storage_pvc_ensure:
            return False
        if self.homes == "observe":
            await self._report_home()
            return False
        decision = await self._settle_home()
        if decision.verdict is Verdict.REFUSE:
            await self._refuse(decision)
        self.pvc_name = decision.name
        self._pvc_exists = self._home_settled = True
        self._home_claim = decision.claim
        if decision.verdict is Verdict.CREATE:
            self._made.append(decision.name)
        if decision.claim is not None:
            self._note_made("", decision.claim)
        if self.grow_homes and decision.claim is not None and self.storage_capacity:
            await self._mind_the_size(self.storage_capacity, decision.claim)
        return decision.claim is not None and is_home_of(self._safety_owner(), decision.claim)

    def get_state(self) -> dict[str, Any]:
        """KubeSpawner's, and former names of the user until all claims carry the new one."""
        state: dict[str, Any] = super().get_state()
        # Read from the row: the user may have been renamed since this object was made. While a
        # server ran, that was forgotten when it stopped, and its extra volumes were refused to
        # their owner from then on.
        names = former_users(self.orm_spawner.state)
        if names and self._claims_name != self.user.name:
            state[FORMER_USERS] = list(names)
        if self._saved_place is not None:
            state[PLACE] = self._saved_place
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        place = state.get(PLACE)
        self._saved_place = place if isinstance(place, str) else None

    def _claim_on_record(self, volume: str) -> str | None:
        if volume:
            return self._extra_claims.get(volume)
        return self.pvc_name if self._home_settled else None

    async def stop(self, now: bool = False) -> None:
        if self._nothing_started:
            self.log.info(
                "Not deleting pod %s: this start was refused before it made one", self.pod_name
            )
            return
        await super().stop(now=now)

    async def _make_create_pvc_request(self, pvc: Any, request_timeout: float) -> Any:
        # KubeSpawner takes 409 for success without asking whose the claim is
        # (kubespawner/spawner.py:3057, 7.1.0). With homes enforced the claim has been settled
        # before. KubeSpawner 7.0 calls this all the same, 7.1 no more; a subclass that skips our
        # load_user_options must not fall back to it.
        if self._is_extra(pvc.metadata.name):
            return True  # 2i2c's recipe asks for it in its pre_spawn_hook, before the start
        if self.homes == "enforce":
            if self._home_settled:
                return True
            raise RuntimeError(
                f"{type(self).__name__}: the home of {self.user.name} was not settled. Nothing was "
                "created. A subclass that overrides load_user_options must call "
                "super().load_user_options()."
            )
        return await super()._make_create_pvc_request(pvc, request_timeout)

    # -- the server's later life

    async def rename(self, old_name: str, new_name: str) -> None:
        """JupyterHub 6: the server gets a new name, its home and its volumes stay.

        The claims' annotations follow, so that whoever is called *old_name* next does not
        find them. When they cannot, the rename is refused.
        """
        if hasattr(super(), "rename"):
            await super().rename(old_name, new_name)
        what, given = "volumes", dict[str, str]()
        try:
            if any(Generation(one, one, "safe").per_server for one in self._extra_claims):
                self._identity = await self.owner_identity()
            for volume, claim in list(self._extra_claims.items()):
                former = self._owner_of_volume(volume, old_name)
                new = self._owner_of_volume(volume, new_name)
                if former != new:
                    what = f"volume {claim}"
                    given[volume] = claim
                    await self._give(volume, claim, [former], new)
            what = "home"
            await self._rename_home(old_name, new_name)
        except (Conflict, Doubt, LookupError) as error:
            undone = await self._take_back(given, old_name, new_name)
            owner = replace(self._safety_owner(), server=old_name)
            story = (
                f"Server {old_name or 'default'} of {self.user.name} was not renamed: its {what} "
                f"could not be given the new name ({error}). {undone} "
                f"Run: jhub-safety claims explain {owner.arguments}"
            )
            raise HTTPError(409, "%s", story) from error
        self._listings.clear()

    async def _rename_home(self, old_name: str, new_name: str) -> None:
        generation = Generation("configured", self.pvc_name_template, "safe")
        if self.homes != "enforce" or not generation.per_server or not self.storage_pvc_ensure:
            return
        self._identity = await self.owner_identity()
        old, new = self._safety_owner(old_name), self._safety_owner(new_name)
        home = await self._home_now()
        if home is not None:
            await hand_over(self._claims_api(), home, old, new, self._journal())

    async def _give(self, volume: str, claim: str, former: list[Owner], new: Owner) -> None:
        """Raises Conflict, Doubt: this volume was not handed over."""
        await hand_over_volume(self._claims_api(), claim, volume, former, new, self._journal())

    async def _take_back(self, given: dict[str, str], old_name: str, new_name: str) -> str:
        """Undo what a rename that is refused has done so far; in words.

        Of the last one, too: a request without an answer may have been carried out.
        """
        left = []
        for volume, claim in given.items():
            former = self._owner_of_volume(volume, old_name)
            new = self._owner_of_volume(volume, new_name)
            try:
                await self._give(volume, claim, [new], former)
            except (Conflict, Doubt) as error:
                left.append(f"{claim} ({error})")
        if not left:
            return "Nothing was changed."
        return (
            f"Nothing was lost; but it is not certain that {', '.join(left)} carries the old name. "
            "If the server is refused now, rename it once more."
        )

    async def user_renamed(self, old: str, new: str) -> None:
        """The user of this server was renamed (the hub package tells): the claims follow at once.

        Each one that can, whatever becomes of the others.

        Raises:
            Doubt, LookupError: not all did; the server's state keeps the former name, and the
                next start tries again.
        """
        self._claims_name = None
        home = self.homes == "enforce" and self._pvc_exists
        if not home and not self._extra_claims:
            return
        self._identity = await self.owner_identity()
        faults = await self._volumes_of_a_renamed_user(old, new)
        if home:
            owner = self._safety_owner()
            before, after = replace(owner, user=old), replace(owner, user=new)
            try:
                await hand_over(self._claims_api(), self.pvc_name, before, after, self._journal())
            except (Conflict, Doubt) as error:
                faults.append(str(error))
        self._listings.clear()
        if faults:
            raise Doubt("; ".join(faults))

    async def _volumes_of_a_renamed_user(self, old: str, new: str) -> list[str]:
        """Hand over every claim on record, also of homes that this library leaves alone.

        Until then whoever is called *old* next would find it as theirs. What went wrong.
        """
        faults = []
        names = dict.fromkeys((old, *former_users(self.orm_spawner.state)))
        for volume, claim in list(self._extra_claims.items()):
            owner = self._owner_of_volume(volume)
            former = [replace(owner, user=name) for name in names]
            try:
                await self._give(volume, claim, former, replace(owner, user=new))
            except (Conflict, Doubt) as error:
                faults.append(str(error))
        return faults

    async def delete_forever(self) -> None:
        """A user or named server is deleted for good. The claim goes only when ``delete_pvc``
        is on, and only when it is this owner's; KubeSpawner deletes whatever has the name."""
        if self.homes == "off":
            await super().delete_forever()
            return
        generation = Generation("configured", self.pvc_name_template, "safe")
        if not self.delete_pvc or (self.name and not generation.per_server):
            self.log.info("Keeping claim %s of %s", self.pvc_name, self._log_name)
            return
        claims = self._claims_api()
        try:
            self._identity = await self.owner_identity()
            outcome = await delete_own(claims, self.pvc_name, self._safety_owner())
        except (Conflict, Doubt, LookupError) as error:
            outcome = f"kept: {error}"
        self.log.warning(
            "Claim %s of %s (delete_pvc is on): %s", self.pvc_name, self._log_name, outcome
        )


class SafeKubeSpawner(SafetyMixin, KubeSpawner):
    """KubeSpawner whose users always get their own home."""


__all__ = ["SafeKubeSpawner", "SafetyMixin"]
