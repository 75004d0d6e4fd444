"""The cluster of plain processes: brought up, looked at, taken down."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from . import (
    binaries,
    cgroups,
    components,
    configs,
    credentials,
    debian,
    images,
    kubeapi,
    locks,
    namespace,
    network,
    processes,
    recipes,
    record,
)
from .errors import ClusterError
from .paths import Instance, runs_dir
from .progress import Progress
from .record import Process, Record

KIND = "built"

# Ended one after the other: first who would start things again, last who others need to end well.
_ENDING_ORDER = ("kubelet", "kube-controller-manager", "kube-scheduler")
_ENDING_LAST = ("kube-apiserver", "etcd", "containerd", namespace.HOLDER)
# For a database in a pod to end well; a lab's shell needs none.
_CONTAINERS_GRACE = 3.0


def is_up(instance: Instance, found: Record | None) -> bool:
    """Whether every process lives and the node answers as Ready; takes well under a second."""
    if found is None or found.kind != KIND or not found.processes:
        return False
    if not all(processes.alive(process) for process in found.processes):
        return False
    api = kubeapi.Api(instance, components.server_url(found.ports))
    return api.ready() and api.node_ready(instance.name)


def is_current(instance: Instance, found: Record) -> bool:
    """Whether "up" would have nothing to do."""
    return _has(found, images.known()) and is_up(instance, found)


def prepare(progress: Progress) -> tuple[images.Image, ...]:
    """All that is done once for a machine: programs, binaries, images."""
    debian.ensure_programs(progress)
    binaries.ensure(progress)
    return images.ensure(progress)


def up(instance: Instance, progress: Progress) -> Record:
    """Bring it up, whatever state it was in. Nothing is left running when it does not succeed."""
    wanted = prepare(progress)
    with locks.held(instance.lock, progress):
        found = record.load(instance)
        if found is not None and is_up(instance, found):
            _import_images(instance, found, wanted, progress)
            return found
        # The control group tells even when the record was lost.
        if (found is not None and found.processes) or cgroups.processes(instance.cgroup):
            with progress.step(f"Stopping what is left of {instance.name}", about="5 s"):
                _stop(instance, found or Record(name=instance.name, kind=KIND))
        # Unpacking the lab image is most of a first start.
        about = "5 s" if found is not None and recipes.LAB in found.images else "25 s"
        with progress.step(f"Starting the cluster {instance.name}", about=about):
            return _start(instance, found, wanted)


def _start(instance: Instance, found: Record | None, wanted: Iterable[images.Image]) -> Record:
    current = Record(name=instance.name, kind=KIND)
    if found is not None:
        current.images = dict(found.images)
    try:
        _choose_network(instance, found, current)
        cgroups.create(instance.cgroup)
        address, ports = current.address, current.ports
        credentials.ensure(instance, address)
        credentials.write_kubeconfigs(instance, components.server_url(ports))
        configs.write(instance, address, ports[components.KUBELET_PORT])
        _start_processes(instance, current, wanted)
    except BaseException:
        # Ctrl-C included. What had been started is in the record, and in the control group.
        _stop(instance, current)
        raise
    return current


def _choose_network(instance: Instance, found: Record | None, current: Record) -> None:
    # One instance at a time chooses, so that no two get the same.
    with locks.held(runs_dir() / "network.lock", Progress(quiet=True)):
        others = list(record.every())
        kept = found.address if found is not None else ""
        current.address = kept or network.choose_address(instance, others)
        recorded = found.ports if found is not None else {}
        network.create_bridge(instance, current.address)
        wanted = dict.fromkeys(components.PORTS_ON_LOOPBACK, "127.0.0.1")
        wanted[components.KUBELET_PORT] = current.address
        current.ports = network.free_ports(wanted, recorded)
        current.save(instance)


def _start_processes(instance: Instance, current: Record, wanted: Iterable[images.Image]) -> None:
    holder = namespace.create(instance)
    current.processes.append(holder)

    def begin(name: str, argv: list[str | Path]) -> Process:
        process = processes.start(instance, name, argv, inside=holder)
        current.processes.append(process)
        current.save(instance)
        return process

    def wait(condition: Callable[[], bool], what: str, *, by: Process, timeout: float) -> None:
        processes.wait_for(
            instance, condition, what, by=by, among=current.processes, timeout=timeout
        )

    ports, address = current.ports, current.address
    begin("etcd", components.etcd(instance, ports))
    containerd = begin("containerd", components.containerd(instance))
    apiserver = begin("kube-apiserver", components.apiserver(instance, ports, address))
    # Unpacking takes as long as the API server needs to start: both at once.
    loading = _Background(lambda: _load_images(instance, current, wanted, containerd))
    api = kubeapi.Api(instance, components.server_url(ports))
    wait(api.ready, "Waiting for the API server", by=apiserver, timeout=120)
    controllers = begin("kube-controller-manager", components.controller_manager(instance))
    begin("kube-scheduler", components.scheduler(instance))
    kubeapi.create_storage_classes(api)
    loading.join()
    since = float(int(time.time()))
    kubelet = begin("kubelet", components.kubelet(instance, address))
    wait(
        lambda: api.node_ready(instance.name, since=since),
        "Waiting for the node to be Ready",
        by=kubelet,
        timeout=120,
    )
    wait(
        # Pods are refused in a namespace that has no service account yet.
        lambda: api.exists("/api/v1/namespaces/default/serviceaccounts/default"),
        "Waiting for the default service account",
        by=controllers,
        timeout=60,
    )
    current.save(instance)


class _Background:
    """A call in a thread whose failure is raised where it is waited for."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._call()
        except BaseException as failure:  # noqa: BLE001 - raised again by join()
            self._failure = failure

    def join(self) -> None:
        self._thread.join()
        if self._failure is not None:
            raise self._failure


def _load_images(
    instance: Instance, current: Record, wanted: Iterable[images.Image], containerd: Process
) -> None:
    processes.wait_for(
        instance,
        instance.containerd_socket.exists,
        "Waiting for containerd",
        by=containerd,
        among=[containerd],
        timeout=30,
    )
    for image in wanted:
        if current.images.get(image.tag) != image.key:
            images.import_into(instance, image)
            current.images[image.tag] = image.key


def _import_images(
    instance: Instance, found: Record, wanted: Iterable[images.Image], progress: Progress
) -> None:
    for image in wanted:
        if found.images.get(image.tag) != image.key:
            with progress.step(f"Importing the image {image.tag}", about="10 s"):
                images.import_into(instance, image)
            found.images[image.tag] = image.key
            found.save(instance)


def load_images(instance: Instance, tags: Iterable[str], progress: Progress) -> None:
    """Give a running cluster images that it has only when they are asked for; build them first."""
    debian.ensure_programs(progress)
    wanted = images.ensure(progress, tags)
    found = record.load(instance)
    if found is not None and _has(found, wanted):
        return
    with locks.held(instance.lock, progress):
        # Read again: another run may have loaded some while this one waited.
        found = record.load(instance)
        if found is None or not is_up(instance, found):
            raise ClusterError(f"{instance.name} is not up, so it can be given no images")
        _import_images(instance, found, wanted, progress)


def has_images(found: Record, tags: Iterable[str]) -> bool:
    """Whether a cluster was given these images, as their recipes are now."""
    return _has(found, images.known(tags))


def _has(found: Record, wanted: Iterable[images.Image]) -> bool:
    return all(found.images.get(image.tag) == image.key for image in wanted)


def down(instance: Instance, progress: Progress, *, purge: bool) -> None:
    """End it. Its data (objects, volumes, unpacked images) stay for the next "up", or are deleted
    with `purge`."""
    with locks.held(instance.lock, progress):
        found = record.load(instance) or Record(name=instance.name, kind=KIND)
        with progress.step(f"Stopping the cluster {instance.name}", about="5 s"):
            _stop(instance, found)
        if purge and instance.root.exists():
            with progress.step(f"Deleting the data of {instance.name}"):
                _delete(instance)


def _stop(instance: Instance, found: Record) -> None:
    by_name = {process.component: process for process in found.processes}
    processes.end((by_name[name] for name in _ENDING_ORDER if name in by_name), grace=5)
    cgroups.end_processes(instance.cgroup, "kubepods", grace=_CONTAINERS_GRACE)
    for name in _ENDING_LAST:
        if name in by_name:
            processes.end([by_name[name]], grace=5)
    # The shims of containers, and whatever a lost record does not name.
    cgroups.end_processes(instance.cgroup, grace=1)
    left = cgroups.processes(instance.cgroup)
    if left:
        raise ClusterError(f"Processes of {instance.name} do not end: {sorted(left)}")
    cgroups.remove(instance.cgroup)
    network.remove_bridge(instance)
    if instance.root.exists():
        namespace.clean(instance)
        shutil.rmtree(instance.containerd_state, ignore_errors=True)
        found.processes = []
        found.save(instance)


def _delete(instance: Instance) -> None:
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    inside = [target for target in mounts if Path(target).is_relative_to(instance.root)]
    if inside:
        # Deleting through a mount would delete what is on the other side of it.
        raise ClusterError(f"Still mounted, so nothing is deleted: {', '.join(inside)}")
    shutil.rmtree(instance.root)
