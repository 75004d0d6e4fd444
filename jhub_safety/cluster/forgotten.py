"""An operator's word that a missing claim is gone for good, kept in the cluster.

A Secret, since the chart's Role lets a hub read Secrets and not ConfigMaps. It holds no secret.
"""

from __future__ import annotations

import base64
import binascii
from functools import partial

from kubernetes_asyncio import client as kube

from jhub_safety.cluster.client import ask, expect, is_absent
from jhub_safety.errors import Doubt
from jhub_safety.owner import Owner, label_value, object_name


def _name(owner: Owner, volume: str) -> str:
    # What an owner's home and extra volumes have lost is known apart.
    return f"jhub-safety-forgotten-{owner.hash}" + (f"-{object_name(volume)}" if volume else "")


async def read(
    api: kube.CoreV1Api, namespace: str, owner: Owner, volume: str = "", *, timeout: float = 10.0
) -> str | None:
    """The name of the claim that was given up for *owner*, or None.

    *volume*: which of their extra volumes it was; "" for the home.

    Raises:
        Doubt: the Secret could not be read.
    """
    what = f"reading secret {_name(owner, volume)} in namespace {namespace}"
    answer = await ask(
        partial(
            api.read_namespaced_secret, _name(owner, volume), namespace, _preload_content=False
        ),
        what,
        timeout=timeout,
    )
    if is_absent(answer, what, _name(owner, volume)):
        return None
    data = expect(answer, what, "Secret").get("data") or {}
    try:
        return base64.b64decode(data["claim"], validate=True).decode()
    except (KeyError, ValueError, binascii.Error) as error:
        raise Doubt(f"{what}: it does not say which claim", retryable=False) from error


async def write(
    api: kube.CoreV1Api,
    namespace: str,
    owner: Owner,
    claim: str,
    volume: str = "",
    *,
    timeout: float = 10.0,
) -> None:
    """Record that *claim* is given up. Replaces an earlier record of the same owner and volume.

    Raises:
        Conflict, Doubt: it was not recorded.
    """
    what = f"recording in secret {_name(owner, volume)} that claim {claim} is given up"
    body = kube.V1Secret(
        metadata=kube.V1ObjectMeta(
            name=_name(owner, volume), labels={"jhub-safety/hub": label_value(owner.hub)}
        ),
        string_data={"claim": claim, "user": owner.user, "server": owner.server},
    )
    create = partial(api.create_namespaced_secret, namespace, body, _preload_content=False)
    answer = await ask(create, what, timeout=timeout)
    if answer.status == 409:
        # Deleted and made anew, not patched: the chart's Role has no PATCH on Secrets.
        await ask(
            partial(
                api.delete_namespaced_secret,
                _name(owner, volume),
                namespace,
                _preload_content=False,
            ),
            what,
            timeout=timeout,
        )
        answer = await ask(create, what, timeout=timeout)
    expect(answer, what, "Secret")
