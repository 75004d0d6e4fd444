"""Stops and starts under a writer, many times over: no row that was committed is lost."""

from __future__ import annotations

import asyncio
import os

import pytest

from tests.cluster.databases import (
    POSTGRES_IMAGE,
    WAS_CLEAN,
    WAS_UNCLEAN,
    LabPod,
    begin_writing,
    check_what_was_written,
    light_with_databases,
)
from tests.cluster.hubs import Hub, Setup
from tools.testing import SOAK

pytestmark = [pytest.mark.cluster, pytest.mark.asyncio(loop_scope="module")]

#: Names that need escaping are no less safe.
WRITERS = ("ada", "bob.b@school.edu", "c" * 70)
#: Stops and starts of all writers together.
CYCLES = 201 if os.environ.get(SOAK) else 30


@pytest.mark.timeout(3600 if os.environ.get(SOAK) else 600)
async def test_no_committed_row_is_lost_over_many_stops_and_starts(
    cluster, space, hub_factory, database_images
):
    """`make soak` does 201, `make test` 30."""
    database_images(POSTGRES_IMAGE)
    hub = await hub_factory(space, Setup(extra=light_with_databases(cluster)))
    await hub.start()
    async with asyncio.TaskGroup() as group:
        for user in WRITERS:
            group.create_task(_written_over(hub, user, CYCLES // len(WRITERS)))


async def _written_over(hub: Hub, user: str, cycles: int) -> None:
    await hub.start_lab(user)
    pod = await LabPod.of(hub.space, user)
    await pod.sql("CREATE TABLE kept (round int, n int)")
    for round_ in range(cycles):
        await begin_writing(pod, round_)
        await hub.stop_lab(user)
        await hub.start_lab(user)
        pod = await LabPod.of(hub.space, user)
        log = await pod.log()
        assert (WAS_CLEAN in log, WAS_UNCLEAN in log) == (True, False)
        await check_what_was_written(pod, range(round_ + 1))
    await hub.stop_lab(user)
