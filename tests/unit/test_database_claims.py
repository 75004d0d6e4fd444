"""A database whose claim cannot be had: the lab starts, and its people are told."""

from __future__ import annotations

import asyncio

import pytest

from jhub_safety.databases import DatabasesMixin
from jhub_safety.errors import Doubt
from jhub_safety.hubdb.records import VOLUMES
from jhub_safety.owner import Owner
from jhub_safety.refused import SpawnRefused
from tests.unit import test_extras
from tests.unit.test_extras import ALICE, ours

place = test_extras.place

NAME = "db-{username}"
POSTGRES = {"kind": "postgres", "claim": NAME, "capacity": "1Gi"}
QUOTA = Doubt("HTTP 403 exceeded quota: storage", status=403, retryable=False)


@pytest.fixture(autouse=True)
def _own_tasks(monkeypatch):
    monkeypatch.setattr(DatabasesMixin, "_telling", set())


def gone(place):
    return {"state": {"pod_name": "x", VOLUMES: {NAME: "db-alice"}}}


def terminating(place):
    place.cluster.put(ours(name="db-alice", volume=NAME, deleting=True))
    return {}


def taken(place):
    place.cluster.put(ours(Owner("other", "alice"), name="db-alice", volume=NAME))
    return {}


def over_quota(place):
    place.cluster.faults["create"] = [QUOTA]
    return {}


CASES = [gone, terminating, taken, over_quota]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_a_claim_that_is_only_a_databases_keeps_no_lab_from_starting(
    place,
    caplog,
    case,
):
    more = case(place)
    before = dict(place.cluster.stored)
    made = await place.settle(databases=[POSTGRES], extra_pvcs=[], **more)
    await asyncio.gather(*made._telling)
    assert made._left_out == {"postgres"}
    assert made._extras == ()
    assert place.cluster.stored == before
    [notice] = made._notices.values()
    assert (notice.code, notice.database, notice.down) == ("volume", "postgres", True)
    assert "Nothing was lost" in notice.said
    assert "alice" not in notice.said
    assert "Run: " in notice.remedy
    assert f"To do: {notice.remedy}" in caplog.text
    assert "Server of alice not started" not in caplog.text


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"databases": [POSTGRES | {"required": True}]}, id="required"),
        pytest.param(
            {"databases": [POSTGRES], "extra_pvcs": [{"name": NAME, "capacity": "1Gi"}]},
            id="an extra volume that a database uses",
        ),
        pytest.param({"extra_pvcs": [{"name": NAME, "capacity": "1Gi"}]}, id="no database"),
    ],
)
async def test_what_else_is_on_a_claim_is_not_hidden(place, case, settings, caplog):
    more = case(place)
    with pytest.raises(SpawnRefused):
        await place.settle(**{"extra_pvcs": []} | settings, **more)
    assert caplog.text.count("Server of alice not started") == 1


async def test_a_doubt_that_may_pass_is_tried_again_with_the_database(place):
    place.cluster.faults["create"] = [Doubt("HTTP 503")] * 9
    with pytest.raises(SpawnRefused) as refused:
        await place.settle(databases=[POSTGRES], extra_pvcs=[])
    assert refused.value.retryable


async def test_of_two_databases_only_the_one_without_a_claim_is_left_out(place):
    mysql = {"kind": "mysql", "claim": "mysql-{username}", "capacity": "1Gi"}
    place.cluster.put(ours(name="db-alice", volume=NAME, deleting=True))
    place.cluster.put(ours(ALICE, name="mysql-alice", volume="mysql-{username}"))
    made = await place.settle(databases=[POSTGRES, mysql], extra_pvcs=[])
    assert made._left_out == {"postgres"}
    assert [one.claim for one in made._extras] == ["mysql-alice"]
