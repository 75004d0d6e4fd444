"""What happens to a claim after it was found: a new owner's name, or the end."""

from __future__ import annotations

from collections.abc import Collection
from types import MappingProxyType

from jhub_safety import owner as marks
from jhub_safety.cluster.claims import Claim, ClaimsApi
from jhub_safety.journal import Journal
from jhub_safety.owner import Owner
from jhub_safety.plan import Action
from jhub_safety.volumes.extra import volume_relation
from jhub_safety.volumes.relation import Relation, relation, same_user_other_server


def is_home_of(owner: Owner, claim: Claim) -> bool:
    """True when annotations, ours or KubeSpawner's, say that *claim* is a home of *owner*."""
    return relation(owner, claim) in (
        Relation.OURS,
        Relation.KUBESPAWNER,
    ) or same_user_other_server(owner, claim)


async def hand_over(
    claims: ClaimsApi, name: str, old: Owner, new: Owner, journal: Journal
) -> Claim | None:
    """Give *old*'s claim to *new* (a renamed user or server).

    Returns the claim as annotated, or None when there is no such claim of *old*'s: nothing is
    left behind then that somebody else could find.

    Raises:
        Conflict, Doubt: nothing was changed.
    """
    claim = await claims.read(name)
    if claim is None or not is_home_of(old, claim):
        return None
    action = Action(
        "annotate-claim",
        claims.namespace,
        claim.name,
        f"{old} renamed to {new}",
        uid=claim.uid,
        annotations=MappingProxyType(
            new.annotations(claim.annotations.get(marks.GENERATION, "saved-state"))
        ),
        labels=MappingProxyType(new.labels()),
    )
    changed = await claims.annotate(claim, action.annotations, action.labels)
    journal.write(action, "done")
    return changed


async def hand_over_volume(
    claims: ClaimsApi,
    name: str,
    volume: str,
    former: Collection[Owner],
    new: Owner,
    journal: Journal,
) -> Claim | None:
    """Give the claim that the hub's record names for this extra *volume* to *new*.

    *former*: its owner, under the names that they had before. Returns the claim as annotated, or
    None when there is nothing to be given: the claim is gone, or somebody else's by what is written
    on it, or *new*'s already (the servers of a user may share it). One that says nothing is theirs
    by the record, and whoever has the old name next would find it by its own.

    Raises:
        Conflict, Doubt: nothing was changed.
    """
    theirs = (Relation.OURS, Relation.KUBESPAWNER, Relation.UNMARKED)
    claim = await claims.read(name)
    if claim is None or not any(volume_relation(one, claim, volume) in theirs for one in former):
        return None
    action = Action(
        "annotate-claim",
        claims.namespace,
        claim.name,
        f"{', '.join(map(str, former))} renamed to {new}",
        uid=claim.uid,
        annotations=MappingProxyType(
            {
                **new.annotations(claim.annotations.get(marks.GENERATION, "extra")),
                marks.VOLUME: volume,
            }
        ),
        labels=MappingProxyType(new.labels()),
    )
    if action.annotations.items() <= claim.annotations.items():
        return None
    changed = await claims.annotate(claim, action.annotations, action.labels)
    journal.write(action, "done")
    return changed


async def delete_own(claims: ClaimsApi, name: str, owner: Owner) -> str:
    """Delete claim *name* when it is *owner*'s. Returns what was done, in words.

    Raises:
        Conflict, Doubt: nothing was deleted.
    """
    claim = await claims.read(name)
    if claim is None:
        return "there is none"
    if not is_home_of(owner, claim):
        return f"kept: it is not {owner}'s"
    await claims.delete(claim)
    return "deleted"
