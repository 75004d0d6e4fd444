"""Every kind and form of a database server, beside real labs, asked by the labs' own programs.

Servers are PostgreSQL 15, 17 and 18, MariaDB and Redis. Images of MySQL and MongoDB cannot be had
where these tests are made: the kind "mysql" is run with MariaDB, whose programs and variables it
shares, and MongoDB is not run at all.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from kubernetes_asyncio.client import ApiException
from kubespawner.objects import make_pod

from jhub_safety.sidecars.pod import Beside, add_ownership, add_servers, folders, who
from jhub_safety.sidecars.server import parse_servers
from tests.cluster.databases import (
    OWNERSHIP,
    LabPod,
    database_claim,
    psql,
    volume_folder,
)
from tests.cluster.hubs import UNHURRIED, Hub, Setup
from tests.cluster.space import Space
from tests.unit.wire_form import RECIPE, wire

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.asyncio(loop_scope="module"),
]

ROOT = Path(__file__).resolve().parents[2]
MARIADB = {"kind": "mariadb", "image": "mariadb:10.11"}
POSTGRES = {"kind": "postgres", "image": "postgres:15"}
REDIS = {"kind": "redis_database.Redis", "image": "redis:7"}
#: Each user has another set, as by a hub's profiles.
SETS: dict[str, list[dict[str, Any]]] = {
    "mia": [MARIADB],
    "marc": [MARIADB | {"run_as": "image"}],
    "mona": [MARIADB],
    "moe": [{"kind": "mysql", "image": "mariadb:10.11"}],
    "both": [POSTGRES, MARIADB | {"startup": "container"}],
    "p17": [{"kind": "postgres", "image": "postgres:17"}],
    "p18": [{"kind": "postgres", "image": "postgres:18"}],
    "own": [POSTGRES | {"run_as": 1000}],
    "other": [POSTGRES | {"run_as": 4321}],
    "image": [POSTGRES | {"run_as": "image"}],
    "image18": [{"kind": "postgres", "image": "postgres:18", "run_as": "image"}],
    "rita": [REDIS],
    "two": [POSTGRES, {"kind": "postgres", "name": "second", "image": "postgres:17", "port": 5433}],
}
CONFIG = f"""{UNHURRIED}{OWNERSHIP}
c.KubeSpawner.poll_interval = 2
c.KubeSpawner.pre_spawn_hook = lambda spawner: spawner.set_trait(
    "databases", {SETS!r}[spawner.user.name]
)
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(space, hub_factory, database_images) -> Hub:
    database_images("postgres:15", "postgres:17", "postgres:18", "mariadb:10.11", "redis:7")
    examples = {"PYTHONPATH": f"{ROOT / 'examples'}:{ROOT}"}
    made = await hub_factory(space, Setup(extra=CONFIG, real_labs=True, environment=examples))
    await made.start()
    return made


async def in_lab(hub: Hub, user: str, *argv: str) -> str:
    """What a program prints in the lab, with nothing said of where a server is."""
    code = (
        "import subprocess, json\n"
        f"done = subprocess.run({list(argv)!r}, capture_output=True, text=True)\n"
        "print(json.dumps([done.returncode, done.stdout, done.stderr]))"
    )
    async with await hub.login(user) as one:
        returned, out, err = json.loads(await one.lab_exec(code))
    assert returned == 0, err
    return str(out).strip()


async def mariadb(hub: Hub, user: str, sql: str) -> str:
    return await in_lab(hub, user, "mariadb", "-N", "-B", "jovyan", "-e", sql)


async def redis(hub: Hub, user: str, *commands: str) -> list[str]:
    """What the server that REDIS_URL names answers, line by line."""
    code = (
        "import os, socket\n"
        "from urllib.parse import urlsplit\n"
        "at = urlsplit(os.environ['REDIS_URL'])\n"
        "with socket.create_connection((at.hostname, at.port), 10) as one:\n"
        f"    one.sendall('\\r\\n'.join({[*commands, 'QUIT', '']!r}).encode())\n"
        "    print(one.makefile().read())"
    )
    async with await hub.login(user) as one:
        return [line for line in (await one.lab_exec(code)).splitlines() if line]


async def again(hub: Hub, user: str) -> None:
    """Stop the lab and start it."""
    await hub.stop_lab(user)
    await hub.start_lab(user)


async def open_ports(pod: LabPod, container: str) -> set[int]:
    """Ports in the pod that listen at another address than the loopback's."""
    table = await pod.run(container, "cat", "/proc/net/tcp", "/proc/net/tcp6")
    rows = [line.split() for line in table.splitlines() if "local_address" not in line]
    listening = [row[1].split(":") for row in rows if row[3] == "0A"]
    loopback = {"0100007F", "00000000000000000000000001000000"}
    return {int(port, 16) for address, port in listening if address not in loopback}


# -- no key that the API server would drop


async def strictly(space: Space, pod: object) -> None:
    """Have it checked like `kubectl apply --validate=strict`, and not made."""
    await space._core.create_namespaced_pod(
        space.name, pod, dry_run="All", field_validation="Strict"
    )


@pytest.mark.parametrize("native", [True, False], ids=["native", "container"])
@pytest.mark.parametrize("user", sorted(SETS))
async def test_the_api_server_knows_every_key_of_the_pod(space, monkeypatch, user, native):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    home = {"name": "home", "emptyDir": {}}
    mount = {"name": "home", "mountPath": "/home/jovyan"}
    pod = make_pod("lab", ["x"], 8888, "lab:1", volumes=[home], volume_mounts=[mount], uid=1000)
    beside = [Beside(one, f"{one.name}-x", native) for one in parse_servers(SETS[user])]
    owner = who(pod, "", "/home/jovyan")
    add_servers(pod, beside, owner)
    add_ownership(pod, folders(pod, beside, owner, []), "busybox", "IfNotPresent", root=True)
    await strictly(space, wire(pod))


async def test_the_recipe_that_loses_the_data_is_what_strict_checking_finds(space):
    await strictly(space, wire(make_pod("lab", ["x"], 8888, "lab:1")))
    pod = wire(make_pod("lab", ["x"], 8888, "lab:1", extra_containers=[RECIPE]))
    with pytest.raises(ApiException, match=r"unknown field .*env\[1\].volumeMounts"):
        await strictly(space, pod)


# -- MariaDB


async def test_mariadb_keeps_a_row_over_two_stops_and_its_client_just_works(hub: Hub):
    await hub.start_lab("mia")
    await mariadb(hub, "mia", "CREATE TABLE kept (n INT); INSERT INTO kept VALUES (42)")
    assert await in_lab(hub, "mia", "mysql", "-N", "-e", "SELECT CURRENT_USER()") == "jovyan@%"
    for _ in range(2):
        await again(hub, "mia")
        assert await mariadb(hub, "mia", "SELECT n FROM kept") == "42"
    pod = await LabPod.of(hub.space, "mia")
    assert await open_ports(pod, "jhub-safety-mariadb") == {8888}
    # The account may do what a teacher's exercise needs.
    await mariadb(hub, "mia", "CREATE DATABASE more; CREATE USER guest IDENTIFIED BY 'x'")
    await hub.stop_lab("mia")


async def test_mariadb_keeps_what_was_committed_when_its_node_is_lost(hub: Hub):
    if hub.cluster.volumes is None:
        pytest.skip("the node's processes are not on this machine")
    await hub.start_lab("mia")
    await mariadb(
        hub, "mia", "CREATE TABLE more (n INT); INSERT INTO more SELECT seq FROM seq_1_to_1000"
    )
    await (await LabPod.of(hub.space, "mia")).lose_its_node()
    await again(hub, "mia")
    assert await mariadb(hub, "mia", "SELECT count(*), sum(n) FROM more") == "1000\t500500"
    await hub.stop_lab("mia")


async def test_a_password_that_the_user_gave_to_root_stays_and_the_account_works(hub: Hub):
    await hub.start_lab("mona")
    await mariadb(
        hub,
        "mona",
        "CREATE TABLE kept (n INT); INSERT INTO kept VALUES (7);"
        "ALTER USER root@'%' IDENTIFIED BY 'mine'; ALTER USER root@localhost IDENTIFIED BY 'mine'",
    )
    await again(hub, "mona")
    assert await mariadb(hub, "mona", "SELECT n FROM kept") == "7"
    log = await (await LabPod.of(hub.space, "mona")).log("jhub-safety-mariadb")
    assert "the account was left as it is" in log
    await hub.stop_lab("mona")


async def test_mariadb_data_of_another_version_is_not_touched(hub: Hub):
    if hub.cluster.volumes is None:
        pytest.skip("the volumes are not on this machine")
    await hub.start_lab("mona")
    claim = await database_claim(
        hub.space, await LabPod.of(hub.space, "mona"), "jhub-safety-mariadb"
    )
    await hub.stop_lab("mona")
    folder = await volume_folder(hub.cluster, hub.space, claim)
    said = folder / ".jhub-safety-version"
    assert said.read_text() == "mariadb-10.11\n"
    before = {one: one.stat().st_mtime_ns for one in (folder / "data").rglob("*")}
    said.write_text("mariadb-11.4\n")
    mark = len(hub.log_text())
    await hub.start_lab("mona")
    assert await in_lab(hub, "mona", "echo", "the lab runs") == "the lab runs"
    assert hub.log_lines(
        "written by version mariadb-11.4", "this is version mariadb-10.11", since=mark
    )
    await hub.stop_lab("mona")
    assert {one: one.stat().st_mtime_ns for one in (folder / "data").rglob("*")} == before
    said.write_text("mariadb-10.11\n")
    await hub.start_lab("mona")
    assert await mariadb(hub, "mona", "SELECT n FROM kept") == "7"
    await hub.stop_lab("mona")


async def test_mariadb_as_the_images_own_account(hub: Hub):
    await hub.start_lab("marc")
    await mariadb(hub, "marc", "CREATE TABLE kept (n INT); INSERT INTO kept VALUES (5)")
    await again(hub, "marc")
    assert await mariadb(hub, "marc", "SELECT n FROM kept") == "5"
    pod = await LabPod.of(hub.space, "marc")
    assert "999" in (
        await pod.run(
            "jhub-safety-mariadb",
            "stat",
            "-c",
            "%u",
            "/var/lib/jhub-safety/mariadb/data",
        )
    )
    await hub.stop_lab("marc")


async def test_the_kind_mysql_works_with_an_image_of_mariadb(hub: Hub):
    await hub.start_lab("moe")
    await mariadb(hub, "moe", "CREATE TABLE kept (n INT); INSERT INTO kept VALUES (3)")
    await again(hub, "moe")
    assert await in_lab(hub, "moe", "mysql", "-N", "jovyan", "-e", "SELECT n FROM kept") == "3"
    pod = await LabPod.of(hub.space, "moe")
    assert await open_ports(pod, "jhub-safety-mysql") == {8888}
    await hub.stop_lab("moe")


# -- PostgreSQL


@pytest.mark.parametrize(
    ("user", "version", "uid"),
    [
        pytest.param("p17", "17", 1000, id="17"),
        pytest.param("p18", "18", 1000, id="18"),
        pytest.param("own", "15", 1000, id="15, uid 1000"),
        pytest.param("other", "15", 4321, id="15, a uid that no account has"),
        pytest.param("image", "15", 999, id="15, the image's uid"),
        pytest.param("image18", "18", 999, id="18, the image's uid"),
    ],
)
async def test_postgres_keeps_a_row_and_its_folder_is_its_own(hub: Hub, user, version, uid):
    await hub.start_lab(user)
    await psql(hub, user, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (42)")
    await again(hub, user)
    assert await psql(hub, user, "SELECT n FROM kept") == "42"
    assert (await psql(hub, user, "SHOW server_version")).split(".")[0] == version
    pod = await LabPod.of(hub.space, user)
    data = "/var/lib/jhub-safety/postgres/data"
    assert await psql(hub, user, "SHOW data_directory") == data
    assert (await pod.run("jhub-safety-postgres", "stat", "-c", "%u %a", data)).strip() in (
        f"{uid} 700",
        f"{uid} 750",
    )
    assert await open_ports(pod, "jhub-safety-postgres") == {8888}
    await hub.stop_lab(user)


async def test_postgres_and_mariadb_beside_one_lab_both_keep_their_rows(hub: Hub):
    await hub.start_lab("both")
    await psql(hub, "both", "CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)")
    await mariadb(hub, "both", "CREATE TABLE kept (n INT); INSERT INTO kept VALUES (2)")
    await again(hub, "both")
    assert await psql(hub, "both", "SELECT n FROM kept") == "1"
    assert await mariadb(hub, "both", "SELECT n FROM kept") == "2"
    await hub.stop_lab("both")


async def test_two_postgres_of_different_versions_have_data_and_ports_of_their_own(hub: Hub):
    await hub.start_lab("two")
    await psql(hub, "two", "CREATE TABLE kept (n int); INSERT INTO kept VALUES (15)")
    second = ("psql", "-AXtq", "-p", "5433", "-c")
    await in_lab(hub, "two", *second, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (17)")
    await again(hub, "two")
    assert await psql(hub, "two", "SELECT n FROM kept") == "15"
    assert await in_lab(hub, "two", *second, "SELECT n FROM kept") == "17"
    await hub.stop_lab("two")


# -- a kind of a hub's own


async def test_the_example_of_an_own_kind_keeps_what_was_written(hub: Hub):
    """examples/redis_database.py, by its dotted path."""
    await hub.start_lab("rita")
    assert await redis(hub, "rita", "SET kept 42", "RPUSH list a b") == ["+OK", ":2", "+OK"]
    await again(hub, "rita")
    assert await redis(hub, "rita", "GET kept") == ["$2", "42", "+OK"]
    pod = await LabPod.of(hub.space, "rita")
    assert await open_ports(pod, "jhub-safety-redis") == {8888}
    assert (
        await pod.run("jhub-safety-redis", "cat", "/var/lib/jhub-safety/redis/.jhub-safety-version")
    ) == "redis-7\n"
    if hub.cluster.volumes is not None:
        await pod.lose_its_node()
        await again(hub, "rita")
        assert await redis(hub, "rita", "LRANGE list 0 -1") == ["*2", "$1", "a", "$1", "b", "+OK"]
    await hub.stop_lab("rita")
