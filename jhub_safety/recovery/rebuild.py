"""Who a hub's users are, from their claims and running labs: decided purely.

Names are taken as they were written down, never guessed from escaped ones: ``a-2eb`` may be
``a.b``, and it may be somebody called that. What cannot be told is listed for a person.
"""

from __future__ import annotations

import csv
import io
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from jhub_safety import owner as marks
from jhub_safety.cluster.claims import Claim
from jhub_safety.errors import ConfigError
from jhub_safety.owner import label_value

#: KubeSpawner's label on homes; on claims of 0.10 and before there is none.
_HOME = "singleuser-storage"
_EXTRA = "extra-pvc"
#: Characters in a user's name (orm.py:284, JupyterHub 6.1.1).
_LONGEST = 255
#: Control characters, lone surrogates.
_ODD = frozenset({"Cc", "Cs"})
_COLUMNS = ("claim", "why", "size", "created", "user", "server")


@dataclass(frozen=True, slots=True)
class Home:
    """A claim, and whose home it is by what is written on it."""

    claim: str
    namespace: str
    user: str
    server: str = ""


@dataclass(frozen=True, slots=True)
class Unclear:
    """A claim that may be somebody's home, and does not say whose."""

    claim: str
    why: str
    size: str = ""
    created: str = ""


@dataclass(frozen=True, slots=True)
class People:
    """What is to be in the database. *homes*: at most one for each server."""

    users: frozenset[str] = frozenset()
    homes: Mapping[tuple[str, str], Home] = field(default_factory=dict)
    unclear: tuple[Unclear, ...] = ()


def people(
    claims: Iterable[Claim],
    hub: str,
    *,
    labs: Collection[tuple[str, str]] = (),
    told: Mapping[str, tuple[str, str]] | None = None,
) -> People:
    """*labs*: user and server of each that runs. *told*: by claim, what a person filled in."""
    told = told or {}
    users = {user for user, _ in labs}
    homes: defaultdict[tuple[str, str], list[Home]] = defaultdict(list)
    unclear = []
    for claim in claims:
        if claim.labels.get(marks.HUB_LABEL) not in (None, label_value(hub)):
            continue
        if claim.annotations.get(marks.HUB) not in (None, hub):
            continue
        if marks.RELEASED in claim.annotations or claim.deleting:
            continue
        whose = _whose(claim) or told.get(claim.name)
        if whose is None or not _can_be_a_user(whose[0]):
            if _may_be_a_home(claim):
                why = "names no user" if whose is None else "names a user whom no hub can have"
                unclear.append(_unclear(claim, f"it {why}"))
            continue
        users.add(whose[0])
        # Of a login provider's stable id: the name may be another person's by now, and a saved
        # state would have them refused instead of given a home of their own.
        by_name = marks.IDENTITY not in claim.annotations
        if by_name and _may_be_a_home(claim) and claim.phase != "Lost":
            homes[whose].append(Home(claim.name, claim.namespace, *whose))
    return People(
        frozenset(users),
        # Of several a start decides, or refuses and says between which.
        {whose: found[0] for whose, found in homes.items() if len(found) == 1},
        tuple(unclear),
    )


def _whose(claim: Claim) -> tuple[str, str] | None:
    """Our annotations win over KubeSpawner's."""
    for user, server in (
        (marks.USER, marks.SERVER),
        (marks.KUBESPAWNER_USER, marks.KUBESPAWNER_SERVER),
    ):
        if name := claim.annotations.get(user):
            return name, claim.annotations.get(server, "")
    return None


def _may_be_a_home(claim: Claim) -> bool:
    if marks.VOLUME in claim.annotations or claim.labels.get("component") == _EXTRA:
        return False
    component = claim.labels.get("component")
    return component == _HOME or (component is None and claim.name.startswith("claim-"))


def _can_be_a_user(name: str) -> bool:
    # The column's length, and what no authenticator lets through: one such name, and a server
    # refuses the whole transaction.
    return 0 < len(name) <= _LONGEST and not any(unicodedata.category(one) in _ODD for one in name)


def _unclear(claim: Claim, why: str) -> Unclear:
    created = claim.created.isoformat() if claim.created else ""
    return Unclear(claim.name, why, claim.capacity, created)


def to_csv(unclear: Iterable[Unclear]) -> str:
    """A table to be completed: the last two columns are a person's."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    for one in unclear:
        table.writerow([one.claim, one.why, one.size, one.created, "", ""])
    return text.getvalue()


def from_csv(text: str) -> dict[str, tuple[str, str]]:
    """User and server by claim; rows without a user are left out.

    Raises:
        ConfigError: it is no such table, or names a claim twice.
    """
    # Spreadsheets put a mark of the byte order first.
    rows = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")))
    if rows.fieldnames is None or not {"claim", "user"} <= set(rows.fieldnames):
        raise ConfigError("the table has no columns 'claim' and 'user'")
    found: dict[str, tuple[str, str]] = {}
    for row in rows:
        claim, user = ((row.get(key) or "").strip() for key in ("claim", "user"))
        if not user:
            continue
        if claim in found:
            raise ConfigError(f"the table names claim {claim} twice")
        found[claim] = (user, (row.get("server") or "").strip())
    return found
