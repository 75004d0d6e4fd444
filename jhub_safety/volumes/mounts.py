"""Where a pod mounts the home's sub path: marked before it is rendered, replaced when known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kubernetes_asyncio import client as kube

from jhub_safety.finding import Finding, Severity

#: Each code and what it means, for docs/doctor.md.
CODES = {
    "folders-in-order": "homes on one claim: what is mounted is what is looked for",
    "folders-not-looked-for": "homes are folders of one claim, and nobody looks which exist",
    "folders-not-mounted": "home_sub_path is no sub path of any mount",
}
_KEYS = ("subPath", "sub_path")


def check_sub_paths(home_sub_path: str, homes: str, mounts: Iterable[Any]) -> list[Finding]:
    """What doctor says of *mounts*, KubeSpawner's ``volume_mounts``, and these settings."""
    paths = sorted({_path(mount) for mount in mounts if isinstance(mount, Mapping)})
    if home_sub_path and home_sub_path not in paths:
        return [
            Finding(
                Severity.ERROR,
                "folders-not-mounted",
                "home_sub_path",
                f"{home_sub_path!r} is the sub path of none of volume_mounts, letter by letter "
                f"(there: {', '.join(map(repr, paths)) or 'none'}). No server would start",
            )
        ]
    if home_sub_path and homes == "enforce":
        return [Finding(Severity.OK, "folders-in-order", "home_sub_path", repr(home_sub_path))]
    # The other fields say themselves how they are written, and do not change with KubeSpawner.
    drifting = [path for path in paths if "{username}" in path or "{user_server}" in path]
    return [
        Finding(
            Severity.WARNING,
            "folders-not-looked-for",
            path,
            "KubeSpawner 7 renders this sub path differently from KubeSpawner 6 for names with "
            "'.', '@' or '-': such users get a new, empty folder. SafeKubeSpawner.home_sub_path, "
            'with homes = "enforce", finds their own',
        )
        for path in drifting
    ]


def mark_mounts(mount: dict[str, Any], template: str, mark: str) -> dict[str, Any]:
    """*mount* with *mark* in the place of *template*, also where a path below it is mounted."""
    for key in _KEYS:
        path = mount.get(key)
        if isinstance(path, str) and (path == template or path.startswith(template + "/")):
            mount = {**mount, key: mark + path[len(template) :]}
    return mount


def resolve_mounts(
    pod: kube.V1Pod, mark: str, folder: str, today: str, *, home_volume: str = ""
) -> tuple[str, str]:
    """Put *folder* in the place of *mark*; on other claims than the home's, *today*.

    Returns the name of the home's volume, and "" or why it cannot be told (then nothing is
    changed).
    """
    marked = [mount for mount in _mounts(pod.spec) if _path(mount).startswith(mark)]
    sources = {_get(one, "name"): _source(one) for one in pod.spec.volumes or []}
    if not marked:
        return "", "no mount has home_sub_path as its sub path, letter by letter"
    volumes = dict.fromkeys(str(_get(mount, "name")) for mount in marked)
    if home_volume:
        if home_volume not in volumes:
            return "", f"home_volume {home_volume!r} is not mounted with home_sub_path"
        home = home_volume
    elif len({sources.get(name, name) for name in volumes}) > 1:
        return "", (
            f"volumes {', '.join(volumes)} of several claims are mounted with home_sub_path: "
            "SafeKubeSpawner.home_volume must say which holds the homes"
        )
    else:
        home = next(iter(volumes))
    for mount in marked:
        name = str(_get(mount, "name"))
        here = folder if sources.get(name, name) == sources.get(home, home) else today
        _set_path(mount, here + _path(mount)[len(mark) :])
    return home, ""


def _get(thing: Any, snake: str, camel: str = "") -> Any:
    """KubeSpawner makes models of the outer parts, and leaves what is in them as configured."""
    if isinstance(thing, Mapping):
        return thing.get(snake, thing.get(camel or snake))
    return getattr(thing, snake, None)


def _mounts(spec: Any) -> Iterator[Any]:
    for part in ("containers", "init_containers"):
        for container in getattr(spec, part) or []:
            yield from _get(container, "volume_mounts", "volumeMounts") or []


def _path(mount: Any) -> str:
    return str(_get(mount, *_KEYS[::-1]) or "")


def _set_path(mount: Any, path: str) -> None:
    if isinstance(mount, dict):
        mount["subPath" if "subPath" in mount else "sub_path"] = path
    else:
        mount.sub_path = path


def _source(volume: Any) -> str:
    """What tells two volumes apart: the claim, else the volume's own name."""
    claim = _get(volume, "persistent_volume_claim", "persistentVolumeClaim")
    name = _get(claim, "claim_name", "claimName") if claim is not None else None
    return f"claim {name}" if name else f"volume {_get(volume, 'name')}"
