"""A control group per instance: the kernel's own list of every process that belongs to it.

Containers and their shims are started by containerd, not by us, and outlive it; they are found
through the group, so that nothing has to be guessed from a process' name. Both layouts work:
version 1 (a tree per controller) and version 2 (one tree).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

# The leaf in which the harness' own processes run, beside the "kubepods" of the kubelet.
NODE_LEAF = "node"
_V2_CONTROLLERS = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids")


def _mounts() -> Iterator[tuple[str, Path, set[str]]]:
    for line in Path("/proc/mounts").read_text().splitlines():
        _, target, kind, options, *_ = line.split()
        if kind in ("cgroup", "cgroup2"):
            yield kind, Path(target), set(options.split(","))


def trees() -> list[Path]:
    """The trees in which the kubelet makes groups."""
    first = [path for kind, path, _ in _mounts() if kind == "cgroup"]
    return first or [path for kind, path, _ in _mounts() if kind == "cgroup2"][:1]


def _tracking_tree() -> Path:
    """The tree by which processes are found: any one will do as each holds every process."""
    for kind, path, options in _mounts():
        if kind == "cgroup" and "pids" in options:
            return path
    return trees()[0]


def create(name: str) -> None:
    """Make the group in every tree; the kubelet demands that its cgroupRoot exists."""
    for tree in trees():
        group = tree / name
        if (tree / "cgroup.subtree_control").exists():
            _enable_controllers(tree)
            group.mkdir(exist_ok=True)
            _enable_controllers(group)
            continue
        group.mkdir(exist_ok=True)
        # In version 1 a new cpuset is empty and takes no process until it is filled.
        for setting in ("cpuset.cpus", "cpuset.mems"):
            if (group / setting).exists() and not (group / setting).read_text().strip():
                (group / setting).write_text((tree / setting).read_text())
    (_tracking_tree() / name / NODE_LEAF).mkdir(exist_ok=True)


def _enable_controllers(group: Path) -> None:
    offered = (group / "cgroup.controllers").read_text().split()
    for controller in _V2_CONTROLLERS:
        if controller in offered:
            (group / "cgroup.subtree_control").write_text(f"+{controller}")


def entry(name: str) -> Path:
    """The file to which a process writes its pid to become one of the instance's own."""
    return _tracking_tree() / name / NODE_LEAF / "cgroup.procs"


def processes(name: str, below: str = "") -> set[int]:
    """The pids in the group and the groups under it."""
    found: set[int] = set()
    for folder, _, _ in os.walk(_tracking_tree() / name / below):
        try:
            text = (Path(folder) / "cgroup.procs").read_text()
        except OSError:
            continue  # removed between the listing and the reading
        # A 0 stands for a process of a pid namespace that is not visible from here.
        found.update(int(word) for word in text.split() if word != "0")
    return found


def end_processes(name: str, below: str = "", *, grace: float) -> None:
    """SIGTERM to all in the group, SIGKILL to what is left after `grace` seconds."""
    deadline = time.monotonic() + grace
    _signal_all(name, below, signal.SIGTERM)
    while processes(name, below) and time.monotonic() < deadline:
        time.sleep(0.05)
    deadline = time.monotonic() + 10
    while processes(name, below) and time.monotonic() < deadline:
        # Repeated, as a process may fork between the listing and the signal.
        _signal_all(name, below, signal.SIGKILL)
        time.sleep(0.05)


def _signal_all(name: str, below: str, number: signal.Signals) -> None:
    for pid in processes(name, below):
        try:
            handle = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            # Looked at again with the handle open: now the pid cannot pass to another process.
            if pid in processes(name, below):
                signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(handle)


def remove(name: str) -> None:
    """Remove the group from every tree; groups that still hold processes stay."""
    # Of a machine that has both versions mounted, runc uses version 2's tree as well.
    for _, tree, _ in _mounts():
        for folder, _, _ in os.walk(tree / name, topdown=False):
            try:
                Path(folder).rmdir()
            except OSError:
                continue
