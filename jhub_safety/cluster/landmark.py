"""A mark in the namespace that says: this hub has had homes here.

An API server (or a proxy before it) that answers a listing with an empty 200 looks exactly like
a namespace where nobody has a home yet. The mark, made with the first home and found again later,
tells the two apart. A Secret, since the chart's Role lets a hub make and read those; it holds no
secret.
"""

from __future__ import annotations

from functools import partial

from kubernetes_asyncio import client as kube

from jhub_safety.cluster.client import ask, expect, is_absent
from jhub_safety.errors import Conflict
from jhub_safety.owner import HUB_LABEL, label_value, object_name

PREFIX = "jhub-safety-homes"


def name(hub: str) -> str:
    """The Secret's name: a hub's own, as two may share a namespace."""
    return f"{PREFIX}-{object_name(hub)}"


async def uid(
    api: kube.CoreV1Api, namespace: str, hub: str, *, timeout: float = 10.0
) -> str | None:
    """The mark's uid, or None when it is not there.

    Raises:
        Doubt: that could not be found out.
    """
    what = f"reading secret {name(hub)} in namespace {namespace}"
    answer = await ask(
        partial(api.read_namespaced_secret, name(hub), namespace, _preload_content=False),
        what,
        timeout=timeout,
    )
    if is_absent(answer, what, name(hub)):
        return None
    found: str = expect(answer, what, "Secret")["metadata"]["uid"]
    return found


async def set_up(api: kube.CoreV1Api, namespace: str, hub: str, *, timeout: float = 10.0) -> None:
    """Make the mark; nothing is done when it is there.

    Raises:
        Doubt: it was not made.
    """
    what = f"making secret {name(hub)} in namespace {namespace}"
    body = kube.V1Secret(
        metadata=kube.V1ObjectMeta(name=name(hub), labels={HUB_LABEL: label_value(hub)}),
        string_data={"about": "This hub has had homes in this namespace (jhub-safety)."},
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
