"""The claims of a namespace, found by owner.

A decision looks at one owner's claims; going through 20,000 claims for each of a thousand logins
would hold the hub's event loop for a minute.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from jhub_safety import owner as marks
from jhub_safety.cluster.claims import Claim
from jhub_safety.volumes.model import Question

_DIGITS = re.compile(r"[0-9]+")


def _shape(name: str) -> str:
    """*name* with every number as '#': equal for all user ids that a template may have had."""
    return _DIGITS.sub("#", name)


def _stem(name: str) -> str:
    """*name* without the number at its end, where 2017's names have the user id.

    Far fewer names share it than a shape: of 20,000 claims ``claim-user-<n>-<id>`` all have one
    shape, and a decision took 9 ms.
    """
    return name.rstrip("0123456789")


class ClaimIndex:
    """Every claim that was listed, by name, by whom it names, and by the shape of its name."""

    def __init__(self, claims: Iterable[Claim] = ()) -> None:
        self._claims: dict[str, Claim] = {}
        self._by_mark: defaultdict[str, set[str]] = defaultdict(set)
        self._by_shape: defaultdict[str, set[str]] = defaultdict(set)
        self._by_stem: defaultdict[str, set[str]] = defaultdict(set)
        self._owned = 0
        for claim in claims:
            self.put(claim)

    def __len__(self) -> int:
        return len(self._claims)

    @property
    def owned(self) -> int:
        """Claims that name an owner, whoever it is."""
        return self._owned

    def put(self, claim: Claim) -> None:
        """Add a claim, or what has become of it."""
        if (former := self._claims.get(claim.name)) is not None:
            for mark in _marks(former):
                self._by_mark[mark].discard(claim.name)
            self._owned -= bool(_marks(former))
        self._owned += bool(_marks(claim))
        self._claims[claim.name] = claim
        self._by_shape[_shape(claim.name)].add(claim.name)
        self._by_stem[_stem(claim.name)].add(claim.name)
        for mark in _marks(claim):
            self._by_mark[mark].add(claim.name)

    def about(self, question: Question) -> dict[str, Claim]:
        """All that the decision on *question* may depend on.

        Those that name the owner, whatever they say else, and those with a name that some
        generation gives the owner's claim.
        """
        owner = question.owner
        names = {question.own_name, question.saved, *question.spare_names}
        for user in (owner.user, *question.former_users):
            names |= self._by_mark.get(_user_mark(user), set())
        if owner.identity_digest is not None:
            names |= self._by_mark.get(_identity_mark(owner.identity_digest), set())
        for generation in question.known:
            if generation.template.endswith("{userid}"):
                name = generation.render(owner, place=question.place, userid="0") or ""
                names |= self._by_stem.get(_stem(name), set())
            elif "userid" in generation.fields:
                # Any number stands for any other; the table's own match is exact.
                shape = _shape(generation.render(owner, place=question.place, userid="0") or "")
                names |= self._by_shape.get(shape, set())
            else:
                names.add(generation.render(owner, place=question.place))
        return {name: self._claims[name] for name in names if name in self._claims}


def _user_mark(user: str) -> str:
    return f"user {user}"


def _identity_mark(digest: str) -> str:
    return f"identity {digest}"


def _marks(claim: Claim) -> set[str]:
    annotations = claim.annotations
    found = {
        _user_mark(annotations[key])
        for key in (marks.USER, marks.KUBESPAWNER_USER)
        if key in annotations
    }
    if marks.IDENTITY in annotations:
        found.add(_identity_mark(annotations[marks.IDENTITY]))
    return found
