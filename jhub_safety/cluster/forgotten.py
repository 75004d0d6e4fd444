"""An operator's word that a missing claim is gone for good, kept in the cluster.

A Secret, since the chart's Role lets a hub read Secrets and not ConfigMaps. It holds no secret.

A word counts once. The next claim may have the very name that was given up, and when that one is
lost its user must not get a third in silence: the word is taken down when there is a successor on
record, and one that was left, by a hub that was killed before, is older than the claim on record.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from kubernetes_asyncio import client as kube

from jhub_safety.cluster.client import ask, expect, is_absent
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.owner import Owner, label_value, object_name


@dataclass(frozen=True, slots=True)
class Word:
    """Which claim was given up, and since when."""

    claim: str
    #: Of the Secret: tells this word from one that was given later.
    uid: str = ""
    given: datetime | None = None

    def is_older_than(self, made: datetime | None) -> bool:
        """Whether it was meant for a claim of that name before the one that was *made* then.

        In doubt it is not. Both times are the API server's, in whole seconds; of the same second
        is a claim that was made upon this word.
        """
        return made is not None and self.given is not None and self.given <= made


def _name(owner: Owner, volume: str) -> str:
    # What an owner's home and extra volumes have lost is known apart.
    return f"jhub-safety-forgotten-{owner.hash}" + (f"-{object_name(volume)}" if volume else "")


async def read(
    api: kube.CoreV1Api, namespace: str, owner: Owner, volume: str = "", *, timeout: float = 10.0
) -> str | None:
    """The name of the claim that was given up for *owner*, or None; see :func:`word`."""
    found = await word(api, namespace, owner, volume, timeout=timeout)
    return None if found is None else found.claim


async def word(
    api: kube.CoreV1Api, namespace: str, owner: Owner, volume: str = "", *, timeout: float = 10.0
) -> Word | None:
    """What was given up for *owner*, or None.

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
    body = expect(answer, what, "Secret")
    data, metadata = body.get("data") or {}, body.get("metadata") or {}
    try:
        claim = base64.b64decode(data["claim"], validate=True).decode()
    except (KeyError, ValueError, binascii.Error) as error:
        raise Doubt(f"{what}: it does not say which claim", retryable=False) from error
    return Word(claim, str(metadata.get("uid") or ""), _when(metadata.get("creationTimestamp")))


def _when(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None


async def take_down(
    api: kube.CoreV1Api,
    namespace: str,
    owner: Owner,
    word: Word,
    volume: str = "",
    *,
    timeout: float = 10.0,
) -> None:
    """Delete exactly this word: its claim has a successor on record. Gone already is success.

    Raises:
        Conflict: the operator has given another one since.
        Doubt: it may still be there.
    """
    name = _name(owner, volume)
    what = f"deleting secret {name} in namespace {namespace}, whose claim has a successor"
    body = kube.V1DeleteOptions(preconditions=kube.V1Preconditions(uid=word.uid or None))
    delete = partial(api.delete_namespaced_secret, name, namespace, body=body)
    answer = await ask(partial(delete, _preload_content=False), what, timeout=timeout)
    if answer.status == 409:
        raise Conflict(f"{what}: {answer.message or 'it is another one'}")
    if not is_absent(answer, what, name) and not 200 <= answer.status < 300:
        raise Doubt(f"{what}: HTTP {answer.status} {answer.message}", status=answer.status)


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
