"""``db restore`` that is killed, at whatever step: the database is the old one or the new one.

The real command in processes of its own, ended with SIGKILL, the one that does the work and the
one that was typed. Then the command is run again. `make soak` dies at every step, `make test` at
some of them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from jupyterhub import orm, roles
from sqlalchemy import Connection, MetaData, create_engine, select, text
from sqlalchemy.pool import NullPool

from jhub_safety.hubdb import content, migrate, snapshot
from jhub_safety.hubdb.engines import address, other_clients, reading
from jhub_safety.hubdb.snapshot import Shelf
from jhub_safety.hubdb.stores import FolderStore
from jhub_safety.sessions.model import Server
from tests.databases import dying
from tests.unit.hub_database import add_server, add_user, opened

pytestmark = pytest.mark.once

#: Set by `make soak`: die at every step.
SOAK = "JHUB_SAFETY_SOAK"
SAMPLE = 3
#: Where a mistake would show; in each sample.
ALWAYS = ("os.rename", "os.link", "RENAME", "end")
DEADLINE = 30.0
KINDS = ("sqlite", "sqlite in wal mode", "postgresql", "mariadb")
CONFIG = """
c = get_config()
c.JupyterHub.db_url = {url!r}
c.JupyterHub.hub_port = 1
c.JupyterHub.spawner_class = "kubespawner.KubeSpawner"
c.KubeSpawner.namespace = "nowhere"
c.SafeKubeSpawner.hub_name = "hub"
c.DatabaseBackup.destination = {destination!r}
"""
Rows = dict[str, set[tuple[tuple[str, str], ...]]]


@dataclass
class Site:
    """A database, a snapshot of another state of it, and what the two hold."""

    folder: Path
    kind: str
    make: Callable[[str], str]
    url: str = ""
    old: Rows = field(default_factory=dict)
    new: Rows = field(default_factory=dict)
    logins: set[str] = field(default_factory=set)
    #: Of the old one, on a server.
    contents: Mapping[str, content.Content] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        return self.folder / "db" / "hub.sqlite"

    @property
    def shelf(self) -> Shelf:
        return Shelf(FolderStore(str(self.folder / "kept")), "hub", "hub")

    @property
    def reached(self) -> Path:
        return self.folder / "reached"

    def set_up(self, origin: Path) -> None:
        shutil.copytree(origin, self.folder)
        self.file.parent.mkdir()
        source = self.folder / "source.sqlite"
        self.logins = _logins(source)
        with opened(source) as db:
            db.delete(orm.User.find(db, "user-1"))
            add_user(db, "newcomer")
        self.begin(source)
        (self.folder / "jupyterhub_config.py").write_text(
            CONFIG.format(url=self.url, destination=(self.folder / "kept").as_uri())
        )
        site = self.folder / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(dying.SITECUSTOMIZE)

    def begin(self, source: Path) -> None:
        """Put the old state in its place."""
        if self.kind in ("postgresql", "mariadb"):
            self.url = self.make(self.kind)
            migrate.execute(address(str(source)), address(self.url))
            with reading(address(self.url)) as connection:
                self.contents = content.measure(connection)
        else:
            self.url = f"sqlite:///{self.file}"
            self.file.write_bytes(source.read_bytes())
            if self.kind != "sqlite":
                _end_without_closing(self.file)
        self.old = self.rows()

    def rows(self) -> Rows:
        return rows(self.file if self.kind.startswith("sqlite") else self.url)

    def restore(self, at: str = "", who: str = "both") -> subprocess.CompletedProcess[bytes]:
        folders = os.pathsep.join(str(one) for one in (self.file.parent, self.folder / "kept"))
        command = [sys.executable, "-m", "jhub_safety", "db", "restore", "newest", "--yes"]
        self.reached.unlink(missing_ok=True)
        # Both processes have its standard error: it ends when the last of them does.
        return subprocess.run(
            command,
            cwd=self.folder,
            env={
                # No cluster is configured: nobody looks for a hub's pod.
                **{key: value for key, value in os.environ.items() if not key.startswith("KUBE")},
                "HOME": str(self.folder),
                "PYTHONPATH": f"{self.folder / 'site'}{os.pathsep}{dying.ROOT}",
                "XDG_STATE_HOME": str(self.folder / "state"),
                dying.AT: at,
                dying.WHO: who,
                dying.FOLDERS: folders,
                dying.REACHED: str(self.reached),
            },
            capture_output=True,
            timeout=120,
            check=False,
        )

    def steps(self) -> list[str]:
        return self.reached.read_text().splitlines() if self.reached.exists() else []

    def settle(self) -> None:
        """The server has noticed that its client is gone, and has undone what it began."""
        end = time.monotonic() + DEADLINE
        while other_clients(address(self.url)):
            assert time.monotonic() < end, "the connection of the one that was killed stays"
            time.sleep(0.05)

    def problem(self) -> str:
        """What is wrong with what a killed restore left; "" when nothing is."""
        if self.kind.startswith("sqlite") and not self.file.exists():
            if self.kind == "sqlite":
                return "there is no database"
            # Beside a write-ahead log it goes first: noticed, and both are beside it.
            asides, waiting = self.beside("before"), self.beside("restoring")
            whole = any(rows(one) == self.old for one in asides) and waiting
            return "" if whole else "neither the old one nor the new one is there"
        found = self.rows()
        if found == self.old:
            return ""
        if found != self.new:
            return f"neither the old one nor the new one: {_different(found, self.new)}"
        if both := _logins(self.file if self.file.exists() else self.url) & self.logins:
            return f"{len(both)} logins of the snapshot still count"
        return "" if self.old_is_kept() else "the old one is gone"

    def old_is_kept(self) -> bool:
        if self.kind.startswith("sqlite"):
            return any(rows(one) == self.old for one in self.beside("before"))
        kept = [one.manifest for one in snapshot.listing(self.shelf) if one.verified]
        return any(one and not content.differences(one.tables, self.contents) for one in kept)

    def beside(self, what: str) -> list[Path]:
        ends = ("-wal", "-shm", "-journal")
        every = self.file.parent.glob(f"hub.sqlite.{what}-*")
        return [one for one in every if not one.name.endswith(ends)]


def _fill(file: Path) -> None:
    with opened(file) as db:
        for role in roles.get_default_roles():
            roles.create_role(db, role)
        for number in range(5):
            add_user(db, f"user-{number}")
        add_server(db, Server("user-0"))
        orm.User.find(db, "user-0").new_api_token(note="a browser's", session_id="s")


def _end_without_closing(file: Path) -> None:
    """The last commit is in the write-ahead log alone, as after a hub that was killed."""
    program = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1]); "
        "c.execute('PRAGMA journal_mode=WAL'); "
        "c.execute(\"UPDATE users SET name = 'in the log' WHERE name = 'user-2'\"); c.commit(); "
        "os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", program, str(file)], check=True)
    assert file.with_name("hub.sqlite-wal").stat().st_size


@contextmanager
def _connection(of: Path | str) -> Iterator[Connection]:
    """Of a file a copy, with what belongs to it: opening one changes it."""
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(of, Path):
            for end in ("", "-wal", "-journal"):
                if (part := of.with_name(of.name + end)).exists():
                    shutil.copyfile(part, Path(folder) / f"copy{end}")
        url = f"sqlite:///{folder}/copy" if isinstance(of, Path) else of
        engine = create_engine(url, poolclass=NullPool)
        with engine.connect() as connection:
            yield connection
        engine.dispose()


def rows(of: Path | str) -> Rows:
    """All of it, but the cookies' ids, which are drawn anew by each restore."""
    with _connection(of) as connection:
        found = MetaData()
        found.reflect(connection)
        return {
            name: {
                tuple((key, str(value)) for key, value in row._mapping.items())
                for row in connection.execute(
                    select(*(column for column in table.c if column.name != "cookie_id"))
                )
            }
            for name, table in found.tables.items()
            if not name.startswith("jhs_")
        }


def _logins(of: Path | str) -> set[str]:
    query = "SELECT hashed FROM api_tokens WHERE session_id IS NOT NULL"
    with _connection(of) as connection:
        cookies = set(connection.execute(text("SELECT cookie_id FROM users")).scalars())
        return cookies | set(connection.execute(text(query)).scalars())


def _different(found: Rows, wanted: Rows) -> Any:
    return {
        name: (len(found.get(name, set()) ^ wanted.get(name, set())))
        for name in found.keys() | wanted.keys()
        if found.get(name) != wanted.get(name)
    }


def _sample(steps: list[str]) -> list[str]:
    if os.environ.get(SOAK):
        return steps
    evenly = {steps[round(n * (len(steps) - 1) / (SAMPLE - 1))] for n in range(SAMPLE)}
    return [one for one in steps if one in evenly or one.startswith(ALWAYS)]


@pytest.fixture(scope="module")
def origin(tmp_path_factory) -> Path:
    """A database, and a snapshot of it."""
    made = tmp_path_factory.mktemp("origin")
    _fill(made / "source.sqlite")
    shelf = Shelf(FolderStore(str(made / "kept")), "hub", "hub")
    snapshot.take(address(str(made / "source.sqlite")), shelf)
    return made


@pytest.fixture(params=KINDS)
def site(request, origin, new_database, tmp_path) -> Callable[[], Site]:
    """Makes the same case again and again."""

    def make() -> Site:
        made = Site(tmp_path / f"{len(list(tmp_path.iterdir()))}", request.param, new_database)
        made.set_up(origin)
        return made

    return make


@pytest.mark.timeout(3600 if os.environ.get(SOAK) else 600)
def test_killed_at_any_step_the_database_is_whole_and_running_it_again_finishes(site):
    whole = site()
    done = whole.restore()
    assert done.returncode == 0, done.stderr.decode()
    steps, new = whole.steps(), whole.rows()
    assert new != whole.old
    assert len(steps) > SAMPLE
    problems = []
    for step in _sample(steps):
        case = site()
        case.new = new
        died = case.restore(at=step)
        assert died.returncode == -9, f"it did not die at {step}: {died.stderr.decode()}"
        case.settle()
        if problem := case.problem():
            problems.append(f"{step}: {problem}")
        again = case.restore()
        if again.returncode:
            problems.append(f"{step}: it cannot be run again: {again.stderr.decode()[-300:]}")
        elif case.rows() != new or case.problem():
            problems.append(f"{step}: run again, it ends in something else: {case.problem()}")
        elif case.beside("restoring"):
            problems.append(f"{step}: a copy with logins was left behind")
    assert problems == []


@pytest.mark.parametrize("site", ["sqlite", "mariadb"], indirect=True)
def test_when_only_the_process_that_does_the_work_is_killed_the_command_says_so(site):
    whole = site()
    whole.restore()
    case = site()
    case.new = whole.rows()
    step = whole.steps()[len(whole.steps()) // 2]
    died = case.restore(at=step, who="worker")
    assert died.returncode == 1
    assert b"ended without an answer (exit code -9)" in died.stderr
    case.settle()
    assert case.problem() == ""


@pytest.mark.parametrize("site", ["sqlite", "mariadb"], indirect=True)
def test_when_only_the_command_is_killed_the_work_is_undone_or_done(site):
    whole = site()
    whole.restore()
    case = site()
    case.new = whole.rows()
    died = case.restore(at=whole.steps()[0], who="command")
    assert died.returncode == -9
    case.settle()
    assert case.problem() == ""
    again = case.restore()
    assert again.returncode == 0, again.stderr.decode()
    assert (case.rows(), case.problem()) == (case.new, "")
