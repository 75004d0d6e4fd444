"""Reattaching: what is written, in which order, and that it can be killed and run again."""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import dataclass, replace

import pytest

from jhub_safety.errors import Conflict, Doubt
from jhub_safety.journal import Journal
from jhub_safety.volumes.export import pair
from jhub_safety.volumes.exported import Export
from jhub_safety.volumes.reattach import Row, Seen, decide_all
from jhub_safety.volumes.rebind import RIGHTS, Patience, execute
from jhub_safety.volumes.remake import Target
from tests.unit.cluster_double import ClusterDouble, holding
from tests.unit.given import ALICE, BOB, HUB, NAMESPACE, claim, ours
from tests.unit.volumes_double import VolumesDouble, bound, volume

NAMES = ("a", "b", "c")


class Killed(BaseException):
    """In place of SIGKILL: nothing catches it."""


@dataclass
class Time:
    """A clock that goes on only when somebody waits."""

    now: float = 0.0

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    def patience(self, limit: float = 60.0) -> Patience:
        return Patience(limit, 1.0, lambda: self.now, self.sleep)


@dataclass
class Place:
    """Three users' claims in an export, whose namespace is then lost."""

    cluster: ClusterDouble
    volumes: VolumesDouble
    export: Export
    journal: Journal
    time: Time
    create_volumes: bool = False

    async def seen(self) -> Seen:
        return Seen.of(await self.cluster.list(), await self.volumes.list())

    async def plan(self):
        seen = await self.seen()
        return decide_all(self.export, Target(NAMESPACE, HUB, self.create_volumes), seen), seen

    async def run(self, planned=None, seen=None):
        if planned is None:
            planned, seen = await self.plan()
        return await execute(
            planned,
            seen,
            self.cluster,
            self.volumes,
            self.journal,
            patience=self.time.patience(),
        )

    def bindings(self) -> dict[str, str]:
        """Volume by claim, of those that are bound to one another."""
        return {
            one.name: one.volume
            for one in self.cluster.stored.values()
            if one.phase == "Bound"
            and (one.uid, one.volume)
            in {(pv.holder.get("uid"), pv.name) for pv in self.volumes.stored.values()}
        }

    def lines(self) -> list[tuple[str, str, str]]:
        found = [json.loads(line) for line in self.journal.path.read_text().splitlines()]
        return [(line["kind"], line["name"], line["outcome"]) for line in found]


WHOLE = {name: f"pv-{name}" for name in NAMES}


@pytest.fixture
def place(tmp_path) -> Place:
    pairs = [bound(ours(ALICE, "a")), bound(ours(BOB, "b")), bound(claim("c"))]
    cluster = holding(*(one for one, _ in pairs))
    volumes = VolumesDouble(cluster).put(*(pv for _, pv in pairs))
    entries, _ = pair(cluster.stored, volumes.stored)
    export = Export("2026-11-21T18:00:00+00:00", "https://old", NAMESPACE, HUB, entries)
    journal = Journal(tmp_path / "journal", log=logging.getLogger("tests.unit.rebind"))
    volumes.lose_namespace()

    def controller(verb: str, name: str) -> None:
        if verb == "list":
            volumes.bind()

    cluster.meanwhile = controller
    return Place(cluster, volumes, export, journal, Time())


def lose_cluster(place: Place) -> None:
    place.volumes.stored.clear()
    place.create_volumes = True


async def test_every_claim_is_bound_to_the_volume_that_it_had(place: Place):
    outcomes = await place.run()
    assert place.bindings() == WHOLE
    assert Counter(one.action.kind for one in outcomes) == {
        "reserve-volume": 3,
        "create-claim": 3,
        "bind-claim": 3,
    }
    assert {one.result for one in outcomes} == {"done"}
    assert place.cluster.stored["a"].annotations == ALICE.annotations("jhub-safety")
    assert place.lines()[:3] == [
        ("reserve-volume", "pv-a", "done"),
        ("create-claim", "a", "done"),
        ("reserve-volume", "pv-b", "done"),
    ]


async def test_of_a_lost_cluster_volumes_are_made_and_then_their_claims(place: Place):
    lose_cluster(place)
    await place.run()
    assert place.bindings() == WHOLE
    assert {pv.reclaim for pv in place.volumes.stored.values()} == {"Retain"}
    assert place.lines()[:2] == [("create-volume", "pv-a", "done"), ("create-claim", "a", "done")]


async def test_what_was_done_is_not_done_again(place: Place):
    await place.run()
    planned, _ = await place.plan()
    assert {one.row for one in planned.decisions} == {Row.DONE}
    assert not planned.plan


async def test_the_same_file_serves_when_the_namespace_is_lost_a_second_time(place: Place):
    await place.run()
    place.volumes.lose_namespace()
    await place.run()
    assert place.bindings() == WHOLE


@pytest.mark.parametrize("lost", ["namespace", "cluster"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("write", range(6))
async def test_killed_at_any_write_it_is_ended_by_running_it_again(
    place: Place, lost: str, when: str, write: int
):
    """Before the write arrives, and after it did, without an answer."""
    if lost == "cluster":
        lose_cluster(place)
    count = 0
    genuine = (
        (place.cluster, "create", place.cluster.create),
        (place.volumes, "create", place.volumes.create),
        (place.volumes, "patch", place.volumes.patch),
    )

    def dying(verb):
        async def call(*arguments):
            nonlocal count
            count += 1
            if count <= write:
                return await verb(*arguments)
            if when == "after":
                await verb(*arguments)
            raise Killed

        return call

    for double, verb, call in genuine:
        setattr(double, verb, dying(call))
    with pytest.raises(Killed):
        await place.run()
    for double, verb, call in genuine:
        setattr(double, verb, call)

    outcomes = await place.run()
    assert place.bindings() == WHOLE
    assert not [one.result for one in outcomes if one.failed]


async def test_killed_while_waiting_it_is_ended_by_running_it_again(place: Place):
    place.cluster.meanwhile = lambda verb, name: None

    async def die(_: float) -> None:
        raise Killed

    place.time.sleep = die
    with pytest.raises(Killed):
        await place.run()
    place.time = Time()
    planned, seen = await place.plan()
    assert {one.row for one in planned.decisions} == {Row.WAIT}
    place.cluster.meanwhile = lambda verb, name: place.volumes.bind()
    await place.run(planned, seen)
    assert place.bindings() == WHOLE


async def test_one_entry_that_fails_does_not_stop_the_others(place: Place):
    place.volumes.faults["patch"] = [Doubt("reserving volume pv-a: HTTP 500")]
    outcomes = await place.run()
    assert place.bindings() == {"b": "pv-b", "c": "pv-c"}
    assert [(one.action.name, one.result) for one in outcomes if one.failed] == [
        ("pv-a", "failed: reserving volume pv-a: HTTP 500")
    ]
    assert "a" not in place.cluster.stored, "no claim without a volume that is reserved for it"
    await place.run()
    assert place.bindings() == WHOLE


def taken(place: Place) -> None:
    place.volumes.put(volume("pv-a", claim("thief"), phase="Bound", uid="uid-of-pv-a"))


def replaced(place: Place) -> None:
    now = place.volumes.stored["pv-a"]
    place.volumes.put(replace(now, uid="another"))


def occupied(place: Place) -> None:
    place.cluster.put(replace(claim("a"), volume="pv-new"))


def gone(place: Place) -> None:
    place.volumes.stored.pop("pv-a", None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(taken, "bound to claim thief", id="volume taken"),
        pytest.param(replaced, "not the one that was planned for", id="another volume"),
        pytest.param(occupied, "has volume pv-new", id="name taken"),
        pytest.param(gone, "is not in the cluster", id="volume gone"),
    ],
)
async def test_what_has_changed_since_the_plan_is_left_alone(place: Place, change, words):
    planned, seen = await place.plan()
    change(place)
    before = (place.volumes.stored.get("pv-a"), place.cluster.stored.get("a"))
    outcomes = await place.run(planned, seen)
    (failed,) = [one for one in outcomes if one.failed]
    assert words in failed.result
    assert (place.volumes.stored.get("pv-a"), place.cluster.stored.get("a")) == before
    assert {"b", "c"} <= set(place.bindings())


def freed(place: Place) -> None:
    """Nobody's: another claim could be bound to it first."""
    now = place.volumes.stored["pv-a"]
    spec = {key: value for key, value in now.spec.items() if key != "claimRef"}
    place.volumes.put(replace(now, phase="Available", spec=spec))


@pytest.mark.parametrize(
    "change", [taken, gone, freed], ids=["volume taken", "volume gone", "volume freed"]
)
async def test_no_claim_is_made_when_its_volume_went_between_the_two_writes(place: Place, change):
    genuine = place.volumes.patch

    async def patch(*arguments):
        answer = await genuine(*arguments)
        if answer.name == "pv-a":
            change(place)
        return answer

    place.volumes.patch = patch
    outcomes = await place.run()
    (failed,) = [one for one in outcomes if one.failed]
    assert failed.action.kind == "create-claim"
    assert set(place.cluster.stored) == {"b", "c"}


async def test_a_name_that_somebody_took_in_the_same_moment_is_no_success(place: Place):
    place.cluster.faults["create"] = [Conflict("creating claim a: already exists")]
    outcomes = await place.run()
    assert [one.result for one in outcomes if one.failed] == [
        "failed: creating claim a: already exists"
    ]


async def test_a_claim_that_is_not_bound_in_time_is_told_and_the_others_are_done(place: Place):
    genuine = place.volumes.bind

    def controller(verb: str, name: str) -> None:
        """Never binds b."""
        held = place.cluster.stored.pop("b", None)
        genuine()
        if held is not None:
            place.cluster.put(held)

    place.cluster.meanwhile = controller
    outcomes = await place.run()
    assert set(place.bindings()) == {"a", "c"}
    (failed,) = [one for one in outcomes if one.failed]
    assert "b not bound" not in failed.result
    assert failed.result == (
        "failed: not bound to volume pv-b within 60 s (Pending); nothing is lost. See: "
        "kubectl -n jupyter describe pvc b"
    )
    assert place.time.now == pytest.approx(60)


async def test_time_counts_from_the_last_claim_that_was_bound(place: Place):
    """Ten thousand claims take longer than a minute; that is no reason to give up."""

    def slow(verb: str, name: str) -> None:
        waiting = [one for one in sorted(place.cluster.stored) if one not in place.bindings()]
        if place.time.now < 50 * (4 - len(waiting)) or not waiting:
            return
        held = {name: place.cluster.stored.pop(name) for name in waiting[1:]}
        place.volumes.bind()
        place.cluster.stored |= held

    place.cluster.meanwhile = slow
    await place.run()
    assert place.bindings() == WHOLE
    assert place.time.now == pytest.approx(150)


async def test_a_listing_that_fails_while_waiting_is_asked_again(place: Place):
    planned, seen = await place.plan()
    place.cluster.faults["list"] = [Doubt("HTTP 503"), Doubt("HTTP 503")]
    await place.run(planned, seen)
    assert place.bindings() == WHOLE


async def test_without_rights_each_error_says_which_are_needed(place: Place):
    place.volumes.faults["patch"] = [
        Doubt(f'volumes "{name}" is forbidden: User "x" cannot patch resource', status=403)
        for name in NAMES
    ]
    outcomes = await place.run()
    assert [one.result.endswith(RIGHTS) for one in outcomes] == [True, True, True]
    assert place.cluster.writes() == []


async def test_a_quota_is_not_taken_for_a_missing_right(place: Place):
    place.cluster.faults["create"] = [Doubt("creating claim a: exceeded quota", status=403)]
    outcomes = await place.run()
    assert [one.result for one in outcomes if one.failed] == [
        "failed: creating claim a: exceeded quota"
    ]
