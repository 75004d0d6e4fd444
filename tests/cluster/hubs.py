"""Real hubs for tests: the demo's configuration, and whatever a test adds to it."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
from jupyterhub import orm

from jhub_safety.sessions.model import Server
from jhub_safety.sessions.stopped import clear, database_of
from tests.cluster.ports import own_ports
from tests.cluster.space import Home, Space
from tools.cluster import ClusterInfo
from tools.demo.client import ClientError, HubClient
from tools.demo.hub import HubProcess
from tools.demo.settings import VARIABLE, Settings

CONFIG = Path(__file__).with_name("jupyterhub_config.py")
#: Names the file with a test's own settings to the configuration file.
EXTRA = "JHUB_SAFETY_TEST_CONFIG"
PASSWORD = "only-in-tests"
ADMIN = "root"
# Only where doubt is provoked on purpose, whose refusals must not keep a test waiting: one try, and
# one second for a request that hangs. On a busy machine that refuses good starts as well.
QUICK = """
c.KubeSpawner.k8s_api_request_retry_timeout = 1
c.SafeKubeSpawner.claim_request_timeout = 1
"""
# The API answers a request to start at once, not when the lab is up or ten seconds are over.
UNHURRIED = """
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0}
"""
# Not a lab, but all that the hub asks of one: it mounts the home and answers HTTP. Up in a second;
# and the first process of a container ignores SIGTERM unless it asks for it, which takes seconds.
LIGHT_LAB = """
c.KubeSpawner.cmd = ["sh", "-c", "trap exit TERM; httpd -f -p 8888 -h / & wait", "lab"]
c.KubeSpawner.init_containers = []
c.KubeSpawner.volumes = c.KubeSpawner.volumes[:1]
c.KubeSpawner.volume_mounts = c.KubeSpawner.volume_mounts[:1]
c.KubeSpawner.cpu_guarantee = 0.01
c.KubeSpawner.mem_guarantee = "8M"
"""


_ROWS = {
    "sessions": """
        SELECT users.name, spawners.name, servers.base_url
        FROM spawners JOIN users ON users.id = user_id JOIN servers ON servers.id = server_id
        ORDER BY 1, 2""",
    "tokens": """
        SELECT users.name, note, count(*) FROM api_tokens JOIN users ON users.id = user_id
        WHERE note LIKE 'Server at %' OR note LIKE 'retrieved from spawner%'
        GROUP BY 1, 2 ORDER BY 1, 2""",
    "clients": """
        SELECT identifier FROM oauth_clients WHERE identifier LIKE 'jupyterhub-user-%'
        ORDER BY 1""",
}


@dataclass(frozen=True)
class Setup:
    """What differs between the hubs of the tests.

    safe: with the library; False is plain KubeSpawner.
    real_labs: JupyterLab, in 4 s; otherwise a web server of 2 MB that has the home mounted.
    extra: Python, run at the end of the configuration file.
    server: another way to the API server than the direct one.
    """

    safe: bool = True
    real_labs: bool = False
    extra: str = ""
    server: str | None = None
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """What the browser shows."""

    status: int
    html: str

    @property
    def text(self) -> str:
        """As a person reads it: without tags, entities and line breaks."""
        return " ".join(unescape(re.sub(r"<[^>]*>", " ", self.html)).split())


class Hub(HubProcess):
    """A hub of one namespace, which runs as the service account `hub` there."""

    def __init__(
        self, cluster: ClusterInfo, space: Space, directory: Path, hub_ip: str, python: str
    ) -> None:
        super().__init__(CONFIG, directory, hub_ip=hub_ip, python=python, ports=own_ports)
        self.cluster = cluster
        self.space = space

    async def set_up(self, setup: Setup) -> None:
        """Write the configuration; it counts from the next start on."""
        settings = Settings(
            namespace=self.space.name,
            lab_image=self.cluster.lab_image if setup.real_labs else self.cluster.init_image,
            init_image=self.cluster.init_image,
            storage_class=self.cluster.storage_class,
            password=PASSWORD,
            safe=setup.safe,
            admins=(ADMIN,),
        )
        settings_file = self.directory / "settings.json"
        settings_file.write_text(json.dumps(asdict(settings)))
        extra = self.directory / "extra_config.py"
        extra.write_text(("" if setup.real_labs else LIGHT_LAB) + setup.extra)
        kubeconfig = await self.space.write_kubeconfig(
            self.directory / "kubeconfig", server=setup.server
        )
        self.environment = {
            "KUBECONFIG": str(kubeconfig),
            VARIABLE: str(settings_file),
            EXTRA: str(extra),
            **setup.environment,
        }

    async def restart_as(self, setup: Setup) -> None:
        """Stop, and start again with another configuration and the same database."""
        await self.stop()
        await self.set_up(setup)
        await self.start()

    async def lose_the_database(self) -> None:
        """Kill the hub, leave a file of zero bytes for a database, start it again."""
        await self.kill()
        self.empty_the_database()
        await self.start()

    def empty_the_database(self) -> None:
        for suffix in ("-journal", "-wal", "-shm"):
            self.database.with_name(self.database.name + suffix).unlink(missing_ok=True)
        self.database.write_bytes(b"")

    def remember(self, user: str, state: dict[str, str], server: str = "") -> None:
        """Write into the stopped hub's database what it would know from an earlier time."""
        session = orm.new_session_factory(f"sqlite:///{self.database}")()
        try:
            found = session.query(orm.User).filter_by(name=user).first() or orm.User(name=user)
            session.add(found)
            spawner = next((one for one in found._orm_spawners if one.name == server), None)
            spawner = spawner or orm.Spawner(name=server, user=found)
            spawner.state = {"namespace": self.space.name, **state}
            session.add(spawner)
            session.commit()
        finally:
            session.close()
            session.get_bind().dispose()

    async def login(self, user: str) -> HubClient:
        return await HubClient.login(self.url, user, PASSWORD)

    async def start_lab(self, user: str, server: str = "") -> Home:
        """Log in, start the server, wait until it is ready. The claim it has mounted."""
        async with await self.login(user) as client:
            await client.start_server(server)
            await client.wait_ready(server)
        return await self.space.home_of(user, server)

    async def begin_lab(self, user: str, server: str = "") -> Home:
        """Ask for a start, and wait only until its pod exists. The claim in that pod.

        Raises ClientError when the start was given up before. Needs UNHURRIED.
        """
        async with await self.login(user) as client:
            await client.start_server(server)
            while True:
                try:
                    return await self.space.home_of(user, server)
                except LookupError:
                    await asyncio.sleep(0.05)
                model = await client.server(server)
                if model is None or not model["pending"]:
                    raise ClientError(f"start of {user}/{server} failed: {model}")

    async def stop_lab(self, user: str, server: str = "") -> None:
        async with await self.login(user) as client:
            await client.stop_server(server)

    async def refusal(self, user: str, server: str = "", *, stops: bool = False) -> Page:
        """Press "Start My Server" in a browser; the page that says why it was not started.

        *stops*: a pod was made before, which the hub takes down again meanwhile.
        """
        path = f"spawn/{quote(user, safe='@')}/{server}".rstrip("/")
        async with await self.login(user) as client:
            page = Page(*await client.page(f"hub/{path}"))
            async with asyncio.timeout(30):
                # A refusal that takes longer than a second: the browser waits on this page.
                while page.status < 400:
                    stopping = stops and "is stopping" in page.text
                    assert "is starting up" in page.text or stopping, page.text
                    await asyncio.sleep(0.1)
                    page = Page(*await client.page(f"hub/{path.replace('spawn', 'spawn-pending')}"))
        return page

    async def proxy_api(self, method: str, path: str = "", body: Any = None) -> Any:
        """Ask configurable-http-proxy itself; *path* as ``/user/ada``."""
        url = f"http://127.0.0.1:{self._api_port}/api/routes{path}"
        headers = {"Authorization": f"token {self._proxy_token}"}
        async with (
            aiohttp.ClientSession(headers=headers) as client,
            client.request(method, url, json=body) as answer,
        ):
            answer.raise_for_status()
            return await answer.json() if answer.status == 200 else None

    def clear_rows(self, user: str, server: str = "") -> None:
        """End a session in the stopped hub's database, as a hub does that lost sight of the lab."""
        with database_of(f"sqlite:///{self.database}") as database:
            clear(database, Server(user, server), "")

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """What the database says of sessions: servers, and whose tokens and clients there are."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as database:
            return {what: database.execute(query).fetchall() for what, query in _ROWS.items()}

    def log_since(self, mark: int) -> str:
        return self.log_text()[mark:]

    def log_lines(self, *words: str, since: int = 0) -> Sequence[str]:
        """Lines of the log that hold all the words."""
        lines = self.log_since(since).splitlines()
        return [line for line in lines if all(word in line for word in words)]
