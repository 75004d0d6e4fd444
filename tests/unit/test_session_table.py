"""The table of docs/sessions.md row by row: what three records say together, and what follows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from jhub_safety.plan import Plan
from jhub_safety.sessions.decide import decide
from jhub_safety.sessions.model import (
    LabState,
    Listing,
    Live,
    Observation,
    Rules,
    Server,
    Verdict,
)
from tests.unit.given import HUB
from tests.unit.session_given import (
    ADA,
    ADDRESS,
    BOB,
    GPU,
    READY,
    TARGET,
    identity,
    lab,
    observed,
    session,
    up,
)

ONE = (session(),)
DUE = frozenset({ADA})
LIMIT = Rules().pending_limit
LONG = {ADA: LIMIT + 1}
ENDED, PENDING = LabState.ENDED, LabState.PENDING


@dataclass(frozen=True)
class Case:
    id: str
    seen: Observation
    verdict: Verdict
    #: Kinds of the plan's actions, and codes of its refusals.
    actions: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()


def down(*labs: Any, **fields: Any) -> Observation:
    return observed(*labs, sessions=ONE, **fields)


def running(*labs: Any, pending: str = "", **fields: Any) -> Observation:
    """A hub runs, and its proxy answers."""
    return up(down(*labs), pending=pending, **fields)


def unserved(*labs: Any, **fields: Any) -> Observation:
    """A hub that has the session on record, and not in memory."""
    return running(*labs, live={}, **fields)


WITHOUT_HUB = [
    Case("lab runs", down(lab()), Verdict.IN_STEP),
    Case("no lab on record", observed(sessions=(session(lab=""),)), Verdict.DOUBT),
    Case(
        "labs in two namespaces",
        down(lab(), replace(lab(), namespace="other")),
        Verdict.DOUBT,
    ),
    Case("no lab", down(), Verdict.STALE, (), ("sightings",)),
    Case("no lab, due", down(due=DUE), Verdict.STALE, ("clear-session",)),
    Case("no lab, over the cap", down(over_cap=True), Verdict.STALE, (), ("cap",)),
    Case(
        "no lab, over the cap, third sighting",
        down(over_cap=True, due=DUE),
        Verdict.STALE,
        ("clear-session",),
    ),
    Case("terminating", down(lab(state=LabState.TERMINATING)), Verdict.TERMINATING),
    Case("ended", down(lab(state=ENDED)), Verdict.ENDED, ("clear-session",)),
    Case("node lost", down(lab(state=LabState.LOST), due=DUE), Verdict.NODE_LOST),
    Case("pending", down(lab(state=PENDING)), Verdict.BUSY),
    Case("pending, at the limit", down(lab(state=PENDING), pending_for={ADA: LIMIT}), Verdict.BUSY),
    Case(
        "pending too long",
        down(lab(state=PENDING), pending_for=LONG),
        Verdict.PENDING_TOO_LONG,
        ("stop-server",),
    ),
    Case("not ready", down(lab(ready=False)), Verdict.UNREACHABLE),
    Case("at another address", down(lab(ip="10.88.0.8")), Verdict.UNREACHABLE),
]

WITH_HUB = [
    Case("lab runs", running(lab()), Verdict.IN_STEP),
    Case("lab runs, routes not known", running(lab(), routes=None), Verdict.IN_STEP),
    Case("no lab on record", up(observed(sessions=(session(lab=""),))), Verdict.DOUBT),
    Case(
        "no lab on record, starting",
        up(observed(sessions=(session(lab=""),)), pending="spawn"),
        Verdict.BUSY,
    ),
    Case("two namespaces", running(lab(), replace(lab(), namespace="b")), Verdict.DOUBT),
    Case("no lab", running(), Verdict.STALE, (), ("sightings",)),
    Case("no lab, due", running(due=DUE), Verdict.STALE, ("clear-session",)),
    Case(
        "no lab, due, routes not known",
        running(due=DUE, routes=None),
        Verdict.STALE,
        ("clear-session",),
    ),
    Case("no lab, due, not in memory", unserved(due=DUE), Verdict.STALE, ("clear-session",)),
    Case("no lab, over the cap", running(over_cap=True), Verdict.STALE, (), ("cap",)),
    *(
        Case(f"no lab, due, pending {pending}", running(due=DUE, pending=pending), Verdict.BUSY)
        for pending in ("spawn", "stop", "check", "rename")
    ),
    Case("terminating", running(lab(state=LabState.TERMINATING)), Verdict.TERMINATING),
    Case("ended", running(lab(state=ENDED)), Verdict.ENDED, ("clear-session",)),
    *(
        Case(f"ended, pending {pending}", running(lab(state=ENDED), pending=pending), Verdict.ENDED)
        for pending in ("spawn", "stop", "check")
    ),
    Case("node lost", running(lab(state=LabState.LOST), pending_for=LONG), Verdict.NODE_LOST),
    Case("pending", running(lab(state=PENDING), pending="check"), Verdict.BUSY),
    Case(
        "pending too long, nothing waits for it",
        running(lab(state=PENDING), pending_for=LONG),
        Verdict.PENDING_TOO_LONG,
        ("stop-server",),
    ),
    Case(
        "pending too long, only the check waits for it",
        running(lab(state=PENDING), pending_for=LONG, pending="check"),
        Verdict.PENDING_TOO_LONG,
        ("stop-server",),
    ),
    *(
        Case(
            f"pending too long, pending {pending}",
            running(lab(state=PENDING), pending_for=LONG, pending=pending),
            Verdict.PENDING_TOO_LONG,
        )
        for pending in ("spawn", "stop")
    ),
    *(
        Case(f"lab runs, pending {pending}", running(lab(), pending=pending), Verdict.BUSY)
        for pending in ("spawn", "stop", "rename")
    ),
    Case(
        "lab runs, pending stop for too long",
        running(lab(), pending="stop", pending_for=LONG),
        Verdict.PENDING_TOO_LONG,
    ),
    Case("lab runs, being checked", running(lab(), pending="check"), Verdict.UNREACHABLE),
    Case("not ready", running(lab(ready=False)), Verdict.UNREACHABLE),
    Case("at another address", running(lab(ip="10.88.0.8")), Verdict.UNREACHABLE),
    Case("lab runs, not served", unserved(lab()), Verdict.UNREACHABLE),
    Case("no route", running(lab(), routes={}), Verdict.ROUTE_MISSING, ("check-routes",)),
    Case(
        "route elsewhere",
        running(lab(), routes={ADA: "http://10.88.0.9:8888"}),
        Verdict.ROUTE_DEAD,
        ("check-routes",),
    ),
]


def shape(plan: Plan) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(one.kind for one in plan.actions), tuple(one.code for one in plan.refusals)


@pytest.mark.parametrize("everything", [False, True], ids=["what differs", "everything"])
@pytest.mark.parametrize(
    "case",
    [
        *(pytest.param(case, id=f"hub down: {case.id}") for case in WITHOUT_HUB),
        *(pytest.param(case, id=f"hub runs: {case.id}") for case in WITH_HUB),
    ],
)
def test_a_session_gets_the_verdict_and_the_action_of_its_row(case: Case, everything: bool):
    judged = decide(case.seen, Rules(), HUB, everything=everything)
    assert judged.counts == {case.verdict: 1}
    assert shape(judged.plan) == (case.actions, case.refusals)
    if case.verdict is Verdict.IN_STEP and not everything:
        assert judged.findings == ()
    else:
        (finding,) = judged.findings
        assert (finding.verdict, finding.server, finding.session) == (
            case.verdict,
            case.seen.sessions[0].server,
            case.seen.sessions[0],
        )
        assert finding.why or case.verdict is Verdict.IN_STEP


def test_every_verdict_of_a_session_has_a_case():
    tested = {case.verdict for case in (*WITHOUT_HUB, *WITH_HUB)}
    # A lab without a session: test_session_orphans.py.
    assert tested == set(Verdict) - {Verdict.ORPHAN, Verdict.TWO_LABS, Verdict.FOREIGN}


@pytest.mark.parametrize("state", [PENDING, LabState.RUNNING])
def test_a_limit_of_0_is_none(state):
    seen = running(lab(state=state), pending="stop", pending_for={ADA: 10 * LIMIT})
    assert decide(seen, Rules(pending_limit=0), HUB).counts == {Verdict.BUSY: 1}


ADDRESSES = {
    "the same": (ADDRESS, "10.88.0.7", True),
    "another": (ADDRESS, "10.88.0.8", False),
    "a service's name": ("jupyter-ada.labs:8888", "10.88.0.7", True),
    "not on record": ("", "10.88.0.7", True),
    "not listed": (ADDRESS, "", True),
    "IPv6, in brackets": ("[fd00::7]:8888", "fd00::7", True),
    "IPv6, written otherwise": ("[fd00:0:0::7]:8888", "fd00::7", True),
    "IPv6, another": ("[fd00::7]:8888", "fd00::8", False),
}


@pytest.mark.parametrize("case", ADDRESSES)
def test_an_address_differs_only_when_two_ips_do(case):
    address, ip, same = ADDRESSES[case]
    seen = observed(lab(ip=ip), sessions=(session(address=address),))
    verdict = Verdict.IN_STEP if same else Verdict.UNREACHABLE
    assert decide(seen, Rules(), HUB).counts == {verdict: 1}


ROUTES = {
    "as CHP gives it": (TARGET, Verdict.IN_STEP),
    "with a slash": (f"{TARGET}/", Verdict.IN_STEP),
    "with TLS": (f"https://{ADDRESS}", Verdict.IN_STEP),
    "another port": ("http://10.88.0.7:8889", Verdict.ROUTE_DEAD),
    "a longer port": (f"{TARGET}8", Verdict.ROUTE_DEAD),
    "another host": ("http://110.88.0.7:8888", Verdict.ROUTE_DEAD),
    "nothing": ("", Verdict.ROUTE_DEAD),
}


@pytest.mark.parametrize("case", ROUTES)
def test_a_route_leads_to_a_session_when_host_and_port_are_the_same(case):
    target, verdict = ROUTES[case]
    assert decide(running(lab(), routes={ADA: target}), Rules(), HUB).counts == {verdict: 1}


# -- routes without a session


@pytest.mark.parametrize(
    ("live", "dead"),
    [
        (None, False),
        ({}, True),
        ({BOB: Live()}, True),
        ({BOB: READY}, False),
        ({BOB: Live("spawn")}, False),
        ({BOB: Live("stop")}, False),
    ],
    ids=["hub down", "unknown to the hub", "idle", "since started", "starting", "stopping"],
)
def test_a_route_without_a_session_is_dead_unless_the_hub_is_about_it(live, dead):
    judged = decide(Observation((), observed().listing, live, {BOB: TARGET}), Rules(), HUB)
    assert judged.counts.get(Verdict.ROUTE_DEAD, 0) == dead
    assert shape(judged.plan) == (("check-routes",) if dead else (), ())
    routes = [one.route for one in judged.findings if one.verdict is Verdict.ROUTE_DEAD]
    assert routes == ([TARGET] if dead else [])


@pytest.mark.parametrize("pending", ["spawn", "stop", "check", "rename"])
def test_what_only_the_hubs_memory_knows_is_shown_and_left_to_the_hub(pending):
    """A stop whose hook hangs has no session any more."""
    judged = decide(Observation((), Listing({}), {BOB: Live(pending)}), Rules(), HUB)
    [finding] = judged.findings
    assert (finding.verdict, finding.server) == (Verdict.BUSY, BOB)
    assert pending in finding.why
    assert not judged.plan.actions


def test_routes_are_checked_once_and_after_the_sessions():
    """Clearing one removes its route."""
    gone, other = session(BOB, address="10.0.0.2:1"), session(GPU, address="10.0.0.3:1")
    seen = up(
        observed(
            lab(), lab(GPU, ip="10.0.0.3"), sessions=(*ONE, gone, other), due=frozenset({BOB})
        ),
        routes={BOB: "http://10.0.0.2:1", Server("dan"): TARGET},
    )
    judged = decide(seen, Rules(), HUB)
    assert shape(judged.plan) == (("clear-session", "check-routes"), ())
    assert judged.counts == {Verdict.STALE: 1, Verdict.ROUTE_MISSING: 2, Verdict.ROUTE_DEAD: 1}


# -- what an action says


def test_an_action_names_exactly_whose_session_and_which_lab_it_is_about():
    gone = session(GPU)
    seen = observed(lab(), sessions=(*ONE, gone), due=frozenset({GPU}))
    (action,) = decide(seen, Rules(), HUB).plan.actions
    assert (action.kind, action.namespace, action.name, action.user, action.server) == (
        "clear-session",
        gone.namespace,
        gone.lab,
        "ada",
        "gpu",
    )


def test_over_the_cap_every_stale_session_is_refused_by_name():
    servers = [Server(f"user{number}") for number in range(5)]
    seen = observed(sessions=tuple(map(session, servers)), over_cap=True)
    plan = decide(seen, Rules(), HUB).plan
    assert plan.actions == ()
    assert [(one.code, one.who, one.retryable) for one in plan.refusals] == [
        ("cap", str(server), True) for server in servers
    ]


def test_a_lab_that_ended_is_told_with_its_reason():
    (action,) = decide(down(lab(state=ENDED, words="Evicted")), Rules(), HUB).plan.actions
    assert "Evicted" in action.reason


def test_a_session_named_by_a_lab_of_another_servers_name_is_its_own():
    """A lab is a session's by its name on record, not by its owner's."""
    taken = session(BOB, lab="jupyter-ada")
    seen = observed(lab(), sessions=(taken,), whose={"jupyter-ada": identity()})
    judged = decide(seen, Rules(), HUB, everything=True)
    assert [(one.verdict, one.server) for one in judged.findings] == [(Verdict.IN_STEP, BOB)]
