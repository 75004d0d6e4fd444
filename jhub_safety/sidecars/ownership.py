"""The init container that gives folders to the lab's user, and when a cluster will not have it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

NAME = "jhub-safety-ownership"
Rule = Literal["home", "root", "volume", "data"]

#: What it may do, out of all that root may: give folders away, also ones it may not read.
_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER")


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder to be given to *uid* and *gid*; see ownership.sh for the rules."""

    rule: Rule
    path: str
    uid: int
    gid: int
    #: Volume mounts, as Kubernetes writes them, under which it is seen.
    mounts: tuple[dict[str, Any], ...] = ()


def container(image: str, policy: str, folders: Sequence[Folder]) -> dict[str, Any]:
    """The init container, as Kubernetes writes it. Nothing but the folders is mounted."""
    mounts: list[dict[str, Any]] = []
    for folder in folders:
        mounts += [one for one in folder.mounts if one not in mounts]
    return {
        "name": NAME,
        "image": image,
        "image_pull_policy": policy,
        "command": ["sh", "-c", files(__package__).joinpath("ownership.sh").read_text(), "sh"],
        "args": [str(word) for one in folders for word in (one.rule, one.path, one.uid, one.gid)],
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
        "volume_mounts": mounts,
    }


def writable(mounts: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those through which something can be changed."""
    return [one for one in mounts if not one.get("readOnly")]


def is_refused_root(message: str) -> bool:
    """Whether an API server's 403 says that the namespace takes no root (pod security)."""
    return "violates PodSecurity" in message
