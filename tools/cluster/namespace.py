"""A mount namespace per instance, in which machine-wide paths are the instance's own.

Several paths are fixed in the programs: the provisioner of host-path volumes puts them under
/tmp/hostpath_pv, the kubelet's device plugin socket is under /var/lib/kubelet, the shims' sockets
are under /run/containerd. In the namespace each of them is a folder of the instance, so that two
instances and the host's own containerd or kubelet never meet, and all mounts that containers need
vanish with the last process of the namespace.
"""

from __future__ import annotations

import time
from pathlib import Path

from . import processes
from .errors import ClusterError
from .paths import Instance
from .record import Process

HOLDER = "namespace"

_TMP = Path("/tmp")  # noqa: S108 - covered, not used

# Folder under Instance.overlays, and the path that it covers. What does not exist on the host is
# made and never removed: removing a folder on which another namespace has something mounted takes
# that mount away there, as was seen when one instance ended and another one's volumes vanished.
# The host's /tmp as a whole is covered for that: its cleaners remove empty folders.
_COVERED = {
    "tmp": _TMP,
    "volumes": _TMP / "hostpath_pv",
    "kubelet": Path("/var/lib/kubelet"),
    "cni": Path("/var/lib/cni"),
    "pod-logs": Path("/var/log/pods"),
    "container-logs": Path("/var/log/containers"),
    "netns": Path("/run/netns"),
    "run-containerd": Path("/run/containerd"),
}

# The kubelet writes these settings of the kernel at start (or refuses to start). Covered by files
# that hold what it wants, the machine's own stay as they are: with kernel.panic=10 it would
# reboot after a kernel fault.
_KERNEL_SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}

# Kept by "down" for the next "up"; the rest only means something to running processes.
_KEPT = ("volumes", "kubelet", "pod-logs")


def create(instance: Instance) -> Process:
    """Make the namespace; the process returned keeps it and is the one to enter it by."""
    ready = instance.overlays / "ready"
    instance.overlays.mkdir(parents=True, exist_ok=True)
    ready.unlink(missing_ok=True)
    lines = ["set -eu"]
    if instance.root.resolve().is_relative_to(_TMP):
        raise ClusterError("JHUB_SAFETY_CACHE cannot be under /tmp: its node has a /tmp of its own")
    for name, covered in _COVERED.items():
        own = instance.overlays / name
        own.mkdir(exist_ok=True)
        if covered.parent == _TMP:
            (instance.overlays / "tmp" / covered.name).mkdir(exist_ok=True)
        else:
            covered.mkdir(parents=True, exist_ok=True)
        lines.append(f"mount --bind '{own}' '{covered}'")
    for setting, value in _KERNEL_SETTINGS.items():
        file = instance.overlays / "sysctl" / setting.replace("/", ".")
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"{value}\n")
        path = Path("/proc/sys") / setting
        if path.exists():
            lines.append(f"mount --bind '{file}' '{path}'")
    (instance.overlays / "tmp").chmod(0o1777)
    lines += [f"touch '{ready}'", "exec sleep infinity"]
    # "slave": what the host unmounts later is let go here too.
    argv = ["unshare", "--mount", "--propagation", "slave", "--", "/bin/sh", "-c", "\n".join(lines)]
    holder = processes.start(instance, HOLDER, argv)
    deadline = time.monotonic() + 20
    while not ready.exists():
        if not processes.alive(holder) or time.monotonic() > deadline:
            processes.end([holder], grace=1)
            raise ClusterError("Making the mount namespace failed", instance.log(HOLDER))
        time.sleep(0.02)
    return holder


def clean(instance: Instance) -> None:
    """Forget what belongs to processes that are gone: addresses, network namespaces, sockets."""
    for name in _COVERED:
        if name not in _KEPT:
            _empty(instance.overlays / name)


def _empty(folder: Path) -> None:
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            _empty(entry)
            entry.rmdir()
        else:
            entry.unlink()
