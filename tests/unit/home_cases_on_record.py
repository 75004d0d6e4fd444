"""Cases of the decision table: the hub's record of the server names a claim."""

from __future__ import annotations

from dataclasses import replace

from jhub_safety.owner import Owner
from jhub_safety.volumes.model import Row
from tests.unit.given import (
    ALICE,
    BOB,
    GPU,
    HUB,
    claim,
    hub_label,
    kubespawner,
    ours,
    question,
    seen,
)
from tests.unit.home_case import (
    ADOPT_WHICH,
    MINE,
    SHARED,
    Case,
    adopt,
    create,
    later,
    mount,
    refuse,
)

KNOWN_HOMES = [
    Case(
        "saved and ours",
        question(saved=MINE),
        seen(ours(ALICE), complete=False),
        mount(Row.KNOWN, MINE),
    ),
    Case(
        "saved and ours, under any name",
        question(saved="claim-old"),
        seen(ours(ALICE, "claim-old"), complete=False),
        mount(Row.KNOWN, "claim-old"),
    ),
    Case(
        "saved and KubeSpawner's",
        question(saved="claim-alice"),
        seen(kubespawner("claim-alice", "alice"), complete=False),
        adopt(Row.KNOWN, "claim-alice"),
    ),
    Case(
        "saved and KubeSpawner's, named server",
        question(GPU, saved="claim-alice--gpu"),
        seen(kubespawner("claim-alice--gpu", "alice", "gpu"), complete=False),
        adopt(Row.KNOWN, "claim-alice--gpu"),
    ),
    Case(
        "saved, server renamed before the library came",
        question(GPU, saved="claim-alice--old"),
        seen(kubespawner("claim-alice--old", "alice", "old"), complete=False),
        adopt(Row.KNOWN, "claim-alice--old"),
    ),
    Case(
        "saved and ours, though another is ours too",
        question(saved="claim-old"),
        seen(ours(ALICE, "claim-old"), ours(ALICE)),
        mount(Row.KNOWN, "claim-old"),
    ),
    Case(
        "saved and ours, whatever else looks like theirs",
        question(saved=MINE, declared=["kubespawner-6"]),
        seen(ours(ALICE), claim("claim-alice"), kubespawner("claim-x", "alice")),
        mount(Row.KNOWN, MINE),
    ),
    Case(
        "nothing saved, one is ours",
        question(),
        seen(ours(ALICE), ours(BOB), claim("claim-other")),
        mount(Row.KNOWN, MINE),
    ),
    Case(
        "nothing saved, one is ours, whatever else looks like theirs",
        question(declared=["kubespawner-6"]),
        seen(ours(ALICE, "claim-chosen"), claim("claim-alice"), kubespawner("claim-y", "alice")),
        mount(Row.KNOWN, "claim-chosen"),
    ),
    Case(
        "ours, of a server of their own",
        question(GPU),
        seen(ours(ALICE), ours(GPU)),
        mount(Row.KNOWN, GPU.claim_name),
    ),
]

SAVED_BY_RECORD = [
    Case(
        "saved without annotations",
        question(saved="claim-alice"),
        seen(claim("claim-alice"), ours(BOB)),
        adopt(Row.SAVED_UNMARKED, "claim-alice"),
    ),
    Case(
        "saved without annotations, by a name no generation knows",
        question(saved="chosen-by-a-profile"),
        seen(claim("chosen-by-a-profile")),
        adopt(Row.SAVED_UNMARKED, "chosen-by-a-profile"),
    ),
    Case(
        "saved without annotations, listing incomplete",
        question(saved="claim-alice"),
        seen(claim("claim-alice"), complete=False),
        later("claim-alice"),
    ),
    Case(
        "an operator put another in its place",
        question(saved="claim-old"),
        seen(ours(ALICE, "claim-old", released=True), ours(ALICE, "new", supersedes="claim-old")),
        mount(Row.SUPERSEDED, "new"),
    ),
    Case(
        "an operator put another in its place, and the old one is gone",
        question(saved="claim-old"),
        seen(ours(ALICE, "new", supersedes="claim-old"), absent=["claim-old"]),
        mount(Row.SUPERSEDED, "new"),
    ),
    Case(
        "two claim to be in its place",
        question(saved="claim-old"),
        seen(
            ours(ALICE, "new-1", supersedes="claim-old"),
            ours(ALICE, "new-2", supersedes="claim-old"),
        ),
        refuse(Row.CONFLICT, "claim-old", ADOPT_WHICH, "new-1", "new-2"),
    ),
    Case(
        "an older database names another claim than the annotations",
        question(saved="claim-old"),
        seen(claim("claim-old"), ours(ALICE)),
        refuse(Row.CONFLICT, "claim-old", ADOPT_WHICH, "claim-old", MINE),
    ),
    Case(
        "an older database and KubeSpawner name another claim than our annotations",
        question(saved="claim-old"),
        seen(kubespawner("claim-old", "alice"), ours(ALICE)),
        refuse(Row.CONFLICT, "claim-old", ADOPT_WHICH, "claim-old", MINE),
    ),
    Case(
        "on record and KubeSpawner's, all claims known",
        question(saved="claim-old"),
        seen(kubespawner("claim-old", "alice"), ours(BOB)),
        adopt(Row.KNOWN, "claim-old"),
    ),
    Case(
        "the record names a claim that is gone, annotations another",
        question(saved="claim-old"),
        seen(ours(ALICE), absent=["claim-old"]),
        refuse(Row.CONFLICT, "claim-old", ADOPT_WHICH, MINE),
    ),
    Case(
        "saved and gone",
        question(saved="claim-alice"),
        seen(ours(BOB), absent=["claim-alice"]),
        refuse(Row.GONE, "claim-alice", "claims forget claim-alice --user=alice"),
    ),
    Case(
        "saved and gone, even with a claim KubeSpawner annotated",
        question(saved=MINE),
        seen(kubespawner("claim-alice", "alice"), absent=[MINE]),
        refuse(Row.GONE, MINE, f"claims forget {MINE} --user=alice"),
    ),
    Case(
        "saved, gone and forgotten: a new one",
        question(saved="claim-alice", forgotten=True),
        seen(ours(BOB), absent=["claim-alice"]),
        create(Row.NEW, MINE),
    ),
    Case(
        "forgotten, and another is found",
        question(saved="claim-alice", forgotten=True),
        seen(ours(ALICE, "claim-found"), absent=["claim-alice"]),
        mount(Row.KNOWN, "claim-found"),
    ),
    Case(
        "saved and taken away by an operator",
        question(saved="claim-old"),
        seen(ours(ALICE, "claim-old", released=True)),
        refuse(Row.RELEASED, "claim-old", ADOPT_WHICH, "claim-old"),
    ),
    Case(
        "the user was renamed, the claim not yet",
        question(Owner(HUB, "alice.smith"), saved=MINE, former_users=("al", "alice")),
        seen(ours(ALICE), complete=False),
        adopt(Row.RENAMED, MINE),
    ),
    Case(
        "the user was renamed, KubeSpawner's claim not yet",
        question(Owner(HUB, "alice.smith"), saved="claim-alice", former_users=("alice",)),
        seen(kubespawner("claim-alice", "alice"), complete=False),
        adopt(Row.RENAMED, "claim-alice"),
    ),
    Case(
        "somebody was renamed, but from another name",
        question(Owner(HUB, "carol"), saved=MINE, former_users=("caroline",)),
        seen(ours(ALICE), complete=False),
        refuse(Row.TAKEN, MINE, "claims adopt CLAIM --user=carol", MINE),
    ),
]

TAKEN = [
    Case(
        "the record names another owner's claim",
        question(saved="claim-x"),
        seen(ours(BOB, "claim-x"), complete=False),
        refuse(Row.TAKEN, "claim-x", ADOPT_WHICH, "claim-x"),
    ),
    Case(
        "the record names a claim KubeSpawner annotated for another",
        question(saved="claim-x"),
        seen(kubespawner("claim-x", "bob"), complete=False),
        refuse(Row.TAKEN, "claim-x", ADOPT_WHICH, "claim-x"),
    ),
    Case(
        "the record names another hub's claim",
        question(saved=MINE),
        seen(ours(replace(ALICE, hub="other")), complete=False),
        refuse(Row.TAKEN, MINE, ADOPT_WHICH, MINE),
    ),
    Case(
        "KubeSpawner's annotation under another hub's label",
        question(saved="claim-alice"),
        seen(kubespawner("claim-alice", "alice", labels=hub_label("other")), complete=False),
        refuse(Row.TAKEN, "claim-alice", ADOPT_WHICH, "claim-alice"),
    ),
    Case(
        "the record names an extra volume",
        question(saved="claim-data"),
        seen(kubespawner("claim-data", "alice", labels={"component": "extra-pvc"})),
        refuse(Row.TAKEN, "claim-data", ADOPT_WHICH, "claim-data"),
    ),
    Case(
        "the new name belongs to another owner",
        question(configured=SHARED, per_server=False),
        seen(ours(BOB, "claim-alice")),
        refuse(Row.TAKEN, "claim-alice", ADOPT_WHICH, "claim-alice"),
    ),
    Case(
        "the new name belongs to another hub",
        question(),
        seen(ours(replace(ALICE, hub="other"))),
        refuse(Row.TAKEN, MINE, ADOPT_WHICH, MINE),
    ),
    Case(
        "the new name was taken away by an operator",
        question(),
        seen(ours(ALICE, released=True)),
        refuse(Row.TAKEN, MINE, ADOPT_WHICH, MINE),
    ),
    Case(
        "a name that a profile chose, without annotations",
        question(own_name="shared-by-all"),
        seen(claim("shared-by-all")),
        refuse(Row.TAKEN, "shared-by-all", ADOPT_WHICH, "shared-by-all"),
    ),
]
