"""Clusters that other tools made: kind, k3d, or the person's current kubectl context."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from . import commands, images, locks, recipes, record
from .errors import ClusterError
from .paths import Instance, binaries_dir
from .progress import Progress
from .record import Record

CURRENT = "current"

# For clusters into which no image of ours can be loaded: public ones.
_PUBLIC_LAB_IMAGE = "quay.io/jupyterhub/k8s-singleuser-sample:4.2.0"
_PUBLIC_INIT_IMAGE = "docker.io/library/busybox:1.36"

# As long as a working Docker takes to answer when the machine is busy.
_DOCKER_ANSWERS_WITHIN = 5.0


def with_docker() -> str | None:
    """ "kind" or "k3d", whichever is installed, when Docker answers; else None."""
    tool = next((name for name in ("kind", "k3d") if shutil.which(name)), None)
    if tool and commands.succeeds(["docker", "info"], timeout=_DOCKER_ANSWERS_WITHIN):
        return tool
    return None


def kubectl() -> str:
    found = shutil.which("kubectl") or str(binaries_dir() / "kubectl")
    if not Path(found).exists():
        raise ClusterError("No kubectl on PATH: install it, or use --cluster built")
    return found


def is_up(instance: Instance) -> bool:
    argv = [kubectl(), "--kubeconfig", str(instance.kubeconfig), "get", "--raw", "/readyz"]
    return instance.kubeconfig.exists() and commands.succeeds(argv, timeout=10)


def up(instance: Instance, kind: str, progress: Progress) -> Record:
    if kind != CURRENT and shutil.which(kind) is None:
        raise ClusterError(f"{kind} is not on PATH: install it, or use --cluster built")
    kubectl()  # says so when there is none
    with locks.held(instance.lock, progress):
        instance.root.mkdir(parents=True, exist_ok=True)
        current = _use_context(instance) if kind == CURRENT else _create(instance, kind, progress)
        config = json.loads(_kubectl(instance, "config", "view", "--minify", "-o", "json"))
        current.details["server"] = config["clusters"][0]["cluster"]["server"]
        current.details["storage_class"] = _default_storage_class(instance)
        current.save(instance)
    return current


def down(instance: Instance, found: Record, progress: Progress) -> None:
    """End a kind or k3d cluster (their data goes with them), or delete the namespace of ours."""
    with locks.held(instance.lock, progress), progress.step(f"Ending {instance.name}", "30 s"):
        if found.kind == CURRENT:
            if instance.kubeconfig.exists() and found.details["ours"]:
                namespace = found.details["namespace"]
                _kubectl(instance, "delete", "namespace", namespace, "--ignore-not-found")
        else:
            delete = {"kind": ["kind", "delete", "cluster", "--name"]}
            argv = delete.get(found.kind, ["k3d", "cluster", "delete"])
            commands.output([*argv, _cluster(instance)], what=found.kind, timeout=300)
        shutil.rmtree(instance.root, ignore_errors=True)


def _cluster(instance: Instance) -> str:
    return f"jhs-{instance.name}"


def _kubectl(instance: Instance, *arguments: str) -> str:
    argv = [kubectl(), "--kubeconfig", str(instance.kubeconfig), *arguments]
    return commands.output(argv, what="kubectl", timeout=180)


def _default_storage_class(instance: Instance) -> str:
    """Its name; "" when there is none, or when this person may not list them."""
    try:
        listed = json.loads(_kubectl(instance, "get", "storageclasses", "-o", "json"))
    except ClusterError:
        return ""
    for entry in listed["items"]:
        marks = entry["metadata"].get("annotations", {})
        if marks.get("storageclass.kubernetes.io/is-default-class") == "true":
            return str(entry["metadata"]["name"])
    return ""


def _use_context(instance: Instance) -> Record:
    """A namespace of its own in the current context; nothing cluster-wide beside it."""
    # Flattened, so that a later change of the person's context does not move us elsewhere.
    config = commands.output(
        [kubectl(), "config", "view", "--minify", "--flatten"], what="Reading the current context"
    )
    instance.kubeconfig.touch(mode=0o600)
    instance.kubeconfig.write_text(config)
    namespace = f"jhub-safety-{instance.name}"
    earlier = record.load(instance)
    ours = earlier.details.get("ours", "") if earlier is not None else ""
    if not _kubectl(instance, "get", "namespace", namespace, "--ignore-not-found", "-o", "name"):
        _kubectl(instance, "create", "namespace", namespace)
        ours = "yes"
    _kubectl(instance, "config", "set-context", "--current", f"--namespace={namespace}")
    details = {
        "namespace": namespace,
        # One that was there before is not ours to delete.
        "ours": ours,
        "lab_image": os.environ.get("JHUB_SAFETY_LAB_IMAGE", _PUBLIC_LAB_IMAGE),
        "init_image": _PUBLIC_INIT_IMAGE,
    }
    return Record(name=instance.name, kind=CURRENT, details=details)


def _create(instance: Instance, tool: str, progress: Progress) -> Record:
    name, log = _cluster(instance), instance.log(tool)
    archives = [image.archive for image in images.ensure(progress, (recipes.LAB, recipes.BUSYBOX))]
    with progress.step(f"Creating the {tool} cluster {name}", about="1 minute"):
        if tool == "kind":
            if name not in commands.output(["kind", "get", "clusters"], what="kind").split():
                commands.run(["kind", "create", "cluster", "--name", name], what=tool, log=log)
            config = commands.output(["kind", "get", "kubeconfig", "--name", name], what=tool)
            load = ["kind", "load", "image-archive", "--name", name]
            network = "kind"
        else:
            listed = json.loads(
                commands.output(["k3d", "cluster", "list", "-o", "json"], what=tool)
            )
            if name not in (entry["name"] for entry in listed):
                commands.run(["k3d", "cluster", "create", name], what=tool, log=log)
            config = commands.output(["k3d", "kubeconfig", "get", name], what=tool)
            load = ["k3d", "image", "import", "--cluster", name]
            network = f"k3d-{name}"
        instance.kubeconfig.touch(mode=0o600)
        instance.kubeconfig.write_text(config)
    with progress.step(f"Loading images into {name}", about="1 minute"):
        for archive in archives:
            commands.run([*load, archive], what=f"Loading {archive.name}", log=log)
    gateways = "{{range .IPAM.Config}}{{.Gateway}} {{end}}"
    gateway = commands.output(
        ["docker", "network", "inspect", network, "--format", gateways],
        what="Asking Docker for its gateway",
    ).split()
    details = {
        "lab_image": recipes.LAB,
        "init_image": recipes.BUSYBOX,
        # An IPv6 gateway may be listed too.
        "host_ip": next((address for address in gateway if ":" not in address), ""),
    }
    return Record(name=instance.name, kind=tool, details=details)
