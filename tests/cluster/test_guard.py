"""A hub whose database was lost or exchanged notices, harms nobody, and goes on."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from jhub_safety.hub.watching import LOST_UNDER_IT
from jhub_safety.hubdb.guarding import Fingerprint
from tests.cluster.faults import FaultProxy, Rule, status
from tests.cluster.hubs import ADMIN, UNHURRIED, Hub, Setup
from tests.cluster.space import ROOT

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.hub,
    pytest.mark.asyncio(loop_scope="module"),
]

LONG = 240.0
GUARDED = UNHURRIED + "c.DatabaseGuard.interval = 5\n"
HOLD = GUARDED + 'c.DatabaseGuard.on_loss = "hold"\n'
RECOVER = GUARDED + 'c.DatabaseGuard.on_loss = "recover"\n'
SECRETS = r"/api/v1/namespaces/[^/]+/(secrets|persistentvolumeclaims)"


@dataclass(frozen=True)
class Answer:
    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Site:
    """A hub, and an operator beside it."""

    hub: Hub
    directory: Path

    async def set_up(self, extra: str, **setup: Any) -> None:
        # Commands find a hub that holds by its configured address.
        where = (
            f"c.JupyterHub.hub_ip = {self.hub.hub_ip!r}\n"
            f"c.JupyterHub.hub_port = {self.hub._hub_port}\n"
        )
        await self.hub.set_up(Setup(extra=where + extra, **setup))

    async def db(self, command: str, *rest: str) -> Answer:
        """`jhub-safety db ...`"""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "jhub_safety", "db", command),
            f"--config={self.hub.config}",
            f"--namespace={self.hub.space.name}",
            f"--db-url=sqlite:///{self.hub.database}",
            *rest,
            cwd=ROOT,
            env={
                **os.environ,
                **self.hub.environment,
                "KUBECONFIG": str(self.hub.cluster.kubeconfig),
                "XDG_STATE_HOME": str(self.directory),
            },
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(LONG):
            out, err = await process.communicate()
        assert b"Traceback" not in err, err.decode()
        print(f"$ jhub-safety db {command} {' '.join(rest)}\n{err.decode()}{out.decode()}")
        return Answer(process.returncode or 0, out.decode(), " ".join(err.decode().split()))

    async def get(self, path: str) -> tuple[int, str]:
        """Of the hub's own address, as the proxy and probes ask it; 0: nobody answers."""
        url = f"http://{self.hub.hub_ip}:{self.hub._hub_port}{path}"
        try:
            async with aiohttp.ClientSession() as client, client.get(url) as answer:
                return answer.status, await answer.text()
        except aiohttp.ClientError:
            return 0, ""

    async def start_and_hold(self) -> tuple[asyncio.Task[None], str]:
        """Start it; the task ends when it serves. The row for which it holds."""
        starting = asyncio.create_task(self.hub.start(timeout=LONG))
        async with asyncio.timeout(LONG):
            while True:
                code, text = await self.get("/hub/health")
                if code == 200 and "hold" in text:
                    return starting, json.loads(text)["hold"]
                assert not starting.done(), self.hub.log_text()[-3000:]
                await asyncio.sleep(0.2)

    async def ends(self) -> int:
        """Wait until the hub has ended by itself; its exit code."""
        return await self.hub._wait(self.hub._started(), LONG)

    async def fingerprint(self) -> Fingerprint | None:
        """What is known, as it is in the cluster."""
        found = await self.hub.space._core.list_namespaced_secret(self.hub.space.name)
        notes = [
            {key: base64.b64decode(text).decode() for key, text in one.data.items()}
            for one in found.items
            if one.metadata.name.startswith("jhub-safety-database-")
        ]
        return max(map(Fingerprint.parse, notes), key=lambda one: one.epoch, default=None)

    async def known(self, fits: Callable[[Fingerprint], bool]) -> Fingerprint:
        async with asyncio.timeout(LONG):
            while True:
                found = await self.fingerprint()
                if found is not None and fits(found):
                    return found
                assert self.hub.running(), self.hub.log_text()[-3000:]
                await asyncio.sleep(0.3)

    def journal(self, kind: str) -> list[tuple[str, str]]:
        """Rows and outcomes of what the hub did to its database."""
        lines = (self.hub.directory / "jhub-safety.journal").read_text().splitlines()
        found = [one for one in map(json.loads, lines) if one["kind"] == kind]
        return [(one["reason"].partition(":")[0], one["outcome"]) for one in found]

    def users(self, file: Path | None = None) -> dict[str, str]:
        """Names with their cookie_ids."""
        target = file or self.hub.database
        with closing(sqlite3.connect(f"file:{target}?mode=ro", uri=True)) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            return dict(database.execute("SELECT name, cookie_id FROM users").fetchall())

    def save(self) -> None:
        """What was done in 2017: ``.save`` of an empty database over the one in use."""
        with (
            closing(sqlite3.connect(":memory:")) as empty,
            closing(sqlite3.connect(self.hub.database, timeout=30)) as target,
        ):
            empty.backup(target)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(space, hub_factory, tmp_path_factory) -> Site:
    """A hub with light labs, which nobody has started."""
    hub = await hub_factory(space, Setup())
    return Site(hub, tmp_path_factory.mktemp("state"))


@pytest_asyncio.fixture(loop_scope="module")
async def holding(site) -> Site:
    """The hub serves on a good database that is known, with on_loss = "hold"."""
    await site.set_up(HOLD)
    if not site.hub.running():
        await site.hub.start(timeout=LONG)
    async with await site.hub.login("ada"):
        pass
    await site.known(lambda one: one.users == len(site.users()))
    yield site
    if site.hub.running():
        await site.hub.kill()


async def test_an_emptied_database_is_held_and_the_hub_goes_on_when_it_is_back(holding: Site):
    site = holding
    home = await site.hub.start_lab("ada")
    pods = await site.hub.space.pods()
    await site.hub.kill()
    good = site.hub.database.read_bytes()
    site.hub.empty_the_database()

    starting, row = await site.start_and_hold()
    assert row == "zero-bytes"
    code, page = await site.get("/hub/login")
    assert code == 503
    assert "Nobody can log in" in page
    assert "jhub-safety db status" in page
    code, answer = await site.get("/hub/api/users")
    assert (code, json.loads(answer)["status"]) == (503, 503)
    assert site.hub.database.read_bytes() == b""
    assert await site.hub.space.pods() == pods
    (told,) = await site.hub.space.events("HubDatabaseHeld")
    assert told.message.startswith("The hub's database (zero-bytes): ")

    site.hub.database.write_bytes(good)
    await starting
    assert await site.hub.space.pods() == pods
    assert await site.hub.space.home_of("ada") == home
    assert site.journal("hold-hub") == [("zero-bytes", "done"), ("zero-bytes", "ended")]
    await site.hub.stop_lab("ada")


async def test_another_database_is_held_until_an_operator_accepts_it_inside_the_hub(holding: Site):
    site = holding
    await site.hub.kill()
    with closing(sqlite3.connect(site.hub.database)) as database:
        database.execute("DROP TABLE jhub_safety")
        database.commit()
    users = site.users()

    starting, row = await site.start_and_hold()
    assert row == "another-database"
    said = await site.db("status", "--json")
    assert said.status == 1
    told = json.loads(said.out)
    assert (told["row"], told["holds"], told["verdict"]) == (row, row, "hold")
    said = await site.db("accept", "--yes")
    assert said.status == 0, said.err
    await starting
    assert site.users() == users
    assert (await site.db("status")).status == 0


async def test_an_older_copy_put_over_the_file_ends_the_hub_and_is_held(holding: Site):
    site = holding
    older = site.hub.directory / "older.sqlite"
    with (
        closing(sqlite3.connect(site.hub.database)) as database,
        closing(sqlite3.connect(older)) as copy,
    ):
        database.backup(copy)
    async with await site.hub.login("newest"):
        pass
    await site.known(lambda one: one.users == len(site.users()))
    users = site.users()
    shutil.copy(older, f"{older}.copy")
    shutil.move(f"{older}.copy", site.hub.database)

    assert await site.ends() == LOST_UNDER_IT
    (rescued,) = site.hub.directory.glob("*.rescued-*")
    assert site.users(rescued) == users
    starting, row = await site.start_and_hold()
    assert row == "older-copy"
    assert "newest" not in site.users()
    # The operator puts back what the hub itself had rescued.
    shutil.move(rescued, site.hub.database)
    await starting
    assert site.users() == users


async def test_a_file_that_was_deleted_under_the_hub_is_put_back_whole(holding: Site):
    site = holding
    users = site.users()
    site.hub.database.unlink()
    assert await site.ends() == LOST_UNDER_IT
    assert site.users() == users
    await site.hub.start(timeout=LONG)
    assert site.users() == users
    for rescued in site.hub.directory.glob("*.rescued-*"):
        rescued.unlink()


async def test_users_whom_the_hub_deletes_are_no_loss_even_when_it_is_killed(holding: Site):
    site = holding
    names = [f"pupil-{number}" for number in range(40)]
    async with await site.hub.login(ADMIN) as admin:
        await admin.api("POST", "users", {"usernames": names})
        before = await site.known(lambda one: one.users == len(site.users()))
        for name in names:
            await admin.api("DELETE", f"users/{name}")
        await site.known(lambda one: one.users == before.users - 40)
    assert site.hub.running()
    await site.hub.kill()
    await site.hub.start(timeout=LONG)
    assert not site.hub.log_lines("fewer-users")


async def test_logging_a_user_out_ends_their_sessions_alone_and_leaves_labs_running(holding: Site):
    site = holding
    await site.hub.start_lab("ada")
    pods = await site.hub.space.pods()
    async with await site.hub.login("ada") as ada, await site.hub.login("bob") as bob:
        for client in (ada, bob):
            assert (await client.api("GET", "user"))["name"] == client.user
        said = await site.db("logout", "ada", "--yes", "--json")
        assert said.status == 0, said.err
        assert json.loads(said.out)["users"] == 1
        _, page = await ada.page("hub/home")
        assert 'name="password"' in page
        assert (await bob.api("GET", "user"))["name"] == "bob"
    async with await site.hub.login("ada") as ada:
        model = await ada.server()
        assert model is not None
        assert model["ready"]
    assert await site.hub.space.pods() == pods
    await site.hub.stop_lab("ada")


async def test_recovery_waits_for_an_api_server_that_fails(site: Site):
    hub = site.hub
    async with FaultProxy(hub.cluster.kubeconfig) as proxy:
        await site.set_up(RECOVER, server=proxy.url)
        await hub.start(timeout=LONG)
        home = await hub.start_lab("ada")
        await site.known(lambda one: one.users == len(site.users()))
        claims = await hub.space.uids()
        await hub.kill()
        hub.empty_the_database()
        proxy.break_(Rule(status(503), path=SECRETS))
        starting, row = await site.start_and_hold()
        # Neither is it known what was there, nor who the users were: an empty one is not served.
        assert row == "fingerprint-unknown"
        assert hub.database.read_bytes() == b""
        proxy.heal()
        await starting
        assert "ada" in site.users()
        assert await hub.space.home_of("ada") == home
        async with await hub.login("ada") as ada:
            model = await ada.server()
            assert model is not None
            assert model["ready"]
        await hub.stop_lab("ada")
        assert await hub.start_lab("ada") == home
        await hub.stop_lab("ada")
        assert await hub.space.uids() == claims
        await hub.kill()


async def test_everybody_gets_their_own_home_back_whatever_named_it(space_factory, hub_factory):
    space = await space_factory()
    owners = {
        ("claim-erin-40school-2eedu", "erin@school.edu"),
        ("claim-john-2edoe", "john.doe"),
        ("claim-john-doe", "john-doe"),
        ("claim-carol---2a1b3c4d", "carol"),
    }
    homes = {user: await space.make_claim(name, user) for name, user in owners}
    claims = await space.uids()
    hub = await hub_factory(space, Setup(extra=RECOVER))
    site = Site(hub, hub.directory)
    for name, user in owners:
        hub.remember(user, {"pvc_name": name, "kubespawner_version": "7.1.0"})
    await hub.start(timeout=LONG)
    await site.known(lambda one: one.users >= len(owners))
    await hub.kill()
    hub.database.unlink()
    await hub.start(timeout=LONG)
    users = site.users()
    assert set(homes) <= set(users)
    assert all(users.values())
    assert len(set(users.values())) == len(users)
    for user, uid in homes.items():
        assert (await hub.start_lab(user)).uid == uid
        async with await hub.login(user) as client:
            assert (await client.api("GET", "user"))["name"] == user
        await hub.stop_lab(user)
    assert await space.uids() == claims


async def test_the_save_of_2017_costs_an_open_notebook_no_more_than_a_login(
    space_factory, hub_factory
):
    space = await space_factory()
    hub = await hub_factory(space, Setup(extra=RECOVER, real_labs=True))
    site = Site(hub, hub.directory)
    await hub.start(timeout=LONG)
    home = await hub.start_lab("ada")
    async with await hub.login("ada") as before:
        kernel = await before.open_kernel()
        await before.kernel_exec(kernel, "unsaved = 42")
        await site.known(lambda one: one.users == len(site.users()))
        pods = await space.pods()

        site.save()
        assert await site.ends() == LOST_UNDER_IT
        await hub.start(timeout=LONG)
        assert hub.log_lines("It was made again in")
        assert site.journal("end-hub") == [("no-tables", "done")]
        assert site.journal("recover-database") == [("no-tables", "done")]
        for reason in ("HubDatabaseLost", "HubDatabaseRecovered"):
            assert len(await space.events(reason)) == 1
        async with await hub.login("ada") as ada:
            async with asyncio.timeout(LONG):
                while not ((model := await ada.server()) and model["ready"]):
                    await asyncio.sleep(0.3)
            assert (await ada.kernel_exec(kernel, "print(unsaved)")).strip() == "42"
        async with await hub.login("bob") as bob:
            assert (await bob.api("GET", "user"))["name"] == "bob"
    assert await space.pods() == pods
    assert await space.home_of("ada") == home
