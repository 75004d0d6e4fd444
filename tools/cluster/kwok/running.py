"""kwok as a process, for as long as a block runs."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from kubernetes_asyncio import client as kube
from kubernetes_asyncio import config as kube_config

from tools.cluster import locks
from tools.cluster.errors import ClusterError
from tools.cluster.info import ClusterInfo
from tools.cluster.paths import Instance
from tools.cluster.progress import Progress

from . import binary
from .crowd import Crowd
from .labs import NODE

NODES = 10
_MOST_NODES = 60
_REMOVING = 300.0


@asynccontextmanager
async def playing(
    cluster: ClusterInfo,
    progress: Progress,
    *,
    namespace: str,
    nodes: int = NODES,
    keep: bool = False,
) -> AsyncIterator[Crowd]:
    """Start kwok against a cluster, with this many fake nodes, and a namespace for the labs.

    At the end kwok is stopped, and everything that was made is deleted; with *keep* labs, nodes
    and namespace stay for the next time. Nobody plays them meanwhile: the nodes get NotReady.

    Raises:
        ClusterError: the cluster is not ours alone, or a step failed.
    """
    if cluster.namespace is not None:
        raise ClusterError(
            f"Fake nodes are seen by all of a cluster, and of {cluster.name} only the namespace"
            f" {cluster.namespace} may be used"
        )
    if not 1 <= nodes <= _MOST_NODES:
        raise ValueError(f"nodes={nodes}: 1 to {_MOST_NODES}, each has a network of its own")
    built = binary.ensure(progress)
    instance = Instance(cluster.name)
    configuration = kube.Configuration()
    await kube_config.load_kube_config(str(cluster.kubeconfig), client_configuration=configuration)
    async with kube.ApiClient(configuration) as client:
        # Another run would delete the nodes under the labs of this one.
        with locks.held(instance.root / "kwok.lock", progress):
            process = _start(built, cluster)

            def alive() -> None:
                if process.poll() is not None:
                    raise ClusterError("kwok has ended", instance.log("kwok"))

            crowd = Crowd(client, namespace, nodes, alive)
            try:
                await crowd.set_up()
                yield crowd
            finally:
                # First: it would try to delete each lab a second time.
                _end(process)
                if not keep:
                    with progress.step("Removing the fake labs", about="1 min"):
                        async with asyncio.timeout(_REMOVING):
                            await crowd.remove()


def _start(built: binary.Built, cluster: ClusterInfo) -> subprocess.Popen[bytes]:
    log = Instance(cluster.name).log("kwok")
    log.parent.mkdir(parents=True, exist_ok=True)
    argv: list[str | Path] = [
        # The kernel ends it with us, however we end: nothing else would.
        "setpriv",
        "--pdeathsig=TERM",
        built.program,
        f"--kubeconfig={cluster.kubeconfig}",
        f"--config={built.config}",
        f"--manage-nodes-with-annotation-selector={NODE}=fake",
        "--v=WARN",
    ]
    with log.open("wb") as output:
        return subprocess.Popen(
            [str(argument) for argument in argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # A Ctrl-C in the terminal is for us alone; we end it.
            start_new_session=True,
            env=dict(os.environ) | {"NO_PROXY": "127.0.0.1,localhost"},
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        process.send_signal(number)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            continue
        return
