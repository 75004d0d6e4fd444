"""A container's surroundings for the keeper: its volume, its state, a server that is none."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import pytest

SCRIPTS = files("jhub_safety.sidecars")
KEEPER = SCRIPTS.joinpath("keeper.sh").read_text()
PROBE = SCRIPTS.joinpath("probe.sh").read_text()
SHELLS = {"dash": ["dash"], "bash": ["bash"], "busybox": ["busybox", "sh"]}
DEADLINE = 10.0
NOBODY = 65534

#: A server that makes its data like the official entrypoints: only where there is none.
SERVER = """
[ -e $JHS_DATA/VERSION ] || { echo made >>$FAKE/log; echo rows >$JHS_DATA/rows; }
[ -e $FAKE/never-made ] || [ -e $JHS_DATA/VERSION ] || echo 17 >$JHS_DATA/VERSION
[ ! -e $FAKE/broken ] || { echo "$(cat $FAKE/broken)"; exit 3; }
trap 'echo ended >>$FAKE/log; exit 0' USR1
trap : TERM
echo up >>$FAKE/log
: >$FAKE/up
while :; do sleep 0.05; done
"""

#: Tests that are killed clean up nothing: then their end of the pipe closes, and the containers'
#: processes end with them. A line says that there is nothing to end any more.
GUARD = 'read -r _ || kill -s KILL -- "-$1"'


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> list[str]:
    argv = SHELLS[request.param]
    if shutil.which(argv[0]) is None:
        pytest.skip(f"no {argv[0]} here")
    return argv


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def contents(folder: Path) -> dict[str, str]:
    """What each file holds, by its path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and not path.name.startswith(".jhub-safety")
    }


@dataclass
class Pod:
    """A container's surroundings in a folder: its volume, its state, where its last words go."""

    folder: Path
    shell: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    guards: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for one in ("volume", "fake", "state"):
            (self.folder / one).mkdir()
        (self.folder / "mounts").write_text(f"x {self.volume} ext4 rw 0 0\n")
        (self.fake / "server").write_text(SERVER)
        self.environment = {
            "PATH": os.environ["PATH"],
            "FAKE": str(self.fake),
            "JHS_NAME": "db",
            "JHS_DATA": str(self.data),
            "JHS_RESERVE": "64",
            # Shells cannot trap SIGINT where it is ignored from the beginning; servers can.
            "JHS_STOP": "USR1",
            "JHS_MODE": "0700",
            "JHS_READY": "[ -e $FAKE/up ]",
            "JHS_AFTER_READY": "echo after >>$FAKE/log",
            "JHS_DATA_VERSION": "cat $JHS_DATA/VERSION",
            "JHS_SERVER_VERSION": "echo 17",
            "JHS_DEADLINE": "60",
            "JHS_REQUIRED": "0",
            "JHS_STATE": str(self.folder / "state"),
            "JHS_MESSAGE": str(self.folder / "message"),
            "JHS_MOUNTS": str(self.folder / "mounts"),
        }

    @property
    def volume(self) -> Path:
        return self.folder / "volume"

    @property
    def data(self) -> Path:
        return self.volume / "data"

    @property
    def fake(self) -> Path:
        return self.folder / "fake"

    @property
    def state(self) -> Path:
        return self.folder / "state" / "db"

    @property
    def log(self) -> list[str]:
        file = self.fake / "log"
        return file.read_text().split() if file.exists() else []

    @property
    def told(self) -> str:
        file = self.folder / "message"
        return file.read_text().strip() if file.exists() else ""

    def run(self, user: int | None = None) -> subprocess.Popen[bytes]:
        """A container begins."""
        (self.folder / "message").unlink(missing_ok=True)
        (self.fake / "up").unlink(missing_ok=True)
        return self.begin(KEEPER, str(self.fake / "server"), user=user)

    def begin(
        self, script: str, *server: str, user: int | None = None, **environment: str
    ) -> subprocess.Popen[bytes]:
        """A process that ends with the test, and with what it has started."""
        with (self.folder / "output").open("wb") as output:
            started = subprocess.Popen(
                [*self.shell, "-c", script, "jhub-safety", *self.shell, *server],
                env={**self.environment, **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=user,
            )
        self.running.append(started)
        self.guards.append(
            subprocess.Popen(
                ["sh", "-c", GUARD, "guard", str(started.pid)],
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
        )
        return started

    def end(self) -> None:
        """Every process of its containers, whoever has started it."""
        for one in self.running:
            # The group outlives its first process as long as another one is in it.
            with suppress(ProcessLookupError):
                os.killpg(one.pid, signal.SIGKILL)
            one.wait()
        for one in self.guards:
            one.communicate(b"\n")

    def until_ready(self) -> subprocess.Popen[bytes]:
        started = self.run()
        until(
            (self.state / "ready").exists,
            f"never ready: {(self.folder / 'output').read_text()}",
        )
        return started

    def ends(self, started: subprocess.Popen[bytes]) -> int:
        return started.wait(DEADLINE)

    def restarted(self) -> subprocess.Popen[bytes]:
        """As the kubelet does after the first container of the pod has ended."""
        return self.run()

    def new_pod(self) -> None:
        shutil.rmtree(self.state, ignore_errors=True)

    def probe(self) -> int:
        argv = [*self.shell, "-c", PROBE.replace("left=40", "left=2")]
        return subprocess.run(argv, env=self.environment, check=False).returncode

    def output(self) -> str:
        return (self.folder / "output").read_text()


@pytest.fixture
def pod(tmp_path: Path, shell: list[str]) -> Iterator[Pod]:
    made = Pod(tmp_path, shell)
    try:
        yield made
    finally:
        made.end()


def a_pod_with_data(pod: Pod) -> dict[str, str]:
    """One in which a server has run; what its data is."""
    first = pod.until_ready()
    until((pod.volume / ".jhub-safety-reserve").exists, "no reserve")
    first.terminate()
    pod.ends(first)
    pod.new_pod()
    (pod.fake / "log").unlink()
    return contents(pod.data)
