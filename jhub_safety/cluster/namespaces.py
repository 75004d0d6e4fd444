"""Whether a namespace is there, before anything is made in it."""

from __future__ import annotations

from functools import partial

from kubernetes_asyncio import client as kube

from jhub_safety.cluster.client import ask, expect, is_absent
from jhub_safety.errors import Doubt, SafetyError


async def must_be_active(api: kube.CoreV1Api, name: str, *, timeout: float = 30.0) -> None:
    """A LIST in a namespace that does not exist is empty, not an error; so it is asked first.

    Without the right to read namespaces nothing is said; creating will tell.

    Raises:
        SafetyError: it does not exist, or is being deleted.
        Doubt: it could not be read.
    """
    what = f"reading namespace {name}"
    answer = await ask(
        partial(api.read_namespace, name, _preload_content=False),
        what,
        timeout=timeout,
        patience=timeout,
    )
    if answer.status == 403:
        return
    if is_absent(answer, what, name):
        raise SafetyError(
            f"there is no namespace {name}; nothing was changed. Make it: "
            f"kubectl create namespace {name}"
        )
    body = expect(answer, what, "Namespace")
    phase = (body.get("status") or {}).get("phase")
    if phase != "Active":
        if phase is None:
            raise Doubt(f"{what}: the answer has no phase")
        raise SafetyError(
            f"namespace {name} is {phase}; nothing was changed. Wait until it is gone"
        )
