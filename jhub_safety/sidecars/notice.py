"""What the cluster's status of a lab says about its database servers, in words for people.

What comes from the container is hostile input: whoever may write SQL as a superuser can write
there. Nothing of it is shown but numbers and versions of a plain form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jhub_safety.sidecars.server import DatabaseServer

#: A number or a version, such as "15" or "mariadb-10.11".
_WORD = re.compile(r"(?:[a-z]{1,16}-)?[0-9]{1,12}(?:\.[0-9]{1,6}){0,3}")
_KEEPER = re.compile(r"^jhub-safety ([a-z-]{1,30})((?: [^\s]{1,40}){0,4})$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that a lab's user and operator should know of its database."""

    #: Stable; docs/databases.md has a row for each.
    code: str
    #: Name of the entry in ``databases``.
    database: str
    #: For the user: no names of claims or commands.
    said: str
    #: For the operator: what to do.
    remedy: str
    #: True: the lab runs without this database.
    down: bool = True


#: What the keeper says by itself: for the user, and for the operator.
_TOLD = {
    "version": (
        (
            "its data was written by version {0} of the server, and this is version {1}. The data "
            "is untouched"
        ),
        (
            "set the image back to version {0}, or move the data across: "
            "jhub-safety databases upgrade --help"
        ),
    ),
    "disk-full": (
        (
            "its volume is full ({0} of {1} used). The reserve has been given to it, so that rows "
            "can be deleted: do that now, or ask for a larger volume"
        ),
        (
            "let rows be deleted, or enlarge capacity ({capacity}) of the entry in databases; the "
            "volume grows at the user's next start"
        ),
    ),
    "half-made": (
        (
            "its very first start had been cut off. It was set up again; what was half made is "
            "kept beside it"
        ),
        "nothing; the folder with the ending .half-made in the claim can go",
    ),
    "half-made-again": (
        "its first start was cut off more than once. Nothing was stored in it yet",
        "see why (kubectl logs), and move the folder with the ending .half-made out of the way",
    ),
    "unknown-data": (
        (
            "its folder holds something that is no data of such a server, or is incomplete. It was "
            "left as it is"
        ),
        "look at the folder; restore it from a backup, or move it aside for a new, empty database",
    ),
    "missing-data": (
        (
            "its data folder is empty or gone, though its volume holds other data or has held "
            "some. No new one was put in its place"
        ),
        (
            "bring the folder back, or set folder of the entry in databases; for a new, empty "
            "database see docs: Databases, missing-data"
        ),
    ),
    "link": (
        "a link stands where its data or one of its files should be. Nothing was followed",
        "look at the claim, and move the link out of the way",
    ),
    "permission": (
        "its folder cannot be written to. The data is untouched",
        "turn SafeKubeSpawner.ownership on, or give the folder to the server's uid",
    ),
    "no-volume": (
        "its volume is not mounted. Nothing was written",
        "a hook or profile of this hub has removed the volume; see modify_pod_hook",
    ),
    "busy": (
        "another server of yours is using it. Stop that one first",
        "nothing, or a claim for each named server: a claim template with {{user_server}}",
    ),
}

#: What servers print before they end, and what that is called here. The first that fits counts.
_PRINTED = (
    ("No space left on device", "full"),
    ("could not extend file", "full"),
    ("Disk full", "full"),
    ("Disk is full", "full"),
    ("has invalid permissions", "mode"),
    ("has wrong ownership", "permission"),
    ("Permission denied", "permission"),
    ("Errcode: 13", "permission"),
    ("database files are incompatible with server", "incompatible"),
    ("could not look up effective user ID", "account"),
    ("exists but is not empty", "unknown-data"),
    ("invalid checkpoint record", "corrupt"),
    ("could not locate a valid checkpoint record", "corrupt"),
    ("invalid primary checkpoint record", "corrupt"),
    ("could not read file", "corrupt"),
    ("could not open file", "corrupt"),
    ("invalid page", "corrupt"),
    ("incorrect checksum in control file", "corrupt"),
    ("is corrupted", "corrupt"),
    ("Corrupt", "corrupt"),
    ("Cannot allocate memory", "memory"),
    ("could not map anonymous shared memory", "memory"),
    ("Address already in use", "port"),
    ("invalid value for parameter", "args"),
    ("unrecognized configuration parameter", "args"),
    ("unknown variable", "args"),
    ("unknown option", "args"),
    ("executable file not found", "image"),
    ("not found", "image"),
)
_ENDED = {
    "full": (
        "its volume is full. The data is untouched",
        (
            "enlarge capacity ({capacity}) of the entry in databases; the volume grows at the "
            "user's next start"
        ),
    ),
    "mode": (
        "the permissions of its folder are too open for the server. The data is untouched",
        "chmod 0700 the data folder",
    ),
    "incompatible": (
        "its data was written by another version or another build of the server. It is untouched",
        "set the image back, or move the data across: jhub-safety databases upgrade --help",
    ),
    "account": (
        "its image has no account for the uid it runs as. Nothing was written",
        "set run_as to 'image', or take an image with libnss-wrapper (not Alpine's)",
    ),
    "corrupt": (
        "its files are damaged. They were left as they are",
        "copy the claim's data first; then see docs: Databases, damaged files",
    ),
    "memory": (
        "it has too little memory. The data is untouched",
        "raise resources.limits.memory of the entry in databases",
    ),
    "port": (
        "its port is taken by something else in the lab",
        "set port of the entry in databases",
    ),
    "args": (
        "the server does not take the arguments that this hub gives it. The data is untouched",
        "mend args of the entry in databases",
    ),
    "image": (
        "its image has not the programs that are needed",
        "take an image that keeps the official one's contract: sh, entrypoint, client programs",
    ),
    "container": (
        "its container could not be made just now. The data is untouched",
        "kubectl describe pod POD; often a Secret is missing that env of the entry names",
    ),
    "killed": (
        "it was killed, most likely for want of memory. The data is untouched",
        "raise resources.limits.memory of the entry in databases",
    ),
    "ended": (
        "the server ended by itself. The data was left as it is",
        "see the log of its container",
    ),
    "pull": (
        "its image cannot be had just now. The data is untouched",
        "see that the image of the entry in databases exists and may be pulled",
    ),
}

#: It runs, or may still come to: said once the lab has gone on without it.
_LATE = {
    "late": (
        "it had not answered after {0} s, and your server was started without waiting longer",
        "see the log of its container; startup_deadline of the entry in databases is the limit",
    ),
}

CODES = frozenset(_TOLD) | frozenset(_ENDED) | frozenset(_LATE)
#: Reasons for which a container does not come to run at all.
_WAITING = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
    }
)


def notices(status: Mapping[str, Any], servers: Mapping[str, DatabaseServer]) -> list[Notice]:
    """*status*: of a pod, as the API writes it. *servers*: by the name of their containers."""
    found = []
    for container in (
        *(status.get("initContainerStatuses") or []),
        *(status.get("containerStatuses") or []),
    ):
        server = servers.get(container.get("name", ""))
        if server is not None and (notice := _of(container, server)) is not None:
            found.append(notice)
    return found + _late(status, servers)


def _late(status: Mapping[str, Any], servers: Mapping[str, DatabaseServer]) -> list[Notice]:
    """Native sidecars whose startup probe has passed only because their time was over.

    What comes after one begins when its probe has passed: the next init container, or the lab,
    for which the pod is Initialized. All are times of the node, in whole seconds.
    """
    inits = status.get("initContainerStatuses") or []
    went_on = [_began(one) for one in inits[1:]] + [
        next(
            (
                one.get("lastTransitionTime")
                for one in status.get("conditions") or []
                if one.get("type") == "Initialized" and one.get("status") == "True"
            ),
            None,
        )
    ]
    found = []
    # A pod that has no node yet has no such statuses at all.
    for container, then in zip(inits, went_on, strict=False):
        server = servers.get(container.get("name", ""))
        since = _began(container)
        if server is None or not since or not then or not container.get("started"):
            continue
        if container.get("lastState"):
            continue  # It has run before, and what it said then is told.
        waited = datetime.fromisoformat(then) - datetime.fromisoformat(since)
        if waited.total_seconds() >= server.startup_deadline:
            found.append(_notice("late", server, [str(server.startup_deadline)], down=False))
    return found


def _began(container: Mapping[str, Any]) -> str | None:
    state = container.get("state") or {}
    began: str | None = (state.get("running") or state.get("terminated") or {}).get("startedAt")
    return began


def unborn(status: Mapping[str, Any]) -> frozenset[str]:
    """Names of containers that do not come to run at all.

    An init container holds back all that follow; with any other the pod's phase stays Pending,
    and KubeSpawner waits for Running.
    """
    return frozenset(
        container["name"]
        for key in ("initContainerStatuses", "containerStatuses")
        for container in status.get(key) or []
        if ((container.get("state") or {}).get("waiting") or {}).get("reason") in _WAITING
    )


def _of(container: Mapping[str, Any], server: DatabaseServer) -> Notice | None:
    state, last = container.get("state") or {}, container.get("lastState") or {}
    waiting = state.get("waiting") or {}
    if waiting.get("reason") in _WAITING:
        return _notice(_why_it_waits(waiting), server)
    ended = state.get("terminated") or last.get("terminated")
    # The kubelet writes 137 where it lost sight of a container, too (kubelet_pods.go): nobody knows
    # then how it ended.
    if not ended or ended.get("reason") == "ContainerStatusUnknown":
        return None
    message = ended.get("message") or ""
    if keeper := _KEEPER.findall(message):
        code, words = keeper[-1]
        if code in _TOLD:
            return _notice(code, server, words.split(), down=code not in ("disk-full", "half-made"))
    if ended.get("exitCode") == 0:
        return None
    if ended.get("reason") == "OOMKilled" or ended.get("exitCode") == 137:
        return _notice("killed", server)
    for text, code in _PRINTED:
        if text in message:
            return _notice(code, server)
    return _notice("ended", server)


def _why_it_waits(waiting: Mapping[str, Any]) -> str:
    if "mage" in waiting["reason"]:
        return "pull"
    message = waiting.get("message") or ""
    lacking = ("executable file not found", "no such file or directory")
    return "image" if any(one in message for one in lacking) else "container"


def _notice(
    code: str, server: DatabaseServer, words: list[str] | None = None, *, down: bool = True
) -> Notice:
    said, remedy = (_TOLD | _ENDED | _LATE)[code]
    plain = [one if _WORD.fullmatch(one) else "?" for one in words or []]
    if code == "disk-full":
        plain = [_mebibytes(one) for one in plain]
    plain += ["?"] * (2 - len(plain))
    said = said.format(*plain)
    return Notice(code, server.name, said, remedy.format(*plain, capacity=server.capacity), down)


def _mebibytes(kibibytes: str) -> str:
    return f"{int(kibibytes) // 1024} MiB" if kibibytes.isdigit() else "?"
