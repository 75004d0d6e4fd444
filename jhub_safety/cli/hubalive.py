"""Is a hub alive that does not answer? Its database must not be written behind its back."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import aiohttp
from kubernetes_asyncio import client as kube

from jhub_safety.cluster.client import ask, expect
from jhub_safety.errors import Doubt
from jhub_safety.hubconfig import SessionsConfig
from jhub_safety.hubdb.engines import address
from jhub_safety.hubdb.holders import holders, others, words

#: How Zero to JupyterHub labels a hub's pod.
HUB_POD = "app=jupyterhub,component=hub"
#: Seconds for a port to accept a connection.
KNOCK = 3.0
#: Seconds in which a cluster that stumbles is asked again.
PATIENCE = 10.0
#: How often a file that somebody has open is looked at again while a hub holds, and after how many
#: seconds each time. Its own look takes 0.5 s at 100,000 users, every five seconds.
GLANCES, GLANCE = 4, 0.5


@dataclass(frozen=True, slots=True)
class Sign:
    """What shows that a hub is alive, and the pod in which it runs when that is another one."""

    what: str
    pod: str = ""
    #: Account of the hub's process, where that is known.
    uid: int | None = None


async def row_of_hold(hub: SessionsConfig) -> str | None:
    """The row for which the hub holds; None: no hub that holds answers here."""
    timeout = aiohttp.ClientTimeout(total=5)
    base = str(hub.everything.JupyterHub.get("base_url") or "/").rstrip("/")
    async with aiohttp.ClientSession(timeout=timeout) as client:
        for host, port in hub.addresses:
            url = f"http://{f'[{host}]' if ':' in host else host}:{port}{base}/hub/health"
            try:
                async with client.get(url) as answer:
                    found = await answer.json(content_type=None)
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
                continue
            if isinstance(found, dict) and isinstance(found.get("hold"), str):
                return str(found["hold"])
    return None


async def sign_of_serving(
    hub: SessionsConfig, api: kube.CoreV1Api | None, namespace: str, db_url: str
) -> Sign | None:
    """As :func:`sign_of_life`, but for a hub that holds: it has opened nothing, and looks at the
    database again every few seconds. Another one may serve all the same.
    """
    holds = await row_of_hold(hub) is not None
    return await sign_of_life(hub, api, namespace, db_url, holds=holds)


async def sign_of_life(
    hub: SessionsConfig,
    api: kube.CoreV1Api | None,
    namespace: str,
    db_url: str,
    *,
    holds: bool = False,
) -> Sign | None:
    """The first sign that is found; None when the hub is down.

    A hub counts as down only when nothing speaks for it: its port is closed, no pod of a hub
    is there but our own, and nobody else has its SQLite file open. Without *api* pods are not
    looked at: a caller tells the operator so. *holds*: the one at its address is known to hold.

    Raises:
        Doubt: the pods could not be listed, or a port neither answers nor refuses.
    """
    for host, port in () if holds else hub.addresses:
        if await _accepts(host, port):
            return Sign(f"{host}:{port} accepts connections")
    ours, others = (False, []) if api is None else await hub_pods(api, namespace)
    # The one that holds is our own, or the only one.
    if others and (ours or not holds or len(others) > 1):
        return others[0]
    if ours and not holds and (sign := await asyncio.to_thread(_hub_process)):
        # Started a moment ago, its port is not open yet.
        return sign
    file = address(db_url).file
    if file is None:
        return None
    found = await asyncio.to_thread(_holder, file)
    for _ in range(GLANCES if holds else 0):
        if found is None:
            break
        # The hub that holds opens it for a moment each time it looks; who serves does not close it.
        await asyncio.sleep(GLANCE)
        found = await asyncio.to_thread(_holder, file)
    return found


async def _accepts(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(KNOCK):
            _, writer = await asyncio.open_connection(host, port)
    except ConnectionRefusedError:
        return False
    except OSError as error:
        # A time-out or a way that is closed: it may listen there all the same.
        raise Doubt(f"{host}:{port} does not answer ({type(error).__name__})") from error
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True


async def hub_pods(api: kube.CoreV1Api, namespace: str) -> tuple[bool, list[Sign]]:
    """Whether this is the pod of a hub, and the others that have not ended."""
    what = f"looking for a hub in namespace {namespace}"
    call = partial(
        api.list_namespaced_pod, namespace, label_selector=HUB_POD, _preload_content=False
    )
    answer = await ask(call, what, timeout=10, patience=PATIENCE)
    ours, others = False, []
    try:
        for pod in expect(answer, what, "PodList")["items"]:
            name, phase = pod["metadata"]["name"], pod["status"]["phase"]
            if name == socket.gethostname():
                ours = True
            elif phase not in ("Succeeded", "Failed"):
                # Pending counts: it may run at any moment.
                others.append(Sign(f"pod {name} is {phase}", pod=name))
    except (KeyError, TypeError) as error:
        raise Doubt(f"{what}: a pod in the answer is not whole") from error
    return ours, others


def _hub_process() -> Sign | None:
    for pid, directory in others():
        try:
            if "jupyterhub" in words(directory)[:3]:
                return Sign(f"process {pid} is a hub", uid=directory.stat().st_uid)
        except OSError:
            continue
    return None


def _holder(file: Path) -> Sign | None:
    """A process that has this file open; one of another account cannot be seen but by root."""
    found = holders(file).holders
    return Sign(f"{found[0]} has its database open", uid=found[0].uid) if found else None
