"""Cases of the decision table: what is found when the record names nothing."""

from __future__ import annotations

from dataclasses import replace

from jhub_safety.owner import Owner
from jhub_safety.volumes.model import Observation, Row
from jhub_safety.volumes.names import BUILT_IN
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
    NEXT,
    SHARED,
    SHARED_OWN,
    Case,
    adopt,
    create,
    later,
    mount,
    refuse,
)

WITH_ID = replace(ALICE, identity="sub-1")
RENAMED = Owner(HUB, "alice.smith", identity="sub-1")
RECYCLED = replace(ALICE, identity="sub-2")

FOUND = [
    Case(
        "one that KubeSpawner annotated, by any name",
        question(),
        seen(kubespawner("an-odd-name", "alice"), ours(BOB)),
        adopt(Row.SINGLE, "an-odd-name"),
    ),
    Case(
        "one that KubeSpawner annotated for the named server",
        question(GPU),
        seen(kubespawner("claim-alice", "alice"), kubespawner("claim-alice--gpu", "alice", "gpu")),
        adopt(Row.SINGLE, "claim-alice--gpu"),
    ),
    Case(
        "one without annotations, declared and only theirs",
        question(declared=["kubespawner-6", "kubespawner-7"]),
        seen(claim("claim-alice"), claim("claim-bob")),
        adopt(Row.SINGLE, "claim-alice"),
    ),
    Case(
        "one from 2017",
        question(declared=["2017"]),
        seen(claim("claim-alice-42"), claim("claim-alicia-42")),
        adopt(Row.SINGLE, "claim-alice-42"),
    ),
    Case(
        "one under the hub's own template",
        question(configured=SHARED, per_server=False),
        seen(claim("claim-alice")),
        adopt(Row.SINGLE, "claim-alice"),
    ),
    Case(
        "one by our own name that lost its annotations",
        question(),
        seen(claim(MINE)),
        adopt(Row.SINGLE, MINE),
    ),
    Case(
        "one without annotations, nothing declared",
        question(),
        seen(claim("claim-alice")),
        refuse(Row.UNPROVEN, "claim-alice", "claims adopt claim-alice --user=alice", "claim-alice"),
    ),
    Case(
        "one without annotations, of a generation that was not declared",
        question(declared=["2017"]),
        seen(claim("claim-alice")),
        refuse(Row.UNPROVEN, "claim-alice", "claims adopt claim-alice --user=alice", "claim-alice"),
    ),
    Case(
        "one without annotations, declared, but another could have had it",
        question(Owner(HUB, "john.doe"), declared=["kubespawner-6", "kubespawner-7"]),
        seen(claim("claim-john-2edoe")),
        refuse(
            Row.UNPROVEN,
            "claim-john-2edoe",
            "claims adopt claim-john-2edoe --user=john.doe",
            "claim-john-2edoe",
        ),
    ),
    Case(
        "two without annotations",
        question(declared=["kubespawner-6", "2017"]),
        seen(claim("claim-alice"), claim("claim-alice-7")),
        refuse(Row.SEVERAL, "claim-alice", ADOPT_WHICH, "claim-alice", "claim-alice-7"),
    ),
    Case(
        "one that KubeSpawner annotated and one without annotations",
        question(declared=["kubespawner-6"]),
        seen(kubespawner("claim-x", "alice"), claim("claim-alice")),
        refuse(Row.SEVERAL, "claim-alice", ADOPT_WHICH, "claim-alice", "claim-x"),
    ),
    Case(
        "two of ours, one put in the place of the other",
        question(),
        seen(ours(ALICE, "old"), ours(ALICE, "new", supersedes="old")),
        mount(Row.KNOWN, "new"),
    ),
    Case(
        "two of ours",
        question(),
        seen(ours(ALICE, "one"), ours(ALICE, "two")),
        refuse(Row.SEVERAL, "one", ADOPT_WHICH, "one", "two"),
    ),
    Case(
        "two of ours, each in the place of the other",
        question(),
        seen(ours(ALICE, "one", supersedes="two"), ours(ALICE, "two", supersedes="one")),
        refuse(Row.SEVERAL, "one", ADOPT_WHICH, "one", "two"),
    ),
    Case(
        "none: a new one, other people's left alone",
        question(declared=BUILT_IN),
        seen(ours(BOB), kubespawner("claim-bob", "bob"), claim("claim-carol")),
        create(Row.NEW, MINE),
    ),
    Case("none at all", question(), seen(), create(Row.NEW, MINE)),
    Case(
        "another hub's claim is nobody's here",
        question(declared=["kubespawner-6"]),
        seen(claim("claim-alice", labels=hub_label("other"))),
        create(Row.NEW, MINE),
    ),
    Case(
        "an extra volume is no home",
        question(declared=["kubespawner-6"]),
        seen(kubespawner("claim-alice", "alice", labels={"component": "extra-pvc"})),
        create(Row.NEW, MINE),
    ),
    Case(
        "a claim that was taken away is not found again",
        question(declared=["kubespawner-6"]),
        seen(ours(ALICE, "claim-alice", released=True)),
        create(Row.NEW, MINE),
    ),
    Case(
        "the default server's home is no named server's",
        question(GPU, declared=["kubespawner-7"]),
        seen(ours(ALICE), kubespawner("claim-alice", "alice")),
        create(Row.NEW, GPU.claim_name),
    ),
    Case(
        "the template of the hub names the new one",
        question(configured=SHARED_OWN, per_server=False),
        seen(ours(BOB)),
        create(Row.NEW, MINE),
    ),
]

CAROL = Owner(HUB, "carol")
RENAMES = [
    Case(
        "the claim by the first name went with a rename: the next name",
        question(),
        seen(ours(CAROL, MINE)),
        create(Row.NEW, NEXT[0]),
    ),
    Case(
        "it happened twice",
        question(),
        seen(ours(CAROL, MINE), ours(BOB, NEXT[0])),
        create(Row.NEW, NEXT[1]),
    ),
    Case(
        "it went to another server of theirs",
        question(),
        seen(ours(GPU, MINE)),
        create(Row.NEW, NEXT[0]),
    ),
    Case(
        "the claim by the next name is found again",
        question(),
        seen(ours(CAROL, MINE), ours(ALICE, NEXT[0])),
        mount(Row.KNOWN, NEXT[0]),
    ),
    Case(
        "the next name is another hub's",
        question(),
        seen(ours(CAROL, MINE), ours(replace(ALICE, hub="other"), NEXT[0])),
        refuse(Row.TAKEN, NEXT[0], ADOPT_WHICH, NEXT[0]),
    ),
    Case(
        "the next name says nothing of an owner",
        question(),
        seen(ours(CAROL, MINE), claim(NEXT[0])),
        refuse(Row.TAKEN, NEXT[0], ADOPT_WHICH, NEXT[0]),
    ),
    Case(
        "no name is left",
        question(),
        seen(ours(CAROL, MINE), *(ours(BOB, name) for name in NEXT)),
        refuse(Row.TAKEN, MINE, ADOPT_WHICH, MINE),
    ),
    Case(
        "KubeSpawner's annotation is no sign of a rename",
        question(),
        seen(kubespawner(MINE, "carol")),
        refuse(Row.TAKEN, MINE, ADOPT_WHICH, MINE),
    ),
]

SHARED_HOMES = [
    Case(
        "made first by a named server",
        question(configured=SHARED, per_server=False),
        seen(kubespawner("claim-alice", "alice", "gpu")),
        adopt(Row.SINGLE, "claim-alice"),
    ),
    Case(
        "made first by a named server, on record",
        question(configured=SHARED, per_server=False, saved="claim-alice"),
        seen(kubespawner("claim-alice", "alice", "gpu"), complete=False),
        adopt(Row.KNOWN, "claim-alice"),
    ),
    Case(
        "made by a named server, but homes are per server now",
        question(),
        seen(kubespawner("claim-alice", "alice", "gpu")),
        refuse(Row.UNPROVEN, "claim-alice", "claims adopt claim-alice --user=alice", "claim-alice"),
    ),
    Case(
        "one made by a named server and one by the default server",
        question(configured=SHARED, per_server=False),
        seen(kubespawner("claim-alice", "alice", "gpu"), kubespawner("claim-x", "alice")),
        refuse(Row.SEVERAL, "claim-alice", ADOPT_WHICH, "claim-alice", "claim-x"),
    ),
    Case(
        "a named server's own claim is not the shared home",
        question(configured=SHARED, per_server=False),
        seen(kubespawner("claim-alice--gpu", "alice", "gpu")),
        create(Row.NEW, "claim-alice"),
    ),
]

IDENTITIES = [
    Case(
        "a renamed account keeps its home",
        question(RENAMED),
        seen(ours(WITH_ID)),
        mount(Row.KNOWN, WITH_ID.claim_name),
    ),
    Case(
        "a renamed account keeps its home, on record",
        question(RENAMED, saved=WITH_ID.claim_name),
        seen(ours(WITH_ID), complete=False),
        mount(Row.KNOWN, WITH_ID.claim_name),
    ),
    Case(
        "a recycled name does not get the old home on record",
        question(RECYCLED, saved=WITH_ID.claim_name),
        seen(ours(WITH_ID), complete=False),
        refuse(Row.TAKEN, WITH_ID.claim_name, ADOPT_WHICH, WITH_ID.claim_name),
    ),
    Case(
        "a recycled name does not find the old home",
        question(RECYCLED),
        seen(ours(WITH_ID)),
        create(Row.NEW, RECYCLED.claim_name),
    ),
    Case(
        "a recycled name is refused where names come from the user name",
        question(RECYCLED, configured=SHARED, per_server=False),
        seen(ours(WITH_ID, "claim-alice")),
        refuse(Row.TAKEN, "claim-alice", ADOPT_WHICH, "claim-alice"),
    ),
    Case(
        "a claim from before identities: by user name",
        question(WITH_ID),
        seen(ours(ALICE)),
        mount(Row.KNOWN, MINE),
    ),
    Case(
        "a claim with an identity on a hub without: by user name",
        question(ALICE),
        seen(ours(WITH_ID)),
        mount(Row.KNOWN, WITH_ID.claim_name),
    ),
    Case(
        "KubeSpawner's claim carries no identity: by user name",
        question(WITH_ID),
        seen(kubespawner("claim-alice", "alice")),
        adopt(Row.SINGLE, "claim-alice"),
    ),
    Case(
        "our annotation wins over KubeSpawner's",
        question(BOB),
        seen(
            claim(
                "claim-alice",
                kubespawner("x", "alice").annotations | BOB.annotations("x"),
                BOB.labels(),
            )
        ),
        mount(Row.KNOWN, "claim-alice"),
    ),
]

INCOMPLETE = [
    Case("nothing saved, nothing listed", question(), seen(complete=False), later(MINE)),
    Case(
        "a listing with a fault",
        question(declared=["kubespawner-6"]),
        Observation(seen(claim("claim-alice")).claims, fault="HTTP 503"),
        later(MINE),
    ),
    Case(
        "the saved claim could not be read",
        question(saved="claim-alice"),
        Observation(fault="HTTP 500"),
        later("claim-alice"),
    ),
    Case(
        "the saved claim is gone, but the others are not known",
        question(saved="claim-alice"),
        Observation(fault="HTTP 500", absent=frozenset({"claim-alice"})),
        later("claim-alice"),
    ),
    Case(
        "forgotten, and the listing failed",
        question(saved="claim-alice", forgotten=True),
        seen(complete=False),
        later("claim-alice"),
    ),
]
