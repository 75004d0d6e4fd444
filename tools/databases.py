"""Real PostgreSQL and MariaDB servers for tests and benchmarks, from Debian's packages.

They run as processes of ours in a temporary folder, on a unix socket alone; no system service is
started or touched.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL, create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

PACKAGES = ("postgresql", "mariadb-server-core", "mariadb-client-core")
#: Seconds for a server to accept connections.
START = 60.0
Command = Sequence[str | Path]
#: Tells packages that they may start nothing (Debian policy, 9.3.3.1).
_POLICY = Path("/usr/sbin/policy-rc.d")


class NoServers(Exception):
    """The programs are not there, and cannot be had."""


@dataclass(frozen=True)
class Programs:
    """Where they are."""

    postgres: Path
    initdb: Path
    mariadbd: Path
    mariadb_install: Path


def find() -> Programs | None:
    """None when one is missing."""
    versions = sorted(
        (one for one in Path("/usr/lib/postgresql").glob("[0-9]*") if one.name.isdigit()),
        key=lambda one: int(one.name),
    )
    path = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
    mariadbd = shutil.which("mariadbd", path=path)
    install = shutil.which("mariadb-install-db", path=path)
    if not versions or mariadbd is None or install is None:
        return None
    folder = versions[-1] / "bin"
    if not (folder / "postgres").exists() or not (folder / "initdb").exists():
        return None
    return Programs(folder / "postgres", folder / "initdb", Path(mariadbd), Path(install))


def ensure() -> Programs:
    """Find them, or install them.

    Raises:
        NoServers: neither; says what a person has to do.
    """
    if found := find():
        return found
    wanted = " ".join(PACKAGES)
    prefix: list[str] = []
    if os.geteuid() != 0:
        sudo = shutil.which("sudo")
        if sudo is None:
            raise NoServers(f"needs root to install {wanted}")
        prefix = [sudo, "-n"]
    if shutil.which("apt-get") is None:
        raise NoServers(f"install {wanted} (this machine has no apt-get)")
    with _starting_nothing(prefix):
        for command in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
            # A fresh machine is often still busy with its own first updates.
            argv = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
            argv += ["-q", "-o", "DPkg::Lock::Timeout=300", *command]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            if done.returncode:
                last = (done.stderr or done.stdout).strip().splitlines()[-1:]
                raise NoServers(f"apt-get {command[0]}: {' '.join(last)}")
    found = find()
    if found is None:
        raise NoServers(f"{wanted} were installed, and their programs are not where they should be")
    return found


@contextmanager
def _starting_nothing(prefix: Sequence[str]) -> Iterator[None]:
    if _POLICY.exists():
        yield
        return
    subprocess.run(
        [*prefix, "sh", "-c", f"printf '#!/bin/sh\\nexit 101\\n' > {_POLICY}; chmod +x {_POLICY}"],
        check=True,
    )
    try:
        yield
    finally:
        subprocess.run([*prefix, "rm", "-f", str(_POLICY)], check=True)


# -- running them


@dataclass(frozen=True)
class Server:
    """One that runs."""

    #: ``postgresql`` or ``mysql``.
    engine: str
    #: Of its administrator, in a database that is always there.
    url: URL

    def new_database(self) -> str:
        """An empty one; its URL with everything in it."""
        name = f"hub_{secrets.token_hex(4)}"
        collation = " CHARACTER SET utf8mb4" if self.engine == "mysql" else ""
        self.run(f"CREATE DATABASE {name}{collation}")
        return self.url.set(database=name).render_as_string(hide_password=False)

    def run(self, statement: str) -> None:
        engine = create_engine(self.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                connection.execute(text(statement))
        finally:
            engine.dispose()


def _account(preferred: str) -> str | None:
    """The servers refuse to run as root; None when we are not root."""
    if os.geteuid() != 0:
        return None
    for name in (preferred, "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise NoServers("this machine has no account nobody")


@contextmanager
def _folder(account: str | None) -> Iterator[Path]:
    # Short: the path of a unix socket has at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="jhs-"))
    try:
        if account is not None:
            shutil.chown(folder, account)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgresql(programs: Programs) -> Iterator[Server]:
    account = _account("postgres")
    with _folder(account) as folder:
        data = folder / "data"
        initdb: Command = [programs.initdb, "-D", data, "-U", "hub", "-A", "trust", "-E", "UTF8"]
        _once([*initdb, "--locale=C", "--no-sync"], folder, account)
        serve: Command = [programs.postgres, "-D", data, "-k", folder, "-c", "listen_addresses="]
        url = make_url(f"postgresql+psycopg://hub@/postgres?host={folder}")
        with _running([*serve, "-F"], folder, account, Server("postgresql", url)) as server:
            yield server


@contextmanager
def mariadb(programs: Programs) -> Iterator[Server]:
    account = _account("mysql")
    with _folder(account) as folder:
        data, socket = folder / "data", folder / "s"
        install: Command = [programs.mariadb_install, "--no-defaults", f"--datadir={data}"]
        install = [*install, "--auth-root-authentication-method=normal", "--skip-test-db"]
        _once([*install, *([f"--user={account}"] if account else [])], folder, None)
        serve: Command = [
            programs.mariadbd,
            "--no-defaults",
            f"--datadir={data}",
            f"--socket={socket}",
        ]
        serve = [*serve, "--skip-networking", f"--pid-file={folder / 'pid'}", "--skip-log-bin"]
        # As -F is for PostgreSQL: each commit is written, and not forced to this machine's disk.
        serve = [*serve, "--innodb-flush-log-at-trx-commit=2"]
        url = make_url(f"mysql+pymysql://root@localhost/mysql?unix_socket={socket}&charset=utf8mb4")
        with _running(serve, folder, account, Server("mysql", url)) as server:
            yield server


def _once(command: Command, folder: Path, account: str | None) -> None:
    done = subprocess.run(
        [str(one) for one in command],
        cwd=folder,
        user=account,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NoServers(f"{Path(command[0]).name}: {(done.stderr or done.stdout)[-500:]}")


@contextmanager
def _running(
    command: Command, folder: Path, account: str | None, server: Server
) -> Iterator[Server]:
    log = folder / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [str(one) for one in command],
            cwd=folder,
            user=account,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait(lambda: server.run("SELECT 1"), process, log)
        yield server
    finally:
        # PostgreSQL's fast shutdown: SIGTERM would wait for clients.
        process.send_signal(2 if server.engine == "postgresql" else 15)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(ready: Callable[[], None], process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START
    while True:
        try:
            ready()
            return
        except SQLAlchemyError as error:
            if process.poll() is not None or time.monotonic() > end:
                last = log.read_text(errors="replace")[-1000:]
                raise NoServers(f"it does not answer: {last}") from error
        time.sleep(0.1)


if __name__ == "__main__":
    try:
        print(ensure())
    except NoServers as error:
        sys.exit(f"no database servers: {error}")
