"""A private database server per user, whose data really survives: with real labs, and psql."""

from __future__ import annotations

import asyncio
from datetime import datetime

import pytest
import pytest_asyncio

from tests.cluster.databases import (
    POSTGRES,
    POSTGRES_IMAGE,
    WAS_CLEAN,
    WAS_UNCLEAN,
    CommandFailed,
    LabPod,
    assert_ended_cleanly,
    begin_writing,
    check_what_was_written,
    psql,
    with_databases,
)
from tests.cluster.hubs import Hub, Setup

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.hub,
    pytest.mark.asyncio(loop_scope="module"),
]

OFTEN_POLLED = "c.KubeSpawner.poll_interval = 2\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(space, hub_factory, database_images) -> Hub:
    database_images(POSTGRES_IMAGE)
    made = await hub_factory(space, Setup(extra=with_databases() + OFTEN_POLLED, real_labs=True))
    await made.start()
    return made


async def test_a_row_is_there_after_the_lab_was_stopped_and_started(hub: Hub):
    await hub.start_lab("ada")
    await psql(hub, "ada", "CREATE TABLE kept (n int); INSERT INTO kept VALUES (42)")
    first = await (await LabPod.of(hub.space, "ada")).log()
    await hub.stop_lab("ada")
    await hub.start_lab("ada")
    assert await psql(hub, "ada", "SELECT n FROM kept") == "42"

    assert "PostgreSQL init process complete" in first or "initdb" in first
    second = await (await LabPod.of(hub.space, "ada")).log()
    assert WAS_CLEAN in second
    assert "initdb" not in second
    assert "PostgreSQL init process complete" not in second
    await hub.stop_lab("ada")


async def test_copy_works_both_ways_with_files_of_the_home(hub: Hub):
    await hub.start_lab("cora")
    async with await hub.login("cora") as cora:
        await cora.write_file("in.csv", b"1,one\n2,two\n")
        await psql(
            hub,
            "cora",
            "CREATE TABLE numbers (n int, word text);"
            "COPY numbers FROM '/home/jovyan/in.csv' WITH (FORMAT csv);"
            "COPY (SELECT word, n FROM numbers ORDER BY n DESC)"
            " TO '/home/jovyan/out.csv' WITH (FORMAT csv)",
        )
        assert await cora.read_file("out.csv") == b"two,2\none,1\n"
    await hub.stop_lab("cora")


async def test_no_committed_row_is_lost_with_a_node(hub: Hub):
    if hub.cluster.volumes is None:
        pytest.skip("the node's processes are not on this machine")
    await hub.start_lab("dora")
    await (await LabPod.of(hub.space, "dora")).sql("CREATE TABLE kept (round int, n int)")
    for round_ in range(3):
        pod = await LabPod.of(hub.space, "dora")
        await begin_writing(pod, round_, rows=50 * (round_ + 1))
        await pod.lose_its_node()
        await hub.stop_lab("dora")
        await hub.start_lab("dora")
        after = await LabPod.of(hub.space, "dora")
        assert WAS_UNCLEAN in await after.log()
        await check_what_was_written(after, range(round_ + 1))
    await hub.stop_lab("dora")


async def _listening(pod: LabPod) -> set[str]:
    """Addresses of all listening TCP sockets of a pod, as /proc writes them."""
    text = await pod.run(POSTGRES, "sh", "-c", "cat /proc/net/tcp /proc/net/tcp6")
    rows = [line.split() for line in text.splitlines()]
    return {row[1] for row in rows if row[3] == "0A"}


async def test_nobody_but_the_lab_itself_reaches_its_server(hub: Hub):
    await asyncio.gather(hub.start_lab("eve"), hub.start_lab("finn"))
    eve, finn = [await LabPod.of(hub.space, name) for name in ("eve", "finn")]
    port = f":{5432:04X}"
    assert {one for one in await _listening(eve) if one.endswith(port)} == {f"0100007F{port}"}

    address = (await eve.read())["status"]["podIP"]
    ask = ["psql", "-AXtqc", "SELECT 1", "-U", "jovyan", "-d", "jovyan", "-h"]
    assert (await finn.run("notebook", *ask, "127.0.0.1")).strip() == "1"
    with pytest.raises(CommandFailed, match=rf'"{address}"[\s\S]*refused'):
        await finn.run("notebook", *ask, address)
    await asyncio.gather(hub.stop_lab("eve"), hub.stop_lab("finn"))


async def test_the_lab_ends_first_and_then_its_server_gets_a_signal_of_its_own(hub: Hub):
    await hub.start_lab("gina")
    pod = await LabPod.of(hub.space, "gina")
    seen: dict[str, str] = {}

    async def watch() -> None:
        while (found := await pod.read()) is not None:
            both = found["status"]["initContainerStatuses"] + found["status"]["containerStatuses"]
            for one in both:
                if ended := one["state"].get("terminated"):
                    seen[one["name"]] = ended["finishedAt"]
            await asyncio.sleep(0.02)

    async with pod.followed() as lines:
        watching = asyncio.ensure_future(watch())
        await hub.stop_lab("gina")
        await watching
    assert_ended_cleanly(lines)
    asked = next(line for line in reversed(lines) if "fast shutdown" in line)
    # The cluster's times are whole seconds, cut off; the server's are UTC.
    assert datetime.fromisoformat(seen["notebook"]).replace(tzinfo=None) <= datetime.fromisoformat(
        asked[: len("2026-11-21 18:50:10.156")]
    )
    assert seen["notebook"] <= seen.get(POSTGRES, seen["notebook"])


async def test_a_lab_that_ends_by_itself_ends_its_database_cleanly(hub: Hub):
    await hub.start_lab("hans")
    pod = await LabPod.of(hub.space, "hans")
    await psql(hub, "hans", "CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)")
    async with pod.followed() as lines:
        async with await hub.login("hans") as hans:
            await hans.enter_lab()
            # What File, Shut Down does.
            await hans._json("POST", hans._lab("", "api/shutdown"))
        await pod.until_gone()
    assert_ended_cleanly(lines)
    async with await hub.login("hans") as hans, asyncio.timeout(30):
        while not await hans._gone(""):
            await asyncio.sleep(0.2)
    await hub.start_lab("hans")
    assert WAS_CLEAN in await (await LabPod.of(hub.space, "hans")).log()
    assert await psql(hub, "hans", "SELECT n FROM kept") == "7"
    await hub.stop_lab("hans")


async def test_a_lab_taken_up_after_a_lost_hub_database_keeps_its_database(hub: Hub):
    """It is the last test here: the hub forgets everybody."""
    await hub.start_lab("ida")
    pod = await LabPod.of(hub.space, "ida")
    await psql(hub, "ida", "CREATE TABLE kept (n int); INSERT INTO kept VALUES (9)")
    began = await pod.sql("SELECT pg_postmaster_start_time()")
    await hub.lose_the_database()
    await hub.start_lab("ida")

    assert await LabPod.of(hub.space, "ida") == pod
    assert await pod.sql("SELECT pg_postmaster_start_time()") == began
    async with pod.followed() as lines:
        await hub.stop_lab("ida")
    assert_ended_cleanly(lines)
    await hub.start_lab("ida")
    assert await psql(hub, "ida", "SELECT n FROM kept") == "9"
    await hub.stop_lab("ida")
