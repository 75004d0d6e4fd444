"""What tests and the demo get to know of a cluster, and the way to bring one up."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from . import binaries, borrowed, built, components, kubeapi, recipes, record, root
from .errors import ClusterError
from .paths import REPOSITORY, Instance
from .progress import Progress
from .record import Record

KINDS = ("auto", "current", "kind", "k3d", "built")


@dataclass(frozen=True)
class ClusterInfo:
    """A cluster that is up.

    host_ip: the address under which pods reach a process of this machine that listens on it or on
        0.0.0.0; None where there is no such address.
    audit_log: one JSON object a line for each finished call (see README.md); None where the
        cluster keeps none that can be read here.
    storage_class: the default one, for claims; "" when it is not known: then leave it out of the
        claim (an empty name in a claim means "no class at all").
    retain_storage_class: the same with reclaim policy Retain; None where there is none.
    namespace: the only one that may be used; None where the cluster is ours alone, and
        namespaces can be made at will.
    volumes: the folder of the volumes' data, a folder each; None where it is not on this machine.
    """

    name: str
    kind: str
    kubeconfig: Path
    server: str
    host_ip: str | None
    audit_log: Path | None
    lab_image: str
    init_image: str
    storage_class: str
    retain_storage_class: str | None = None
    namespace: str | None = None
    volumes: Path | None = None


def load(name: str = "demo") -> ClusterInfo | None:
    """The cluster `name` when it is up, else None. Starts nothing and needs no root."""
    instance = Instance(name)
    found = record.load(instance)
    if found is None or not _is_up(instance, found):
        return None
    return _info(instance, found)


def _is_up(instance: Instance, found: Record) -> bool:
    if found.kind == built.KIND:
        return built.is_up(instance, found)
    return borrowed.is_up(instance)


def ensure_up(
    name: str = "demo", kind: str = "auto", progress: Progress | None = None
) -> ClusterInfo:
    """Bring the cluster `name` up unless it is; takes a second when it is.

    kind: "auto", "current", "kind", "k3d" or "built": see README.md. A name that has data of
        another kind is refused.
    Raises ClusterError, which names the log of the part that failed.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r}: one of {', '.join(KINDS)}")
    instance = Instance(name)
    progress = progress or Progress()
    found = record.load(instance)
    if found is not None and kind not in ("auto", found.kind):
        raise ClusterError(
            f"{name} is of kind {found.kind} and has its data: delete it first"
            f" (down --purge --name {name}) or use another name"
        )
    chosen = _choose(kind, found)
    if chosen != built.KIND:
        return _info(instance, borrowed.up(instance, chosen, progress))
    if root.needed():
        if found is not None and built.is_current(instance, found):
            return _info(instance, found)  # without asking for a password
        # As the person: built as root, Go's caches in their home would be root's.
        binaries.ensure(progress)
        _up_as_root(name)
        found = record.load(instance)
        if found is None:
            raise ClusterError(f"{instance.record} is missing after a successful start")
        return _info(instance, found)
    return _info(instance, built.up(instance, progress))


def ensure_images(name: str, tags: Iterable[str], progress: Progress | None = None) -> None:
    """See to it that pods of the running cluster `name` find the database images `tags`.

    tags: as in databases.py, "postgres:15". Where there is a registry (kind, k3d, current) nothing
        is done: the official images have the same names and are pulled.
    Takes no time when they are there; else builds (20 s each) and imports (2 s each) them.
    Raises ClusterError when the cluster is not up, a tag is not known, or building fails.
    """
    instance = Instance(name)
    found = record.load(instance)
    if found is None:
        raise ClusterError(f"There is no cluster {name}: bring it up first (up --name {name})")
    if found.kind != built.KIND:
        return
    wanted = tuple(tags)
    if root.needed():
        if not built.has_images(found, wanted):
            _as_root(["images", "--name", name, *wanted])
        return
    built.load_images(instance, wanted, progress or Progress())


def _choose(kind: str, found: Record | None) -> str:
    if kind != "auto":
        return kind
    # What it was the last time: its data is there.
    return found.kind if found is not None else borrowed.with_docker() or built.KIND


def _up_as_root(name: str) -> None:
    _as_root(["up", "--quiet", "--name", name, "--cluster", built.KIND])


def _as_root(arguments: list[str]) -> None:
    argv = root.command(arguments)
    if subprocess.run(argv, cwd=REPOSITORY, check=False).returncode != 0:
        raise ClusterError(f"{' '.join(argv)} failed: see above")


def _info(instance: Instance, found: Record) -> ClusterInfo:
    if found.kind != built.KIND:
        return ClusterInfo(
            name=instance.name,
            kind=found.kind,
            kubeconfig=instance.kubeconfig,
            server=found.details["server"],
            host_ip=found.details.get("host_ip") or None,
            audit_log=None,
            lab_image=found.details["lab_image"],
            init_image=found.details["init_image"],
            storage_class=found.details["storage_class"],
            namespace=found.details.get("namespace") or None,
        )
    return ClusterInfo(
        name=instance.name,
        kind=built.KIND,
        kubeconfig=instance.kubeconfig,
        server=components.server_url(found.ports),
        host_ip=found.address,
        audit_log=instance.audit_log,
        lab_image=recipes.LAB,
        init_image=recipes.BUSYBOX,
        storage_class=kubeapi.STORAGE_CLASS,
        retain_storage_class=kubeapi.STORAGE_CLASS_RETAIN,
        volumes=instance.volumes,
    )
