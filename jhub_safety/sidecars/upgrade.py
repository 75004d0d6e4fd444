"""Moving users' data to another major version of their database server: what is planned and said.

Pure. The work itself is done in a pod of two containers, by upgrade_new.sh (which leads) and
upgrade_old.sh; :mod:`jhub_safety.sidecars.moving` makes the pods.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from jhub_safety import owner as marks
from jhub_safety.cluster.claims import Claim
from jhub_safety.cluster.pods import Pod
from jhub_safety.plan import Action, Plan, Refusal
from jhub_safety.sidecars.postgres import Postgres
from jhub_safety.sidecars.server import DatabaseServer

#: Where the two containers meet.
SHARE = "/run/jhub-safety-upgrade"
#: For the copy that the old version runs on.
SCRATCH = "/scratch"
NEW, OLD = "new", "old"
#: Says what a pod is about, so that a command which was cut off finds its own again.
ANNOTATION = "jhub-safety/upgrade"
COMPONENT = "jhub-safety-upgrade"

_MESSAGE = re.compile(r"^jhub-safety ([a-z-]{1,30})((?: [^\s]{1,60}){0,4})$", re.MULTILINE)
_WORD = re.compile(r"[A-Za-z0-9._-]{1,60}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which database is to go from which image to which."""

    server: DatabaseServer
    from_image: str
    to_image: str

    @property
    def words(self) -> dict[str, str]:
        return {"database": self.server.name, "from": self.from_image, "to": self.to_image}


@dataclass(frozen=True, slots=True)
class Holder:
    """A claim that holds data of a database, and whose it is."""

    user: str
    server: str
    claim: Claim

    def __str__(self) -> str:
        return f"{self.user}/{self.server}" if self.server else self.user


@dataclass(frozen=True, slots=True)
class Lab:
    """What of the labs' settings an upgrade needs; see KubeSpawner's traits of these names."""

    uid: int = 1000
    gid: int = 100
    node_selector: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    tolerations: Sequence[Any] = ()
    image_pull_secrets: Sequence[Any] = ()


def holders(
    claims: Iterable[Claim],
    server: DatabaseServer,
    hub: str,
    on_record: Mapping[str, tuple[str, str]] = MappingProxyType({}),
) -> list[Holder]:
    """Every claim of *hub* that holds data of *server*, by annotation or the hub's records.

    *on_record*: user and server by claim, for claims that could never be annotated.
    """
    found = []
    for claim in claims:
        written = claim.annotations
        if written.get(marks.VOLUME) == server.claim_template and written.get(marks.HUB) == hub:
            found.append(Holder(written[marks.USER], written.get(marks.SERVER, ""), claim))
        elif marks.VOLUME not in written and claim.name in on_record:
            found.append(Holder(*on_record[claim.name], claim))
    return sorted(found, key=lambda one: (one.user, one.server, one.claim.name))


def plan_upgrades(
    wanted: Wanted, found: Sequence[Holder], pods: Iterable[Pod], namespace: str
) -> Plan:
    """Each claim is moved, or refused with the reason. *pods*: all of the namespace."""
    title = (
        f"move database {wanted.server.name} from image {wanted.from_image} to {wanted.to_image}"
    )
    if not isinstance(wanted.server, Postgres):
        why = (
            f"databases of kind {wanted.server.kind} are not moved by this command: for MySQL and "
            "MariaDB a newer server converts the data. See the documentation, Database upgrades"
        )
        return Plan(title, (), (Refusal("kind", wanted.server.name, why),))
    by_claim = users_of_claims(pods)
    actions: list[Action] = []
    refusals: list[Refusal] = []
    for one in found:
        if objection := _objection(one.claim, by_claim.get(one.claim.name, ())):
            code, story = objection
            refusals.append(Refusal(code, str(one), story, retryable=code == "in-use"))
            continue
        actions.append(
            Action(
                "upgrade-database",
                namespace,
                one.claim.name,
                f"{wanted.server.name} of {one}: from image {wanted.from_image} to "
                f"{wanted.to_image}; the old folder is kept",
                uid=one.claim.uid,
                user=one.user,
                server=one.server,
            )
        )
    return Plan(title, tuple(actions), tuple(refusals))


def users_of_claims(pods: Iterable[Pod]) -> dict[str, tuple[str, ...]]:
    """Names of the pods that may write to each claim; upgrades' own are not among them."""
    found: dict[str, tuple[str, ...]] = {}
    for pod in pods:
        if pod.ended or pod.labels.get("component") == COMPONENT:
            continue
        for claim in pod.claims:
            found[claim] = (*found.get(claim, ()), pod.name)
    return found


def _objection(claim: Claim, pods: Sequence[str]) -> tuple[str, str] | None:
    if claim.deleting:
        return "terminating", f"claim {claim.name} is being deleted"
    if claim.phase != "Bound":
        return "not-bound", f"claim {claim.name} is {claim.phase or 'without a phase'}, not Bound"
    if pods:
        return "in-use", in_use(claim.name, pods)
    return None


def in_use(claim: str, pods: Sequence[str]) -> str:
    return (
        f"claim {claim} is mounted by {', '.join(pods)}. Nothing was changed; stop the server "
        "first, and run this again"
    )


# -- the pod


def pod_name(action: Action) -> str:
    """One for each claim: a second command finds the first one's."""
    return f"jhub-safety-upgrade-{action.uid}"[:63].rstrip("-")


def manifest(
    wanted: Wanted, action: Action, lab: Lab, hub: str, uid: int, gid: int
) -> dict[str, Any]:
    """The pod that moves one claim's data, as Kubernetes writes it.

    No network is used: both servers listen on sockets in a folder that lives with the pod. That
    the user's data uses none either is for examples/helm/networkpolicy.yaml, by the label. The old
    one's container cannot write to the claim.
    """
    server = wanted.server
    environment = {
        **server.environment(),
        **server.env,
        "JHS_DATA": server.data,
        "JHS_USER": server.user,
    }

    def container(name: str, image: str, mounts: list[dict[str, Any]]) -> dict[str, Any]:
        script = files(__package__).joinpath(f"upgrade_{name}.sh").read_text()
        return {
            "name": name,
            "image": image,
            "imagePullPolicy": server.image_pull_policy,
            "command": ["sh", "-c", script, "jhub-safety"],
            "env": [{"name": key, "value": value} for key, value in environment.items()],
            "resources": {key: dict(value) for key, value in server.resources.items()},
            "securityContext": {
                "runAsUser": uid,
                "runAsGroup": gid,
                "runAsNonRoot": True,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "volumeMounts": [{"name": "share", "mountPath": SHARE}, *mounts],
        }

    data = {"name": "data", "mountPath": server.mount}
    scratch = {"name": "scratch", "mountPath": SCRATCH}
    return {
        "metadata": {
            "name": pod_name(action),
            "labels": {"component": COMPONENT, marks.HUB_LABEL: marks.label_value(hub)},
            "annotations": {
                ANNOTATION: json.dumps({**wanted.words, "claim": action.name}),
                marks.USER: action.user,
                marks.SERVER: action.server,
            },
        },
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 20,
            "nodeSelector": dict(lab.node_selector),
            "tolerations": list(lab.tolerations),
            "imagePullSecrets": list(lab.image_pull_secrets),
            "containers": [
                container(NEW, wanted.to_image, [data]),
                container(OLD, wanted.from_image, [{**data, "readOnly": True}, scratch]),
            ],
            "volumes": [
                {"name": "data", "persistentVolumeClaim": {"claimName": action.name}},
                {"name": "share", "emptyDir": {}},
                {"name": "scratch", "emptyDir": {}},
            ],
        },
    }


# -- how it ended


@dataclass(frozen=True, slots=True)
class Told:
    """What the leading container said when it ended. Words of a plain form only."""

    code: str
    words: tuple[str, ...] = ()

    def word(self, number: int) -> str:
        return self.words[number] if number < len(self.words) else "?"

    @property
    def done(self) -> bool:
        return self.code in _DONE

    @property
    def sentence(self) -> str:
        """For the operator; the words are sizes in KiB for the codes about space."""
        said = _DONE.get(self.code) or _FAILED.get(self.code) or _UNKNOWN
        words = [self.word(number) for number in range(3)]
        if self.code in ("no-space", "no-scratch"):
            words = [f"{int(one) // 1024} MiB" if one.isdigit() else one for one in words]
        return said.format(*words)


_DONE = {
    "upgraded": "done: from version {0} to {1}; the old data is kept in the folder {2}",
    "already": "unchanged: its data is of version {0} already",
    "nothing": "unchanged: there is no data in it yet",
}
_FAILED = {
    "busy": (
        "a server is running on it. Nothing was changed; stop the user's server, and run this again"
    ),
    "no-space": (
        "{0} have to be free in its volume, and {1} are. Nothing was changed; raise capacity of "
        "the entry in databases, start and stop the user's server once, and run this again"
    ),
    "no-scratch": (
        "{0} have to be free on the node for a copy, and {1} are. Nothing was changed; see to the "
        "node's disk, and run this again"
    ),
    "version": (
        "its data is of version {0}, and the image to come from has version {1}. Nothing was "
        "changed; name the right one with --from-image"
    ),
    "older": (
        "its data is of version {0}, and the image to go to has the older version {1}. Nothing was "
        "changed"
    ),
    "half-made": (
        "its very first start was cut off. Nothing was changed; start the user's server once"
    ),
    "tablespaces": (
        "it has tablespaces in other folders, which are not moved by this. Nothing was changed; "
        "see the documentation, Database upgrades: by hand"
    ),
    "closed": (
        "it has a database that takes no connections, which a dump would leave out. Nothing was "
        "changed; the user can open it: ALTER DATABASE ... ALLOW_CONNECTIONS true"
    ),
    "in-the-way": (
        "there is a folder {0} in its volume that is not this command's. Nothing was changed; look "
        "at it, and move it"
    ),
    "compare": (
        "what arrived in the new version differs from the old. Nothing was changed; see the pod's "
        "log, and the documentation, Database upgrades: by hand"
    ),
    "dump": "the old version's data could not be read. Nothing was changed; see the pod's log",
    "restore": (
        "the new version did not take the old one's data. Nothing was changed; see the pod's log: "
        "often an extension that the new image lacks, or a volume that is full"
    ),
    "used": "a server has used the old data meanwhile. Nothing was changed; run this again",
    "unknown-data": (
        "its folder holds no data of such a server, or not all of it. Nothing was changed"
    ),
    "permission": "its folder cannot be written to by its owner. Nothing was changed",
    "account": (
        "it lets in neither the user of the settings nor postgres. Nothing was changed; see the "
        "documentation, Database upgrades: by hand"
    ),
    "no-lock": (
        "its volume cannot be locked, so that a lab could use it meanwhile. Nothing was changed; "
        "see the documentation, Database upgrades: by hand"
    ),
    "no-volume": "its volume is not mounted. Nothing was changed",
    "owner": "its data belongs to uid {0}. Nothing was changed",
    "copy": "its data could not be copied for reading. Nothing was changed; see the pod's log",
    "old-start": "the old version does not start on a copy. Nothing was changed; see the pod's log",
    "initdb": "the new version cannot make its files. Nothing was changed; see the pod's log",
    "new-start": "the new version does not start. Nothing was changed; see the pod's log",
    "new-stop": "the new version did not end cleanly. Nothing was changed; see the pod's log",
    "rename": "a folder could not be renamed. No data was changed; run this again",
    "marker": (
        "a file .jhub-safety-upgrading or -switching in its volume is damaged. Nothing was "
        "changed; look at it"
    ),
    "killed": "its pod was killed ({0}). Nothing is lost; run this again",
    "pull": "an image cannot be had ({0}). Nothing was changed",
    "late": "its pod did not come to run ({0}). Nothing was changed; run this again",
}
_UNKNOWN = "it ended without a word. Nothing is lost; see the pod's log, and run this again"
CODES = frozenset(_DONE) | frozenset(_FAILED)


def told(status: Mapping[str, Any]) -> Told | None:
    """From a pod's status, as the API writes it; None while it runs."""
    statuses = {one.get("name"): one for one in status.get("containerStatuses") or []}
    ended = ((statuses.get(NEW) or {}).get("state") or {}).get("terminated")
    if ended:
        found = _MESSAGE.findall(ended.get("message") or "")
        if found and found[-1][0] in CODES:
            code, words = found[-1]
            return Told(code, tuple(one if _WORD.fullmatch(one) else "?" for one in words.split()))
        reason = ended.get("reason") or ""
        return Told("killed", (reason if _WORD.fullmatch(reason) else "?",))
    if status.get("phase") in ("Failed", "Succeeded"):
        # Evicted, or its node is gone: no container has a word.
        reason = status.get("reason") or "no reason"
        return Told("killed", (reason if _WORD.fullmatch(reason) else "no reason",))
    return None


_PULLING = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")


def waits_for(status: Mapping[str, Any]) -> Told:
    """Why a pod does not come to run."""
    for one in status.get("containerStatuses") or []:
        reason = ((one.get("state") or {}).get("waiting") or {}).get("reason") or ""
        if reason in _PULLING:
            return Told("pull", (f"{reason}",))
        if reason and reason not in ("ContainerCreating", "PodInitializing"):
            return Told("late", (reason if _WORD.fullmatch(reason) else "?",))
    conditions = status.get("conditions") or []
    reasons = [one.get("reason") or "" for one in conditions if one.get("status") == "False"]
    return Told("late", tuple(one for one in reasons if _WORD.fullmatch(one))[:1])


def is_running(status: Mapping[str, Any]) -> bool:
    """Whether both containers have come to run."""
    states = [one.get("state") or {} for one in status.get("containerStatuses") or []]
    return len(states) == 2 and not any("waiting" in one for one in states)
