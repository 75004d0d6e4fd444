"""What operators gave up, wired to a KubeSpawner: a word counts for one loss of one claim.

Below :mod:`jhub_safety.homes`, since homes and extra volumes ask alike. The record of a claim also
says when it was made, so that a word which was meant for one of the same name before is known.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import object_session

from jhub_safety.cluster import forgotten
from jhub_safety.cluster.claims import Claim
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.hubdb.records import CLAIMS_MADE, Kept, claims_kept, when_made
from jhub_safety.owner import Owner
from jhub_safety.settings import SafetySettings

# For type checkers the mixin is a KubeSpawner; at run time it goes in front of any subclass of it.
if TYPE_CHECKING:
    from kubespawner import KubeSpawner as _Base
else:
    _Base = object


class GivenUpMixin(SafetySettings, _Base):
    """Volumes are called by their entry in extra_pvcs; the home is ""."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: When the claim on record was made, by volume.
        self._claims_made: dict[str, str] = {}
        #: Words that a start has gone by and that are not taken down yet, by volume.
        self._words: dict[str, tuple[Owner, forgotten.Word]] = {}
        super().__init__(*args, **kwargs)

    def get_state(self) -> dict[str, Any]:
        state: dict[str, Any] = super().get_state()
        if self._claims_made:
            state[CLAIMS_MADE] = dict(self._claims_made)
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        found = state.get(CLAIMS_MADE)
        self._claims_made = dict(found) if isinstance(found, dict) else {}

    def _note_made(self, volume: str, claim: Claim) -> None:
        """For the record of *volume*, which names *claim* from now on."""
        if claim.created is None:
            self._claims_made.pop(volume, None)
        else:
            self._claims_made[volume] = claim.created.isoformat()

    def _kept_elsewhere(self, volume: str) -> tuple[Kept, ...]:
        """What the user's other servers have on record for *volume*."""
        # Spawner.db is deprecated; the row knows its session.
        db = object_session(self.orm_spawner)
        found = claims_kept(db, self.user.name, volume) if db is not None else {}
        return tuple(one for server, one in found.items() if server != (self.name or ""))

    async def _given_up(
        self, owner: Owner, volume: str, missing: Collection[str], *, shared: bool
    ) -> str | None:
        """Which of these claims, on record and gone, an operator has given up for good.

        *shared*: by all servers of the user, whose records count as well.

        Raises:
            Doubt: that could not be read.
        """
        word = await forgotten.word(
            self.api, self.namespace, owner, volume, timeout=self.claim_request_timeout
        )
        if word is None or word.claim not in missing:
            return None
        times = [when_made({CLAIMS_MADE: self._claims_made}, volume)]
        if shared:
            kept = self._kept_elsewhere(volume)
            times += [one.made for one in kept if one.claim == word.claim]
        if any(word.is_older_than(made) for made in times):
            self.log.warning(
                "%s: that claim %s is gone for good was said of one before the one that is missing",
                self._log_name,
                word.claim,
            )
            return None
        self._words[volume] = (owner, word)
        return word.claim

    async def _take_words_down(self) -> None:
        """What was given up has a successor, which is on record now and must be there from now on.

        A hub that is killed before, or may not delete the Secret, leaves a word that is older than
        the claim on record.
        """
        for volume, (owner, word) in list(self._words.items()):
            if (now := self._claim_on_record(volume)) is None:
                continue  # A home that was only looked at.
            # Another server of the user has not heard of it yet. It asks for the word itself.
            kept = (one.claim for one in self._kept_elsewhere(volume))
            if word.claim != now and word.claim in kept:
                del self._words[volume]
                continue
            try:
                await forgotten.take_down(
                    self.api,
                    self.namespace,
                    owner,
                    word,
                    volume,
                    timeout=self.claim_request_timeout,
                )
            except Conflict:
                self.log.info("%s was given up once more", word.claim)
            except Doubt as doubt:
                self.log.warning(
                    "%s. It is tried again at the next start of %s; the loss of the new claim is "
                    "refused all the same.",
                    doubt,
                    self._log_name,
                )
                continue
            del self._words[volume]

    def _claim_on_record(self, volume: str) -> str | None:
        """The claim that this start has settled for *volume*, if it has."""
        raise NotImplementedError
