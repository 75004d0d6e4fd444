"""Starts the node's processes and ends them, each known by its pid and start time."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from . import cgroups
from .errors import ClusterError
from .paths import Instance
from .record import Process


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _start_time(pid: int) -> int | None:
    """None when there is no such process, or only its remains that nobody has collected."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The program's name comes in brackets and may hold blanks and brackets itself.
    state, *rest = text.rpartition(")")[2].split()
    return None if state in ("Z", "X") else int(rest[18])


def alive(process: Process) -> bool:
    return process.boot == boot_id() and _start_time(process.pid) == process.started


def start(
    instance: Instance, component: str, argv: Sequence[str | Path], *, inside: Process | None = None
) -> Process:
    """Start a component with its output in its own log; it goes on when this program ends.

    inside: the holder of the mount namespace that it runs in (see namespace.py). Shell and
        nsenter replace themselves by the next program, so the pid stays the one recorded.
    """
    log = instance.log(component)
    log.parent.mkdir(parents=True, exist_ok=True)
    enter = ["nsenter", f"--mount=/proc/{inside.pid}/ns/mnt", "--"] if inside else []
    wrapper = ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', str(cgroups.entry(instance.cgroup))]
    with log.open("ab") as output:
        output.write(f"--- started {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
        output.flush()
        child = subprocess.Popen(
            [*wrapper, *enter, *map(str, argv)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            start_new_session=True,
            env=_environment(),
        )
    started = _start_time(child.pid)
    if started is None:
        raise ClusterError(f"{component} ended at once", log)
    return Process(component, child.pid, started, boot_id())


def _environment() -> dict[str, str]:
    env = dict(os.environ)
    env["PATH"] = f"{env.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
    # A machine's proxy must not be asked for addresses of this machine.
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        env.pop(name, None)
    return env


def wait_for(
    instance: Instance,
    condition: Callable[[], bool],
    what: str,
    *,
    by: Process,
    among: Sequence[Process],
    timeout: float,
) -> None:
    """Wait until `condition` holds; ClusterError names the log that explains why it does not.

    by: the process that is to bring it about. among: those that it needs too; one that ends (an
        etcd that cannot read its data) would otherwise only show as a wait in vain.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        for process in among:
            if not alive(process):
                raise ClusterError(
                    f"{what}: {process.component} has ended", instance.log(process.component)
                )
        if time.monotonic() > deadline:
            raise ClusterError(f"{what}: not within {timeout:.0f} s", instance.log(by.component))
        time.sleep(0.1)


def end(ones: Iterable[Process], *, grace: float) -> None:
    """SIGTERM to each, SIGKILL to what is left after `grace` seconds; gone ones are fine."""
    left = [process for process in ones if alive(process)]
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        for process in left:
            _send(process, number)
        deadline = time.monotonic() + patience
        while left and time.monotonic() < deadline:
            _collect(left)
            left = [process for process in left if alive(process)]
            if left:
                time.sleep(0.05)
        if not left:
            return
    names = ", ".join(f"{process.component} (pid {process.pid})" for process in left)
    raise ClusterError(f"Still running after SIGKILL: {names}")


def _send(process: Process, number: signal.Signals) -> None:
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        return
    try:
        if alive(process):
            signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def _collect(ones: Iterable[Process]) -> None:
    """Collect those that are children of this very program, as nobody else would."""
    for process in ones:
        try:
            os.waitpid(process.pid, os.WNOHANG)
        except ChildProcessError:
            continue
