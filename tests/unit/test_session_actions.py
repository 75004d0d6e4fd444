"""Each action reads its target again before it touches it, and keeps none of the others back."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime

import pytest

from jhub_safety import metrics
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.journal import Journal
from jhub_safety.plan import Action, Plan
from jhub_safety.sessions.act import Executor, Outcome
from jhub_safety.sessions.model import Live, Server
from jhub_safety.sessions.presence import Presence, Sighting
from tests.unit.given import NAMESPACE
from tests.unit.session_doubles import HubDouble, InventoryDouble, pod
from tests.unit.session_given import ADA, BOB, CAROL, GPU, Clock, lab_name, session

LOG = logging.getLogger("tests.unit.actions")
GONE = Sighting(Presence.GONE)
LATER = datetime(2026, 11, 22, 1, tzinfo=UTC)


@pytest.fixture
def hub():
    return HubDouble().has(ADA, GPU, BOB)


@pytest.fixture
def inventory():
    return InventoryDouble(Clock())


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "journal", log=LOG)


@pytest.fixture
def executor(hub, inventory, journal):
    return Executor(hub, inventory, journal, LOG)


def action(kind: str, server: Server = ADA, **fields) -> Action:
    given = {"name": lab_name(server), "namespace": NAMESPACE, "reason": "as planned"} | fields
    if kind in ("relink-lab", "delete-lab"):
        given.setdefault("uid", f"uid-of-{given['name']}")
    return Action(kind, user=server.user, server=server.name, **given)


async def run(executor: Executor, *actions: Action, on_word: bool = False) -> list[str]:
    outcomes = await executor.execute(Plan("test", actions, on_word=on_word))
    assert tuple(one.action for one in outcomes) == actions
    return [one.outcome for one in outcomes]


SERVERS = {ADA, GPU, BOB}


# -- clear-session


@pytest.mark.parametrize(
    ("sighting", "told"),
    [
        (GONE, "it was deleted"),
        (
            Sighting(Presence.ENDED, pod(ADA, phase="Failed", reason="Evicted")),
            "its node ran out of room (Evicted)",
        ),
        (
            Sighting(Presence.ENDED, pod(ADA, reason="OOMKilled", exit_code=137)),
            "it used more memory than it may (OOMKilled, exit code 137)",
        ),
        (
            Sighting(Presence.ENDED, pod(ADA, phase="Succeeded", exit_code=0)),
            "it ended (Succeeded)",
        ),
    ],
    ids=["gone", "evicted", "out of memory", "completed"],
)
async def test_a_session_whose_lab_is_gone_is_cleared_and_its_end_is_told(
    executor, hub, inventory, sighting, told
):
    inventory.sightings = [sighting]
    assert await run(executor, action("clear-session")) == ["done"]
    # What is left of a lab that has ended is cleared away with it.
    ended = sighting.presence is Presence.ENDED
    assert hub.did == [("clear-ended" if ended else "clear", "ada", told)]
    assert set(hub.rows) == SERVERS - {ADA}


@pytest.mark.parametrize(
    "sighting",
    [
        Sighting(Presence.ALIVE, pod(ADA)),
        Sighting(Presence.ALIVE, pod(ADA, phase="Pending")),
        Sighting(Presence.TERMINATING, pod(ADA, deleting=True)),
        Sighting(Presence.DOUBT, why="HTTP 503"),
    ],
    ids=["alive again", "pending", "terminating", "doubt"],
)
async def test_a_session_is_kept_unless_its_lab_is_gone_or_ended(
    executor, hub, inventory, sighting
):
    inventory.sightings = [sighting]
    (outcome,) = await run(executor, action("clear-session"))
    assert outcome.startswith("unchanged: lab ")
    assert sighting.why in outcome
    assert (hub.did, set(hub.rows)) == ([], SERVERS)


CHANGED = {
    "ended": lambda hub: hub.rows.pop(ADA),
    "another lab": lambda hub: hub.rows.update({ADA: session(ADA, lab="jupyter-ada-2")}),
    "another namespace": lambda hub: hub.rows.update({ADA: session(ADA, namespace="other")}),
    # Its lab is called as the one before.
    "started anew": lambda hub: hub.rows.update({ADA: session(ADA, started=LATER)}),
    "no lab on record": lambda hub: hub.rows.update({ADA: session(ADA, lab="")}),
}


@pytest.mark.parametrize("kind", ["clear-session", "stop-server", "end-session"])
@pytest.mark.parametrize("change", CHANGED)
async def test_a_session_that_has_changed_since_is_left_alone(
    executor, hub, inventory, kind, change
):
    inventory.sightings = [GONE] * 3
    hub.meanwhile = lambda _: CHANGED[change](hub) if ADA in hub.rows else None
    (outcome,) = await run(executor, action(kind))
    assert outcome == "unchanged: that session has ended"
    assert hub.did == []


@pytest.mark.parametrize("pending", ["spawn", "stop", "check", "rename"])
async def test_a_session_that_the_hub_is_busy_with_is_not_cleared(
    executor, hub, inventory, pending
):
    inventory.sightings = [GONE]
    hub.memory[ADA] = Live(pending)
    assert await run(executor, action("clear-session")) == ["unchanged: the hub is busy with it"]
    assert hub.did == []


# -- stop-server


@pytest.mark.parametrize(
    ("sighting", "stopped"),
    [
        (Sighting(Presence.ALIVE, pod(ADA, phase="Pending")), True),
        (Sighting(Presence.ALIVE, pod(ADA)), False),
        (Sighting(Presence.ENDED, pod(ADA, phase="Failed")), False),
        (GONE, False),
        (Sighting(Presence.ALIVE), False),
        (Sighting(Presence.DOUBT, why="HTTP 503"), False),
    ],
    ids=["pending", "running now", "ended", "gone", "nothing is said of it", "doubt"],
)
async def test_a_server_is_stopped_only_while_its_lab_is_pending(
    executor, hub, inventory, sighting, stopped
):
    inventory.sightings = [sighting]
    (outcome,) = await run(executor, action("stop-server"))
    assert hub.did == ([("stop", "ada", "as planned")] if stopped else [])
    assert outcome == "done" if stopped else outcome.startswith("unchanged: ")


async def test_a_lab_that_is_pending_and_being_deleted_is_waited_for(executor, hub, inventory):
    inventory.sightings = [Sighting(Presence.TERMINATING, pod(ADA, phase="Pending", deleting=True))]
    (outcome,) = await run(executor, action("stop-server"))
    assert outcome.startswith("unchanged: ")
    assert hub.did == []


@pytest.mark.parametrize("pending", ["spawn", "stop", "rename"])
async def test_a_server_that_the_hub_is_busy_with_is_not_stopped(executor, hub, inventory, pending):
    inventory.sightings = [Sighting(Presence.ALIVE, pod(ADA, phase="Pending"))]
    hub.memory[ADA] = Live(pending)
    assert await run(executor, action("stop-server")) == ["unchanged: the hub is busy with it"]
    assert hub.did == []


# -- orphans


async def test_an_orphan_is_relinked_by_its_uid(executor, hub, inventory):
    inventory.orphan(CAROL)
    assert await run(executor, action("relink-lab", CAROL)) == ["done"]
    assert hub.did == [("relink", "carol", "jupyter-carol", "uid-of-jupyter-carol")]


async def test_an_orphan_is_deleted_by_its_uid(executor, hub, inventory):
    inventory.orphan(CAROL)
    inventory.runs(ADA)
    assert await run(executor, action("delete-lab", CAROL)) == ["done"]
    assert inventory.deleted == [("jupyter-carol", "uid-of-jupyter-carol")]
    assert set(inventory.live) == {"jupyter-ada"}
    assert hub.did == []


@pytest.mark.parametrize("kind", ["relink-lab", "delete-lab"])
@pytest.mark.parametrize(
    "since",
    [
        lambda hub: hub.has(CAROL),
        lambda hub: hub.memory.update({CAROL: Live("spawn")}),
        lambda hub: hub.memory.update({CAROL: Live("stop")}),
    ],
    ids=["has a session", "being started", "being stopped"],
)
async def test_an_orphan_whose_server_has_come_to_life_is_left_to_it(
    executor, hub, inventory, kind, since
):
    inventory.orphan(CAROL)
    since(hub)
    assert await run(executor, action(kind, CAROL)) == ["unchanged: the server has a session"]
    assert (hub.did, inventory.deleted) == ([], [])


async def test_a_lab_that_took_over_the_name_is_not_deleted(executor, inventory):
    inventory.orphan(CAROL)
    (outcome,) = await run(executor, action("delete-lab", CAROL, uid="uid-before"))
    assert outcome == "failed: lab jupyter-carol is another one"
    assert "jupyter-carol" in inventory.live


# -- by an operator's word


@pytest.mark.parametrize(
    ("sighting", "did"),
    [
        (GONE, ("clear", "ada", "it was deleted")),
        (Sighting(Presence.ALIVE, pod(ADA)), ("stop", "ada", "an administrator ended it")),
        (
            Sighting(Presence.TERMINATING, pod(ADA, deleting=True)),
            ("stop", "ada", "an administrator ended it"),
        ),
        (
            Sighting(Presence.ENDED, pod(ADA, phase="Failed")),
            ("clear-ended", "ada", "it ended (Failed)"),
        ),
    ],
    ids=["gone", "alive", "terminating", "ended"],
)
async def test_an_operator_ends_a_session_whatever_its_lab_is(
    executor, hub, inventory, sighting, did
):
    inventory.sightings = [sighting]
    assert await run(executor, action("end-session")) == ["done"]
    assert hub.did == [did]
    assert inventory.trusted == ["jupyter-ada"]


async def test_an_operator_ends_no_session_in_doubt(executor, hub, inventory):
    inventory.doubt = Doubt("HTTP 503")
    assert await run(executor, action("end-session")) == ["failed: HTTP 503"]
    assert (hub.did, set(hub.rows)) == ([], SERVERS)


async def test_an_operator_ends_a_session_that_names_no_lab_without_a_look(
    executor, hub, inventory
):
    hub.rows[ADA] = session(ADA, lab="")
    inventory.doubt = Doubt("GET /pods/ is no lab")
    assert await run(executor, action("end-session", name="")) == ["done"]
    assert hub.did == [("clear", "ada", "an administrator ended it")]


@pytest.mark.parametrize("on_word", [True, False])
async def test_only_an_operators_word_stands_for_sightings(executor, hub, inventory, on_word):
    (outcome,) = await run(executor, action("clear-session"), on_word=on_word)
    assert outcome == "done" if on_word else outcome.startswith("unchanged: lab doubt")
    assert inventory.trusted == (["jupyter-ada"] if on_word else [])
    assert set(hub.rows) == SERVERS - ({ADA} if on_word else set())


async def test_even_on_an_operators_word_a_live_lab_is_kept(executor, hub, inventory):
    inventory.runs(ADA)
    (outcome,) = await run(executor, action("clear-session"), on_word=True)
    assert outcome == "unchanged: lab alive"
    assert set(hub.rows) == SERVERS


async def test_what_hangs_is_given_up(executor, hub):
    hub.memory[ADA] = Live("spawn")
    assert await run(executor, action("unstick")) == ["done: given up"]
    assert await run(executor, action("unstick")) == ["unchanged: the hub is not busy with it"]


async def test_a_user_is_forgotten_only_without_sessions(executor, hub):
    (outcome,) = await run(executor, action("forget-user"))
    assert outcome.startswith("failed: ada still has")
    assert "ada" in hub.users
    hub.rows.clear()
    assert await run(executor, action("forget-user")) == ["done"]
    assert hub.users == {"bob"}


async def test_routes_are_checked_by_the_hub(executor, hub):
    assert await run(executor, Action("check-routes", "", "proxy", "")) == ["done"]
    assert hub.did == [("check-routes",)]


# -- all of them


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Conflict("it has changed"), "failed: it has changed"),
        (Doubt("HTTP 503"), "failed: HTTP 503"),
        # Text that nobody knows may hold a token.
        (RuntimeError("token s3cr3t"), "failed: RuntimeError"),
        (KeyError("bob"), "failed: KeyError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
async def test_one_items_error_keeps_none_of_the_others_back(
    executor, hub, inventory, journal, error, outcome
):
    inventory.sightings = [GONE] * 3
    hub.faults = {"bob": error}
    actions = [action("clear-session", server) for server in (ADA, BOB, GPU)]
    assert await run(executor, *actions) == ["done", outcome, "done"]
    assert set(hub.rows) == {BOB}
    lines = [json.loads(line) for line in journal.path.read_text().splitlines()]
    assert [(one["user"], one["server"], one["outcome"]) for one in lines] == [
        ("ada", "", "done"),
        ("bob", "", outcome),
        ("ada", "gpu", "done"),
    ]


async def test_a_cancelled_action_is_no_error_of_the_item(executor, hub, inventory, journal):
    """The hub shuts down: the rest is not begun."""
    inventory.sightings = [GONE] * 2
    hub.faults = {"ada": asyncio.CancelledError()}
    with pytest.raises(asyncio.CancelledError):
        await run(executor, action("clear-session"), action("clear-session", BOB))
    assert set(hub.rows) == SERVERS


async def test_a_plan_that_runs_again_after_a_crash_comes_to_the_same(executor, hub, inventory):
    inventory.orphan(CAROL)
    inventory.absences.take_word(f"{NAMESPACE}/jupyter-ada")
    plan = [action("clear-session"), action("delete-lab", CAROL)]
    assert await run(executor, *plan) == ["done", "done"]
    left = (dict(hub.rows), dict(inventory.live), list(hub.did))
    outcomes = await run(executor, *plan)
    assert outcomes[0] == "unchanged: that session has ended"
    assert (dict(hub.rows), dict(inventory.live), list(hub.did)) == left


def counted(outcome: str) -> float:
    return metrics.SESSION_ACTIONS.labels(kind="clear-session", outcome=outcome)._value.get()


async def test_each_change_is_journalled_as_it_was_planned_and_counted(
    executor, inventory, journal
):
    before = counted("done")
    inventory.sightings = [GONE]
    one = action("clear-session")
    (outcome,) = await executor.execute(Plan("test", (one,)))
    (line,) = map(json.loads, journal.path.read_text().splitlines())
    assert line == {"time": line["time"], "outcome": "done", **one.record()}
    assert counted("done") == before + 1
    assert outcome.record() == {**one.record(), "outcome": "done"}


async def test_what_a_look_took_back_is_counted_and_is_no_line_of_the_journal(
    executor, inventory, journal
):
    """Some looks come out so at every pass: a sidecar has ended, and its lab runs on."""
    before = counted("unchanged")
    inventory.runs(ADA)
    assert await run(executor, action("clear-session")) == ["unchanged: lab alive"]
    assert counted("unchanged") == before + 1
    assert not journal.path.exists()


def test_only_a_failed_outcome_has_failed():
    one = action("unstick")
    assert [Outcome(one, text).failed for text in ("done", "unchanged: x", "failed: x")] == [
        False,
        False,
        True,
    ]
