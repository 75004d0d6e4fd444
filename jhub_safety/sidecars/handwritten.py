"""What is wrong with database servers that a hub has written by hand into its containers.

The widely copied recipe has ``securityContext`` and ``volumeMounts`` indented under the last item
of ``env``. The API server drops what it does not know there, without a word: the lab comes up
"2/2", and every table is gone after the first stop and start (run on Kubernetes 1.34).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jhub_safety.finding import Finding, Severity

#: Fields of an environment variable that Kubernetes knows.
_ENV = frozenset({"name", "value", "valueFrom", "value_from"})
#: Where official images say that their data is a volume. A container runtime puts an empty
#: directory over such a path, also over a volume that is mounted further up.
_DATA = {
    "postgres": ("/var/lib/postgresql/data", "/var/lib/postgresql"),
    "mysql": ("/var/lib/mysql",),
    "mariadb": ("/var/lib/mysql",),
    "redis": ("/data",),
    "mongo": ("/data/db", "/data/configdb"),
}
DOCS = "docs: Databases, moving from a recipe"
CODES = {
    "recipe-dropped": "fields that the API server drops are written under an environment variable",
    "recipe-no-volume": "a database server without a volume loses its data at each stop",
    "recipe-hidden-volume": "the image's own volume hides the one that is mounted above it",
}


def check(containers: Iterable[object]) -> list[Finding]:
    """*containers*: ``extra_containers`` and ``init_containers``, as they are configured."""
    found: list[Finding] = []
    for one in containers:
        if isinstance(one, Mapping):
            found += _of(one)
    return found


def _of(container: Mapping[str, Any]) -> Iterator[Finding]:
    name = str(container.get("name", "without a name"))
    subject = f"container {name}"
    lost = []
    for variable in container.get("env") or []:
        if isinstance(variable, Mapping):
            lost += sorted(str(key) for key in variable if key not in _ENV)
    if lost:
        yield Finding(
            Severity.ERROR,
            "recipe-dropped",
            subject,
            f"{', '.join(lost)} stand under an environment variable, and Kubernetes drops them "
            "without a word: a database there is empty after each stop. Move them out, to the "
            f"container's own level ({DOCS})",
        )
    kind = _kind(str(container.get("image", "")))
    if kind is None:
        return
    mounts = [
        str(mount.get("mountPath") or mount.get("mount_path"))
        for mount in container.get("volumeMounts") or container.get("volume_mounts") or []
        if isinstance(mount, Mapping)
    ]
    data = _data_of(container, kind)
    if any(_is_at(data, mount) and not _is_hidden(data, mount, kind) for mount in mounts):
        return
    hiding = [mount for mount in mounts if _is_at(data, mount)]
    if hiding:
        yield Finding(
            Severity.ERROR,
            "recipe-hidden-volume",
            subject,
            f"its data is in {data}, which is a volume of the image's own: it hides what is "
            f"mounted at {hiding[0]}, and is empty after each stop. Mount at {data} itself, or set "
            f"another data folder ({DOCS})",
        )
        return
    yield Finding(
        Severity.ERROR,
        "recipe-no-volume",
        subject,
        f"its data is in {data}, where no volume is mounted: it is empty after each stop ({DOCS})",
    )


def _kind(image: str) -> str | None:
    name = image.rpartition("/")[2].partition("@")[0].partition(":")[0]
    return name if name in _DATA else None


def _data_of(container: Mapping[str, Any], kind: str) -> str:
    for variable in container.get("env") or []:
        if (
            isinstance(variable, Mapping)
            and kind == "postgres"
            and variable.get("name") == "PGDATA"
        ):
            return str(variable.get("value") or _DATA[kind][0])
    return _DATA[kind][0]


def _is_at(path: str, mount: str) -> bool:
    return path == mount or path.startswith(mount.rstrip("/") + "/")


def _is_hidden(path: str, mount: str, kind: str) -> bool:
    """The image's own volume lies between the mount and the data."""
    return any(
        _is_at(path, volume) and volume != mount and _is_at(volume, mount) for volume in _DATA[kind]
    )
