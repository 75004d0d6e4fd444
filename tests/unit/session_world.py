"""All that a session command meets: a hub, its labs, its database and its API server.

The control socket and the operations behind it are real; hub, labs and API server are doubles, each
as its protocol says.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from aiohttp import web
from click.testing import CliRunner
from jupyterhub import orm

from jhub_safety.cli import cli, hubalive
from jhub_safety.cluster.labs import Lab as Pod
from jhub_safety.control import ControlSocket
from jhub_safety.errors import Conflict, Doubt, SafetyError
from jhub_safety.journal import Journal
from jhub_safety.sessions.absence import Absences
from jhub_safety.sessions.inventory import Inventory
from jhub_safety.sessions.model import (
    Lab,
    LabIdentity,
    LabState,
    Listing,
    Live,
    Server,
    Session,
)
from jhub_safety.sessions.operations import Operations
from jhub_safety.sessions.presence import Presence, Sighting
from jhub_safety.sessions.reconciler import SessionReconciler
from tests.unit.given import HUB, NAMESPACE
from tests.unit.test_commands import HOSTILE, KUBECONFIG, use

ADA, GPU, BOB = Server("ada"), Server("ada", "gpu"), Server("bob")
EVE = Server(HOSTILE)


# -- doubles


class Labs(Inventory):
    """The labs there are; class-wide, as a hub that is down makes its own inventory."""

    there: ClassVar[dict[str, tuple[Lab, LabIdentity]]] = {}
    #: Raised by the next listings.
    doubt: ClassVar[str] = ""
    trusted: ClassVar[set[str]] = set()
    absences: ClassVar[Absences] = Absences()

    def lab_of(self, user, server, state):
        return (state["pod_name"], NAMESPACE) if "pod_name" in state else None

    async def take(self, sessions):
        if self.doubt:
            raise Doubt(self.doubt)
        return Listing({name: (lab,) for name, (lab, _) in self.there.items()})

    async def look(self, session):
        if self.doubt:
            return Sighting(Presence.DOUBT, why=self.doubt)
        if session.lab in self.there:
            lab, identity = self.there[session.lab]
            phase = "Failed" if lab.state is LabState.ENDED else "Running"
            pod = Pod(lab.name, NAMESPACE, identity.uid, phase, reason=lab.words)
            return Sighting(Presence.ENDED if pod.ended else Presence.ALIVE, pod)
        gone = session.lab in self.trusted or self.absences.missed(_key(session), 9)
        return Sighting(Presence.GONE if gone else Presence.DOUBT, why="looking again")

    async def identify(self, labs):
        names = {lab.name for lab in labs}
        return {
            (NAMESPACE, name): identity
            for name, (_, identity) in self.there.items()
            if name in names
        }

    def trust(self, session):
        self.trusted.add(session.lab)

    async def delete(self, identity, name):
        self.there.pop(name, None)


def _key(session: Session) -> str:
    return f"{session.namespace}/{session.lab}"


def lab_of(server: Server) -> str:
    return f"jupyter-{server.user.encode().hex()}{'--' + server.name if server.name else ''}"


@dataclass
class HubDouble:
    """A running hub: what it believes, and what was done to it."""

    rows: dict[Server, Session] = field(default_factory=dict)
    busy: dict[Server, str] = field(default_factory=dict)
    targets: dict[Server, str] | None = field(default_factory=dict)
    users: set[str] = field(default_factory=set)
    done: list[tuple[str, str]] = field(default_factory=list)
    #: Raised by the stop of this user's servers.
    faults: dict[str, Exception] = field(default_factory=dict)

    async def sessions(self):
        return tuple(self.rows.values())

    async def session(self, server):
        return self.rows.get(server)

    async def live(self):
        return {
            one: Live(self.busy.get(one, ""), one not in self.busy)
            for one in (*self.rows, *self.busy)
        }

    async def known_users(self, names):
        return frozenset(self.users & set(names))

    def pending(self, server):
        return self.busy.get(server, "")

    async def routes(self):
        return None if self.targets is None else dict(self.targets)

    async def clear(self, session, why, *, ended=False):
        self._did("clear", session.server)
        del self.rows[session.server]
        (self.targets or {}).pop(session.server, None)

    async def stop(self, session, why):
        if session.server.user in self.faults:
            raise self.faults[session.server.user]
        Labs.there.pop(session.lab, None)
        self._did("stop", session.server)
        del self.rows[session.server]
        (self.targets or {}).pop(session.server, None)

    async def relink(self, server, name, identity):
        self._did("relink", server)

    async def check_routes(self):
        self.done.append(("check-routes", ""))
        self.targets = {one: at for one, at in (self.targets or {}).items() if one in self.rows}

    async def unstick(self, server):
        self._did("unstick", server)
        return f"done: pending {self.busy.pop(server)} was given up"

    async def forget_user(self, name):
        if any(one.user == name for one in self.rows):
            raise Conflict(f"{name} still has a running server")
        self.done.append(("forget-user", name))
        self.users.discard(name)

    def _did(self, what, server):
        self.done.append((what, str(server)))


@dataclass
class ClusterDouble:
    """As much of an API server as these commands ask: Secrets, and the pods of hubs."""

    url: str = ""
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    #: Each listing of pods answers the next one; the last one stays.
    pods: list[list[dict[str, Any]]] = field(default_factory=lambda: [[]])
    #: Status of every answer, when it is set.
    status: int = 0

    async def answer(self, request: web.Request) -> web.Response:
        kind, name = request.match_info["kind"], request.match_info.get("name", "")
        if self.status:
            return self._no(self.status, name)
        if kind == "pods":
            assert request.query["labelSelector"] == hubalive.HUB_POD
            items = self.pods.pop(0) if len(self.pods) > 1 else self.pods[0]
            return web.json_response({"kind": "PodList", "apiVersion": "v1", "items": items})
        if request.method == "POST":
            body = await request.json()
            name = body["metadata"]["name"]
            self.secrets[name] = {
                key: base64.b64encode(text.encode()).decode()
                for key, text in body["stringData"].items()
            }
        elif name not in self.secrets:
            return self._no(404, name)
        data = self.secrets.pop(name) if request.method == "DELETE" else self.secrets[name]
        return web.json_response({"kind": "Secret", "apiVersion": "v1", "data": data})

    @staticmethod
    def _no(status: int, name: str) -> web.Response:
        body = {"kind": "Status", "code": status, "message": "no", "details": {"name": name}}
        return web.json_response(body, status=status)


@dataclass
class World:
    """Everything around one command."""

    directory: Path
    loop: asyncio.AbstractEventLoop
    cluster: ClusterDouble
    hub: HubDouble = field(default_factory=HubDouble)
    paused: str = ""
    extra: str = ""
    control: ControlSocket | None = None

    @property
    def socket(self) -> Path:
        return self.directory / "run" / "control.sock"

    @property
    def database(self) -> Path:
        return self.directory / "hub.sqlite"

    def has(self, *servers: Server) -> None:
        """Each of them in step."""
        for number, server in enumerate(servers, 1):
            address = f"10.0.0.{number}:8888"
            self.hub.rows[server] = Session(server, lab_of(server), NAMESPACE, address)
            self.hub.users.add(server.user)
            assert self.hub.targets is not None
            self.hub.targets[server] = f"http://{address}"
            self.runs(server, address.partition(":")[0])

    def runs(self, server: Server, ip: str = "10.0.0.9", **fields: Any) -> None:
        lab = Lab(lab_of(server), LabState.RUNNING, "Running", ip=ip)
        identity = LabIdentity(f"uid-of-{lab.name}", NAMESPACE, server, HUB)
        Labs.there[lab.name] = (replace(lab, **fields), identity)

    def start_hub(self, name: str = HUB) -> None:
        async def begin() -> ControlSocket:
            reconciler = SessionReconciler().attach(
                self.hub,
                Labs(),
                label=HUB,
                absences=Labs.absences,
                journal=Journal(None),
                paused=self._paused,
            )
            control = ControlSocket(Operations(reconciler), name, self.socket)
            await control.open()
            return control

        self.control = self.do(begin())

    async def _paused(self) -> str:
        return self.paused

    def do(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(20)

    def close(self) -> None:
        if self.control is not None:
            self.do(self.control.close())
            self.control = None

    def write_config(self, **jupyterhub: Any) -> None:
        hub = {"hub_port": closed_port(), "db_url": f"sqlite:///{self.database}", **jupyterhub}
        lines = [f"c.JupyterHub.{name} = {value!r}" for name, value in hub.items()]
        text = f"""
c = get_config()
c.JupyterHub.spawner_class = "kubespawner.KubeSpawner"
c.KubeSpawner.namespace = {NAMESPACE!r}
c.SafeKubeSpawner.hub_name = {HUB!r}
c.SessionReconciler.control_socket = {str(self.socket)!r}
c.SessionReconciler.inventory_class = "tests.unit.session_world.Labs"
"""
        (self.directory / "jupyterhub_config.py").write_text(text + "\n".join(lines) + self.extra)

    def write_database(self, *servers: Server) -> None:
        """The database of a hub that is down, with a session and a claim for each."""
        made = orm.new_session_factory(f"sqlite:///{self.database}")()
        for number, server in enumerate(servers, 1):
            user = orm.User.find(made, server.user) or orm.User(name=server.user)
            made.add(user)
            state = {"pod_name": lab_of(server), "pvc_name": f"claim-{server.user}"}
            row = orm.Spawner(name=server.name, user=user, state=state)
            row.server = orm.Server(ip=f"10.0.0.{number}", port=8888, base_url=f"/user/{number}/")
            made.add(row)
            self.runs(server, f"10.0.0.{number}")
        made.commit()
        made.close()
        made.get_bind().dispose()

    def rows(self) -> tuple[set[str], set[str]]:
        """Users and sessions in the database."""
        made = orm.new_session_factory(f"sqlite:///{self.database}")()
        with closing(made):
            users = {user.name for user in made.query(orm.User)}
            running = {
                str(Server(row.user.name, row.name))
                for row in made.query(orm.Spawner)
                if row.server is not None
            }
        made.get_bind().dispose()
        return users, running


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def in_background() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop of its own: the commands run one, too."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def serve(cluster: ClusterDouble) -> web.AppRunner:
    app = web.Application()
    path = "/api/v1/namespaces/{namespace}/{kind}"
    app.router.add_route("*", path, cluster.answer)
    app.router.add_route("*", path + "/{name}", cluster.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    cluster.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    return runner


@contextmanager
def surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """No hub runs yet; the working directory holds the configuration of one."""
    Labs.there, Labs.doubt, Labs.trusted, Labs.absences = {}, "", set(), Absences()
    # Not pytest's: a socket's path may have 107 characters.
    with tempfile.TemporaryDirectory() as name, in_background() as loop:
        made = World(Path(name), loop, ClusterDouble())
        runner = made.do(serve(made.cluster))
        kubeconfig = json.loads(json.dumps(KUBECONFIG))
        kubeconfig["clusters"][0]["cluster"]["server"] = made.cluster.url
        (made.directory / "kubeconfig").write_text(json.dumps(kubeconfig))
        use(monkeypatch, made.directory / "kubeconfig")
        monkeypatch.chdir(made.directory)
        monkeypatch.setenv("XDG_STATE_HOME", str(made.directory / "state"))
        made.write_config()
        yield made
        made.close()
        made.do(runner.cleanup())


class Running:
    """A program that has said its first line."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def __enter__(self) -> subprocess.Popen:
        self.process = subprocess.Popen(self.words, stdout=subprocess.PIPE)
        self.process.stdout.readline()
        return self.process

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.communicate()


def run(*arguments: str, answer: str = ""):
    result = CliRunner().invoke(cli, ["sessions", *arguments], input=answer)
    expected = (SafetyError, SystemExit, type(None))
    if not isinstance(result.exception, expected):
        raise result.exception
    return result


def refused(result) -> str:
    """The one sentence that the program's entry point makes of it, with exit status 1."""
    assert isinstance(result.exception, SafetyError), result.output
    assert result.stdout == ""
    assert "\n" not in str(result.exception)
    return str(result.exception)
