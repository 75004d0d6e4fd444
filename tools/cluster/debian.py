"""What is taken from the host's Debian or Ubuntu: programs, its suite and its mirror."""

from __future__ import annotations

import os
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

from . import commands
from .errors import ClusterError
from .paths import cache_dir
from .progress import Progress

# The package of each program. The program is looked for, not the package: a machine with Docker
# has containerd from another package, and installing Debian's would remove that one.
_PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "socat": "socat",
    "ethtool": "ethtool",
    "debootstrap": "debootstrap",
    "openssl": "openssl",
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "mount": "mount",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
}
CNI_PLUGINS = Path("/usr/lib/cni")


@dataclass(frozen=True)
class Mirror:
    url: str
    suite: str


def static_busybox() -> Path | None:
    """A busybox that runs without any library, or None."""
    for candidate in (Path("/usr/bin/busybox"), Path("/bin/busybox")):
        # Debian's busybox-static and its dynamic sibling share the path.
        if candidate.is_file() and _is_static(candidate):
            return candidate
    return None


def _is_static(program: Path) -> bool:
    """Whether a 64-bit ELF program names no interpreter (segment type 3), that is no ld.so."""
    with program.open("rb") as file:
        header = file.read(64)
        if len(header) < 64 or header[:5] != b"\x7fELF\x02":
            return False
        (offset,) = struct.unpack_from("<Q", header, 32)
        size, count = struct.unpack_from("<HH", header, 54)
        file.seek(offset)
        table = file.read(size * count)
    kinds = (struct.unpack_from("<I", table, index * size)[0] for index in range(count))
    return 3 not in kinds


def _missing_packages() -> list[str]:
    missing = {package for program, package in _PROGRAMS.items() if not _found(program)}
    if static_busybox() is None:
        missing.add("busybox-static")
    return sorted(missing)


def _found(program: str) -> bool:
    if program.startswith("/"):
        return Path(program).exists()
    # A person's PATH often lacks the sbin folders, where most of these are.
    path = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
    return shutil.which(program, path=path) is not None


def ensure_programs(progress: Progress) -> None:
    """Install what is missing; needs root and a Debian or Ubuntu with apt."""
    missing = _missing_packages()
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise ClusterError(
            "This machine lacks " + ", ".join(missing) + " and has no apt-get to install them."
            " Install them, or install Docker with kind or k3d and use --cluster kind."
        )
    log = cache_dir() / "logs" / "apt.log"
    env = dict(os.environ) | {"DEBIAN_FRONTEND": "noninteractive"}
    with progress.step(f"Installing {', '.join(missing)}", about="30 s"):
        commands.run(["apt-get", "update"], what="apt-get update", log=log, env=env)
        commands.run(
            ["apt-get", "install", "-y", "--no-install-recommends", *missing],
            what="Installing Debian packages",
            log=log,
            env=env,
        )
    still = _missing_packages()
    if still:
        raise ClusterError(f"Still missing after apt-get install: {', '.join(still)}", log)


def suite() -> str:
    """The host's own suite ("bookworm", "noble"): images hold the same, from the same mirror."""
    for line in Path("/etc/os-release").read_text().splitlines():
        key, _, value = line.partition("=")
        if key == "VERSION_CODENAME" and value:
            return value.strip('"')
    raise ClusterError("/etc/os-release names no VERSION_CODENAME: images are made from Debian")


def mirror() -> Mirror:
    """The mirror that apt itself uses for the suite, whatever form its sources are written in."""
    wanted = suite()
    lines = commands.output(
        ["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)", "Identifier: Packages"],
        what="Asking apt for its mirrors",
    )
    for line in lines.splitlines():
        url, _, release = line.partition(" ")
        if release == wanted:
            return Mirror(url, wanted)
    raise ClusterError(f"apt's sources name no mirror for {wanted}")
