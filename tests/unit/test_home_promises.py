"""What holds of every decision about a home, whatever claims there are."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from jhub_safety import owner as marks
from jhub_safety.cluster.claims import Claim
from jhub_safety.owner import Owner, label_value
from jhub_safety.volumes.home import decide
from jhub_safety.volumes.index import ClaimIndex
from jhub_safety.volumes.model import Decision, Observation, Question, Verdict
from jhub_safety.volumes.names import BUILT_IN
from tests.unit.given import ALICE, BOB, GPU, HUB, claim, hub_label, ours, question, seen
from tests.unit.home_case import SHARED

TAKES = (Verdict.MOUNT, Verdict.ADOPT)
PEOPLE = (
    ALICE,
    GPU,
    BOB,
    replace(ALICE, identity="sub-1"),
    Owner(HUB, "alice.smith", identity="sub-1"),
    replace(ALICE, identity="sub-2"),
    replace(GPU, identity="sub-1"),
    replace(ALICE, hub="other"),
)
#: Few names, so that they meet: of several generations, of several owners, of nobody.
NAMES = (
    *sorted({owner.claim_name for owner in PEOPLE}),
    replace(ALICE, spare=1).claim_name,
    replace(ALICE, spare=2).claim_name,
    "claim-alice",
    "claim-alice--gpu",
    "claim-alicegpu",
    "claim-alice-gpu",
    "claim-alice-7",
    "claim-alice-17",
    "claim-bob",
    "odd",
)


@st.composite
def written(draw: st.DrawFn) -> tuple[dict[str, str], dict[str, str]]:
    """Annotations and labels: none, KubeSpawner's, ours, both, of this hub or another."""
    annotations: dict[str, str] = {}
    labels: dict[str, str] = {}
    if draw(st.booleans()):
        labels |= {"component": draw(st.sampled_from(["singleuser-storage", "extra-pvc"]))}
    if draw(st.booleans()):
        annotations[marks.KUBESPAWNER_USER] = draw(st.sampled_from(["alice", "bob"]))
        server = draw(st.sampled_from(["", "gpu", "old"]))
        annotations |= {marks.KUBESPAWNER_SERVER: server} if server else {}
    if draw(st.booleans()):
        owner = draw(st.sampled_from(PEOPLE))
        annotations |= owner.annotations("jhub-safety")
        labels |= owner.labels()
        if draw(st.booleans()):
            annotations[marks.SUPERSEDES] = draw(st.sampled_from(NAMES))
        if draw(st.integers(0, 3)) == 0:
            annotations[marks.RELEASED] = "by an operator"
    elif draw(st.integers(0, 3)) == 0:
        labels |= hub_label(draw(st.sampled_from([HUB, "other"])))
    return annotations, labels


@st.composite
def claims(draw: st.DrawFn) -> list[Claim]:
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=6))
    return [
        claim(
            name,
            *draw(written()),
            deleting=draw(st.integers(0, 7)) == 0,
            phase=draw(st.sampled_from(["Bound", "Bound", "Bound", "Pending", "Lost"])),
            volume_phase=draw(st.sampled_from(["", "", "", "Bound", "Released", "Failed"])),
        )
        for name in names
    ]


@st.composite
def questions(draw: st.DrawFn) -> Question:
    owner = draw(st.sampled_from([person for person in PEOPLE if person.hub == HUB]))
    shared = draw(st.booleans())
    return question(
        owner.of_user() if shared else owner,
        saved=draw(st.sampled_from([None, None, *NAMES])),
        declared=draw(st.lists(st.sampled_from(sorted(BUILT_IN)), unique=True, max_size=3)),
        configured=SHARED if shared else None,
        per_server=not shared,
        former_users=draw(st.sampled_from([(), (), ("bob",), ("alice", "al")])),
        forgotten=draw(st.integers(0, 3)) == 0,
    )


def names_somebody_else(asked: Question, found: Claim) -> bool:
    """Written apart from the code: what must never be mounted for *asked*.owner."""
    owner, texts = asked.owner, found.annotations
    users = {owner.user}
    on_record = asked.saved == found.name and not asked.forgotten
    if on_record:
        users |= set(asked.former_users)
    if found.labels.get(marks.HUB_LABEL, label_value(HUB)) != label_value(HUB):
        return True
    if marks.RELEASED in texts or found.labels.get("component") == "extra-pvc":
        return True
    if marks.USER in texts:
        known = (texts.get(marks.IDENTITY), owner.identity_digest)
        same = texts[marks.USER] in users if None in known else known[0] == known[1]
        return not same or texts[marks.SERVER] != owner.server
    if marks.KUBESPAWNER_USER in texts:
        # The record, or one home for all servers, may outweigh the server that made it.
        same_server = texts.get(marks.KUBESPAWNER_SERVER, "") == owner.server
        return texts[marks.KUBESPAWNER_USER] not in users or not (
            same_server or on_record or not asked.per_server
        )
    return False


def comparable(decision: Decision) -> Decision:
    return replace(decision, claims=tuple(sorted(decision.claims, key=lambda each: each.name)))


@given(questions(), claims(), st.sampled_from(["", "HTTP 503"]), st.data())
def test_an_incomplete_observation_never_creates(asked, found, fault, data):
    absent = data.draw(st.sets(st.sampled_from(NAMES)))
    observed = Observation(seen(*found).claims, fault=fault, absent=frozenset(absent))
    decision = decide(asked, observed)
    assert decision.verdict is not Verdict.CREATE
    assert fault in decision.why or decision.row != "incomplete"


@given(questions(), claims(), st.booleans())
def test_a_claim_that_names_somebody_else_is_never_taken(asked, found, complete):
    decision = decide(asked, seen(*found, complete=complete))
    if decision.verdict in TAKES:
        assert decision.claim in found
        assert decision.claim.name == decision.name
        assert not names_somebody_else(asked, decision.claim)


@given(questions(), claims(), st.booleans())
def test_a_claim_that_goes_away_is_never_taken(asked, found, complete):
    decision = decide(asked, seen(*found, complete=complete))
    if decision.verdict in TAKES:
        assert not decision.claim.deleting
        assert decision.claim.phase != "Lost"
        assert decision.claim.volume_phase not in ("Released", "Failed")


@given(questions(), claims())
def test_a_name_that_is_in_use_is_never_created(asked, found):
    decision = decide(asked, seen(*found))
    if decision.verdict is Verdict.CREATE:
        assert decision.name in (asked.own_name, *asked.spare_names)
        assert decision.name not in {each.name for each in found}


@given(questions(), claims())
def test_none_is_created_while_one_names_this_owner(asked, found):
    """However many there are and whatever their state: then it is theirs, or an operator's."""
    mine = ours(asked.owner, "claim-of-their-own")
    assert decide(asked, seen(*found, mine)).verdict is not Verdict.CREATE


@given(questions(), claims(), st.booleans(), st.data())
def test_a_working_user_is_never_taken_down(asked, found, complete, data):
    """On record, annotated and healthy: mounted, whatever else there is."""
    name = data.draw(st.sampled_from(NAMES))
    asked = replace(asked, saved=name, forgotten=False)
    others = [each for each in found if each.name != name]
    decision = decide(asked, seen(*others, ours(asked.owner, name), complete=complete))
    assert (decision.verdict, decision.name) == (Verdict.MOUNT, name)


@given(questions(), claims(), st.data())
def test_the_order_of_the_claims_does_not_matter(asked, found, data):
    """An API server lists by name, a cache by nothing."""
    shuffled = data.draw(st.permutations(found))
    one, two = decide(asked, seen(*found)), decide(asked, seen(*shuffled))
    assert comparable(one) == comparable(two)


@given(questions(), claims())
def test_looking_only_at_what_the_index_gives_decides_the_same(asked, found):
    """The index spares a thousand logins the other 19,999 claims; it must never spare one."""
    chosen = ClaimIndex(found).about(asked)
    assert comparable(decide(asked, seen(*chosen.values()))) == comparable(
        decide(asked, seen(*found))
    )


@given(questions(), claims(), claims())
def test_the_index_shows_what_has_become_of_a_claim(asked, before, after):
    """Noted after a write or a read: old annotations find it no longer."""
    index = ClaimIndex(before)
    for each in after:
        index.put(each)
    now = {each.name: each for each in [*before, *after]}
    assert len(index) == len(now)
    assert index.about(asked) == ClaimIndex(now.values()).about(asked)
