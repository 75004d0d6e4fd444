"""A real hub starts on what was restored or moved, and a token made before still works."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest
from jupyterhub import orm, roles

from jhub_safety.hubdb import migrate, restore, snapshot
from jhub_safety.hubdb.engines import address
from jhub_safety.hubdb.snapshot import Shelf
from jhub_safety.hubdb.stores import FolderStore
from tools.demo.hub import PROXY_PID
from tools.setup import cache_dir

pytestmark = pytest.mark.hub
CONFIG = """
c.JupyterHub.authenticator_class = "dummy"
c.JupyterHub.spawner_class = "simple"
c.JupyterHub.bind_url = "http://127.0.0.1:{}"
c.JupyterHub.hub_port = {}
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{}"
c.ConfigurableHTTPProxy.auth_token = "t"
c.JupyterHub.db_url = {!r}
c.Authenticator.allow_all = True
c.Authenticator.admin_users = {{"alice"}}
"""
USERS = ("alice", "bob@school.edu", "Ünïcode \U0001f9ea")


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Hub:
    """One process on a database."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        folder.mkdir()
        ports = free_ports(3)
        self.api = f"http://127.0.0.1:{ports[1]}/hub/api"
        (folder / "config.py").write_text(CONFIG.format(*ports, url))
        self.log = folder / "log"
        path = f"{cache_dir() / 'node' / 'bin'}{os.pathsep}{os.environ['PATH']}"
        with self.log.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "jupyterhub", "-f", "config.py"],
                cwd=folder,
                env={**os.environ, "PATH": path},
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Self:
        end = time.monotonic() + 120
        while time.monotonic() < end and self.process.poll() is None:
            try:
                urllib.request.urlopen(f"{self.api}/", timeout=5).close()
                return self
            except OSError:
                time.sleep(0.2)
        self.__exit__()
        pytest.fail(f"the hub did not start:\n{self.log.read_text()[-3000:]}")

    def __exit__(self, *_) -> None:
        self.process.terminate()
        self.process.wait(30)
        # Ended while it still starts, a hub leaves its proxy behind; in order, it takes this away.
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((self.folder / PROXY_PID).read_text()), signal.SIGTERM)

    def get(self, path: str, token: str):
        return json.loads(self.ask("GET", path, token))

    def ask(self, method: str, path: str, token: str, body: bytes | None = None) -> bytes:
        headers = {"Authorization": f"token {token}"}
        url = f"{self.api}/{path}"
        request = urllib.request.Request(url, body, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return bytes(answer.read())


@pytest.fixture(scope="module")
def hub_database(tmp_path_factory) -> tuple[Path, str]:
    """Used by a real hub once, with users and a token."""
    folder = tmp_path_factory.mktemp("first")
    file = folder / "hub.sqlite"
    with Hub(folder / "run", f"sqlite:///{file}"):
        pass
    session = orm.new_session_factory(f"sqlite:///{file}")()
    for name in USERS:
        user = orm.User.find(session, name) or orm.User(name=name)
        session.add(user)
        session.commit()
        roles.assign_default_roles(session, entity=user)
    token = orm.User.find(session, "alice").new_api_token(note="made before")
    session.commit()
    session.close()
    session.get_bind().dispose()
    return file, token


@pytest.fixture
def kept(hub_database, tmp_path) -> tuple[Shelf, str]:
    where = Shelf(FolderStore(str(tmp_path / "kept")), "hub", "hub")
    return where, snapshot.take(address(str(hub_database[0])), where).name


@pytest.mark.parametrize("engine", ["sqlite", "postgresql", "mariadb"])
def test_a_hub_starts_on_a_restored_database_and_a_former_token_works(
    hub_database, kept, new_database, tmp_path, engine
):
    url = new_database(engine)
    where, name = kept
    identity = restore.look(address(url)).identity
    restore.execute(address(url), where, name, identity=identity)
    check(url, hub_database[1], tmp_path)


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"])
def test_a_hub_starts_on_a_database_that_was_moved_there_and_back(
    hub_database, new_database, tmp_path, engine
):
    there, back = new_database(engine), new_database("sqlite")
    migrate.execute(address(str(hub_database[0])), address(there))
    check(there, hub_database[1], tmp_path)
    # It has written meanwhile.
    migrate.execute(address(there), address(back))
    check(back, hub_database[1], tmp_path)


def check(url: str, token: str, tmp_path: Path) -> None:
    with Hub(tmp_path / f"hub-{len(list(tmp_path.iterdir()))}", url) as hub:
        assert hub.get("user", token)["name"] == "alice"
        assert {one["name"] for one in hub.get("users", token)} >= set(USERS)
        with pytest.raises(urllib.error.HTTPError, match="403"):
            hub.get("user", "another")


def test_what_the_list_after_a_restore_says_takes_a_token_and_rights_away(
    hub_database, kept, new_database, tmp_path
):
    token = hub_database[1]
    where, name = kept
    url = new_database("sqlite")
    found = restore.propose(address(url), where, name)
    mine = next(one for one in found.review.tokens if one.note == "made before")
    assert (mine.owner, [one.name for one in found.review.admins]) == ("alice", ["alice"])
    restore.execute(address(url), where, name, identity=found.difference.current.identity)
    session = orm.new_session_factory(url)()
    bob = orm.User.find(session, "bob@school.edu")
    bob.admin = True
    roles.assign_default_roles(session, entity=bob)
    of_bob = bob.new_api_token()
    session.commit()
    session.close()
    session.get_bind().dispose()
    with Hub(tmp_path / "hub", url) as hub:
        assert hub.get("users/bob@school.edu", token)["admin"]
        hub.ask("PATCH", "users/bob@school.edu", token, b'{"admin": false}')
        assert not hub.get("users/bob@school.edu", token)["admin"]
        assert "admin" not in hub.get("user", of_bob)["roles"]
        hub.ask("DELETE", f"users/{mine.owner}/tokens/{mine.id}", token)
        with pytest.raises(urllib.error.HTTPError, match="403"):
            hub.get("user", token)
