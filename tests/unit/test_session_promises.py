"""What holds for any observation whatever, as sessions, labs, routes and memory may disagree."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from hypothesis import given
from hypothesis import strategies as st

from jhub_safety.sessions.decide import decide
from jhub_safety.sessions.model import (
    Lab,
    LabIdentity,
    LabState,
    Listing,
    Live,
    Observation,
    Rules,
    Server,
    Session,
    Verdict,
)
from tests.unit.given import HUB, NAMESPACE, any_text
from tests.unit.session_given import TARGET, WORDS

SERVERS = tuple(Server(user, name) for user in ("ada", "bob", "🦊") for name in ("", "gpu"))
LABS = tuple(f"lab{number}" for number in range(6))
UIDS = ("uid-1", "uid-2")
SECONDS = st.sampled_from([0.0, 30.0, 61.0, 4000.0, 1e6])
servers = st.sampled_from(SERVERS)
labs = st.builds(
    Lab,
    name=st.just(""),
    state=st.sampled_from(LabState),
    words=st.sampled_from(sorted(WORDS.values())),
    ready=st.booleans(),
    ip=st.sampled_from(["", "10.88.0.7", "10.88.0.8", "fd00::7"]),
)
lives = st.builds(
    Live, pending=st.sampled_from(["", "spawn", "stop", "check", "rename"]), ready=st.booleans()
)
identities = st.builds(
    LabIdentity,
    uid=st.sampled_from(UIDS),
    namespace=st.sampled_from([NAMESPACE, "other"]),
    server=st.none() | servers,
    hub=st.sampled_from([None, HUB, "staging"]),
)
rules = st.builds(
    Rules,
    orphans=st.sampled_from(["report", "relink", "delete"]),
    orphan_age=SECONDS,
    pending_limit=SECONDS,
    deletions=st.integers(0, 3),
)


def _lab(one: Lab, name: str) -> Lab:
    return Lab(name, one.state, one.words, one.ready, NAMESPACE, one.ip)


@st.composite
def observations(draw: st.DrawFn) -> Observation:
    sessions = tuple(
        Session(server, draw(st.sampled_from(["", *LABS])), NAMESPACE, "10.88.0.7:8888")
        for server in draw(st.lists(servers, unique=True))
    )
    listed = {
        name: tuple(_lab(one, name) for one in draw(st.lists(labs, min_size=1, max_size=2)))
        for name in draw(st.lists(st.sampled_from(LABS), unique=True))
    }
    named = {one.lab for one in sessions}
    whose = {}
    for name in listed:
        if name not in named:
            for identity in draw(st.lists(identities, max_size=2)):
                whose[identity.namespace, name] = identity
    return Observation(
        sessions,
        Listing(MappingProxyType(listed)),
        draw(st.none() | st.dictionaries(servers, lives)),
        draw(st.none() | st.dictionaries(servers, st.sampled_from([TARGET, "", "http://x"]))),
        MappingProxyType(whose),
        draw(st.none() | st.frozensets(st.sampled_from(["ada", "bob", "🦊"]))),
        due=frozenset(draw(st.sets(servers))),
        over_cap=draw(st.booleans()),
        pending_for=draw(st.dictionaries(servers, SECONDS)),
        orphan_for={(space, name, one.uid): draw(SECONDS) for (space, name), one in whose.items()},
    )


def _of(seen: Observation) -> dict[Server, Session]:
    return {one.server: one for one in seen.sessions}


@given(observations(), rules)
def test_nothing_of_another_hub_or_of_nobody_is_ever_acted_upon(seen, policy):
    for action in decide(seen, policy, HUB).plan.actions:
        if action.kind in ("delete-lab", "relink-lab"):
            whose = seen.identities[action.namespace, action.name]
            assert whose.hub in (None, HUB)
            assert whose.server == Server(action.user, action.server)
            assert whose.uid == action.uid
            assert action.name not in {one.lab for one in seen.sessions}
        elif action.kind != "check-routes":
            assert _of(seen)[Server(action.user, action.server)].lab == action.name


@given(observations(), rules)
def test_nothing_is_relinked_to_a_user_whom_the_hub_does_not_know(seen, policy):
    for action in decide(seen, policy, HUB).plan.actions:
        if action.kind == "relink-lab" and seen.users is not None:
            assert action.user in seen.users


@given(observations(), rules)
def test_no_session_is_cleared_whose_lab_is_listed_alive(seen, policy):
    for action in decide(seen, policy, HUB).plan.actions:
        if action.kind == "clear-session":
            listed = seen.listing.labs.get(action.name, ())
            assert action.name
            assert not any(one.alive for one in listed)
            assert not any(one.state is LabState.TERMINATING for one in listed)
            assert listed or Server(action.user, action.server) in seen.due


@given(observations(), rules)
def test_what_the_hub_is_busy_with_is_left_to_it(seen, policy):
    """But for a check that waits for a lab which never gets a node."""
    for action in decide(seen, policy, HUB).plan.actions:
        if action.kind != "check-routes":
            live = (seen.live or {}).get(Server(action.user, action.server), Live())
            assert live.pending in ("", "check")
            assert action.kind == "stop-server" or not live.pending


@given(observations(), rules)
def test_a_plan_has_at_most_one_action_for_each_server_and_few_deletions(seen, policy):
    plan = decide(seen, policy, HUB).plan
    # Two labs of one server are never acted upon.
    about = [(one.user, one.server) for one in plan.actions]
    assert len(about) == len(set(about))
    assert sum(one.kind == "delete-lab" for one in plan.actions) <= policy.deletions
    assert [one.kind for one in plan.actions[:-1]].count("check-routes") == 0


@given(observations(), rules)
def test_nothing_is_left_out_of_the_count(seen, policy):
    named = {one.lab for one in seen.sessions}
    unnamed = [name for name in seen.listing.labs if name not in named]
    judged = decide(seen, policy, HUB)
    whole = decide(seen, policy, HUB, everything=True)
    routes = [one for one in whole.findings if one.session is None and one.lab is None]
    assert sum(judged.counts.values()) == len(seen.sessions) + len(unnamed) + len(routes)
    assert len(whole.findings) == sum(whole.counts.values())
    assert judged.counts == whole.counts
    assert judged.counts.get(Verdict.IN_STEP, 0) + len(judged.findings) == len(whole.findings)


@given(observations(), rules)
def test_what_is_shown_does_not_change_what_is_done(seen, policy):
    assert decide(seen, policy, HUB).plan == decide(seen, policy, HUB, everything=True).plan


@given(observations(), rules, st.randoms(use_true_random=False))
def test_the_order_of_the_records_does_not_matter(seen, policy, random):
    """Only which orphans are within the cap depends on it."""
    sessions = list(seen.sessions)
    random.shuffle(sessions)
    shuffled = replace(seen, sessions=tuple(sessions))
    one, other = decide(seen, policy, HUB), decide(shuffled, policy, HUB)
    assert one.counts == other.counts
    assert set(map(str, one.plan.actions)) == set(map(str, other.plan.actions))
    assert set(one.plan.refusals) == set(other.plan.refusals)


@given(observations(), rules)
def test_an_empty_listing_with_nothing_due_clears_nothing(seen, policy):
    empty = Observation(seen.sessions, Listing({}), seen.live, seen.routes, due=frozenset())
    plan = decide(empty, policy, HUB).plan
    assert {one.kind for one in plan.actions} <= {"check-routes"}


@given(observations(), rules)
def test_while_no_hub_runs_nothing_is_said_of_routes(seen, policy):
    down = Observation(seen.sessions, seen.listing, None, seen.routes, seen.identities)
    judged = decide(down, policy, HUB)
    assert not {Verdict.ROUTE_DEAD, Verdict.ROUTE_MISSING} & set(judged.counts)
    assert all(one.kind != "check-routes" for one in judged.plan.actions)


@given(observations(), rules)
def test_a_doubtful_record_is_never_acted_upon(seen, policy):
    judged = decide(seen, policy, HUB, everything=True)
    acted = {(one.user, one.server, one.name) for one in judged.plan.actions}
    for finding in judged.findings:
        if finding.verdict in (
            Verdict.DOUBT,
            Verdict.NODE_LOST,
            Verdict.TERMINATING,
            Verdict.UNREACHABLE,
            Verdict.TWO_LABS,
            Verdict.BUSY,
            Verdict.IN_STEP,
        ):
            server = finding.server or Server("")
            names = {finding.session.lab} if finding.session else set()
            names |= {finding.lab.name} if finding.lab else set()
            assert not {(server.user, server.name, name) for name in names} & acted


@given(any_text, st.one_of(st.just(""), any_text), any_text)
def test_any_name_is_carried_whole_into_the_plan(user, name, lab):
    """Names are hostile input: nothing is cut, joined or split on the way."""
    server = Server(user, name)
    seen = Observation((Session(server, lab, NAMESPACE),), Listing({}), due=frozenset({server}))
    (action,) = decide(seen, Rules(), HUB).plan.actions
    assert (action.user, action.server, action.name) == (user, name, lab)
