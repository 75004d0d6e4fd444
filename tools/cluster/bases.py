"""The Debian that every image begins with: made once by debootstrap, then only unpacked."""

from __future__ import annotations

import platform
import shutil
import tempfile
from pathlib import Path

from . import commands, debian, locks
from .paths import cache_dir
from .progress import Progress

# Count it up when what is in it changes.
_VERSION = 1

# A mount namespace of its own: what debootstrap mounts into the folder (/proc, /sys) is gone when
# it ends, however it ends, and removing the folder later cannot reach the host's.
ISOLATED = ("unshare", "--mount", "--propagation", "private", "--")

# For a mirror behind TLS, and for pip.
_PACKAGES = ("ca-certificates",)

# What is Debian's own and what is not; Ubuntu has the databases in universe.
_COMPONENTS = "main"
_COMPONENTS_OF_UBUNTU = "main,universe"

POLICY = "usr/sbin/policy-rc.d"
DPKG_SETTINGS = "etc/dpkg/dpkg.cfg.d/image-build"
# An image that is half written when the power fails is made again: dpkg need not wait for the disk.
_DPKG = """force-unsafe-io
path-exclude=/usr/share/doc/*
path-exclude=/usr/share/man/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
"""


def unpack(target: Path, log: Path) -> None:
    """Fill the empty folder `target` with a minimal Debian in which apt-get works."""
    suite = debian.suite()
    folder = cache_dir() / "bases"
    archive = folder / f"{suite}-{platform.machine()}-{_VERSION}.tar"
    if not archive.exists():
        with locks.held(folder / "build.lock", Progress(quiet=True)):
            if not archive.exists():
                _make(archive, log)
    commands.run(
        ["tar", "--numeric-owner", "--xattrs", "-xpf", archive, "-C", target],
        what="Unpacking the base of images",
        log=log,
    )


def _make(archive: Path, log: Path) -> None:
    mirror = debian.mirror()
    ubuntu = "ID=ubuntu" in Path("/etc/os-release").read_text().splitlines()
    work = Path(tempfile.mkdtemp(prefix="base-", dir=archive.parent))
    unfinished = archive.with_suffix(".part")
    try:
        work.chmod(0o755)
        argv: list[str | Path] = [
            "debootstrap",
            "--variant=minbase",
            f"--components={_COMPONENTS_OF_UBUNTU if ubuntu else _COMPONENTS}",
            f"--include={','.join(_PACKAGES)}",
            mirror.suite,
            work,
            mirror.url,
        ]
        commands.run([*ISOLATED, *argv], what="debootstrap", log=log)
        # No service is started by being installed.
        (work / POLICY).write_text("#!/bin/sh\nexit 101\n")
        (work / POLICY).chmod(0o755)
        (work / DPKG_SETTINGS).write_text(_DPKG)
        shutil.rmtree(work / "debootstrap", ignore_errors=True)
        for package in (work / "var/cache/apt/archives").glob("*.deb"):
            package.unlink()
        commands.run(
            ["tar", "--numeric-owner", "--xattrs", "-cf", unfinished, "-C", work, "."],
            what="Packing the base of images",
            log=log,
        )
        unfinished.rename(archive)
    finally:
        unfinished.unlink(missing_ok=True)
        shutil.rmtree(work, ignore_errors=True)
