"""Faults of databases: the lab starts, what is wrong is told, the data stays as it is."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.cluster.database_starts import (
    BY_OPTIONS,
    Stored,
    begin,
    check_told_everywhere,
    events_of,
    make_stored,
    rows,
    sql_until_up,
)
from tests.cluster.databases import (
    POSTGRES,
    POSTGRES_IMAGE,
    CommandFailed,
    LabPod,
    database_claim,
    light_with_databases,
)
from tests.cluster.hubs import Hub, Setup
from tests.cluster.volumes_on_node import (
    digests,
    empty,
    node_pid,
    owners,
    put_back,
    volume_on_node,
)
from tools.cluster import ClusterInfo

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(space, hub_factory, cluster, database_images) -> Hub:
    node_pid(cluster)
    database_images(POSTGRES_IMAGE)
    extra = light_with_databases(cluster) + BY_OPTIONS
    made = await hub_factory(space, Setup(extra=extra))
    await made.start()
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stored(hub: Hub, cluster: ClusterInfo, tmp_path_factory) -> Stored:
    template = tmp_path_factory.mktemp("stored")
    return await make_stored(hub, cluster, "ada", template)


@pytest_asyncio.fixture(loop_scope="module")
async def whole(hub: Hub, stored: Stored) -> Stored:
    """As after a clean stop, whatever the test before has done."""
    async with await hub.login(stored.user) as client:
        model = await client.server()
        if model is not None and not model["stopped"]:
            await client.stop_server()
    put_back(stored.template, stored.volume)
    return stored


# What may be in a data folder


def _other_version(data: Path) -> None:
    (data / "PG_VERSION").write_text("14\n")


def _no_version(data: Path) -> None:
    (data / "PG_VERSION").unlink()


def _something_else(data: Path) -> None:
    empty(data)
    (data / "thesis.tex").write_text("not a database")


def _lost_and_found(data: Path) -> None:
    empty(data)
    (data / "lost+found").mkdir(mode=0o700)


def _a_file(data: Path) -> None:
    shutil.rmtree(data)
    data.write_text("a file")


def _moved_away(data: Path) -> None:
    data.rename(data.with_name("moved"))


def _a_link(data: Path) -> None:
    data.rename(data.with_name("moved"))
    data.symlink_to("moved")


def _control_corrupt(data: Path) -> None:
    control = data / "global" / "pg_control"
    content = bytearray(control.read_bytes())
    content[40] ^= 0x55
    control.write_bytes(content)


def _control_of_another_build(data: Path) -> None:
    control = data / "global" / "pg_control"
    control.write_bytes(bytes(one ^ 0x55 for one in control.read_bytes()))


def _control_truncated(data: Path) -> None:
    os.truncate(data / "global" / "pg_control", 100)


def _control_missing(data: Path) -> None:
    (data / "global" / "pg_control").unlink()


def _log_missing(data: Path) -> None:
    for one in (data / "pg_wal").iterdir():
        if one.is_file():
            one.unlink()


@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        pytest.param(_other_version, "version", "written by version 14", id="another version"),
        pytest.param(_no_version, "unknown-data", "is incomplete", id="no PG_VERSION"),
        pytest.param(_something_else, "unknown-data", "left as it is", id="something else"),
        pytest.param(_lost_and_found, "unknown-data", "left as it is", id="lost+found in it"),
        pytest.param(_a_file, "unknown-data", "left as it is", id="a file in its place"),
        pytest.param(_moved_away, "missing-data", "No new one was put", id="moved away"),
        pytest.param(_a_link, "link", "Nothing was followed", id="a link in its place"),
        pytest.param(_control_corrupt, "corrupt", "are damaged", id="control file spoiled"),
        pytest.param(
            _control_of_another_build, "incompatible", "another build", id="control file of another"
        ),
        pytest.param(_control_truncated, "corrupt", "are damaged", id="control file cut off"),
        pytest.param(_control_missing, "corrupt", "are damaged", id="control file missing"),
        pytest.param(_log_missing, "corrupt", "are damaged", id="write-ahead log missing"),
    ],
)
async def test_the_lab_starts_what_is_wrong_is_told_and_the_data_stays_as_it_is(
    hub: Hub, whole: Stored, spoil: Callable[[Path], None], code: str, words: str
):
    spoil(whole.data)
    before = digests(whole.volume)
    told = await begin(hub, whole.user)
    assert told.ready
    check_told_everywhere(told, code, words, whole.claim)
    await hub.stop_lab(whole.user)
    assert digests(whole.volume) == before


@pytest.mark.parametrize(
    ("entry", "code", "words"),
    [
        pytest.param({"args": ["-c", "shared_buffers=lots"]}, "args", "arguments", id="arguments"),
        pytest.param(
            {"image": "localhost/none:1", "startup_deadline": 3},
            "pull",
            "cannot be had",
            id="image",
        ),
        pytest.param({"image": "BUSYBOX"}, "image", "not the programs", id="programs"),
        pytest.param(
            {"resources": {"limits": {"memory": "12Mi"}, "requests": {}}},
            "killed",
            "killed",
            id="memory",
        ),
    ],
)
async def test_an_entry_that_cannot_run_gives_the_lab_and_the_reason(
    hub: Hub, cluster: ClusterInfo, whole: Stored, entry: dict[str, Any], code: str, words: str
):
    given = {k: cluster.init_image if v == "BUSYBOX" else v for k, v in entry.items()}
    before = digests(whole.volume)
    told = await begin(hub, whole.user, given)
    assert told.ready
    check_told_everywhere(told, code, words, whole.claim)
    await hub.stop_lab(whole.user)
    assert digests(whole.volume) == before


async def test_a_server_that_takes_longer_than_its_deadline_is_told_and_comes_all_the_same(
    hub: Hub,
):
    told = await begin(hub, "tardy", {"startup_deadline": 1})
    assert told.ready
    assert told.counted == {"late": 1.0}
    assert "had not answered after 1 s" in told.said()[0]
    pod = await LabPod.of(hub.space, "tardy")
    assert await sql_until_up(pod, "SELECT 1") == "1"
    await hub.stop_lab("tardy")


#: Half a gigabyte, sorted in memory.
_SORT = (
    "SET work_mem = '2GB'; SELECT max(text) FROM ("
    "SELECT repeat(md5(n::text), 32) AS text FROM generate_series(1, 500000) AS n"
    " ORDER BY 1 OFFSET 1) AS sorted"
)


async def test_a_server_that_the_kernel_kills_for_want_of_memory_comes_back_with_every_row(
    hub: Hub, whole: Stored
):
    entry = {
        "resources": {"limits": {"memory": "128Mi"}},
        # With cgroup 2 all of a container's processes are killed together. With cgroup 1 it is
        # the session alone, after which PostgreSQL would begin anew within its container.
        "args": ["-c", "restart_after_crash=off"],
    }
    told = await begin(hub, whole.user, entry)
    assert (told.ready, told.counted) == (True, {})
    pod = await LabPod.of(hub.space, whole.user)
    before, mark = await pod.statuses(), len(hub.log_text())
    assert before[POSTGRES]["restartCount"] == 0
    await pod.sql("INSERT INTO kept SELECT generate_series(1001, 1100)")

    with pytest.raises((CommandFailed, aiohttp.ClientError)):
        await pod.sql(_SORT)

    async with asyncio.timeout(120):
        while (await pod.statuses())[POSTGRES]["restartCount"] == 0:
            await asyncio.sleep(0.2)
    # Nobody does anything: the server is back.
    assert await sql_until_up(pod, "SELECT count(*), max(n) FROM kept") == "1100|1100"
    after = await pod.statuses()
    assert after[POSTGRES]["lastState"]["terminated"]["reason"] == "OOMKilled"
    assert after["notebook"]["containerID"] == before["notebook"]["containerID"]
    assert after["notebook"]["ready"]
    # The hub looks at each lab every 30 s.
    async with asyncio.timeout(60):
        while not hub.log_lines("Database postgres of", "it was killed", since=mark):
            await asyncio.sleep(0.5)
    [line] = hub.log_lines("Database postgres of", since=mark)
    assert whole.claim in line
    assert "raise resources.limits.memory" in line
    async with asyncio.timeout(20):
        while not (events := await events_of(hub, whole.claim, "DatabaseKilled")):
            await asyncio.sleep(0.1)
    assert "it was killed" in events[-1].message
    assert await rows(hub, whole.user) == "1100"
    await hub.stop_lab(whole.user)


@pytest.mark.parametrize(
    ("spoil", "entry", "code"),
    [
        pytest.param(_other_version, {}, "version", id="another version"),
        pytest.param(_control_missing, {}, "corrupt", id="control file missing"),
        pytest.param(
            lambda _: None, {"image": "localhost/none:1", "startup_deadline": 3}, "pull", id="image"
        ),
    ],
)
async def test_a_server_that_is_required_refuses_the_start_and_its_data_stays_as_it_is(
    hub: Hub, whole: Stored, spoil: Callable[[Path], None], entry: dict[str, Any], code: str
):
    spoil(whole.data)
    before = digests(whole.volume)
    mark = len(hub.log_text())
    told = await begin(hub, whole.user, {**entry, "required": True})
    assert not told.ready
    assert any("Your server was not started: your database postgres" in one for one in told.page)
    assert hub.log_lines("not started: database postgres, which is required", since=mark)
    assert told.counted == {code: 1.0}
    async with asyncio.timeout(60):
        while f"jupyter-{whole.user}" in await hub.space.pods():
            await asyncio.sleep(0.2)
    assert digests(whole.volume) == before


# Before there is a server


async def test_a_start_has_its_own_time_after_a_servers_deadline(hub: Hub, whole: Stored):
    """As with KubeSpawner's default of 60 s, which is also that of a server."""
    # It takes the kubelet more than 12 s to say that there is no such image.
    entry = {"image": "localhost/none:1", "startup_deadline": 20}
    told = await begin(hub, whole.user, entry, start_timeout=20)
    assert told.ready, told.page
    check_told_everywhere(told, "pull", "cannot be had", whole.claim)
    await hub.stop_lab(whole.user)


async def test_a_claim_that_is_gone_gives_the_lab_and_no_new_database(hub: Hub):
    assert (await begin(hub, "gina")).ready
    pod = await LabPod.of(hub.space, "gina")
    claim = await database_claim(hub.space, pod)
    await hub.stop_lab("gina")
    await hub.space._core.delete_namespaced_persistent_volume_claim(claim, hub.space.name)
    await hub.space.until_gone(claim)

    told = await begin(hub, "gina")
    assert told.ready
    check_told_everywhere(told, "volume", "its volume cannot be had", claim)
    (line,) = told.log
    assert f"Run: jhub-safety claims forget {claim} --user=gina" in line
    assert claim not in await hub.space.uids()
    spec = (await (await LabPod.of(hub.space, "gina")).read())["spec"]
    assert [one["name"] for one in spec["containers"]] == ["notebook"]
    await hub.stop_lab("gina")


# What is mended by itself


def _open_to_the_group(data: Path) -> None:
    for one in (data, *data.rglob("*")):
        one.chmod(0o2775 if one.is_dir() else 0o664)


def _of_another_account(data: Path) -> None:
    for one in (data.parent, *data.parent.rglob("*")):
        os.chown(one, 999, 999)


def _lost_and_found_beside(data: Path) -> None:
    (data.parent / "lost+found").mkdir(mode=0o700)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(_open_to_the_group, id="open to the group, as by an fsGroup"),
        pytest.param(_of_another_account, id="of the image's account"),
        pytest.param(_lost_and_found_beside, id="lost+found in the volume's root"),
    ],
)
async def test_a_folder_that_can_be_mended_is_and_its_rows_are_there(
    hub: Hub, whole: Stored, spoil: Callable[[Path], None]
):
    spoil(whole.data)
    told = await begin(hub, whole.user)
    assert (told.ready, told.said(), told.counted) == (True, [], {})
    assert await rows(hub, whole.user) == "1000"
    await hub.stop_lab(whole.user)


async def test_a_folder_of_another_account_is_told_where_ownership_is_off(hub: Hub, whole: Stored):
    _of_another_account(whole.data)
    before, owned = digests(whole.volume), owners(whole.volume)
    told = await begin(hub, whole.user, ownership="off")
    assert told.ready
    check_told_everywhere(told, "permission", "cannot be written to", whole.claim)
    await hub.stop_lab(whole.user)
    assert (digests(whole.volume), owners(whole.volume)) == (before, owned)


# A first start that was cut off


async def test_a_first_start_that_was_cut_off_is_made_again_and_what_was_made_is_kept(
    hub: Hub, cluster: ClusterInfo
):
    starting = asyncio.ensure_future(begin(hub, "cut"))
    volume = await _until_half_made(hub, cluster, "cut")
    pod = await LabPod.of(hub.space, "cut")
    # Stopped first: what comes after the killed ones moves the folder at once.
    stopped: set[int] = set()
    while new := _all_but_pause(pod) - stopped:
        _signal(new, signal.SIGSTOP)
        stopped |= new
    async with asyncio.timeout(30):
        while any(_runs(pid) for pid in stopped):
            await asyncio.sleep(0.01)
    half = digests(volume / "data")
    assert half
    _signal(stopped, signal.SIGKILL)

    told = await starting
    assert told.ready
    # That it was killed may have been seen before the kubelet ran it again.
    assert told.counted.pop("half-made") == 1.0
    assert set(told.counted) <= {"killed"}
    assert any("had been cut off" in one for one in told.said())
    async with asyncio.timeout(60):
        while not (volume / ".jhub-safety-version").exists():
            await asyncio.sleep(0.1)
    assert await pod.sql("SELECT 1") == "1"
    await hub.stop_lab("cut")
    assert digests(volume / "data.half-made") == half


def _all_but_pause(pod: LabPod) -> set[int]:
    """The pod's own first process ends with the pod only."""
    found = set()
    for pid in pod.processes():
        with suppress(OSError):
            if (Path("/proc") / str(pid) / "comm").read_text().strip() != "pause":
                found.add(pid)
    return found


def _runs(pid: int) -> bool:
    """Also what was told to stop, and is in the middle of a write."""
    try:
        state = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("T", "t", "Z", "X")


def _signal(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(OSError):
            os.kill(pid, number)


async def _until_half_made(hub: Hub, cluster: ClusterInfo, user: str) -> Path:
    """The volume, in which initdb is at work."""
    async with asyncio.timeout(90):
        while True:
            claims = [one for one in await hub.space.uids() if one.startswith(f"postgres-{user}-")]
            if claims and (await hub.space.claim(claims[0])).spec.volume_name:
                break
            await asyncio.sleep(0.05)
        volume = await volume_on_node(cluster, hub.space, claims[0])
        while not (volume / "data" / "base" / "1" / "1259").exists():
            await asyncio.sleep(0.01)
    return volume
