"""Find a user's home for one spawn: observe, decide, confirm, act.

The decision itself is in :mod:`jhub_safety.volumes.home`; here is what is asked of the cluster
for it, and in which order, so that a spawn costs at most one GET for a claim it knows.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from kubernetes_asyncio import client as kube

from jhub_safety import owner as marks
from jhub_safety.cluster import landmark
from jhub_safety.cluster.claims import Claim, ClaimsApi
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.journal import Journal
from jhub_safety.plan import Action, Plan, Refusal
from jhub_safety.volumes.home import (
    beats_records,
    decide,
    gone,
    name_on_record,
    recorded_for_another,
)
from jhub_safety.volumes.listing import SharedListing
from jhub_safety.volumes.model import Decision, Observation, Question, Row, Verdict
from jhub_safety.volumes.relation import Relation, relation, same_user_other_server

#: Rounds of observe and decide before a spawn gives up on a claim that keeps changing.
_ROUNDS = 3

Log = logging.Logger | logging.LoggerAdapter[Any]


class _Disagreement(Exception):
    """Two answers of the cluster about one claim contradict each other."""


async def observe(
    question: Question, claims: ClaimsApi, listing: SharedListing, since: float | None = None
) -> Observation:
    """Read as little as the decision needs: the claim on record, else a listing.

    *since*: by the listing's clock, when the listing must have begun at the earliest.

    Never raises :class:`Doubt`: a failed read is an observation with a *fault*.
    """
    seen: dict[str, Claim] = {}
    absent: set[str] = set()
    try:
        if question.saved is not None and not question.forgotten:
            claim = await claims.read(question.saved)
            if claim is None:
                absent.add(question.saved)
            else:
                seen[claim.name] = claim
                if relation(question.owner, claim) in (
                    Relation.OURS,
                    Relation.KUBESPAWNER,
                ) or same_user_other_server(question.owner, claim):
                    return Observation(MappingProxyType(seen))
        listed = await listing.claims(since)
    except Doubt as doubt:
        return Observation(MappingProxyType(seen), fault=str(doubt), absent=frozenset(absent))
    everything = {**listed.about(question), **seen}
    for name in absent:
        # Read as missing by itself and still in an older listing: the read is the newer.
        everything.pop(name, None)
    return Observation(
        MappingProxyType(everything),
        complete=True,
        absent=frozenset(absent),
        nobody=not listed.owned,
    )


async def confirm(
    question: Question, decision: Decision, seen: Observation, claims: ClaimsApi
) -> Decision:
    """Look again, live, at what the decision rests on.

    A claim found in a listing is read before it is mounted. Before one is created, each name
    that the owner's claim may have is read by itself: an empty 200 from a broken proxy must
    not cost anybody their home.
    """
    try:
        if decision.claim is not None and seen.complete and decision.name != question.saved:
            fresh = await claims.read(decision.name)
            if fresh is None:
                raise _Disagreement(f"claim {decision.name} was listed and is gone")
            if fresh != decision.claim:
                changed = {**seen.claims, fresh.name: fresh}
                decision = decide(question, replace(seen, claims=MappingProxyType(changed)))
        if decision.verdict is Verdict.CREATE:
            for name in sorted(possible_names(question)):
                known = name == decision.name or name in seen.claims
                if not known and await claims.read(name) is not None:
                    raise _Disagreement(f"claim {name} exists and was not in the listing")
    except Doubt as doubt:
        return decide(question, Observation(fault=str(doubt)))
    return decision


def _is_final(decision: Decision) -> bool:
    """A refusal that rests on what was seen, not on what could not be."""
    return decision.verdict is Verdict.REFUSE and not decision.retryable


def possible_names(question: Question) -> set[str]:
    """The names that the owner's claim may have, as far as they can be told without an id."""
    names = set()
    for generation in question.known:
        if question.owner.server and not generation.per_server:
            continue
        name = generation.render(question.owner, place=question.place)
        if name:
            names.add(name)
    return names


def plan(question: Question, decision: Decision) -> Plan:
    """What executing *decision* changes: at most one claim."""
    owner, title = question.owner, f"home of {question.owner}"
    if decision.verdict is Verdict.REFUSE:
        refusal = Refusal(
            decision.row, str(owner), decision.why, decision.command, decision.retryable
        )
        return Plan(title, refusals=(refusal,))
    action = Action(
        "create-claim" if decision.verdict is Verdict.CREATE else "annotate-claim",
        question.place.namespace,
        decision.name,
        f"{decision.row}: {decision.why}",
        uid=decision.claim.uid if decision.claim else "",
        annotations=MappingProxyType(owner.annotations(decision.generation)),
        labels=MappingProxyType(owner.labels()),
    )
    if decision.verdict is not Verdict.MOUNT:
        return Plan(title, (action,))
    # Already annotated: complete what a configured identity or a renamed account left open.
    written = decision.claim.annotations if decision.claim else {}
    wanted = owner.annotations(written.get(marks.GENERATION, "jhub-safety"))
    if all(written.get(key) == value for key, value in wanted.items()):
        return Plan(title)
    return Plan(title, (replace(action, annotations=MappingProxyType(wanted)),))


@dataclass(frozen=True, slots=True)
class Resolver:
    """Everything a spawn needs to find, adopt or create its home.

    *manifest* makes the claim that KubeSpawner would create, under the given name;
    *prepare* runs before one is created (a user's own namespace may have to exist);
    *forgotten* answers whether an operator has given a missing claim up for good.
    """

    claims: ClaimsApi
    listing: SharedListing
    journal: Journal
    log: Log
    manifest: Callable[[str], kube.V1PersistentVolumeClaim]
    prepare: Callable[[], Awaitable[None]]
    forgotten: Callable[[Question], Awaitable[bool]]
    #: Another server (or "") whose record in the hub's database names this claim.
    recorded_for: Callable[[Question, str], str]
    #: A claim that only the user's other servers have on record for this home, and that is gone.
    lost_elsewhere: Callable[[Question], Awaitable[str | None]]
    #: Whether this hub is known to have made homes in this namespace before.
    landmark: Callable[[], Awaitable[str | None]]
    #: Called with the Doubt when the API server forbids to annotate.
    cannot_annotate: Callable[[Doubt], None]
    may_annotate: bool = True

    async def look(self, question: Question) -> tuple[Question, Decision]:
        """Observe, decide and confirm; nothing is changed."""
        asked = self.listing.now()
        try:
            question, decision = await self._look_once(question, None)
            if decision.verdict is Verdict.CREATE or (
                _is_final(decision) and not self.listing.shows(asked)
            ):
                # Nobody's home is made, and nobody is sent away, on what was listed before this
                # question came up: an operator's claims adopt was not seen for five seconds, and
                # the user's next try was refused as the first (tests/cluster/test_commands.py).
                question, decision = await self._look_once(question, asked)
        except _Disagreement as first:
            # The listing was wrong, or claims changed in these seconds: one new one decides.
            self.log.warning("%s; listing the claims anew", first)
            self.listing.forget()
            try:
                question, decision = await self._look_once(question, self.listing.now())
            except _Disagreement as second:
                fault = f"{second}; two answers of the cluster disagree"
                return question, decide(replace(question, saved=None), Observation(fault=fault))
        return question, decision

    async def _look_once(
        self, question: Question, since: float | None
    ) -> tuple[Question, Decision]:
        seen = await observe(question, self.claims, self.listing, since)
        decision = decide(question, seen)
        try:
            if decision.row is Row.GONE and await self.forgotten(question):
                question = replace(question, forgotten=True)
                decision = decide(question, seen)
            if decision.verdict is Verdict.CREATE and since is None:
                return question, decision  # looked at again, and confirmed then
            if decision.verdict is Verdict.CREATE and seen.nobody and await self.landmark():
                secret = landmark.name(question.owner.hub, landmark.HOMES)
                raise Doubt(
                    "the listing shows nobody's home, though this hub has had some here. If all "
                    "were deleted on purpose: kubectl delete secret "
                    f"-n {question.place.namespace} {secret}"
                )
        except Doubt as doubt:
            return question, decide(replace(question, saved=None), Observation(fault=str(doubt)))
        decision = await confirm(question, decision, seen, self.claims)
        if decision.verdict is Verdict.CREATE:
            return question, await self._unless_on_record(question, decision, seen)
        if decision.claim is not None and decision.name != question.saved:
            if beats_records(question, decision.claim):
                return question, decision
            other = self.recorded_for(question, decision.name)
            if other:
                decision = recorded_for_another(question, decision, other)
        return question, decision

    async def _unless_on_record(
        self, question: Question, decision: Decision, seen: Observation
    ) -> Decision:
        """A home is made where no record says that there was one, under a name on nobody's.

        The next start of the other server would mount the new, empty one without a word. And a
        renamed user's, whose home is lost, that of whoever has their old name now.
        """
        if question.saved is None:
            try:
                lost = await self.lost_elsewhere(question)
            except Doubt as doubt:
                return decide(question, Observation(fault=str(doubt)))
            if lost is not None:
                return gone(question, lost)
        other = self.recorded_for(question, decision.name)
        if not other:
            return decision
        for name in question.spare_names:
            if name not in seen.claims and not self.recorded_for(question, name):
                return replace(decision, name=name, why=f"{decision.name} is on record for {other}")
        return name_on_record(question, decision.name, other)

    async def resolve(self, question: Question) -> Decision:
        """The decision, carried out: the claim exists and says whose it is, or a refusal."""
        fault = ""
        for _ in range(_ROUNDS):
            question, decision = await self.look(question)
            try:
                decision = await self._act(question, decision)
            except Conflict as conflict:
                # Somebody made or changed the claim in between. Who owns it now is a new
                # question; "already exists" is no success (kubespawner/spawner.py:3059).
                self.log.warning("%s; looking again", conflict)
                fault = str(conflict)
                self.listing.forget()
                continue
            except Doubt as doubt:
                fault = str(doubt)
                decision = decide(replace(question, saved=None), Observation(fault=fault))
            return decision
        return decide(replace(question, saved=None), Observation(fault=f"{fault} (three times)"))

    async def _act(self, question: Question, decision: Decision) -> Decision:
        """Execute the plan; the decision then holds the claim as it is now."""
        claim = decision.claim
        for action in plan(question, decision).actions:
            if action.kind == "create-claim":
                claim = await self._create(action)
            elif self.may_annotate and claim is not None:
                claim = await self._annotate(action, claim)
        return replace(decision, claim=claim)

    async def _create(self, action: Action) -> Claim:
        await self.prepare()
        manifest = self.manifest(action.name)
        metadata = manifest.metadata
        metadata.annotations = {**(metadata.annotations or {}), **action.annotations}
        metadata.labels = {**(metadata.labels or {}), **action.labels}
        try:
            claim = await self.claims.create(manifest)
        except (Conflict, Doubt) as error:
            self.journal.write(action, f"failed: {error}")
            raise
        self.listing.note(claim)
        self.journal.write(action, "done", created_uid=claim.uid)
        return claim

    async def _annotate(self, action: Action, claim: Claim) -> Claim:
        try:
            changed = await self.claims.annotate(claim, action.annotations, action.labels)
        except Doubt as doubt:
            self.journal.write(action, f"failed: {doubt}")
            if doubt.status == 403:
                self.cannot_annotate(doubt)
            else:
                self.log.warning("%s. The home is known and will be mounted all the same.", doubt)
            return claim
        self.listing.note(changed)
        self.journal.write(action, "done")
        return changed
