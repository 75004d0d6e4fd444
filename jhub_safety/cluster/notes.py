"""Small facts that outlive the hub's process and its database: a pause, the version that ran.

Secrets, since the chart's Role lets a hub make, read and delete those, and has no ConfigMaps. They
hold no secret.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from functools import partial

from kubernetes_asyncio import client as kube

from jhub_safety.cluster.client import ask, expect, is_absent
from jhub_safety.errors import Doubt
from jhub_safety.owner import HUB_LABEL, Owner, label_value, object_name


class Note:
    """One note of one hub: *about* is a word such as ``pause``."""

    def __init__(
        self,
        api: kube.CoreV1Api,
        namespace: str,
        hub: str,
        about: str,
        *,
        timeout: float = 10.0,
    ) -> None:
        self._api, self._namespace, self._hub, self._timeout = api, namespace, hub, timeout
        self.name = f"jhub-safety-{about}-{object_name(hub)}"

    async def read(self) -> Mapping[str, str] | None:
        """What it says, or None when there is none.

        Raises:
            Doubt: that could not be found out.
        """
        what = f"reading secret {self.name} in namespace {self._namespace}"
        read = partial(self._api.read_namespaced_secret, self.name, self._namespace)
        answer = await ask(partial(read, _preload_content=False), what, timeout=self._timeout)
        if is_absent(answer, what, self.name):
            return None
        data = expect(answer, what, "Secret").get("data") or {}
        try:
            return {
                key: base64.b64decode(text, validate=True).decode() for key, text in data.items()
            }
        except (AttributeError, TypeError, ValueError, binascii.Error) as error:
            raise Doubt(f"{what}: it is not readable") from error

    async def write(self, text: Mapping[str, str]) -> None:
        """Replace it. Deleted and made anew: the chart's Role has no PATCH on Secrets.

        Raises:
            Conflict, Doubt: it was not written; there may be none now.
        """
        what = f"writing secret {self.name} in namespace {self._namespace}"
        await self.delete()
        body = kube.V1Secret(
            metadata=kube.V1ObjectMeta(name=self.name, labels={HUB_LABEL: label_value(self._hub)}),
            string_data=dict(text),
        )
        create = partial(self._api.create_namespaced_secret, self._namespace, body)
        answer = await ask(partial(create, _preload_content=False), what, timeout=self._timeout)
        expect(answer, what, "Secret")

    async def delete(self) -> None:
        """Its being gone already is success.

        Raises:
            Doubt: it may still be there.
        """
        what = f"deleting secret {self.name} in namespace {self._namespace}"
        delete = partial(self._api.delete_namespaced_secret, self.name, self._namespace)
        answer = await ask(partial(delete, _preload_content=False), what, timeout=self._timeout)
        if not is_absent(answer, what, self.name) and not 200 <= answer.status < 300:
            raise Doubt(f"{what}: HTTP {answer.status} {answer.message}", status=answer.status)


def folder_note(api: kube.CoreV1Api, namespace: str, owner: Owner, *, timeout: float) -> Note:
    """An operator's word on this owner's folder: ``folder``, and ``new`` = "yes"."""
    return Note(api, namespace, owner.hub, f"folder-{owner.hash}", timeout=timeout)
