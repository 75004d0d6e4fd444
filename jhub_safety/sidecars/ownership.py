"""The init container that gives folders to the lab's user, and when a cluster will not have it."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

NAME = "jhub-safety-ownership"
#: What a start without it leaves out; no database is called that.
PART = "ownership"
#: How long a lab waits for one that cannot run. Starts have 60 s by JupyterHub's default.
PATIENCE = 30
Rule = Literal["home", "guess", "root", "volume", "data"]

#: In the container, below it, each folder is mounted at a path of its own. At the lab's paths one
#: would be inside another, into which the user writes: the container runtime follows a link there
#: (``~/shared`` to ``/bin``) in the container's root, and root ran the user's ``sh``.
_ROOT = "/folders"
#: What it may do, out of all that root may: give folders away, also ones it may not read.
_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER")


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder to be given to *uid* and *gid*; see ownership.sh for the rules."""

    rule: Rule
    #: In the lab, or in the server's container.
    path: str
    uid: int
    gid: int
    #: The volume mount there, as Kubernetes writes it: at *path* or above it.
    mount: Mapping[str, Any]


def container(image: str, policy: str, folders: Sequence[Folder]) -> dict[str, Any]:
    """The init container, as Kubernetes writes it. Nothing but the folders is mounted."""
    sources: list[dict[str, Any]] = []
    words: list[object] = []
    for folder in folders:
        source = {key: folder.mount[key] for key in ("name", "subPath") if key in folder.mount}
        if source not in sources:
            sources.append(source)
        here = folder.path.removeprefix(folder.mount["mountPath"])
        path = f"{_ROOT}/{sources.index(source)}{here}"
        words += [folder.rule, path, folder.uid, folder.gid, folder.path]
    return {
        "name": NAME,
        "image": image,
        "image_pull_policy": policy,
        "command": ["sh", "-c", files(__package__).joinpath("ownership.sh").read_text(), "sh"],
        "args": [str(word) for word in words],
        "security_context": {
            "runAsUser": 0,
            "runAsGroup": 0,
            "runAsNonRoot": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], "add": list(_CAPABILITIES)},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "resources": {
            "requests": {"memory": "8Mi", "cpu": "0.01"},
            "limits": {"memory": "32Mi", "cpu": "1"},
        },
        "volume_mounts": [
            {**source, "mountPath": f"{_ROOT}/{number}"} for number, source in enumerate(sources)
        ],
    }


def holds_back(status: Mapping[str, Any], unborn: Container[str]) -> bool:
    """Whether a lab waits for it in vain: it does not come to run, or it fails.

    *status*: of a pod, as the API writes it. *unborn*: containers that do not come to run at all.
    """
    for one in status.get("initContainerStatuses") or []:
        if one.get("name") == NAME:
            state = one.get("state") or {}
            waits = (state.get("waiting") or {}).get("reason") == "CrashLoopBackOff"
            return NAME in unborn or waits or bool((state.get("terminated") or {}).get("exitCode"))
    return False


def writable(mounts: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those through which something can be changed."""
    return [one for one in mounts if not one.get("readOnly")]


def is_refused_root(message: str) -> bool:
    """Whether an API server's 403 says that the namespace takes no root (pod security)."""
    return "violates PodSecurity" in message
