"""Whose a claim is, by what is written on it."""

from __future__ import annotations

from enum import StrEnum

from jhub_safety import owner as marks
from jhub_safety.cluster.claims import Claim
from jhub_safety.owner import Owner, label_value

#: KubeSpawner's and z2jh's label for claims that are not homes (2i2c's extra volumes).
_NOT_HOME = frozenset({"extra-pvc"})
#: KubeSpawner's label for homes.
_HOME = "singleuser-storage"


class Relation(StrEnum):
    """What a claim's own annotations and labels say about an owner."""

    OURS = "annotated for this owner"
    KUBESPAWNER = "annotated by KubeSpawner for this user"
    UNMARKED = "without owner annotations"
    RELEASED = "released by an operator"
    OTHER = "somebody else's"


def relation(owner: Owner, claim: Claim, volume: str = "") -> Relation:
    """What *claim* says of itself with regard to *owner*'s home, or this extra *volume* of theirs.

    Our annotations win over KubeSpawner's; a stable identity wins over a user name (a
    recycled name is somebody else, a renamed account is not). A claim is another hub's only
    when its label says so.
    """
    annotations = claim.annotations
    if not volume and (claim.labels.get("component") in _NOT_HOME or marks.VOLUME in annotations):
        return Relation.OTHER
    if volume and claim.labels.get("component") == _HOME:
        return Relation.OTHER
    if volume and marks.USER in annotations and annotations.get(marks.VOLUME) != volume:
        return Relation.OTHER
    hub = claim.labels.get(marks.HUB_LABEL)
    if hub is not None and hub != label_value(owner.hub):
        return Relation.OTHER
    if marks.RELEASED in annotations:
        return Relation.RELEASED
    if marks.USER in annotations:
        same_server = annotations.get(marks.SERVER, "") == owner.server
        identity = annotations.get(marks.IDENTITY)
        if identity is not None and owner.identity is not None:
            same_user = identity == owner.identity_digest
        else:
            same_user = annotations[marks.USER] == owner.user
        return Relation.OURS if same_user and same_server else Relation.OTHER
    if marks.KUBESPAWNER_USER in annotations:
        same_user = annotations[marks.KUBESPAWNER_USER] == owner.user
        # Not written when empty (kubespawner/spawner.py:2247, 7.1.0).
        same_server = annotations.get(marks.KUBESPAWNER_SERVER, "") == owner.server
        return Relation.KUBESPAWNER if same_user and same_server else Relation.OTHER
    return Relation.UNMARKED


def owner_of(claim: Claim) -> str:
    """Whom the claim's annotations name, in words."""
    annotations = claim.annotations
    user = annotations.get(marks.USER, annotations.get(marks.KUBESPAWNER_USER))
    if user is None:
        return "nobody"
    server = annotations.get(marks.SERVER, annotations.get(marks.KUBESPAWNER_SERVER, ""))
    hub = annotations.get(marks.HUB)
    return (f"{user}/{server}" if server else user) + (f" of hub {hub}" if hub else "")


def handed_over(owner: Owner, claim: Claim) -> bool:
    """True for a claim of this hub that our own annotations name for another owner."""
    return (
        marks.USER in claim.annotations
        and marks.RELEASED not in claim.annotations
        and claim.labels.get(marks.HUB_LABEL) == label_value(owner.hub)
        and relation(owner, claim) is Relation.OTHER
    )


def same_user_other_server(owner: Owner, claim: Claim) -> bool:
    """True for a claim that KubeSpawner annotated for this user, whatever the server."""
    annotations = claim.annotations
    return (
        marks.USER not in annotations
        and annotations.get(marks.KUBESPAWNER_USER) == owner.user
        and claim.labels.get("component") not in _NOT_HOME
        and claim.labels.get(marks.HUB_LABEL) in (None, label_value(owner.hub))
    )


def describe(claim: Claim) -> str:
    created = f"{claim.created:%Y-%m-%d}" if claim.created else "unknown"
    return (
        f"{claim.name} (created {created}, {claim.capacity or 'unknown size'}, "
        f"volume {claim.volume or 'none'}, {owner_of(claim)})"
    )
