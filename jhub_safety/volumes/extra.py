"""Whose an extra volume is: the same rules as for a home, with names that are all known beforehand.

Pure, from top to bottom:

- the claim on record, or one that would be taken, is being deleted or has lost its volume: refuse
- the claim on record is gone: refuse, data was here; one of this owner's: mount; another's: refuse
- claims that our annotations name for this owner and volume: one is mounted, of several none
- claims under today's or an earlier name: one of this user's is adopted (2i2c's recipe writes
  KubeSpawner's annotations); one without annotations when nobody else's could be called so
- today's name is another owner's or another hub's: refuse
- none: create

And without a record of one's own: what another owner's record names is neither taken nor made. A
user or server was renamed and the claim could not be annotated; whoever has the old name now must
not get it.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from jhub_safety import owner as marks
from jhub_safety.cluster.claims import Claim
from jhub_safety.owner import OWNER_LABEL, Owner
from jhub_safety.volumes.declared import ExtraVolume, Override
from jhub_safety.volumes.model import Decision, Row, Verdict
from jhub_safety.volumes.names import NOWHERE, Generation, Place, other_owner
from jhub_safety.volumes.relation import Relation, describe, owner_of, relation
from jhub_safety.volumes.slugs import StyleName


@dataclass(frozen=True, slots=True)
class Wanted:
    """An entry of ``extra_pvcs`` for one owner."""

    volume: ExtraVolume
    owner: Owner
    #: Today's name.
    name: str
    given: Override
    #: The claim that the hub's record of this server names, if any.
    saved: str | None = None
    place: Place = NOWHERE
    #: The same one, under names that they had before.
    former: tuple[Owner, ...] = ()

    @classmethod
    def ask(
        cls,
        volume: ExtraVolume,
        owner: Owner,
        *,
        groups: Collection[str] = (),
        saved: str | None = None,
        place: Place = NOWHERE,
        former: Iterable[str] = (),
        style: StyleName = "safe",
    ) -> Wanted:
        """The question of a server's start, asked without one. *owner* names the server.

        *former*: names that the user had before.
        """
        rule = Generation(volume.name, volume.name, style)
        owner = replace(owner, server=owner.server if rule.per_server else "")
        return cls(
            volume,
            owner,
            rule.render(owner, place=place) or "",
            volume.for_user(owner.user, groups),
            saved,
            place,
            tuple(replace(owner, user=name, identity=None) for name in former),
        )

    @property
    def hashes(self) -> frozenset[str]:
        """By which labels claims may be this owner's."""
        by_name = replace(self.owner, identity=None)
        return frozenset(one.hash for one in (self.owner, by_name, *self.former))

    @property
    def generations(self) -> tuple[Generation, ...]:
        """How KubeSpawner 7 and those before it wrote the fields of the name."""
        template = self.volume.name
        return (
            Generation("safe", template, "safe"),
            Generation("escape", template, "escape"),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Today's, and those that earlier releases gave."""
        found = [self.name]
        for generation in self.generations:
            name = generation.render(self.owner, place=self.place)
            if name and name not in found:
                found.append(name)
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Listed:
    """Every claim of a namespace, to be asked about many owners."""

    claims: Mapping[str, Claim]
    labelled: Mapping[str, tuple[Claim, ...]]

    @classmethod
    def of(cls, claims: Mapping[str, Claim]) -> Listed:
        labelled: dict[str, tuple[Claim, ...]] = {}
        for claim in claims.values():
            if (label := claim.labels.get(OWNER_LABEL)) is not None:
                labelled[label] = (*labelled.get(label, ()), claim)
        return cls(claims, labelled)

    def concerned(self, wanted: Wanted, hashes: Collection[str]) -> dict[str, Claim]:
        """Those that a start of *wanted*'s owner looks at: by name, on record, or labelled so."""
        found = {one.name: one for label in hashes for one in self.labelled.get(label, ())}
        names = (*wanted.names, *([wanted.saved] if wanted.saved else ()))
        return found | {name: self.claims[name] for name in names if name in self.claims}


_NOBODY: Mapping[str, Owner] = MappingProxyType({})


def decide(
    wanted: Wanted, claims: Mapping[str, Claim], recorded: Mapping[str, Owner] = _NOBODY
) -> Decision:
    """*claims*: by name, all that may be this volume: those of :attr:`Wanted.names` that exist,
    the one on record, and all that are labelled for this owner.

    *recorded*: of :func:`at_stake`, on whose record in the hub's database a claim is, where that
    is another owner.
    """
    if wanted.saved is not None:
        return _on_record(wanted, wanted.saved, claims.get(wanted.saved))
    decision = _without_record(wanted, claims, recorded)
    other = recorded.get(decision.name)
    if other is None or decision.verdict is Verdict.REFUSE:
        return decision
    if decision.claim is not None and _beats_records(wanted, decision.claim):
        return decision
    return _recorded_for(wanted, decision, other)


def at_stake(wanted: Wanted, claims: Mapping[str, Claim]) -> frozenset[str]:
    """Names of the claims that :func:`decide` may take, and of the one that it may make."""
    mine = (Relation.OURS, Relation.KUBESPAWNER, Relation.UNMARKED)
    return frozenset({wanted.name}) | {
        name
        for name, one in claims.items()
        if _relation(wanted, one) in mine or _was_theirs(wanted, one)
    }


def records_differ(wanted: Wanted, names: Collection[str]) -> Decision:
    """This server has no record, and those of the user's other servers contradict each other."""
    listed = ", ".join(sorted(names))
    return Decision(
        Row.CONFLICT,
        Verdict.REFUSE,
        min(names),
        f"the hub's records of the servers of {wanted.owner} name different claims for volume "
        f"{wanted.volume.name}, which is one for them all: {listed}",
        command=_explain(wanted),
    )


def _without_record(
    wanted: Wanted, claims: Mapping[str, Claim], recorded: Mapping[str, Owner]
) -> Decision:
    ours = [
        one
        for one in claims.values()
        if _relation(wanted, one) is Relation.OURS
        or (_was_theirs(wanted, one) and not _is_namesakes(one, recorded.get(one.name)))
    ]
    if len(ours) == 1:
        return _take(wanted, Row.KNOWN, ours[0], "its annotations name this owner and volume")
    if ours:
        return _several(wanted, tuple(ours))
    there = [claims[name] for name in wanted.names if name in claims]
    theirs = [one for one in there if _relation(wanted, one) is Relation.KUBESPAWNER]
    unmarked = [one for one in there if _relation(wanted, one) is Relation.UNMARKED]
    if len(theirs) + len(unmarked) > 1:
        return _several(wanted, (*theirs, *unmarked))
    if theirs:
        return _take(wanted, Row.SINGLE, theirs[0], "KubeSpawner's annotations name this user")
    if unmarked:
        return _of_nobody(wanted, unmarked[0])
    if wanted.name in claims:
        claim = claims[wanted.name]
        return _refuse(wanted, Row.TAKEN, claim, f"claim {claim.name} is {owner_of(claim)}'s")
    return Decision(Row.NEW, Verdict.CREATE, wanted.name, "there is none yet", generation="extra")


def volume_relation(owner: Owner, claim: Claim, volume: str) -> Relation:
    """What *claim* says of itself with regard to *owner*'s *volume*."""
    if not Generation(volume, volume, "safe").per_server:
        # KubeSpawner wrote down which of the user's servers came first; it is of them all.
        kept = {k: v for k, v in claim.annotations.items() if k != marks.KUBESPAWNER_SERVER}
        claim = replace(claim, annotations=kept)
    return relation(owner, claim, volume)


def _relation(wanted: Wanted, claim: Claim) -> Relation:
    return volume_relation(wanted.owner, claim, wanted.volume.name)


def _is_namesakes(claim: Claim, recorded: Owner | None) -> bool:
    """True for a claim of whoever has a former name of this user now.

    Two witnesses say so, its annotation and the record; for this user there is but the name.
    """
    annotations = claim.annotations
    named = annotations.get(marks.USER, annotations.get(marks.KUBESPAWNER_USER))
    return recorded is not None and recorded.user == named


def _beats_records(wanted: Wanted, claim: Claim) -> bool:
    """True when what is written on *claim* counts more than another owner's record of it.

    As for homes: an operator's word, or a stable id (the account was renamed).
    """
    digest = wanted.owner.identity_digest
    return marks.DECIDED in claim.annotations or (
        digest is not None and claim.annotations.get(marks.IDENTITY) == digest
    )


def _recorded_for(wanted: Wanted, decision: Decision, other: Owner) -> Decision:
    seems = "looks like theirs" if decision.claim is not None else "would be made"
    return Decision(
        Row.TAKEN,
        Verdict.REFUSE,
        decision.name,
        f"volume {wanted.volume.name} of {wanted.owner}: claim {decision.name} {seems}, but the "
        f"hub's record of {other} names it (was a user or server renamed?)",
        claims=decision.claims,
        command=_explain(wanted),
    )


def _on_record(wanted: Wanted, saved: str, claim: Claim | None) -> Decision:
    if claim is None:
        return Decision(
            Row.GONE,
            Verdict.REFUSE,
            saved,
            f"the hub's record of {wanted.owner} names claim {saved} for volume "
            f"{wanted.volume.name}, which no longer exists: data was here and is missing",
            command=f"claims forget {shlex.quote(saved)} {wanted.owner.options} "
            f"--volume={shlex.quote(wanted.volume.name)}",
        )
    if _was_theirs(wanted, claim):
        return _take(wanted, Row.RENAMED, claim, "its annotations name this user as before")
    if _relation(wanted, claim) in (Relation.OTHER, Relation.RELEASED):
        return _refuse(
            wanted, Row.TAKEN, claim, f"the record names claim {saved}, but {describe(claim)}"
        )
    return _take(wanted, Row.KNOWN, claim, "the hub's record names it")


def _was_theirs(wanted: Wanted, claim: Claim) -> bool:
    """Annotated for a name that the hub's record says this user had."""
    return _relation(wanted, claim) is Relation.OTHER and any(
        volume_relation(former, claim, wanted.volume.name) in (Relation.OURS, Relation.KUBESPAWNER)
        for former in wanted.former
    )


def _of_nobody(wanted: Wanted, claim: Claim) -> Decision:
    other = other_owner(claim.name, wanted.owner, wanted.generations, place=wanted.place)
    if other is None:
        return _take(wanted, Row.SINGLE, claim, "nobody else's could be called so")
    return _refuse(
        wanted,
        Row.UNPROVEN,
        claim,
        f"claim {claim.name} names no owner, and by its name it may be {other}'s as well",
    )


def _take(wanted: Wanted, row: Row, claim: Claim, why: str) -> Decision:
    if claim.deleting:
        return _refuse(wanted, Row.TERMINATING, claim, f"claim {claim.name} is being deleted")
    if claim.phase == "Lost":
        return _refuse(wanted, Row.LOST, claim, f"claim {claim.name} has lost its volume")
    marked = _relation(wanted, claim) is Relation.OURS
    return Decision(
        row,
        Verdict.MOUNT if marked else Verdict.ADOPT,
        claim.name,
        why,
        claim,
        generation=claim.annotations.get(marks.GENERATION, "extra"),
        claims=(claim,),
    )


def _several(wanted: Wanted, claims: tuple[Claim, ...]) -> Decision:
    listed = "; ".join(describe(one) for one in claims)
    return Decision(
        Row.SEVERAL,
        Verdict.REFUSE,
        wanted.name,
        f"{len(claims)} claims may be volume {wanted.volume.name} of {wanted.owner}: {listed}",
        claims=claims,
        command=_explain(wanted),
    )


def _refuse(wanted: Wanted, row: Row, claim: Claim, why: str) -> Decision:
    return Decision(
        row,
        Verdict.REFUSE,
        claim.name,
        f"volume {wanted.volume.name} of {wanted.owner}: {why}",
        claims=(claim,),
        command=_explain(wanted),
    )


def _explain(wanted: Wanted) -> str:
    return f"claims explain {wanted.owner.arguments}"
