"""Whose an extra volume is: the same rules as for a home, with names that are all known beforehand.

Pure, from top to bottom:

- the claim on record, or one that would be taken, is being deleted or has lost its volume: refuse
- the claim on record is gone: refuse, data was here; one of this owner's: mount; another's: refuse
- claims that our annotations name for this owner and volume: one is mounted, of several none
- claims under today's or an earlier name: one of this user's is adopted (2i2c's recipe writes
  KubeSpawner's annotations); one without annotations when nobody else's could be called so
- today's name is another owner's or another hub's: refuse
- none: create
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

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


def decide(wanted: Wanted, claims: Mapping[str, Claim]) -> Decision:
    """*claims*: by name, all that may be this volume: those of :attr:`Wanted.names` that exist,
    the one on record, and all that are labelled for this owner."""
    if wanted.saved is not None:
        return _on_record(wanted, wanted.saved, claims.get(wanted.saved))
    ours = [
        one
        for one in claims.values()
        if _relation(wanted, one) is Relation.OURS or _was_theirs(wanted, one)
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


def _relation(wanted: Wanted, claim: Claim) -> Relation:
    if not wanted.generations[0].per_server:
        # KubeSpawner wrote down which of the user's servers came first; it is of them all.
        kept = {k: v for k, v in claim.annotations.items() if k != marks.KUBESPAWNER_SERVER}
        claim = replace(claim, annotations=kept)
    return relation(wanted.owner, claim, wanted.volume.name)


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
        relation(former, claim, wanted.volume.name) in (Relation.OURS, Relation.KUBESPAWNER)
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
