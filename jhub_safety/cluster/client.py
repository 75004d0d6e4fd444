"""One request to the API server, and what its answers mean.

Every answer that is not whole, well-formed and positive is :class:`~jhub_safety.errors.Doubt`;
only a 404 for the one object that was asked for is "absent".
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes_asyncio import client as kube
from kubernetes_asyncio import config as kube_config

from jhub_safety.collector import resting
from jhub_safety.errors import Conflict, Doubt

#: Answers that the same request may not get a second later.
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})

Call = Callable[[], Awaitable[aiohttp.ClientResponse]]


@dataclass(frozen=True, slots=True)
class Answer:
    """A response that was read to its end. *body* is None when it was no JSON object."""

    status: int
    body: dict[str, Any] | None

    @property
    def message(self) -> str:
        """The ``message`` of a Status object, shortened. Never headers, never a whole body."""
        text = self.body.get("message") if self.body else None
        return text[:300] if isinstance(text, str) else ""


async def ask(
    call: Call,
    what: str,
    *,
    timeout: float,
    patience: float = 0.0,
    large: bool = False,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Answer:
    """Send one request, again while it fails in ways that pass, and return its answer.

    Args:
        call: makes one request; has ``_preload_content=False``, so that nothing is parsed
            into typed models (on this client that costs 2 ms an object).
        what: for messages, such as "reading claim x in namespace y".
        timeout: seconds for one try, reading the body included.
        patience: seconds in which a new try may begin. 0 means one try.
        large: the body is megabytes; it is parsed in a thread.

    Raises:
        Doubt: no answer, an answer that was cut off, or a status that may pass.
    """
    deadline = clock() + patience
    pause = 0.1
    while True:
        try:
            answer = await _once(call, what, timeout, large)
        except Doubt as doubt:
            if not doubt.retryable or clock() + pause >= deadline:
                raise
        else:
            return answer
        await sleep(pause)
        pause = min(pause * 2, 5.0)


async def _once(call: Call, what: str, timeout: float, large: bool) -> Answer:
    try:
        async with asyncio.timeout(timeout):
            response = await call()
            try:
                raw = await response.read()
            finally:
                response.release()
    except TimeoutError as error:
        raise Doubt(f"{what}: no answer within {timeout:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        # aiohttp's messages hold the host at most; a cut-off body arrives here too
        # (ClientPayloadError: fewer bytes than Content-Length).
        raise Doubt(f"{what}: {type(error).__name__}: {error}") from error
    body = await asyncio.to_thread(_parse, raw) if large else _parse(raw)
    answer = Answer(response.status, body if isinstance(body, dict) else None)
    if answer.status in _TRANSIENT:
        raise Doubt(f"{what}: HTTP {answer.status} {answer.message}".rstrip(), status=answer.status)
    return answer


def _parse(raw: bytes) -> object:
    """The JSON, or None."""
    with resting():
        try:
            return json.loads(raw)
        except ValueError:
            return None


def expect(answer: Answer, what: str, kind: str) -> dict[str, Any]:
    """The body of a positive answer of *kind*.

    Raises:
        Conflict: 409.
        Doubt: anything else that is no 2xx with a body of that kind. A 200 with garbage, or
            with another kind (a proxy's login page, an aggregated API's error), is no answer.
    """
    if answer.status == 409:
        raise Conflict(f"{what}: {answer.message or 'conflict'}")
    if not 200 <= answer.status < 300:
        raise Doubt(
            f"{what}: HTTP {answer.status} {answer.message}".rstrip(),
            status=answer.status,
            retryable=answer.status == 410,
        )
    if answer.body is None or answer.body.get("kind") != kind:
        raise Doubt(f"{what}: HTTP {answer.status}, but the body is no {kind}")
    return answer.body


def is_absent(answer: Answer, what: str, name: str) -> bool:
    """True when the API server says 404 about this very object.

    Raises:
        Doubt: a 404 from something else on the way (an ingress, a proxy) says nothing about
            the object; the API server's Status names it.
    """
    if answer.status != 404:
        return False
    body = answer.body or {}
    details = body.get("details")
    about = details.get("name") if isinstance(details, dict) else None
    if body.get("kind") == "Status" and about == name:
        return True
    raise Doubt(f"{what}: HTTP 404, but not from the API server", status=404)


@dataclass(frozen=True, slots=True)
class Cluster:
    """An operator's connection: the API, and the names to show before anything is changed."""

    api: kube.CoreV1Api
    server: str
    context: str
    namespace: str


def in_a_pod() -> bool:
    """Kubernetes gives this to every pod."""
    return "KUBERNETES_SERVICE_HOST" in os.environ


def is_configured(context: str | None = None) -> bool:
    """Whether anything at all says where a cluster is; what it says may still be wrong."""
    return (
        context is not None
        or in_a_pod()
        or "KUBECONFIG" in os.environ
        or Path(kube_config.KUBE_CONFIG_DEFAULT_LOCATION).expanduser().exists()
    )


def why_not(error: Exception) -> str:
    """Why there was no way to the cluster. Not the words of a parser: it quotes tokens."""
    words = str(error) if isinstance(error, kube_config.ConfigException | OSError) else ""
    return words or type(error).__name__


@asynccontextmanager
async def connect(context: str | None = None) -> AsyncIterator[Cluster]:
    """Connect as the CLI does: inside a pod as its service account, else by kubeconfig.

    ``KUBECONFIG`` and ``--context`` win over the pod's own account, so that an operator's
    rights can be used inside the hub's pod.
    """
    configuration = kube.Configuration()
    try:
        if context is None and "KUBECONFIG" not in os.environ:
            kube_config.load_incluster_config(client_configuration=configuration)
            shown, namespace = "in-cluster", _pod_namespace()
        else:
            raise kube_config.ConfigException("a kubeconfig or context was named")
    except kube_config.ConfigException:
        await kube_config.load_kube_config(context=context, client_configuration=configuration)
        _, active = kube_config.list_kube_config_contexts()
        if context is not None:
            every, _ = kube_config.list_kube_config_contexts()
            active = next(entry for entry in every if entry["name"] == context)
        shown = active["name"]
        namespace = active["context"].get("namespace", "default")
    async with kube.ApiClient(configuration) as api_client:
        yield Cluster(kube.CoreV1Api(api_client), configuration.host, shown, namespace)


def _pod_namespace() -> str:
    return Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace").read_text().strip()
