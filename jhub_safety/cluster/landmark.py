"""Marks in the namespace: this hub has had homes here; this is where it starts servers.

An API server (or a proxy before it) that answers a listing with an empty 200 looks exactly like
a namespace where nobody has a home yet, and one of another cluster answers 404 to everything. The
marks, made once and found again later, tell the difference. Secrets, since the chart's Role lets
a hub make and read those; they hold no secret.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from kubernetes_asyncio import client as kube

from jhub_safety.cluster.client import ask, expect, is_absent
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.owner import HUB_LABEL, label_value, object_name

Mark = Literal["homes", "place", "folders"]
#: Made when the first home was found or made.
HOMES: Mark = "homes"
#: Made when the first server starts; sessions remember its uid.
PLACE: Mark = "place"
#: Made when the first home on the shared claim was in use.
FOLDERS: Mark = "folders"
_ABOUT = {
    HOMES: "This hub has had homes in this namespace (jhub-safety).",
    PLACE: "This hub starts servers in this namespace (jhub-safety).",
    FOLDERS: "This hub has had homes on a shared claim of this namespace (jhub-safety).",
}


def name(hub: str, mark: Mark) -> str:
    """The Secret's name: a hub's own, as two may share a namespace."""
    return f"jhub-safety-{mark}-{object_name(hub)}"


async def uid(
    api: kube.CoreV1Api, namespace: str, hub: str, mark: Mark, *, timeout: float = 10.0
) -> str | None:
    """The mark's uid, or None when it is not there.

    Raises:
        Doubt: that could not be found out.
    """
    what = f"reading secret {name(hub, mark)} in namespace {namespace}"
    answer = await ask(
        partial(api.read_namespaced_secret, name(hub, mark), namespace, _preload_content=False),
        what,
        timeout=timeout,
    )
    if is_absent(answer, what, name(hub, mark)):
        return None
    metadata = expect(answer, what, "Secret").get("metadata") or {}
    if not isinstance(metadata.get("uid"), str):
        raise Doubt(f"{what}: it has no uid")
    return str(metadata["uid"])


async def set_up(
    api: kube.CoreV1Api, namespace: str, hub: str, mark: Mark, *, timeout: float = 10.0
) -> None:
    """Make the mark; nothing is done when it is there.

    Raises:
        Doubt: it was not made.
    """
    what = f"making secret {name(hub, mark)} in namespace {namespace}"
    body = kube.V1Secret(
        metadata=kube.V1ObjectMeta(name=name(hub, mark), labels={HUB_LABEL: label_value(hub)}),
        string_data={"about": _ABOUT[mark]},
    )
    answer = await ask(
        partial(api.create_namespaced_secret, namespace, body, _preload_content=False),
        what,
        timeout=timeout,
    )
    try:
        expect(answer, what, "Secret")
    except Conflict:
        return
