"""Kubernetes events: where operators look first (``kubectl describe``, ``kubectl get events``)."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

from kubernetes_asyncio import client as kube

from jhub_safety.cluster.client import ask, expect

#: Kubernetes' own limit for an event's message.
_MESSAGE = 1024


async def warn_about_claim(
    api: kube.CoreV1Api,
    namespace: str,
    claim: str,
    uid: str,
    reason: str,
    message: str,
    *,
    timeout: float = 5.0,
) -> None:
    """A Warning event about *claim*, which need not exist (*uid* "" then).

    Raises:
        Doubt: it was not written; ``status`` 403 when the hub may not create events.
    """
    now = datetime.now(UTC)
    body = kube.CoreV1Event(
        metadata=kube.V1ObjectMeta(generate_name=f"{claim[:200]}."),
        involved_object=kube.V1ObjectReference(
            api_version="v1",
            kind="PersistentVolumeClaim",
            name=claim,
            namespace=namespace,
            uid=uid or None,
        ),
        type="Warning",
        reason=reason,
        message=message[:_MESSAGE],
        source=kube.V1EventSource(component="jhub-safety"),
        first_timestamp=now,
        last_timestamp=now,
        count=1,
    )
    what = f"writing an event about claim {claim}"
    answer = await ask(
        partial(api.create_namespaced_event, namespace, body, _preload_content=False),
        what,
        timeout=timeout,
    )
    expect(answer, what, "Event")
