"""Whose an extra volume is, row by row; and what is never mounted, whatever is there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jhub_safety import owner as marks
from jhub_safety.owner import Owner, label_value
from jhub_safety.volumes import home
from jhub_safety.volumes.declared import ExtraVolume, Override
from jhub_safety.volumes.extra import Wanted, at_stake, decide
from jhub_safety.volumes.model import Row, Verdict
from jhub_safety.volumes.relation import Relation, relation
from tests.unit.given import (
    ALICE,
    BOB,
    GPU,
    HUB,
    PLACE,
    claim,
    hub_label,
    kubespawner,
    ours,
    question,
    seen,
    servers,
    users,
)

ERIN = Owner(HUB, "erin@school.edu")
WITH_ID = replace(ALICE, identity="sub-1")
RECIPE = "postgres-{username}"
PER_SERVER = "db-{user_server}"
OURS_ALONE = "data-{owner_slug}-{owner_hash}"
EXTRA = {"component": "extra-pvc"}
MOUNT, ADOPT, CREATE, REFUSE = Verdict


def wanted(owner=ALICE, template=RECIPE, *, saved=None) -> Wanted:
    volume = ExtraVolume(template, "1Gi")
    given_ = Wanted(volume, owner, "", Override("1Gi"), saved, PLACE)
    name = given_.generations[0].render(owner, place=PLACE)
    return replace(given_, name=name)


def marked(owner=ALICE, name="postgres-alice", volume=RECIPE, **fields):
    """A claim that this library has made or annotated as *owner*'s *volume*."""
    annotations = {**owner.annotations("extra"), marks.VOLUME: volume}
    return claim(name, annotations, {**EXTRA, **owner.labels()}, **fields)


def recipes(name="postgres-alice", user="alice", server="", **fields):
    """A claim that 2i2c's recipe has made."""
    return kubespawner(name, user, server, EXTRA, **fields)


@pytest.mark.parametrize("on_record", [True, False])
def test_a_volume_follows_its_user_who_was_renamed(on_record):
    """The hub's record says what they were called before."""
    bob = Owner(HUB, "bob")
    asked = replace(wanted(bob, saved="postgres-alice" if on_record else None), former=(ALICE,))
    decision = decided(asked, marked())
    assert (decision.verdict, decision.name) == (Verdict.ADOPT, "postgres-alice")
    stranger = replace(asked, former=(ERIN,))
    assert decided(stranger, marked()).verdict is not Verdict.ADOPT


def decided(asked, *claims):
    return decide(asked, {one.name: one for one in claims})


RELEASED = claim(
    "postgres-alice",
    {**marked().annotations, marks.RELEASED: "2026-05-01"},
    marked().labels,
)
HOME_OF_ALICE = kubespawner("postgres-alice", "alice")
HOME_MARKED = ours(ALICE, "postgres-alice")

TABLE = [
    # The claim on record.
    pytest.param(
        wanted(saved="postgres-alice"), [marked()], Row.KNOWN, MOUNT, id="on record, ours"
    ),
    pytest.param(
        wanted(saved="postgres-alice"), [recipes()], Row.KNOWN, ADOPT, id="on record, the recipe's"
    ),
    pytest.param(
        wanted(saved="other-name"),
        [claim("other-name")],
        Row.KNOWN,
        ADOPT,
        id="on record, of nobody",
    ),
    pytest.param(wanted(saved="postgres-alice"), [], Row.GONE, REFUSE, id="on record, gone"),
    pytest.param(
        wanted(saved="postgres-alice"), [marked(BOB)], Row.TAKEN, REFUSE, id="on record, another's"
    ),
    pytest.param(
        wanted(saved="postgres-alice"),
        [marked(replace(ALICE, hub="other"))],
        Row.TAKEN,
        REFUSE,
        id="on record, another hub's",
    ),
    pytest.param(
        wanted(saved="postgres-alice"), [RELEASED], Row.TAKEN, REFUSE, id="on record, released"
    ),
    pytest.param(
        wanted(saved="postgres-alice"),
        [marked(volume="db-{username}")],
        Row.TAKEN,
        REFUSE,
        id="on record, another volume",
    ),
    pytest.param(
        wanted(saved="postgres-alice"), [HOME_OF_ALICE], Row.TAKEN, REFUSE, id="on record, a home"
    ),
    pytest.param(
        wanted(saved="postgres-alice"),
        [marked(deleting=True)],
        Row.TERMINATING,
        REFUSE,
        id="on record, being deleted",
    ),
    pytest.param(
        wanted(saved="postgres-alice"),
        [marked(phase="Lost")],
        Row.LOST,
        REFUSE,
        id="on record, without its volume",
    ),
    # Annotated by us.
    pytest.param(wanted(), [marked()], Row.KNOWN, MOUNT, id="ours"),
    pytest.param(wanted(), [marked(name="of-old")], Row.KNOWN, MOUNT, id="ours by any name"),
    pytest.param(
        wanted(),
        [marked(name="of-old"), marked(BOB)],
        Row.KNOWN,
        MOUNT,
        id="ours outweighs that today's name is another's",
    ),
    pytest.param(
        wanted(), [marked(), marked(name="two")], Row.SEVERAL, REFUSE, id="of several none"
    ),
    pytest.param(
        wanted(),
        [marked(), marked(name="two", volume="db-{username}")],
        Row.KNOWN,
        MOUNT,
        id="another volume of theirs is not counted",
    ),
    pytest.param(
        wanted(), [marked(deleting=True)], Row.TERMINATING, REFUSE, id="ours, being deleted"
    ),
    pytest.param(wanted(), [marked(phase="Lost")], Row.LOST, REFUSE, id="ours, lost"),
    pytest.param(
        wanted(replace(WITH_ID, user="new")),
        [marked(WITH_ID)],
        Row.KNOWN,
        MOUNT,
        id="ours, renamed account",
    ),
    pytest.param(
        wanted(replace(WITH_ID, identity="2")),
        [marked(WITH_ID)],
        Row.TAKEN,
        REFUSE,
        id="a recycled name",
    ),
    # By their name.
    pytest.param(wanted(), [recipes()], Row.SINGLE, ADOPT, id="the recipe's"),
    pytest.param(
        wanted(), [recipes(server="gpu")], Row.SINGLE, ADOPT, id="the recipe's, by a named server"
    ),
    pytest.param(
        wanted(ERIN),
        [recipes("postgres-erin-40school-2eedu", "erin@school.edu")],
        Row.SINGLE,
        ADOPT,
        id="the recipe's on KubeSpawner 6",
    ),
    pytest.param(
        wanted(ERIN),
        [
            recipes("postgres-erin-40school-2eedu", "erin@school.edu"),
            recipes(wanted(ERIN).name, "erin@school.edu"),
        ],
        Row.SEVERAL,
        REFUSE,
        id="before and after the upgrade",
    ),
    pytest.param(
        wanted(ERIN),
        [
            recipes("postgres-erin-40school-2eedu", "erin@school.edu"),
            claim(wanted(ERIN).name),
        ],
        Row.SEVERAL,
        REFUSE,
        id="one annotated, one of nobody",
    ),
    pytest.param(wanted(), [recipes(deleting=True)], Row.TERMINATING, REFUSE, id="being deleted"),
    pytest.param(wanted(), [recipes(phase="Lost")], Row.LOST, REFUSE, id="lost"),
    pytest.param(
        wanted(template=OURS_ALONE),
        [claim(wanted(template=OURS_ALONE).name)],
        Row.SINGLE,
        ADOPT,
        id="of nobody, by a name that nobody else's could have",
    ),
    pytest.param(
        wanted(ERIN),
        [claim("postgres-erin-40school-2eedu")],
        Row.UNPROVEN,
        REFUSE,
        id="of nobody, by a name that another's could have",
    ),
    pytest.param(wanted(), [recipes(user="bob")], Row.TAKEN, REFUSE, id="another user's"),
    pytest.param(
        wanted(template=PER_SERVER),
        [recipes("db-alice", "alice", "gpu")],
        Row.TAKEN,
        REFUSE,
        id="another server's",
    ),
    pytest.param(
        wanted(GPU, PER_SERVER),
        [recipes("db-alice--gpu", "alice", "gpu")],
        Row.SINGLE,
        ADOPT,
        id="this named server's",
    ),
    pytest.param(
        wanted(),
        [claim("postgres-alice", labels=hub_label("other"))],
        Row.TAKEN,
        REFUSE,
        id="another hub's",
    ),
    pytest.param(wanted(), [RELEASED], Row.TAKEN, REFUSE, id="released"),
    pytest.param(wanted(), [HOME_OF_ALICE], Row.TAKEN, REFUSE, id="a home of KubeSpawner's"),
    pytest.param(wanted(), [HOME_MARKED], Row.TAKEN, REFUSE, id="a home of ours"),
    pytest.param(
        wanted(ERIN),
        [recipes("postgres-erin-40school-2eedu", "bob")],
        Row.NEW,
        CREATE,
        id="an earlier name is another's, today's is free",
    ),
    # None.
    pytest.param(wanted(), [], Row.NEW, CREATE, id="none"),
    pytest.param(
        wanted(),
        [marked(name="db-alice", volume="db-{username}")],
        Row.NEW,
        CREATE,
        id="another volume of theirs alone",
    ),
]


@pytest.mark.parametrize(("asked", "claims", "row", "verdict"), TABLE)
def test_the_table(asked, claims, row, verdict):
    decision = decided(asked, *claims)
    assert (decision.row, decision.verdict) == (row, verdict)
    if verdict in (MOUNT, ADOPT):
        assert decision.claim in claims
        assert decision.name == decision.claim.name
    else:
        assert decision.claim is None
    if verdict is CREATE:
        assert decision.name == asked.name
    if verdict is REFUSE:
        # What is gone can only be given up; everything else is to be looked at.
        explain = f"claims explain {asked.owner.arguments}"
        assert (decision.command == explain) is (row is not Row.GONE)
        assert all(one.name in decision.why for one in decision.claims)
        assert asked.volume.name in decision.why


@pytest.mark.parametrize(
    ("asked", "claims", "told", "command"),
    [
        pytest.param(
            wanted(saved="postgres-alice"),
            [],
            "data was here and is missing",
            "claims forget postgres-alice --user=alice --volume='postgres-{username}'",
            id="gone",
        ),
        pytest.param(
            wanted(GPU, PER_SERVER, saved="db-alice--gpu"),
            [],
            "data was here and is missing",
            "claims forget db-alice--gpu --user=alice --server=gpu --volume='db-{user_server}'",
            id="gone, of a named server",
        ),
        pytest.param(
            wanted(),
            [marked(BOB)],
            "claim postgres-alice is bob of hub hub's",
            "claims explain alice",
            id="taken",
        ),
        pytest.param(
            wanted(), [recipes(user="bob")], "is bob's", "claims explain alice", id="the recipe's"
        ),
        pytest.param(
            wanted(),
            [marked(), marked(name="two")],
            "2 claims may be volume postgres-{username} of",
            "claims explain alice",
            id="several",
        ),
        pytest.param(
            wanted(ERIN),
            [claim("postgres-erin-40school-2eedu")],
            "may be erin-40school-2eedu under",
            "claims explain erin@school.edu",
            id="unproven",
        ),
        pytest.param(
            wanted(),
            [marked(deleting=True)],
            "is being deleted",
            "claims explain alice",
            id="terminating",
        ),
        pytest.param(
            wanted(),
            [marked(phase="Lost")],
            "has lost its volume",
            "claims explain alice",
            id="lost",
        ),
        pytest.param(
            wanted(GPU, PER_SERVER),
            [recipes("db-alice--gpu", "bob")],
            "is bob's",
            "claims explain alice gpu",
            id="of a named server",
        ),
    ],
)
def test_a_refusal_says_why_and_names_the_one_command(asked, claims, told, command):
    decision = decided(asked, *claims)
    assert told in decision.why
    assert decision.command == command


def test_a_claim_that_was_adopted_keeps_what_told_whose_it_is():
    adopted = claim("x", {**ALICE.annotations("kubespawner-6"), marks.VOLUME: RECIPE})
    assert decided(wanted(), adopted).generation == "kubespawner-6"
    assert decided(wanted(), recipes()).generation == "extra"


def test_names_are_todays_and_those_of_earlier_releases():
    assert wanted(ERIN).names == (
        "postgres-erin-school-edu---7c0ec5fa",
        "postgres-erin-40school-2eedu",
    )
    assert wanted().names == ("postgres-alice",)


# -- what is never mounted

templates = st.sampled_from([RECIPE, PER_SERVER, OURS_ALONE, "x-{user_slug}-{user_hash}"])
hubs = st.sampled_from([HUB, "other", "a third"])
components = st.sampled_from([None, "extra-pvc", "singleuser-storage", "other"])
few = st.sampled_from(["alice", "bob", "Alice", "alice-2d", "erin@school.edu"])


@st.composite
def found(draw, asked: Wanted):
    """Claims under the names that are asked for, and others, with any marks."""
    made = {}
    for name in draw(st.sets(st.sampled_from([*asked.names, "x", "y"]), min_size=1)):
        annotations, labels = {}, {}
        writer = draw(st.sampled_from(["nobody", "us", "us, a home", "KubeSpawner"]))
        who = Owner(draw(hubs), draw(few), draw(st.sampled_from(["", "gpu"])))
        if draw(st.booleans()):
            who = replace(who, identity=draw(st.sampled_from(["1", "2"])))
        if writer.startswith("us"):
            annotations |= who.annotations("extra")
            labels |= who.labels()
            if writer == "us":
                volume = draw(st.sampled_from([asked.volume.name, "db-{username}"]))
                annotations[marks.VOLUME] = volume
        elif writer == "KubeSpawner":
            annotations[marks.KUBESPAWNER_USER] = who.user
            if who.server:
                annotations[marks.KUBESPAWNER_SERVER] = who.server
        if draw(st.integers(0, 4)) == 0:
            annotations[marks.RELEASED] = "2026"
        if draw(st.booleans()):
            labels |= hub_label(draw(hubs))
        if component := draw(components):
            labels["component"] = component
        made[name] = claim(
            name,
            annotations,
            labels,
            deleting=draw(st.integers(0, 5)) == 0,
            phase=draw(st.sampled_from(["Bound", "Pending", "Lost"])),
        )
    return made


@st.composite
def situations(draw):
    owner = Owner(HUB, draw(few), draw(st.sampled_from(["", "gpu"])))
    if draw(st.booleans()):
        owner = replace(owner, identity=draw(st.sampled_from(["1", "2"])))
    template = draw(templates)
    asked = wanted(owner, template)
    if not asked.generations[0].per_server:
        asked = wanted(replace(owner, server=""), template)
    claims = draw(found(asked))
    if draw(st.booleans()):
        asked = replace(asked, saved=draw(st.sampled_from([*asked.names, "x"])))
    return asked, claims


@given(situations())
def test_never_mounted_is_a_claim_that_names_somebody_else(situation):
    asked, claims = situation
    decision = decide(asked, claims)
    if decision.claim is None:
        return
    taken, owner = decision.claim, asked.owner
    assert taken in claims.values()
    says = taken.annotations
    assert taken.labels.get(marks.HUB_LABEL, label_value(owner.hub)) == label_value(owner.hub)
    assert marks.RELEASED not in says or marks.USER not in says
    assert taken.labels.get("component") != "singleuser-storage"
    assert not taken.deleting
    assert taken.phase != "Lost"
    if marks.USER in says:
        same_id = owner.identity and says.get(marks.IDENTITY) == owner.identity_digest
        one_has_no_id = not owner.identity or marks.IDENTITY not in says
        assert same_id or (one_has_no_id and says[marks.USER] == owner.user)
        assert says[marks.SERVER] == owner.server
        assert says[marks.VOLUME] == asked.volume.name
    elif marks.KUBESPAWNER_USER in says:
        assert says[marks.KUBESPAWNER_USER] == owner.user
        if asked.generations[0].per_server:
            assert says.get(marks.KUBESPAWNER_SERVER, "") == owner.server


@given(situations())
def test_never_made_where_one_of_that_name_is_or_where_data_was(situation):
    asked, claims = situation
    decision = decide(asked, claims)
    if decision.verdict is CREATE:
        assert decision.name not in claims
        assert asked.saved is None


@given(users, servers, users, servers, templates)
def test_nobody_ever_gets_what_another_was_given(user, server, other, other_server, template):
    """Whatever people are called: each gets a new claim or is refused, never the other's."""
    assume((user, server) != (other, other_server))
    per_server = wanted(template=template).generations[0].per_server
    one = Owner(HUB, user, server if per_server else "")
    two = Owner(HUB, other, other_server if per_server else "")
    assume(one != two)
    theirs = wanted(one, template)
    asked = wanted(two, template)
    made = marked(one, theirs.name, template)
    by_recipe = recipes(theirs.name, one.user, one.server)
    for there in (made, by_recipe):
        assert decide(asked, {there.name: there}).verdict in (CREATE, REFUSE)


# -- what the hub's records of others say

FORMERLY_BOB = replace(wanted(), former=(BOB,))
SAYS_DECIDED = replace(
    marked(), annotations={**marked().annotations, marks.DECIDED: "2026-05-01 by an operator"}
)
RECORDED = [
    pytest.param(wanted(), [marked()], Row.TAKEN, REFUSE, id="ours, a former name"),
    pytest.param(wanted(), [recipes()], Row.TAKEN, REFUSE, id="the recipe's, a former name"),
    pytest.param(
        wanted(template=OURS_ALONE),
        [claim(wanted(template=OURS_ALONE).name)],
        Row.TAKEN,
        REFUSE,
        id="of nobody",
    ),
    pytest.param(wanted(), [], Row.TAKEN, REFUSE, id="to be made"),
    pytest.param(wanted(), [SAYS_DECIDED], Row.KNOWN, MOUNT, id="an operator's word beats it"),
    pytest.param(
        wanted(WITH_ID), [marked(WITH_ID)], Row.KNOWN, MOUNT, id="a stable id of ours beats it"
    ),
    pytest.param(wanted(WITH_ID), [marked()], Row.TAKEN, REFUSE, id="no id on it beats nothing"),
    pytest.param(wanted(saved="postgres-alice"), [marked()], Row.KNOWN, MOUNT, id="our own record"),
    pytest.param(
        wanted(), [marked(), marked(name="two")], Row.SEVERAL, REFUSE, id="of several none, as ever"
    ),
    pytest.param(
        FORMERLY_BOB,
        [marked(BOB, "postgres-bob")],
        Row.NEW,
        CREATE,
        id="of whoever has our former name",
    ),
    pytest.param(
        FORMERLY_BOB,
        [marked(BOB, "postgres-bob"), marked()],
        Row.TAKEN,
        REFUSE,
        id="and one of ours beside it, on a record too",
    ),
    pytest.param(
        FORMERLY_BOB,
        [marked(BOB)],
        Row.TAKEN,
        REFUSE,
        id="of whoever has our former name, by the name that we would get",
    ),
]


@pytest.mark.parametrize(("asked", "claims", "row", "verdict"), RECORDED)
def test_what_anothers_record_names_is_neither_taken_nor_made(asked, claims, row, verdict):
    """bob's record names them all, and the one that would be made unless it is new."""
    found = {one.name: one for one in claims}
    names = set(found) if row is Row.NEW else {*found, asked.name}
    decision = decide(asked, found, dict.fromkeys(names, BOB))
    assert (decision.row, decision.verdict) == (row, verdict)
    # Else nobody would have asked for these records.
    assert names <= at_stake(asked, found)


@pytest.mark.parametrize("there", [[marked()], []], ids=["taken", "made"])
def test_a_refusal_upon_a_record_says_whose_it_is(there):
    decision = decide(
        wanted(), {one.name: one for one in there}, {"postgres-alice": replace(BOB, server="gpu")}
    )
    assert "the hub's record of bob/gpu names it" in decision.why
    assert decision.command == "claims explain alice"


def test_the_records_of_what_is_not_at_stake_are_not_asked_for():
    """Other volumes of theirs, their home, and what is in others' hands."""
    others = [
        marked(name="db-alice", volume="db-{username}"),
        ours(ALICE, "claim-alice"),
        marked(ERIN, "postgres-erin"),
    ]
    assert at_stake(wanted(), {one.name: one for one in others}) == {"postgres-alice"}


def test_what_a_former_name_alone_speaks_for_is_refused_when_a_third_one_has_it_on_record():
    asked = replace(wanted(), former=(BOB,))
    there = marked(BOB, "postgres-bob")
    decision = decide(asked, {there.name: there}, {there.name: ERIN})
    assert (decision.row, decision.verdict) == (Row.TAKEN, REFUSE)


# -- homes and extra volumes are never one another


HOMES = [
    pytest.param(HOME_OF_ALICE, id="KubeSpawner's"),
    pytest.param(HOME_MARKED, id="ours"),
    pytest.param(
        claim("postgres-alice", HOME_MARKED.annotations), id="ours, whose labels were taken off"
    ),
    pytest.param(
        claim("postgres-alice", labels={"component": "singleuser-storage"}), id="nobody's"
    ),
]


@pytest.mark.parametrize("saved", [None, "postgres-alice"], ids=["found", "on record"])
@pytest.mark.parametrize("there", HOMES)
def test_a_home_is_never_taken_for_an_extra_volume(there, saved):
    decision = decided(wanted(saved=saved), there)
    assert (decision.row, decision.verdict) == (Row.TAKEN, REFUSE)


@pytest.mark.parametrize("saved", [None, "claim-alice"], ids=["found", "on record"])
@pytest.mark.parametrize(
    "there",
    [
        pytest.param(marked(name="claim-alice"), id="ours"),
        pytest.param(recipes("claim-alice"), id="the recipe's"),
        pytest.param(claim("claim-alice", labels=EXTRA), id="nobody's"),
        pytest.param(
            claim("claim-alice", marked().annotations), id="ours, whose labels were taken off"
        ),
    ],
)
def test_an_extra_volume_is_never_taken_for_a_home(there, saved):
    assert relation(ALICE, there) is Relation.OTHER
    asked = question(saved=saved, declared=["kubespawner-6", "z2jh-3"])
    decision = home.decide(asked, seen(there))
    assert decision.verdict in (CREATE, REFUSE)
    assert decision.name != there.name or decision.verdict is REFUSE


# -- what docs/refused.md tells operators to write


def written(there, annotations, labels=None):
    return replace(
        there,
        annotations={**there.annotations, **annotations},
        labels={**there.labels, **(labels or {})},
    )


ASIDE = {
    "jhub-safety/user": "erin@school.edu",
    "jhub-safety/volume": RECIPE,
    "jhub-safety/released": "2026-11-21",
}
BEFORE = recipes("postgres-erin-40school-2eedu", "erin@school.edu")
AFTER = recipes("postgres-erin-school-edu---7c0ec5fa", "erin@school.edu")
RENAMED = {"jhub-safety/user": "alice", "jhub-safety/volume": RECIPE}


@pytest.mark.parametrize(
    ("asked", "claims", "name"),
    [
        pytest.param(wanted(ERIN), [BEFORE, written(AFTER, ASIDE)], BEFORE.name, id="several"),
        pytest.param(wanted(ERIN), [written(BEFORE, ASIDE), AFTER], AFTER.name, id="several, 2"),
        pytest.param(
            wanted(ERIN),
            [
                marked(ERIN, "one"),
                written(marked(ERIN, "two"), ASIDE),
            ],
            "one",
            id="several of ours",
        ),
        pytest.param(
            wanted(ERIN),
            [claim(BEFORE.name, {marks.KUBESPAWNER_USER: ERIN.user})],
            BEFORE.name,
            id="unproven",
        ),
        pytest.param(
            wanted(saved="postgres-former"),
            [written(marked(Owner(HUB, "former"), "postgres-former"), RENAMED)],
            "postgres-former",
            id="taken, the user was renamed",
        ),
        pytest.param(
            wanted(saved="postgres-former"),
            [written(recipes("postgres-former", "former"), RENAMED)],
            "postgres-former",
            id="taken, the user was renamed before it was adopted",
        ),
        pytest.param(
            wanted(),
            [recipes(user="bob"), written(claim("by-hand"), RENAMED, ALICE.labels())],
            "by-hand",
            id="taken, another claim was made",
        ),
        pytest.param(
            wanted(saved="postgres-alice"), [claim("postgres-alice")], "postgres-alice", id="gone"
        ),
    ],
)
def test_what_an_operator_is_told_to_write_settles_it(asked, claims, name):
    decision = decided(asked, *claims)
    assert decision.verdict in (MOUNT, ADOPT)
    assert decision.name == name
