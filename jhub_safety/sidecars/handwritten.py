"""What is wrong with database servers that a hub has written by hand into its containers.

The widely copied recipe has ``securityContext`` and ``volumeMounts`` indented under the last item
of ``env``. The API server drops what it does not know there, without a word: the lab comes up
"2/2", and every table is gone after the first stop and start (run on Kubernetes 1.34).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from jhub_safety.finding import Finding, Severity

#: Fields of an environment variable that Kubernetes knows.
_ENV = frozenset({"name", "value", "valueFrom", "value_from"})


@dataclass(frozen=True, slots=True)
class _Image:
    """Where an official image has its data, and what it says is a volume.

    A container runtime puts an empty directory over such a path, also over a volume that is
    mounted further up.
    """

    data: str
    volumes: tuple[str, ...]


#: Until 17, and since: 18 has its data in a folder of the version, and the volume above it.
_POSTGRES = _Image("/var/lib/postgresql/data", ("/var/lib/postgresql/data",))
_POSTGRES_18 = _Image("/var/lib/postgresql/18/docker", ("/var/lib/postgresql",))
#: By name; of several that a tag leaves open, what is right for one is taken for right.
_IMAGES = {
    "postgres": (_POSTGRES, _POSTGRES_18),
    "mysql": (_Image("/var/lib/mysql", ("/var/lib/mysql",)),),
    "mariadb": (_Image("/var/lib/mysql", ("/var/lib/mysql",)),),
    "redis": (_Image("/data", ("/data",)),),
    "mongo": (_Image("/data/db", ("/data/db", "/data/configdb")),),
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
    images = _images(container)
    if not images:
        return
    mounts = [
        str(mount.get("mountPath") or mount.get("mount_path"))
        for mount in container.get("volumeMounts") or container.get("volume_mounts") or []
        if isinstance(mount, Mapping)
    ]
    if any(_is_kept(one, mount) for one in images for mount in mounts):
        return
    data = images[0].data
    hiding = [mount for one in images for mount in mounts if _is_at(one.data, mount)]
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


def _images(container: Mapping[str, Any]) -> tuple[_Image, ...]:
    """What its image may be, as far as its name tells; empty: none that is known here."""
    name, _, tag = (
        str(container.get("image", "")).rpartition("/")[2].partition("@")[0].partition(":")
    )
    images = _IMAGES.get(name, ())
    if name != "postgres":
        return images
    if number := re.match(r"[0-9]+", tag):
        since = replace(_POSTGRES_18, data=f"/var/lib/postgresql/{number[0]}/docker")
        images = (since,) if int(number[0]) >= 18 else (_POSTGRES,)
    for variable in container.get("env") or []:
        if isinstance(variable, Mapping) and variable.get("name") == "PGDATA":
            data = variable.get("value")
            images = tuple(replace(one, data=str(data)) if data else one for one in images)
    return images


def _is_at(path: str, mount: str) -> bool:
    return path == mount or path.startswith(mount.rstrip("/") + "/")


def _is_kept(image: _Image, mount: str) -> bool:
    """The data is in what is mounted there; no volume of the image's own lies between."""
    return _is_at(image.data, mount) and not any(
        _is_at(image.data, volume) and volume != mount and _is_at(volume, mount)
        for volume in image.volumes
    )
