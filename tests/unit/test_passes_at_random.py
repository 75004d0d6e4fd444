"""Whatever labs, cluster and hub do between passes, who works in a lab keeps their session.

Sequences of events at random: labs die and come back, listings lie, requests fail, the hub starts
and stops servers, time passes, and passes run under every policy.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from jhub_safety.errors import Doubt
from jhub_safety.sessions.model import LabState, Live, Server
from tests.unit.session_given import READY, lab, lab_name
from tests.unit.session_stage import Stage

SERVERS = tuple(Server(f"user{number}") for number in range(5))
KNOWN, ORPHANS = SERVERS[:3], SERVERS[3:]
some = st.sampled_from(KNOWN)
events = st.one_of(
    st.tuples(st.just("lose"), some),
    st.tuples(st.just("return"), some),
    st.tuples(st.just("hide"), some),
    st.tuples(st.just("end"), some),
    st.tuples(st.just("lists as"), some, st.sampled_from(LabState)),
    st.tuples(st.just("busy"), some, st.sampled_from(["spawn", "stop", "check"])),
    st.tuples(st.just("idle"), some),
    st.tuples(st.just("empty listing")),
    st.tuples(st.just("503")),
    st.tuples(st.just("well again")),
    st.tuples(st.just("time"), st.sampled_from([1.0, 59.0, 60.0, 300.0, 4000.0])),
    st.tuples(st.just("pass")),
    st.tuples(st.just("pass")),
)


def _happens(here: Stage, event: tuple) -> None:
    kind, *rest = event
    if rest and isinstance(rest[0], Server):
        _to_a_server(here, kind, *rest)
    elif kind == "empty listing":
        here.inventory.listed.clear()
    elif kind == "503":
        here.inventory.doubt = Doubt("HTTP 503")
    elif kind == "well again":
        here.inventory.doubt = None
    elif kind == "time":
        here.clock.now += rest[0]


def _to_a_server(here: Stage, kind: str, server: Server, *what: Any) -> None:
    name, inventory = lab_name(server), here.inventory
    if kind == "lose":
        inventory.lose(server)
    elif kind == "return":
        inventory.runs(server)
    elif kind == "hide":
        inventory.listed.pop(name, None)
    elif kind == "end" and name in inventory.live:
        inventory.live[name] = replace(inventory.live[name], phase="Failed")
        inventory.listed[name] = lab(server, LabState.ENDED)
    elif kind == "lists as" and name in inventory.live:
        inventory.listed[name] = lab(server, *what)
    elif kind in ("busy", "idle") and server in here.hub.rows:
        here.hub.memory[server] = Live(*what) if what else READY


async def _run(folder: Path, sequence: list[tuple], policy: str, limit: float) -> None:
    here = Stage(folder, {"orphans": policy, "orphan_age": 60.0, "pending_limit": limit})
    here.has(*KNOWN)
    here.hub.users.update(one.user for one in ORPHANS)
    here.inventory.orphan(ORPHANS[0])
    here.inventory.orphan(ORPHANS[1], hub="staging")
    for event in sequence:
        _happens(here, event)
        if event[0] != "pass":
            continue
        alive = {one for one in KNOWN if _alive(here, one)}
        busy = {one for one in here.hub.rows if here.hub.memory[one].pending in ("spawn", "stop")}
        before, did = set(here.hub.rows), len(here.hub.did)
        with contextlib.suppress(Doubt):
            await here.reconciler.one_pass()
        lost = before - set(here.hub.rows)
        assert not lost & alive, event
        assert not lost & busy
        # Nobody's lab but an orphan of this hub is ever deleted.
        assert {name for name, _ in here.inventory.deleted} <= {lab_name(ORPHANS[0])}
        assert not any(one[0] == "stop" for one in here.hub.did[did:])
        if here.inventory.doubt is not None:
            assert before == set(here.hub.rows)
    assert lab_name(ORPHANS[1]) in here.inventory.live
    if policy == "report":
        assert lab_name(ORPHANS[0]) in here.inventory.live


def _alive(here: Stage, server: Server) -> bool:
    found = here.inventory.live.get(lab_name(server))
    return found is not None and found.alive


@settings(max_examples=300)
@given(
    st.lists(events, min_size=20, max_size=60),
    st.sampled_from(["report", "relink", "delete"]),
    st.sampled_from([0.0, 100.0]),
)
def test_a_lab_that_lives_never_loses_its_session(sequence, policy, limit):
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_run(Path(folder), sequence, policy, limit))


@settings(max_examples=60)
@given(st.lists(events, max_size=25), st.sets(some))
def test_once_all_is_quiet_sessions_are_those_of_the_labs_there_are(sequence, dead):
    """Convergence: after doubt has passed, four passes are enough, whatever happened before."""

    async def run(folder: Path) -> None:
        here = Stage(folder)
        here.has(*KNOWN)
        for event in sequence:
            _happens(here, event)
            if event[0] == "pass":
                with contextlib.suppress(Doubt):
                    await here.reconciler.one_pass()
        here.inventory.doubt = None
        for server in KNOWN:
            if server in here.hub.rows:
                here.hub.memory[server] = READY
            if server in dead:
                here.inventory.lose(server)
            else:
                here.inventory.runs(server)
        left = set(here.hub.rows) - dead
        for _ in range(4):
            await here.reconciler.one_pass()
            here.clock.now += 60.0
        assert set(here.hub.rows) == left

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))
