"""Database servers of labs, as tests see them: asked from both sides, killed as a node kills."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes_asyncio import client, config
from kubernetes_asyncio.stream import WsApiClient

from tests.cluster.hubs import UNHURRIED, Hub
from tests.cluster.space import DEADLINE, SERVERNAME, Space
from tools.cluster import ClusterInfo
from tools.demo.kube import USERNAME

POSTGRES_IMAGE = "postgres:15"
#: The container of the entry "postgres".
POSTGRES = "jhub-safety-postgres"
#: What PostgreSQL prints at its start of how it had ended.
WAS_CLEAN = "database system was shut down at"
WAS_UNCLEAN = "was not properly shut down"
#: The init container is this project's own image, and the only one that gives homes away.
OWNERSHIP = """
c.SafeKubeSpawner.ownership_image = c.KubeSpawner.init_containers[0]["image"]
c.KubeSpawner.init_containers = []
"""
#: The same where LIGHT_LAB has taken the init container away.
LIGHT_OWNERSHIP = """
c.SafeKubeSpawner.ownership_image = {image!r}
"""


def with_databases(*entries: object) -> str:
    """Configuration of a hub of real labs with these servers."""
    found = entries or ({"kind": "postgres", "image": POSTGRES_IMAGE},)
    return f"{UNHURRIED}{OWNERSHIP}c.SafeKubeSpawner.databases = {list(found)!r}\n"


def light_with_databases(cluster: ClusterInfo, *entries: object) -> str:
    """The same of light labs, which have no psql: the server's container has."""
    found = entries or ({"kind": "postgres", "image": POSTGRES_IMAGE},)
    return (
        f"{UNHURRIED}{LIGHT_OWNERSHIP.format(image=cluster.init_image)}"
        f"c.SafeKubeSpawner.databases = {list(found)!r}\n"
    )


class CommandFailed(Exception):
    """A command in a container ended with something other than 0."""


async def psql(hub: Hub, user: str, sql: str, server: str = "") -> str:
    """What the lab's own psql prints, with nothing said of where the database is.

    Raises CommandFailed with what it said instead. Needs a real lab.
    """
    code = (
        "import subprocess, json; "
        f"done = subprocess.run(['psql', '-AXtq', '-v', 'ON_ERROR_STOP=1', '-c', {sql!r}],"
        " capture_output=True, text=True); "
        "print(json.dumps([done.returncode, done.stdout, done.stderr]))"
    )
    async with await hub.login(user) as one:
        returned, out, err = yaml.safe_load(await one.lab_exec(code, server))
    if returned:
        raise CommandFailed(err)
    return str(out).strip()


@dataclass(frozen=True)
class LabPod:
    """One pod of a lab; another one of the same name is not it."""

    space: Space
    name: str
    uid: str

    @classmethod
    async def of(cls, space: Space, user: str, server: str = "") -> LabPod:
        """Raises LookupError without one that is not being deleted."""
        for pod in (await space._core.list_namespaced_pod(space.name)).items:
            marks = pod.metadata.annotations or {}
            owner = marks.get(USERNAME), marks.get(SERVERNAME) or ""
            if owner == (user, server) and pod.metadata.deletion_timestamp is None:
                return cls(space, pod.metadata.name, pod.metadata.uid)
        raise LookupError(f"no lab of {user}/{server}")

    async def read(self) -> dict[str, Any] | None:
        """As the API writes it; None when it is gone."""
        found = await self.space.pod(self.name)
        if found is None or found.metadata.uid != self.uid:
            return None
        plain: dict[str, Any] = client.ApiClient.sanitize_for_serialization(self.space._api, found)
        return plain

    async def statuses(self) -> dict[str, dict[str, Any]]:
        """The status of each container by its name, init containers too."""
        status = (await self.read() or {}).get("status") or {}
        both = (status.get("initContainerStatuses") or []) + (status.get("containerStatuses") or [])
        return {one["name"]: one for one in both}

    # Inside

    async def run(self, container: str, *argv: str) -> str:
        """What a command prints in one of its containers. Raises CommandFailed."""
        configuration = client.Configuration()
        await config.load_kube_config(
            config_file=str(self.space.kubeconfig), client_configuration=configuration
        )
        printed = {1: "", 2: "", 3: ""}
        async with asyncio.timeout(DEADLINE), WsApiClient(configuration) as api:
            socket = await client.CoreV1Api(api).connect_get_namespaced_pod_exec(
                self.name,
                self.space.name,
                command=list(argv),
                container=container,
                stdout=True,
                stderr=True,
                stdin=False,
                tty=False,
                _preload_content=False,
            )
            async with socket as stream:
                async for message in stream:
                    if message.data:
                        printed[message.data[0]] += message.data[1:].decode(errors="replace")
        ended = yaml.safe_load(printed[3]) if printed[3] else {"status": "cut off"}
        if ended["status"] != "Success":
            raise CommandFailed(f"{argv}: {ended.get('message')} {printed[1]}{printed[2]}".strip())
        return printed[1]

    async def sql(self, statement: str, container: str = POSTGRES) -> str:
        """Ask PostgreSQL from inside its own container. Raises CommandFailed."""
        address = ("-h", "127.0.0.1", "-U", "jovyan", "-d", "jovyan")
        options = ("-AXtq", "-v", "ON_ERROR_STOP=1")
        return (await self.run(container, "psql", *address, *options, "-c", statement)).strip()

    async def log(self, container: str = POSTGRES, *, previous: bool = False) -> str:
        """What a container has printed; *previous*: before its restart."""
        text = await self.space._core.read_namespaced_pod_log(
            self.name, self.space.name, container=container, previous=previous
        )
        return str(text)

    @asynccontextmanager
    async def followed(self, container: str = POSTGRES) -> AsyncIterator[list[str]]:
        """The lines of its log, to the container's end: they are not to be had after the pod's."""
        lines: list[str] = []
        answer = await self.space._core.read_namespaced_pod_log(
            self.name, self.space.name, container=container, follow=True, _preload_content=False
        )

        async def read() -> None:
            async for line in answer.content:
                lines.append(line.decode(errors="replace").rstrip("\n"))  # noqa: PERF401 - as it comes

        reading = asyncio.ensure_future(read())
        try:
            yield lines
            with suppress(TimeoutError, client.ApiException, OSError):
                await asyncio.wait_for(reading, 30)
        finally:
            reading.cancel()
            answer.close()

    async def until_gone(self) -> None:
        async with asyncio.timeout(DEADLINE):
            while await self.read() is not None:
                await asyncio.sleep(0.1)

    # On its node, where that is this machine

    def processes(self) -> set[int]:
        """All processes of all its containers; needs the node to be this machine."""
        found = set()
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdigit() and f"pod{self.uid}" in (entry / "cgroup").read_text():
                    found.add(int(entry.name))
        return found

    async def lose_its_node(self) -> None:
        """Every process is killed at once, and the pod is deleted by force; nobody says goodbye."""
        pids = await asyncio.to_thread(self.processes)
        assert pids, f"no process of {self.name} on this machine"
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await self.space.delete_pod(self.name)


def assert_ended_cleanly(lines: Sequence[str]) -> None:
    """By the log of a whole life, in which the first server is the one of the initialization."""
    text = "\n".join(lines).rpartition("database system is ready to accept connections")[2]
    assert "received fast shutdown request" in text
    assert "database system is shut down" in text


async def volume_folder(cluster: ClusterInfo, space: Space, claim: str) -> Path:
    """Where the claim's data is on this machine. Only where `cluster.volumes` says where."""
    assert cluster.volumes is not None
    volume = (await space.claim(claim)).spec.volume_name
    found = await space._core.read_persistent_volume(volume)
    return cluster.volumes / Path(found.spec.host_path.path).name


async def database_claim(space: Space, pod: LabPod, container: str = POSTGRES) -> str:
    """Name of the claim with the server's data."""
    spec = (await pod.read() or {})["spec"]
    volume = next(one for one in spec["volumes"] if one["name"] == container)
    return str(volume["persistentVolumeClaim"]["claimName"])


# A writer that knows what was acknowledged


#: Inserts 1, 2, 3, ... one transaction each, and keeps what the server said was committed. It is
#: kept in the home, which outlives the pod, and flushed by psql after each statement.
_WRITER = """
# What the children have open would keep the command that began them from ending.
exec >/dev/null 2>&1
seq 1 1000000 | sed 's/.*/INSERT INTO kept VALUES ({round}, &) RETURNING n;/' |
  psql -h 127.0.0.1 -U jovyan -d jovyan -AXtq >/home/jovyan/acknowledged-{round} 2>&1 &
until [ "$(wc -l </home/jovyan/acknowledged-{round})" -ge {rows} ]; do sleep 0.05; done
"""


async def begin_writing(
    pod: LabPod, round_: int, container: str = POSTGRES, *, rows: int = 20
) -> None:
    """Let a writer commit until its server is gone; so many rows are in when this returns."""
    await pod.run(container, "sh", "-c", _WRITER.format(round=round_, rows=rows))


async def check_what_was_written(
    pod: LabPod, rounds: Sequence[int], container: str = POSTGRES
) -> int:
    """Each acknowledged row is there, each round has no hole, and nothing else is there.

    The number of rows. One row of a round may be there that was never acknowledged: its commit
    was on the way. Raises AssertionError.
    """
    said = await pod.run(
        container,
        "sh",
        "-c",
        "for n in "
        + " ".join(map(str, rounds))
        + "; do echo $n $(grep -cx '[0-9]*' /home/jovyan/acknowledged-$n); done",
    )
    acknowledged = {int(a): int(b) for a, b in (line.split() for line in said.splitlines())}
    stored = await pod.sql(
        "SELECT round, count(*), count(DISTINCT n), min(n), max(n) FROM kept"
        " GROUP BY round ORDER BY round",
        container,
    )
    found = {}
    for line in stored.splitlines():
        number, count, distinct, least, most = map(int, line.split("|"))
        assert (count, distinct, least) == (most, most, 1), f"round {number} has holes: {line}"
        found[number] = count
    assert set(found) == set(acknowledged)
    lost = {n: (a, found[n]) for n, a in acknowledged.items() if not a <= found[n] <= a + 1}
    assert not lost, f"round: (acknowledged, stored): {lost}"
    assert min(acknowledged.values()) > 0
    return sum(found.values())
