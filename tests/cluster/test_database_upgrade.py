"""Users' data goes to another major version of PostgreSQL whole, or stays where it is."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from jhub_safety.sidecars.upgrade import COMPONENT
from tests.cluster.databases import LabPod, database_claim, light_with_databases, volume_folder
from tests.cluster.hubs import Hub, Setup
from tests.cluster.shell import Answer
from tests.cluster.space import ROOT
from tests.cluster.waiting import until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.asyncio(loop_scope="module"),
]

TIMEOUT = 240.0
OLD, NEW, NEXT = "postgres:15", "postgres:17", "postgres:18"
#: One that both images of the local cluster have.
EXTENSION = "pg_trgm"
#: A hub takes 10 s to restart; this looks at each start.
CHOSEN = """
from pathlib import Path

def choose(spawner):
    spawner.databases = [{"kind": "postgres", "image": Path("image").read_text()}]

c.KubeSpawner.pre_spawn_hook = choose
"""
#: Quotes, a blank, a bar, a backslash, capitals and letters beyond ASCII.
AWKWARD = "a \"b\" 'c' | \\d Ünï"
QUOTED = AWKWARD.replace('"', '""')
LITERAL = AWKWARD.replace("'", "''")
#: In one transaction, so that a database is apart.
FILLED = rf"""
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TYPE pair AS (a int, b text);
CREATE TYPE span AS RANGE (subtype = float8);
CREATE EXTENSION {EXTENSION};
CREATE TABLE "{QUOTED}" (id serial PRIMARY KEY, m mood, p positive, q pair, f float8, b bytea,
    j jsonb, a text[], t timestamptz, n numeric, s span, g int GENERATED ALWAYS AS (2) STORED);
INSERT INTO "{QUOTED}" (m, p, q, f, b, j, a, t, n, s)
    SELECT 'happy', i, (i, 'x'::text)::pair, i / 3.0, decode(md5(i::text), 'hex'),
        json_build_object('i', i), ARRAY['a,"b', NULL, '\N'], now(), i / 7.0, span(i, i + 1)
    FROM generate_series(1, 2000) i;
CREATE INDEX ON "{QUOTED}" (m, p);
CREATE SEQUENCE numbers;
SELECT setval('numbers', 77);
CREATE TABLE lines (t text);
INSERT INTO lines VALUES ('CREATE ROLE jovyan;'), ('-- Dumped by nobody'), ('\restrict x'),
    (E'a
b	c\\.'), (''), (NULL);
CREATE VIEW seen AS SELECT count(*) FROM "{QUOTED}";
CREATE MATERIALIZED VIEW kept AS SELECT id, m FROM "{QUOTED}";
CREATE FUNCTION twice(n int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 2 * n; END';
CREATE ROLE "{QUOTED}" LOGIN PASSWORD 'only-in-tests';
GRANT SELECT ON lines TO "{QUOTED}";
CREATE ROLE pupils;
GRANT pupils TO "{QUOTED}";
ALTER ROLE jovyan SET statement_timeout = '5s';
SELECT lo_from_bytea(4242, '\xdeadbeef');
"""
#: What a person would look at.
LOOK = f"""
SELECT count(*), sum(p), max(f), md5(string_agg(x::text, '' ORDER BY id)) FROM "{QUOTED}" x;
SELECT coalesce(t, 'NULL') FROM lines ORDER BY t;
SELECT twice(21), (SELECT * FROM seen), (SELECT count(*) FROM kept);
SELECT rolname, rolcanlogin FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1;
SELECT lo_get(4242);
SELECT last_value FROM numbers;
SELECT datname FROM pg_database ORDER BY 1;
SELECT extname FROM pg_extension ORDER BY 1;
SELECT has_table_privilege('{LITERAL}', 'lines', 'SELECT');
"""


@dataclass
class Site:
    """A hub with a database for each lab, and the shell of an operator beside it."""

    hub: Hub
    directory: Path
    environment: dict[str, str]
    #: By user: the claim, and what was seen in the old version.
    claims: dict[str, str] = field(default_factory=dict)
    before: dict[str, str] = field(default_factory=dict)

    @property
    def space(self) -> Any:
        return self.hub.space

    @asynccontextmanager
    async def command(
        self, *arguments: str, group: Sequence[str] = ("databases",)
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """`jhub-safety databases ...`, or what else, with the rights of an operator."""
        name, *rest = arguments
        where = (
            f"--config={self.hub.config}",
            f"--namespace={self.space.name}",
            f"--db-url=sqlite:///{self.hub.database}",
        )
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "jhub_safety", *group, name, *where, *rest),
            cwd=ROOT,
            env=self.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def run(self, *arguments: str, group: Sequence[str] = ("databases",)) -> Answer:
        async with self.command(*arguments, group=group) as process:
            async with asyncio.timeout(TIMEOUT):
                out, err = await process.communicate()
            assert process.returncode is not None
            assert b"Traceback" not in err, err.decode()
            return Answer(process.returncode, out.decode(), err.decode())

    async def upgrade(self, user: str, *more: str, old: str = OLD, new: str = NEW) -> Answer:
        images = (f"--from-image={old}", f"--to-image={new}")
        return await self.run("upgrade", user, *images, "--yes", "--json", *more)

    async def filled(self, user: str) -> Path:
        """A user whose stopped lab has left data of the old version. Where the volume is."""
        await self.hub.start_lab(user)
        pod = await LabPod.of(self.space, user)
        await pod.sql(FILLED)
        await pod.sql(f'CREATE DATABASE "{QUOTED}"')
        claim = await database_claim(self.space, pod)
        self.claims[user] = claim
        self.before[user] = await pod.sql(LOOK)
        await self.hub.stop_lab(user)
        await pod.until_gone()
        return await volume_folder(self.hub.cluster, self.space, claim)

    async def filled_and_upgraded(self, user: str) -> Path:
        await self.with_image(OLD)
        volume = await self.filled(user)
        said = await self.upgrade(user)
        assert said.status == 0, said.err + said.out
        return volume

    async def after(self, user: str) -> str:
        """What a lab with the hub's image sees."""
        await self.hub.start_lab(user)
        try:
            return await (await LabPod.of(self.space, user)).sql(LOOK)
        finally:
            await self.hub.stop_lab(user)

    async def pods(self) -> list[Any]:
        found = await self.space._core.list_namespaced_pod(
            self.space.name, label_selector=f"component={COMPONENT}"
        )
        return list(found.items)

    async def with_image(self, image: str) -> None:
        """As if the hub had been restarted with it; its file goes on naming the old one."""
        await asyncio.to_thread((self.hub.directory / "image").write_text, image)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(space, hub_factory, cluster, database_images, tmp_path_factory):
    if cluster.volumes is None:
        pytest.skip(f"{cluster.kind} does not say where volumes are on this machine")
    database_images(OLD, NEW, NEXT)

    given = light_with_databases(cluster, {"kind": "postgres", "image": OLD})
    hub = await hub_factory(space, Setup(extra=given + CHOSEN))
    directory = tmp_path_factory.mktemp("operator")
    environment = {
        **os.environ,
        **hub.environment,
        "KUBECONFIG": str(cluster.kubeconfig),
        "XDG_STATE_HOME": str(directory),
    }
    await hub.start()
    made = Site(hub, directory, environment)
    await made.with_image(OLD)
    return made


def tree(folder: Path) -> dict[str, str]:
    """Every file by its bytes, mode and owner; folders too."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(folder))] = f"{status.st_mode:o} {status.st_uid} {content}"
    return found


async def test_all_that_a_user_has_made_is_there_in_the_new_version(site: Site):
    volume = await site.filled("ada")
    old = tree(volume / "data")

    said = await site.upgrade("ada")

    assert said.status == 0, said.err + said.out
    (outcome,) = json.loads(said.out)["outcomes"]
    assert outcome["result"].startswith("done: from version 15 to 17"), outcome
    assert tree(volume / "data.15") == old
    assert (volume / "data" / "PG_VERSION").read_text() == "17\n"
    assert await site.pods() == []
    await site.with_image(NEW)
    assert await site.after("ada") == site.before["ada"]
    again = await site.upgrade("ada")
    assert json.loads(again.out)["outcomes"][0]["code"] == "already"
    said = await site.upgrade("ada", old=NEW, new=NEXT)
    assert said.status == 0, said.err + said.out
    await site.with_image(NEXT)
    assert await site.after("ada") == site.before["ada"]
    assert tree(volume / "data.15") == old
    assert {one.name for one in volume.glob("data*")} == {"data", "data.15", "data.17"}


async def test_the_image_to_go_to_is_the_configured_one_and_the_plan_is_shown_first(site: Site):
    await site.with_image(OLD)
    volume = await site.filled("plan")
    old = tree(volume)

    said = await site.run("upgrade", "plan", "--from-image=postgres:14", f"--to-image={NEW}")

    assert said.status == 1  # Nobody said yes.
    assert f"namespace {site.space.name}" in said.err
    assert f"upgrade-database {site.claims['plan']}" in said.err
    assert f"configured for image {OLD}" in said.err
    assert tree(volume) == old
    assert await site.pods() == []


async def test_a_claim_that_a_lab_has_mounted_is_refused(site: Site):
    await site.with_image(OLD)
    await site.hub.start_lab("ben")
    try:
        said = await site.upgrade("ben")
        assert said.status == 1
        assert "is mounted by" in said.err
        assert await site.pods() == []
        (row,) = json.loads((await site.run("list", "ben", "--json")).out)
        assert (row["kind"], row["image"], row["notices"]) == ("postgres", OLD, [])
    finally:
        await site.hub.stop_lab("ben")


async def test_a_pod_that_is_killed_while_it_loads_leaves_the_old_data_and_a_new_run_ends_it(
    site: Site,
):
    await site.with_image(OLD)
    volume = await site.filled("carol")
    old = tree(volume / "data")
    images = (f"--from-image={OLD}", f"--to-image={NEW}", "--yes", "--json")

    async with site.command("upgrade", "carol", *images) as command:

        async def loading() -> bool:
            return (volume / "data.new-17" / "postmaster.pid").exists()

        await until(loading, 90)
        (pod,) = await site.pods()
        await LabPod(site.space, pod.metadata.name, pod.metadata.uid).lose_its_node()
        async with asyncio.timeout(TIMEOUT):
            out, _ = await command.communicate()
        assert command.returncode == 1
    assert "run this again" in json.loads(out)["outcomes"][0]["result"]
    assert tree(volume / "data") == old

    said = await site.upgrade("carol")

    assert said.status == 0, said.err + said.out
    assert tree(volume / "data.15") == old
    assert {path.name for path in volume.iterdir() if path.is_dir()} == {"data", "data.15"}
    await site.with_image(NEW)
    assert await site.after("carol") == site.before["carol"]


async def test_a_command_that_is_killed_leaves_its_pod_and_the_next_one_waits_for_it(site: Site):
    await site.with_image(OLD)
    volume = await site.filled("dora")
    old = tree(volume / "data")
    images = (f"--from-image={OLD}", f"--to-image={NEW}", "--yes", "--json")
    async with site.command("upgrade", "dora", *images) as command:
        await until(site.pods, 90)
        command.kill()
        await command.wait()

    said = await site.upgrade("dora")

    assert said.status == 0, said.err + said.out
    assert json.loads(said.out)["outcomes"][0]["code"] in ("upgraded", "already")
    assert tree(volume / "data.15") == old
    assert not (volume / "data.15-2").exists()
    assert await site.pods() == []


async def test_a_lab_that_starts_meanwhile_is_held_off_and_told(site: Site):
    await site.with_image(OLD)
    volume = await site.filled("emil")
    old = tree(volume / "data")
    images = (f"--from-image={OLD}", f"--to-image={NEW}", "--yes", "--json")
    async with site.command("upgrade", "emil", *images) as command:

        async def begun() -> bool:
            return (volume / ".jhub-safety-upgrading").exists()

        await until(begun, 90)
        (pod,) = await site.pods()
        moving = LabPod(site.space, pod.metadata.name, pod.metadata.uid)
        stopped = await asyncio.to_thread(moving.processes)
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            # The lab starts; its database does not.
            await site.hub.start_lab("emil")
            (row,) = json.loads((await site.run("list", "emil", "--json")).out)
            found = json.loads((await site.run("doctor", "--json", group=())).out)
        finally:
            for pid in stopped:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        assert [one["code"] for one in row["notices"]] == ["busy"]
        troubles = [one for one in found if one["code"] == "database-trouble"]
        assert [one["subject"] for one in troubles] == ["postgres of emil"]
        async with asyncio.timeout(TIMEOUT):
            out, err = await command.communicate()
        assert command.returncode == 0, out + err
    await site.hub.stop_lab("emil")
    assert tree(volume / "data.15") == old
    assert (volume / "data" / "PG_VERSION").read_text() == "17\n"


async def test_a_lab_completes_what_was_killed_between_the_two_renames(site: Site):
    volume = await site.filled_and_upgraded("fay")
    control = hashlib.sha256((volume / "data.15/global/pg_control").read_bytes()).hexdigest()
    (volume / "data").rename(volume / "data.new-17")
    (volume / ".jhub-safety-switching").write_text(f"17 data.15 {control}\n")

    await site.with_image(NEW)

    assert await site.after("fay") == site.before["fay"]
    assert not (volume / ".jhub-safety-switching").exists()


async def test_rows_that_were_written_after_a_cut_off_upgrade_are_not_lost_by_the_next_one(
    site: Site,
):
    volume = await site.filled_and_upgraded("gus")
    control = hashlib.sha256((volume / "data.15/global/pg_control").read_bytes()).hexdigest()
    # As a kill just before the first rename leaves it; and the user goes on with the old image.
    (volume / "data").rename(volume / "data.new-17")
    (volume / "data.15").rename(volume / "data")
    (volume / ".jhub-safety-switching").write_text(f"17 data.15 {control}\n")
    await site.with_image(OLD)
    await site.hub.start_lab("gus")
    pod = await LabPod.of(site.space, "gus")
    await pod.sql("INSERT INTO lines VALUES ('later')")
    expected = await pod.sql(LOOK)
    await site.hub.stop_lab("gus")
    await pod.until_gone()

    said = await site.upgrade("gus")

    assert said.status == 0, said.err + said.out
    await site.with_image(NEW)
    assert await site.after("gus") == expected


async def test_libraries_of_the_users_own_settings_are_not_loaded(site: Site):
    """They would run where no policy for labs holds; without them the data is read as well."""
    await site.with_image(OLD)
    volume = await site.filled("lib")
    mine = "/var/lib/jhub-safety/postgres/mine.so"
    with (volume / "data" / "postgresql.conf").open("a") as settings:
        for kind in ("shared", "session", "local"):
            settings.write(f"{kind}_preload_libraries = '{mine}'\n")
    said = await site.upgrade("lib")
    # One that is not there ends a server, or each connection to it.
    assert said.status == 0, said.err + said.out
    await site.with_image(NEW)
    assert await site.after("lib") == site.before["lib"]


async def test_what_would_not_be_whole_is_left_as_it_is_and_the_others_go_on(site: Site):
    await site.with_image(OLD)
    bad, good = await site.filled("hal"), await site.filled("ida")
    await site.hub.start_lab("hal")
    pod = await LabPod.of(site.space, "hal")
    await pod.sql("UPDATE pg_database SET datallowconn = false WHERE datname LIKE 'a %'")
    await site.hub.stop_lab("hal")
    await pod.until_gone()
    old = tree(bad / "data")

    said = await site.run(
        "upgrade", "--all", f"--from-image={OLD}", f"--to-image={NEW}", "--yes", "--json"
    )

    assert said.status == 1
    ended = {one["user"]: one["code"] for one in json.loads(said.out)["outcomes"]}
    assert (ended["hal"], ended["ida"]) == ("closed", "upgraded")
    assert tree(bad / "data") == old
    assert not list(bad.glob("data.*"))
    assert (good / "data" / "PG_VERSION").read_text() == "17\n"
    lines = (site.directory / "jhub-safety/journal.jsonl").read_text().splitlines()
    assert "upgrade-database" in {json.loads(line)["kind"] for line in lines}


async def test_the_way_by_hand_works_as_it_is_written(site: Site):
    """The shell blocks of docs/database-upgrades.md, in order."""
    text = (ROOT / "docs" / "database-upgrades.md").read_text().partition("(by-hand)=")[2]
    in_old, in_new, at_last = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    await site.with_image(OLD)
    volume = await site.filled("jill")
    old = tree(volume / "data")
    context = {"runAsUser": (volume / "data").stat().st_uid, "runAsGroup": 100}
    mounts = [{"name": "v", "mountPath": "/v"}, {"name": "s", "mountPath": "/s"}]
    made = await site.space._core.create_namespaced_pod(
        site.space.name,
        {
            "metadata": {"name": "by-hand"},
            "spec": {
                "containers": [
                    {
                        "name": name,
                        "image": image,
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["sleep", "infinity"],
                        "securityContext": context,
                        "volumeMounts": mounts,
                    }
                    for name, image in (("old", OLD), ("new", NEW))
                ],
                "volumes": [
                    {"name": "v", "persistentVolumeClaim": {"claimName": site.claims["jill"]}},
                    {"name": "s", "emptyDir": {}},
                ],
            },
        },
    )
    pod = LabPod(site.space, "by-hand", made.metadata.uid)

    async def runs() -> bool:
        return (await site.space.pod("by-hand")).status.phase == "Running"

    await until(runs, 90)
    await pod.run("old", "sh", "-ec", in_old)
    errors = await pod.run("new", "sh", "-c", in_new)
    assert [line for line in errors.splitlines() if "ERROR" in line] == [
        line for line in errors.splitlines() if 'role "jovyan" already exists' in line
    ]
    await pod.run("new", "sh", "-ec", at_last)
    await site.space.delete_pod("by-hand")

    assert tree(volume / "data.15") == old
    await site.with_image(NEW)
    assert await site.after("jill") == site.before["jill"]
