"""A real JupyterHub with its configurable-http-proxy, as processes of this machine.

Used by the demo, the drill and the tests on the real cluster. It knows nothing of Kubernetes: what
the hub needs for that comes with its configuration file and its environment.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import aiohttp

from .identity import Identity

START_TIMEOUT = 60.0
STOP_TIMEOUT = 30.0
TAIL_LINES = 40
# What a hub's directory holds, beside jupyterhub.sqlite and jupyterhub_cookie_secret.
RECORD = "processes.json"
LOG = "jupyterhub.log"
DATABASE = "jupyterhub.sqlite"
# The name that JupyterHub gives it by default, in its working directory.
PROXY_PID = "jupyterhub-proxy.pid"
# A hub that starts inside another one's lab or service must not take over its settings.
FOREIGN_PREFIXES = ("JUPYTERHUB_", "CONFIGPROXY_", "JPY_")


class HubError(Exception):
    """The hub did not do what was asked; the message ends with the last lines of its log."""


def cache_dir() -> Path:
    """~/.cache/jhub-safety, or what JHUB_SAFETY_CACHE names."""
    chosen = os.environ.get("JHUB_SAFETY_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "jhub-safety"


def free_ports(*addresses: str) -> list[int]:
    """One for each; all are held until the last is chosen, so that no port is given twice."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in addresses]
        for probe, address in zip(probes, addresses, strict=True):
            probe.bind((address, 0))
        return [probe.getsockname()[1] for probe in probes]


class HubProcess:
    """One hub in one working directory, which can be killed, stopped and started again.

    The ports stay the same over restarts, as they do for a hub behind a service: labs that are
    running keep the address they were given. Browsers reach the proxy on loopback only; the hub's
    own API listens on `hub_ip`, where labs reach it.
    """

    def __init__(
        self,
        config: Path,
        directory: Path,
        *,
        environment: Mapping[str, str] | None = None,
        hub_ip: str = "127.0.0.1",
        arguments: Sequence[str] = (),
        python: str = sys.executable,
        port: int | None = None,
        ports: Callable[..., list[int]] = free_ports,
    ) -> None:
        """
        config: the configuration file; it need not say anything about addresses.
        directory: working directory; keeps database, cookie secret, log and the process record.
        environment: added to this program's own, e.g. KUBECONFIG.
        hub_ip: address of this machine on which labs reach the hub; never a public one.
        arguments: more command line, e.g. "--JupyterHub.log_level=DEBUG"; it beats the config.
        python: the interpreter whose jupyterhub is run.
        port: of the proxy on loopback; a free one when it is None.
        ports: gives free ports, one for each address.
        """
        self.config = config.resolve()
        self.directory = directory.resolve()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.environment = dict(environment or {})
        self.hub_ip = hub_ip
        self.arguments = list(arguments)
        self.python = python
        free, self._api_port, self._hub_port = ports("127.0.0.1", "127.0.0.1", hub_ip)
        self.port = port or free
        # Without one that stays, a hub makes a new one at each start and cannot talk to the proxy
        # that a killed hub left behind.
        self._proxy_token = secrets.token_hex(32)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where a browser goes."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def database(self) -> Path:
        return self.directory / DATABASE

    @property
    def log(self) -> Path:
        return self.directory / LOG

    def log_text(self) -> str:
        """All that the hub and its proxy have said, over all restarts."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    async def start(self, timeout: float = START_TIMEOUT) -> None:
        """Start it and wait until it answers through the proxy.

        Raises HubError with the end of the log when it ends or does not answer in time; nothing of
        it is left running then.
        """
        if self.running():
            raise HubError(f"the hub of {self.directory} runs already")
        self._forget_a_stale_proxy()
        with self.log.open("ab") as output:
            # A session of its own: Ctrl-C in a terminal reaches this program, which then decides
            # in which order things end.
            self._process = subprocess.Popen(  # noqa: ASYNC220 - does not wait for it
                self._command(),
                cwd=self.directory,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._record()
        try:
            await self._wait_until_it_answers(timeout)
        except BaseException:
            # Ended this early, a hub leaves its proxy behind.
            self._record()
            self.close()
            raise
        self._record()

    async def stop(self, timeout: float = STOP_TIMEOUT) -> int:
        """SIGTERM: the hub cleans up as its configuration says. Gives its exit code."""
        process = self._started()
        process.send_signal(signal.SIGTERM)
        return await self._wait(process, timeout)

    async def kill(self) -> None:
        """SIGKILL: the hub has no time for anything. Its proxy stays, as it does in a cluster."""
        process = self._started()
        process.kill()
        await self._wait(process, STOP_TIMEOUT)

    async def restart(self, *, kill: bool = False) -> None:
        if kill:
            await self.kill()
        else:
            await self.stop()
        await self.start()

    async def ended(self, timeout: float) -> int:
        """Wait until it has ended by itself; its exit code. Its proxy stays."""
        return await self._wait(self._started(), timeout)

    def close(self) -> None:
        """End the hub and the proxy, whatever state they are in; does nothing when they are gone.

        Not a coroutine: it is what runs in the end of a program that was interrupted.
        """
        if self._process is not None:
            if self._process.poll() is None:
                self._process.terminate()
                try:
                    self._process.wait(STOP_TIMEOUT)
                except subprocess.TimeoutExpired:
                    self._process.kill()
                    self._process.wait()
            self._process = None
        end_recorded(self.directory)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise HubError(self._with_log("the hub does not run"))
        return self._process

    async def _wait(self, process: subprocess.Popen[bytes], timeout: float) -> int:
        try:
            async with asyncio.timeout(timeout):
                while (code := process.poll()) is None:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise HubError(self._with_log(f"the hub did not end within {timeout:.0f} s")) from None
        return code

    def _command(self) -> list[str]:
        # The command line beats the configuration file, so addresses are always these.
        return [
            self.python,
            "-m",
            "jupyterhub",
            f"--config={self.config}",
            f"--JupyterHub.bind_url={self.url}",
            f"--JupyterHub.hub_ip={self.hub_ip}",
            f"--JupyterHub.hub_port={self._hub_port}",
            f"--JupyterHub.hub_connect_ip={self.hub_ip}",
            f"--ConfigurableHTTPProxy.api_url=http://127.0.0.1:{self._api_port}",
            *self.arguments,
        ]

    def _environment(self) -> dict[str, str]:
        own = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(FOREIGN_PREFIXES)
        }
        path = f"{cache_dir() / 'node' / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        own |= {"PATH": path, "CONFIGPROXY_AUTH_TOKEN": self._proxy_token, "PYTHONUNBUFFERED": "1"}
        return own | self.environment

    async def _wait_until_it_answers(self, timeout: float) -> None:
        process = self._process
        if process is None:
            return
        limit = aiohttp.ClientTimeout(total=5)
        # The hub first, so that the log is not full of a proxy that has no route yet.
        left = [f"http://{self.hub_ip}:{self._hub_port}/hub/api/", f"{self.url}/hub/api/"]
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        async with aiohttp.ClientSession(timeout=limit) as session:
            while loop.time() < deadline:
                code = process.poll()
                if code is not None:
                    raise HubError(self._with_log(f"the hub ended at once with exit code {code}"))
                try:
                    async with session.get(left[0]) as answer:
                        if answer.status == 200:
                            left.pop(0)
                except (aiohttp.ClientError, TimeoutError):
                    pass
                if not left:
                    return
                await asyncio.sleep(0.1)
        raise HubError(self._with_log(f"the hub did not answer on {self.url} in {timeout:.0f} s"))

    def _forget_a_stale_proxy(self) -> None:
        """JupyterHub ends whatever has the pid in that file now, be it the proxy or not."""
        proxy = recorded(self.directory).get("proxy")
        if proxy is None or not proxy.alive():
            (self.directory / PROXY_PID).unlink(missing_ok=True)

    def _record(self) -> None:
        """Write down who is who, for `end_recorded` in a later program."""
        pids = {"proxy": _proxy_pid(self.directory)}
        if self._process is not None:
            pids["hub"] = self._process.pid
        found = {name: Identity.of(pid) for name, pid in pids.items() if pid}
        content = {name: asdict(one) for name, one in found.items() if one is not None}
        (self.directory / RECORD).write_text(json.dumps(content, indent=2) + "\n")

    def _with_log(self, what: str) -> str:
        last = self.log_text().splitlines()[-TAIL_LINES:]
        return "\n".join(
            [f"{what}. The last lines of {self.log}:", *(f"  {line}" for line in last)]
        )


def _proxy_pid(directory: Path) -> int | None:
    """The pid that JupyterHub wrote down when it started the proxy."""
    try:
        return int((directory / PROXY_PID).read_text())
    except (OSError, ValueError):
        return None


def recorded(directory: Path) -> dict[str, Identity]:
    """Hub and proxy that were last started in this directory, whether or not they still run."""
    try:
        content = json.loads((directory / RECORD).read_text())
        return {name: Identity(**fields) for name, fields in content.items()}
    except (OSError, ValueError, TypeError):
        return {}


def end_recorded(directory: Path) -> bool:
    """End a hub and its proxy by their record; True when any of them was running."""
    running = [(name, one) for name, one in recorded(directory).items() if one.alive()]
    # The hub first: it would start a new proxy when it misses the old one.
    for _, one in sorted(running, key=lambda pair: pair[0] != "hub"):
        one.end(STOP_TIMEOUT)
    (directory / RECORD).unlink(missing_ok=True)
    return bool(running)
