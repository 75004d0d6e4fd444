"""A full volume: the database gets its reserve, its user deletes rows, nothing is lost."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from tests.cluster.database_starts import (
    BY_OPTIONS,
    Stored,
    begin,
    check_told_everywhere,
    counted,
    make_stored,
    rows,
    sql_until_up,
)
from tests.cluster.databases import (
    POSTGRES_IMAGE,
    CommandFailed,
    LabPod,
    light_with_databases,
)
from tests.cluster.hubs import Hub, Setup
from tests.cluster.volumes_on_node import (
    digests,
    node_pid,
    small_file_system,
)
from tools.cluster import ClusterInfo

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.asyncio(loop_scope="module"),
]


#: Fits into 64 MiB.
SMALL = {
    "env": {"POSTGRES_INITDB_ARGS": "--wal-segsize=1"},
    "args": ["-c", "max_wal_size=4MB", "-c", "min_wal_size=2MB"],
    "reserve_mib": 4,
}
SMALL_MIB = 64
#: What a server has said is in the pod's status until its next restart: to be seen before that.
OFTEN = """
c.KubeSpawner.poll_interval = 5
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(space, hub_factory, cluster, database_images) -> Hub:
    node_pid(cluster)
    database_images(POSTGRES_IMAGE)
    extra = light_with_databases(cluster) + BY_OPTIONS + OFTEN
    made = await hub_factory(space, Setup(extra=extra))
    await made.start()
    return made


# A full volume


async def test_a_full_volume_gives_its_reserve_keeps_its_rows_and_grows(
    hub: Hub, cluster: ClusterInfo, tmp_path_factory
):
    template = tmp_path_factory.mktemp("full")
    full = await make_stored(hub, cluster, "fullton", template, SMALL)
    reserve = full.volume / ".jhub-safety-reserve"
    async with small_file_system(cluster, full.volume, SMALL_MIB):
        await begin(hub, full.user, SMALL)
        assert reserve.stat().st_size == 4 * 1024 * 1024
        written = await _fill(hub, full)
        assert not reserve.exists()
        # The user deletes rows in the very lab in which it happened.
        pod = await LabPod.of(hub.space, full.user)
        assert await sql_until_up(pod, "SELECT count(*) FROM kept") == "1000"
        assert int(await sql_until_up(pod, "SELECT count(*) FROM filling")) >= written > 0
        assert "disk-full" in await counted(hub) or await _told_by_a_poll(hub, full.user)
        # Few at once: what is deleted is logged first, page by page. Then what needs no room.
        await sql_until_up(pod, "DELETE FROM filling WHERE n IN (SELECT n FROM filling LIMIT 50)")
        await sql_until_up(pod, "TRUNCATE filling")
        await hub.stop_lab(full.user)

        # With room again, the reserve is made again.
        await begin(hub, full.user, SMALL)
        async with asyncio.timeout(30):
            while not reserve.exists():
                await asyncio.sleep(0.1)
        await hub.stop_lab(full.user)

        # It is full when the lab is stopped.
        _fill_up(full.volume / "ballast")
        told = await begin(hub, full.user, {**SMALL, "capacity": "2Gi"})
        assert told.ready
        check_told_everywhere(told, "disk-full", "of 64 MiB used", full.claim)
        assert "capacity (2Gi)" in told.log[0]
        assert await rows(hub, full.user) == "1000"
        await hub.stop_lab(full.user)
        # What was configured is asked for.
        asked = (await hub.space.claim(full.claim)).spec.resources.requests["storage"]
        assert asked == "2Gi"

        # Without a reserve and without room: told, nothing lost.
        _fill_up(full.volume / "ballast")
        before = digests(full.volume / "data")
        told = await begin(hub, full.user, SMALL)
        assert told.ready
        if told.counted:
            check_told_everywhere(told, "full", "its volume is full", full.claim)
            await hub.stop_lab(full.user)
            assert digests(full.volume / "data") == before
        else:
            assert await rows(hub, full.user) == "1000"
            await hub.stop_lab(full.user)
        (full.volume / "ballast").unlink()
        told = await begin(hub, full.user, SMALL)
        assert (told.ready, told.counted) == (True, {})
        assert await rows(hub, full.user) == "1000"
        await hub.stop_lab(full.user)


def _fill_up(file: Path) -> None:
    with file.open("ab", buffering=0) as ballast:
        try:
            while True:
                ballast.write(b"x" * 65536)
        except OSError:
            return


async def _fill(hub: Hub, full: Stored) -> int:
    """Insert until the server has ended by itself and is up again; the rows that it took."""
    pod = await LabPod.of(hub.space, full.user)
    await pod.sql("CREATE TABLE filling (n serial, text text)")
    # Nothing of the log is used again: with checkpoints quick enough a server that writes more of
    # it never ended, and this waited for that.
    await pod.sql("SELECT pg_create_physical_replication_slot('all', true)")
    written, rows_at_once = 0, 400
    one = (
        "INSERT INTO filling (text) SELECT string_agg(md5(random()::text), '') FROM "
        f"generate_series(1, 400), generate_series(1, {rows_at_once}) AS number GROUP BY number"
    )
    # The latter: the server's container is between two runs.
    with suppress(CommandFailed, aiohttp.WSServerHandshakeError):
        while True:
            await pod.sql(one)
            written += rows_at_once
    # A table that cannot grow is an error; a write-ahead log that cannot is the server's end.
    async with asyncio.timeout(120):
        while (full.volume / ".jhub-safety-reserve").exists():
            with suppress(CommandFailed, aiohttp.WSServerHandshakeError):
                await pod.sql(
                    "SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000000)) "
                    "FROM generate_series(1, 64)"
                )
            await asyncio.sleep(0.1)
    await sql_until_up(pod, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    await sql_until_up(pod, "CHECKPOINT")
    return written


async def _told_by_a_poll(hub: Hub, user: str) -> bool:
    """The hub looks at each lab every few seconds."""
    async with asyncio.timeout(60):
        while not (hub.log_lines("Database postgres of", user, "The reserve has been given")):
            await asyncio.sleep(0.5)
    return json.dumps(await counted(hub)).count("disk-full") == 1
