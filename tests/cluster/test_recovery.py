"""A database that was lost comes back from its newest snapshot, and from what the cluster knows."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from tests.cluster.hubs import ADMIN, QUICK, UNHURRIED, Setup
from tests.schemas import downgrade, revision

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.hub,
    pytest.mark.asyncio(loop_scope="module"),
]


def _settings(folder: Path) -> str:
    return (
        QUICK
        + UNHURRIED
        + f"""
c.DatabaseBackup.destination = "{folder.as_uri()}"
c.DatabaseGuard.on_loss = "recover"
c.DatabaseGuard.interval = 5
"""
    )


def _files(folder: Path) -> list[Path]:
    """Snapshots, and what is known of them."""
    return [one for one in folder.rglob("*.sqlite*") if one.is_file()]


def _verified(folder: Path) -> list[Path]:
    """What is written last of a snapshot."""
    return list(folder.rglob("*.verified"))


async def _until(condition, seconds: float = 180.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.2)


async def test_users_without_a_home_and_their_tokens_come_back_from_the_snapshot(
    space, hub_factory, tmp_path
):
    """The cluster alone knows nobody who never had a server, and no token."""
    folder = tmp_path / "snapshots"
    folder.mkdir()
    hub = await hub_factory(space, Setup(extra=_settings(folder)))
    await hub.start()
    async with await hub.login(ADMIN) as admin:
        await admin.api("POST", "users/homeless", {})
        token = (await admin.api("POST", f"users/{ADMIN}/tokens", {"note": "mine"}))["token"]
    await hub.start_lab("ada")
    # One is made at a start when there is none that is younger than the interval.
    await _until(lambda: _verified(folder))
    await hub.stop()
    for one in _files(folder):
        one.unlink()
    await hub.start()
    await _until(lambda: _verified(folder))
    # After it was made: the cluster knows of this one alone.
    await hub.start_lab("newcomer")
    labs = await space.pods()

    mark = len(hub.log_text())
    await hub.lose_the_database()
    await _until(lambda: hub.log_lines("running labs are sessions again", since=mark))
    assert hub.log_lines("made again", "from snapshot", since=mark)
    # What lets people in again, for an operator to look through.
    assert hub.log_lines("Token a", f"'{ADMIN}'", "'mine'", since=mark)
    headers = {"Authorization": f"token {token}"}
    async with (
        aiohttp.ClientSession(headers=headers) as client,
        client.get(f"{hub.url}/hub/api/users") as answer,
    ):
        assert answer.status == 200
        users = {one["name"]: one for one in await answer.json()}
    assert set(users) == {ADMIN, "homeless", "ada", "newcomer"}
    assert users["ada"]["server"] == "/user/ada/"
    assert users["newcomer"]["server"] == "/user/newcomer/"
    assert await space.pods() == labs
    await hub.stop_lab("ada")
    await hub.stop_lab("newcomer")


async def test_a_hub_that_upgrades_its_schema_makes_a_snapshot_first_and_serves(
    space_factory, hub_factory, tmp_path
):
    space = await space_factory()
    folder = tmp_path / "snapshots"
    folder.mkdir()
    upgrading = (
        _settings(folder)
        + """
import os, sys
# JupyterHub runs the program "alembic".
os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
c.JupyterHub.upgrade_db = True
"""
    )
    hub = await hub_factory(space, Setup(extra=upgrading))
    await hub.start()
    home = await hub.start_lab("ada")
    await _until(lambda: _verified(folder))
    labs = await space.pods()
    await hub.stop()
    url = f"sqlite:///{hub.database}"
    newest = revision(url)
    before = {*_verified(folder)}

    assert downgrade(url) != newest
    mark = len(hub.log_text())
    await hub.start()
    assert revision(url) == newest
    (made,) = {*_verified(folder)} - before
    assert hub.log_lines("As it was before", made.name.removesuffix(".verified"), since=mark)
    assert await space.pods() == labs
    assert await space.home_of("ada") == home
    await hub.stop_lab("ada")


#: A snapshot from a slow place: the first hub is at it until the second one has found out.
SLOWLY = """
import asyncio
from pathlib import Path
from jhub_safety.hub.guarding import HubGuard

logs = [Path(one) for one in {logs!r}]
at_once = HubGuard._restore

async def slowly(self, former):
    for _ in range(1200):
        if any("Not recovered:" in one.read_text(errors="replace") for one in logs if one.exists()):
            break
        await asyncio.sleep(0.1)
    return await at_once(self, former)

HubGuard._restore = slowly
"""


async def test_of_two_hubs_that_start_at_once_on_a_lost_database_one_makes_it_again(
    space_factory, hub_factory, tmp_path
):
    """As with a rollout that lets the old pod and the new one overlap."""
    space = await space_factory()
    folder = tmp_path / "snapshots"
    folder.mkdir()
    first = await hub_factory(space, Setup())
    second = await hub_factory(space, Setup())
    slowly = SLOWLY.format(logs=[str(first.log), str(second.log)])
    shared = f'\nc.JupyterHub.db_url = "sqlite:///{first.database}"\n'
    for hub in (first, second):
        await hub.set_up(Setup(extra=_settings(folder) + slowly + shared))
    await first.start()
    await first.start_lab("ada")
    await _until(lambda: _verified(folder))
    labs = await space.pods()
    await first.kill()

    mark = len(first.log_text())
    first.empty_the_database()
    await asyncio.gather(first.start(timeout=240), second.start(timeout=240))
    told = first.log_since(mark) + second.log_text()
    assert told.count("It was made again") == 1
    assert told.count("Not recovered: another process is making the database again") == 1
    for hub in (first, second):
        async with await hub.login(ADMIN) as admin:
            users = {one["name"] for one in await admin.api("GET", "users")}
            assert users == {ADMIN, "ada"}
    assert await space.pods() == labs
    await second.stop()
    await first.stop_lab("ada")
