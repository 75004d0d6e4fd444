"""Where everything of the harness lies: binaries, images and the state of every instance."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

KUBERNETES_VERSION = "v1.34.2"
HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent

# The bridge of an instance is called "jhs-NAME" and the kernel allows 15 characters.
_NAME = re.compile(r"[a-z][a-z0-9-]{0,10}")


def cache_dir() -> Path:
    """~/.cache/jhub-safety, or what JHUB_SAFETY_CACHE names."""
    chosen = os.environ.get("JHUB_SAFETY_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "jhub-safety"


def binaries_dir() -> Path:
    return cache_dir() / "kubernetes" / KUBERNETES_VERSION


def images_dir() -> Path:
    return cache_dir() / "images"


def runs_dir() -> Path:
    return cache_dir() / "run"


@dataclass(frozen=True)
class Instance:
    """The paths and names that belong to one cluster; no two instances share any of them."""

    name: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"cluster name {self.name!r}: use 1 to 11 lower-case letters, digits and dashes,"
                " beginning with a letter (a network bridge is named after it)"
            )

    @property
    def root(self) -> Path:
        return runs_dir() / self.name

    @property
    def lock(self) -> Path:
        # Beside the state folder, so that "down --purge" can delete the folder while holding it.
        return runs_dir() / f"{self.name}.lock"

    @property
    def record(self) -> Path:
        return self.root / "cluster.json"

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def audit_log(self) -> Path:
        return self.root / "logs" / "audit.log"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def configs(self) -> Path:
        return self.root / "config"

    @property
    def etcd(self) -> Path:
        return self.root / "etcd"

    @property
    def containerd_root(self) -> Path:
        return self.root / "containerd"

    @property
    def containerd_state(self) -> Path:
        return self.root / "containerd-state"

    @property
    def containerd_socket(self) -> Path:
        return self.containerd_state / "containerd.sock"

    @property
    def overlays(self) -> Path:
        """Folders that the node's processes see in place of machine-wide ones: see namespace.py."""
        return self.root / "node"

    @property
    def volumes(self) -> Path:
        """The data of dynamically made volumes, a folder each."""
        return self.overlays / "volumes"

    @property
    def bridge(self) -> str:
        return f"jhs-{self.name}"

    @property
    def cgroup(self) -> str:
        return f"jhs-{self.name}"

    def log(self, component: str) -> Path:
        return self.logs / f"{component}.log"
