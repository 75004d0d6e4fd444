"""A pod with database servers: what is added to what the hub has made. Nothing is replaced.

Pure: from a pod and servers to a pod.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any

from kubernetes_asyncio import client as kube

from jhub_safety.sidecars.ownership import Folder, container, writable
from jhub_safety.sidecars.server import DatabaseServer

#: Says which databases a lab was made with: a JSON list of names.
ANNOTATION = "jhub-safety/databases"
#: To select labs by.
LABEL = "jhub-safety/databases"
NOTEBOOK = "notebook"
_STATE = "jhub-safety-state"
#: Seconds that the lab itself gets of the time to end: Kubernetes' own default.
LAB_SECONDS = 30
#: What an image needs whose entrypoint begins as root and steps down to its own account.
_STEP_DOWN = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID")


@dataclass(frozen=True, slots=True)
class Beside:
    """A server of this lab, and the claim that holds its data."""

    server: DatabaseServer
    claim: str
    native: bool
    #: No other pod can have the claim: it is only this server's, and for one node.
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Who:
    """As whom the lab runs, and where its home is."""

    uid: int
    gid: int
    #: False: the pod does not say it, and its image may have another account.
    stated: bool = True
    #: Mounts of the home in the notebook's container, as Kubernetes writes them.
    home: tuple[dict[str, Any], ...] = ()


def who(pod: kube.V1Pod, home_claim: str, home_path: str) -> Who:
    """From the pod as it was made: a hook or profile may have set the account."""
    notebook = _notebook(pod)
    contexts = (_plain(notebook.security_context), _plain(pod.spec.security_context))
    uids = [one["runAsUser"] for one in contexts if one.get("runAsUser") is not None]
    gids = [one.get(key) for one in contexts for key in ("runAsGroup", "fsGroup")]
    if uids and uids[0] == 0:
        # Images that begin as root step down to these (docker-stacks' start.sh).
        said = {one["name"]: one.get("value") for one in map(_plain, notebook.env or [])}
        uids, groups = ([_number(said.get(name))] for name in ("NB_UID", "NB_GID"))
        gids = groups + gids
    uid = next((one for one in uids if one), 0)
    gid = next((one for one in gids if one), 100)
    claims = {
        volume["name"]
        for volume in map(_plain, pod.spec.volumes or [])
        if (volume.get("persistentVolumeClaim") or {}).get("claimName") == home_claim
    }
    mounts = [_plain(one) for one in notebook.volume_mounts or []]
    found = [one for one in mounts if one["name"] in claims]
    # Homes on a shared claim, or kept by somebody else: by the path.
    found = found or [one for one in mounts if one.get("mountPath") == home_path]
    # Such a path is made of the notebook's own variables, which other containers do not have.
    found = [one for one in found if not one.get("subPathExpr")]
    return Who(int(uid or 1000), int(gid), bool(uid), tuple(found))


def _number(text: object) -> int:
    """0: it is none, or made by Kubernetes of something else."""
    return int(text) if isinstance(text, str) and text.isascii() and text.isdigit() else 0


def objection(pod: kube.V1Pod, servers: Sequence[DatabaseServer]) -> str:
    """Why these servers must not be added to this pod, or ""."""
    if not servers:
        return ""
    if why := exposure(pod, servers):
        return why
    taken = {other["name"] for other in _containers(pod)}
    taken |= {_plain(volume)["name"] for volume in pod.spec.volumes or []}
    for name in (_STATE, *(one.container for one in servers)):
        if name in taken:
            return f"there is a container or volume {name} already"
    return ""


def exposure(pod: kube.V1Pod, servers: Sequence[DatabaseServer]) -> str:
    """By what others than the lab would reach these servers, or "". They ask for no password."""
    if not servers:
        return ""
    if pod.spec.host_network:
        return (
            "hostNetwork is on for this lab: everybody on the node could use the user's database, "
            "which asks for no password"
        )
    ports = {one.port: one.name for one in servers}
    for other in _containers(pod):
        for port in other.get("ports") or []:
            if (number := port.get("containerPort")) in ports:
                return (
                    f"container {other['name']} declares port {number}, which is that of the "
                    f"database {ports[number]}, and would show it to others than the lab"
                )
    return ""


def _containers(pod: kube.V1Pod) -> list[dict[str, Any]]:
    return [_plain(one) for one in (*pod.spec.containers, *(pod.spec.init_containers or []))]


def add_servers(pod: kube.V1Pod, beside: Sequence[Beside], whom: Who) -> None:
    """Containers, volumes and what the lab's programs need to find the servers."""
    spec, notebook = pod.spec, _notebook(pod)
    names = [one.server.name for one in beside]
    pod.metadata.annotations = {**(pod.metadata.annotations or {}), ANNOTATION: json.dumps(names)}
    pod.metadata.labels = {**(pod.metadata.labels or {}), LABEL: "true"}
    spec.volumes = [
        *(spec.volumes or []),
        kube.V1Volume(name=_STATE, empty_dir={"sizeLimit": "16Mi"}),
        *(
            kube.V1Volume(
                name=one.server.container, persistent_volume_claim={"claimName": one.claim}
            )
            for one in beside
        ),
    ]
    for one in beside:
        made = kube.V1Container(**_container(one, whom))
        if one.native:
            # Last: what the hub's own init containers do comes before, as without a database.
            spec.init_containers = [*(spec.init_containers or []), made]
        else:
            spec.containers = [*spec.containers, made]
        # extra_container_config puts dictionaries there as they are.
        have = {_plain(variable)["name"] for variable in notebook.env or []}
        notebook.env = [
            *(notebook.env or []),
            *(
                kube.V1EnvVar(name=name, value=value)
                for name, value in one.server.client_environment().items()
                if name not in have
            ),
        ]
    need = LAB_SECONDS + sum(one.server.stop_seconds for one in beside)
    spec.termination_grace_period_seconds = max(spec.termination_grace_period_seconds or 0, need)


def add_ownership(
    pod: kube.V1Pod, folders: Sequence[Folder], image: str, policy: str, *, root: bool
) -> None:
    """Put it before all other init containers; where root is refused, ask for an fsGroup."""
    if not folders:
        return
    if root:
        made = kube.V1Container(**container(image, policy, folders))
        pod.spec.init_containers = [made, *(pod.spec.init_containers or [])]
        return
    context = _plain(pod.spec.security_context)
    if not context.get("fsGroup"):
        # Otherwise the kubelet walks through every volume at every start.
        usual = {"fsGroupChangePolicy": "OnRootMismatch"}
        pod.spec.security_context = {**usual, **context, "fsGroup": folders[0].gid}


def folders(
    pod: kube.V1Pod, beside: Sequence[Beside], whom: Who, shared: Sequence[str]
) -> list[Folder]:
    """What is to be given to the lab's user, and to its servers. *shared*: mount paths."""
    found = [
        Folder("home" if whom.stated else "guess", mount["mountPath"], whom.uid, whom.gid, mount)
        for mount in writable(whom.home)
    ]
    by_path = {
        one["mountPath"]: one
        for one in map(_plain, _notebook(pod).volume_mounts or [])
        # Made of the notebook's own variables: the kubelet could not make the container.
        if not one.get("subPathExpr")
    }
    for path in shared:
        if path in by_path and by_path[path] not in whom.home:
            found += [
                Folder("root", path, whom.uid, whom.gid, mount)
                for mount in writable([by_path[path]])
            ]
    for one in beside:
        uid = _uid(one.server, whom)
        if uid is None:
            continue  # The image begins as root, and gives its folder to its own account.
        mount = _data_mount(one)
        found.append(Folder("volume", one.server.mount, uid, whom.gid, mount))
        found.append(Folder("data", one.server.data, uid, whom.gid, mount))
    return found


def _uid(server: DatabaseServer, whom: Who) -> int | None:
    """None: whatever the image says."""
    if server.run_as == "image":
        return None
    return whom.uid if server.run_as == "lab" else int(server.run_as)


def _data_mount(one: Beside) -> dict[str, Any]:
    return {"name": one.server.container, "mountPath": one.server.mount}


def _apart(home: Sequence[dict[str, Any]], ours: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mounts of the home that are in no other one, and have none in them.

    A link in a home leads what is mounted below it to elsewhere: over the programs of an image that
    begins as root.
    """
    return [
        one
        for one in home
        if not any(_is_below(one, other) for other in (*home, *ours))
        and not any(_is_below(other, one) for other in ours)
    ]


def _is_below(mount: dict[str, Any], other: dict[str, Any]) -> bool:
    inner, outer = (PurePosixPath(one["mountPath"]) for one in (mount, other))
    return outer in inner.parents


def _container(one: Beside, whom: Who) -> dict[str, Any]:
    server, scripts = one.server, files(__package__)
    uid = _uid(server, whom)
    context: dict[str, Any] = {
        "allowPrivilegeEscalation": False,
        "seccompProfile": {"type": "RuntimeDefault"},
        "capabilities": {"drop": ["ALL"]},
    }
    if uid is None:
        context["runAsUser"] = 0
        context["capabilities"]["add"] = list(_STEP_DOWN)
    else:
        context |= {"runAsUser": uid, "runAsGroup": whom.gid, "runAsNonRoot": True}
    environment = {
        **server.environment(),
        **server.env,
        "JHS_NAME": server.name,
        "JHS_DATA": server.data,
        "JHS_PORT": str(server.port),
        "JHS_USER": server.user,
        "JHS_RESERVE": str(1024 * server.reserve_mib),
        "JHS_STOP": server.stop_signal,
        "JHS_MODE": server.data_mode,
        "JHS_READY": server.ready,
        "JHS_AFTER_READY": server.after_ready,
        "JHS_STALE": server.stale,
        "JHS_ALONE": "1" if one.alone else "0",
        "JHS_DATA_VERSION": server.data_version,
        "JHS_SERVER_VERSION": server.server_version,
        "JHS_DEADLINE": str(server.startup_deadline),
        "JHS_REQUIRED": "1" if server.required else "0",
    }
    mounts = [_data_mount(one), {"name": _STATE, "mountPath": "/run/jhub-safety"}]
    if server.mount_home:
        mounts += _apart(whom.home, mounts)
    probe = scripts.joinpath("probe.sh").read_text()
    made: dict[str, Any] = {
        "name": server.container,
        "image": server.image,
        "image_pull_policy": server.image_pull_policy,
        "command": ["sh", "-c", scripts.joinpath("keeper.sh").read_text(), "jhub-safety"],
        "args": [
            server.entrypoint,
            *server.arguments(),
            *server.args,
            *server.last_arguments(),
        ],
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "resources": {key: dict(value) for key, value in server.resources.items()},
        "security_context": context,
        "volume_mounts": mounts,
        # The keeper's own words where it has some, else the last of the server's.
        "termination_message_policy": "FallbackToLogsOnError",
        "startup_probe": {
            "exec": {"command": ["sh", "-c", probe]},
            "periodSeconds": 1,
            # It waits for 8 s by itself, and looks five times a second.
            "timeoutSeconds": 10,
            # It passes by itself when its time is over; one that fails would end the server.
            "failureThreshold": max(server.startup_deadline, 3600),
        },
    }
    if one.native:
        made["restart_policy"] = "Always"
    return made


def _notebook(pod: kube.V1Pod) -> Any:
    return next(one for one in pod.spec.containers if one.name == NOTEBOOK)


def _plain(part: Any) -> dict[str, Any]:
    """A part of a pod as Kubernetes writes it: KubeSpawner has models, and dictionaries in them."""
    found = _WRITER.sanitize_for_serialization(part)
    return found if isinstance(found, dict) else {}


class _Writer(kube.ApiClient):  # type: ignore[misc]
    """The client's way of writing models, without the client: that opens a connection pool."""

    def __init__(self) -> None:
        pass


_WRITER = _Writer()
