"""What the cluster's status of a lab says about its database servers, in words for people.

What comes from the container is hostile input: whoever may write SQL as a superuser can write
there. Nothing of it is shown but numbers and versions of a plain form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from jhub_safety.sidecars.sentences import CLAIM, ENDED, FOLDERS, LATE, PRINTED, TOLD
from jhub_safety.sidecars.server import DatabaseServer

#: A number or a version, such as "15" or "mariadb-10.11".
_WORD = re.compile(r"(?:[a-z]{1,16}-)?[0-9]{1,12}(?:\.[0-9]{1,6}){0,3}")
#: What an object of Kubernetes may be called: nothing else comes into a command.
_OBJECT = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_KEEPER = re.compile(r"^jhub-safety ([a-z-]{1,30})((?: [^\s]{1,40}){0,4})$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that a lab's user and operator should know of its database."""

    #: Stable; docs/databases.md has a row for each.
    code: str
    #: Name of the entry in ``databases``; "": of all folders that are given to the user.
    database: str
    #: For the user: no names of claims or commands.
    said: str
    #: For the operator: what to do.
    remedy: str
    #: True: the lab runs without this database.
    down: bool = True

    @property
    def about(self) -> str:
        return f"database {self.database}" if self.database else "folders"


@dataclass(frozen=True, slots=True)
class Where:
    """Where a lab and its databases are, for the commands that an operator is told."""

    namespace: str = "NAMESPACE"
    pod: str = "POD"
    #: The claim of each entry in ``databases``, by its name.
    claims: Mapping[str, str] = field(default_factory=dict)

    def words(self, server: DatabaseServer) -> dict[str, str]:
        found = {
            "namespace": self.namespace,
            "pod": self.pod,
            "claim": self.claims.get(server.name, ""),
        }
        plain = {
            name: word if _OBJECT.fullmatch(word) else name.upper() for name, word in found.items()
        }
        return plain | {
            "capacity": server.capacity,
            "container": server.container,
            "log": f"kubectl -n {plain['namespace']} logs {plain['pod']} -c {server.container}",
        }


NOWHERE = Where()

_OF_PODS = TOLD | ENDED | LATE | FOLDERS
CODES = frozenset(_OF_PODS | CLAIM)
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


def notices(
    status: Mapping[str, Any],
    servers: Mapping[str, DatabaseServer],
    where: Where = NOWHERE,
) -> list[Notice]:
    """*status*: of a pod, as the API writes it. *servers*: by the name of their containers."""
    found = []
    for container in (
        *(status.get("initContainerStatuses") or []),
        *(status.get("containerStatuses") or []),
    ):
        server = servers.get(container.get("name", ""))
        if server is not None and (notice := _of(container, server, where)) is not None:
            found.append(notice)
    return found + _late(status, servers, where)


def _late(
    status: Mapping[str, Any], servers: Mapping[str, DatabaseServer], where: Where
) -> list[Notice]:
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
            words = [str(server.startup_deadline)]
            found.append(_notice("late", server, where, words, down=False))
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


def of_claim(server: DatabaseServer, refusal: str) -> Notice:
    """That a lab starts without *server*, whose claim was refused with these words."""
    said, remedy = CLAIM["volume"]
    return Notice("volume", server.name, said, remedy.format(refusal=refusal))


def of_folders(where: Where) -> Notice:
    """That a lab goes on without what gives folders to its user."""
    return _notice("ownership", DatabaseServer(), where, down=False)


def _of(container: Mapping[str, Any], server: DatabaseServer, where: Where) -> Notice | None:
    state, last = container.get("state") or {}, container.get("lastState") or {}
    waiting = state.get("waiting") or {}
    if waiting.get("reason") in _WAITING:
        return _notice(_why_it_waits(waiting), server, where)
    ended = state.get("terminated") or last.get("terminated")
    # The kubelet writes 137 where it lost sight of a container, too (kubelet_pods.go): nobody knows
    # then how it ended.
    if not ended or ended.get("reason") == "ContainerStatusUnknown":
        return None
    message = ended.get("message") or ""
    if keeper := _KEEPER.findall(message):
        code, words = keeper[-1]
        if code in TOLD:
            down = code not in ("disk-full", "half-made", "unlocked")
            return _notice(code, server, where, words.split(), down=down)
    if ended.get("exitCode") == 0:
        return None
    if ended.get("reason") == "OOMKilled" or ended.get("exitCode") == 137:
        return _notice("killed", server, where)
    for text, code in PRINTED:
        if text in message:
            return _notice(code, server, where)
    return _notice("ended", server, where)


def _why_it_waits(waiting: Mapping[str, Any]) -> str:
    if "mage" in waiting["reason"]:
        return "pull"
    message = waiting.get("message") or ""
    lacking = ("executable file not found", "no such file or directory")
    return "image" if any(one in message for one in lacking) else "container"


def _notice(
    code: str,
    server: DatabaseServer,
    where: Where,
    words: list[str] | None = None,
    *,
    down: bool = True,
) -> Notice:
    said, remedy = _OF_PODS[code]
    plain = [one if _WORD.fullmatch(one) else "?" for one in words or []]
    if code == "disk-full":
        plain = [_mebibytes(one) for one in plain]
    plain += ["?"] * (2 - len(plain))
    said = said.format(*plain)
    named = where.words(server)
    remedy = remedy.format(*plain, upgrade=server.upgrade, **named)
    return Notice(code, server.name, said, remedy, down)


def _mebibytes(kibibytes: str) -> str:
    return f"{int(kibibytes) // 1024} MiB" if kibibytes.isdigit() else "?"
