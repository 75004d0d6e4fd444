"""Kubernetes events: where operators look first (``kubectl describe``, ``kubectl get events``)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from kubernetes_asyncio import client as kube

from jhub_safety.cluster.client import ask, expect

#: Kubernetes' own limit for an event's message.
_MESSAGE = 1024


@dataclass(frozen=True, slots=True)
class About:
    """The object of an event, which need not exist (*uid* "" then)."""

    kind: str
    name: str
    uid: str = ""


async def warn(
    api: kube.CoreV1Api,
    namespace: str,
    about: About,
    reason: str,
    message: str,
    *,
    timeout: float = 5.0,
) -> None:
    """A Warning event.

    Raises:
        Doubt: it was not written; ``status`` 403 when the hub may not create events.
    """
    now = datetime.now(UTC)
    body = kube.CoreV1Event(
        metadata=kube.V1ObjectMeta(generate_name=f"{about.name[:200]}."),
        involved_object=kube.V1ObjectReference(
            api_version="v1",
            kind=about.kind,
            name=about.name,
            namespace=namespace,
            uid=about.uid or None,
        ),
        type="Warning",
        reason=reason,
        message=message[:_MESSAGE],
        source=kube.V1EventSource(component="jhub-safety"),
        first_timestamp=now,
        last_timestamp=now,
        count=1,
    )
    what = f"writing an event about {about.kind} {about.name}"
    answer = await ask(
        partial(api.create_namespaced_event, namespace, body, _preload_content=False),
        what,
        timeout=timeout,
    )
    expect(answer, what, "Event")


async def warn_about_claim(
    api: kube.CoreV1Api, namespace: str, claim: str, uid: str, reason: str, message: str
) -> None:
    """:func:`warn` about a claim."""
    about = About("PersistentVolumeClaim", claim, uid)
    await warn(api, namespace, about, reason, message)
