"""Is a hub alive that does not answer? Its database must not be written behind its back."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
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

#: How Zero to JupyterHub labels a hub's pod.
HUB_POD = "app=jupyterhub,component=hub"
#: Seconds for a port to accept a connection.
KNOCK = 3.0
#: Seconds in which a cluster that stumbles is asked again.
PATIENCE = 10.0
_PROC = Path("/proc")


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


async def sign_of_life(
    hub: SessionsConfig, api: kube.CoreV1Api | None, namespace: str, db_url: str
) -> Sign | None:
    """The first sign that is found; None when the hub is down.

    A hub counts as down only when nothing speaks for it: its port is closed, no pod of a hub
    is there but our own, and nobody else has its SQLite file open. Without *api* pods are not
    looked at: a caller tells the operator so.

    Raises:
        Doubt: the pods could not be listed, or a port neither answers nor refuses.
    """
    for host, port in hub.addresses:
        if await _accepts(host, port):
            return Sign(f"{host}:{port} accepts connections")
    ours, other = (False, None) if api is None else await _hub_pods(api, namespace)
    if other is not None:
        return other
    if ours and (sign := await asyncio.to_thread(_hub_process)):
        # Started a moment ago, its port is not open yet.
        return sign
    file = address(db_url).file
    return None if file is None else await asyncio.to_thread(_holder, file)


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


async def _hub_pods(api: kube.CoreV1Api, namespace: str) -> tuple[bool, Sign | None]:
    """Whether this is the pod of a hub, and another one that has not ended."""
    what = f"looking for a hub in namespace {namespace}"
    call = partial(
        api.list_namespaced_pod, namespace, label_selector=HUB_POD, _preload_content=False
    )
    answer = await ask(call, what, timeout=10, patience=PATIENCE)
    ours, other = False, None
    try:
        for pod in expect(answer, what, "PodList")["items"]:
            name, phase = pod["metadata"]["name"], pod["status"]["phase"]
            if name == socket.gethostname():
                ours = True
            elif phase not in ("Succeeded", "Failed"):
                # Pending counts: it may run at any moment.
                other = Sign(f"pod {name} is {phase}", pod=name)
    except (KeyError, TypeError) as error:
        raise Doubt(f"{what}: a pod in the answer is not whole") from error
    return ours, other


def _others() -> Iterator[tuple[int, Path]]:
    for directory in _PROC.glob("[0-9]*"):
        if directory.name != str(os.getpid()):
            yield int(directory.name), directory


def _hub_process() -> Sign | None:
    for pid, directory in _others():
        try:
            words = [Path(os.fsdecode(one)).name for one in _words(directory)[:3]]
            if "jupyterhub" in words:
                return Sign(f"process {pid} is a hub", uid=directory.stat().st_uid)
        except OSError:
            continue
    return None


def _words(directory: Path) -> list[bytes]:
    return (directory / "cmdline").read_bytes().split(b"\0")


def _holder(file: Path) -> Sign | None:
    """A process that has this file open; one of another account cannot be seen but by root."""
    try:
        wanted = file.stat()
    except OSError:
        return None
    for pid, directory in _others():
        with suppress(OSError):
            for descriptor in (directory / "fd").iterdir():
                if _is(descriptor, wanted):
                    name = (directory / "comm").read_text(errors="replace").strip()
                    return Sign(
                        f"process {pid} ({name}) has its database open",
                        uid=directory.stat().st_uid,
                    )
    return None


def _is(descriptor: Path, wanted: os.stat_result) -> bool:
    try:
        return os.path.samestat(descriptor.stat(), wanted)
    except OSError:
        return False
