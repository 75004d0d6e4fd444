"""What a database beside a lab adds to its start, against the same pod written by hand.

Real hubs, real labs, a real PostgreSQL. Each round starts one lab of each hub, one after the other
and in turns; the figures are of pairs within a round. By hand: plain KubeSpawner with the claim
made by a hook, an init container that chowns, and the server as a native sidecar with a startup
probe, as a careful operator writes it.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from kubernetes_asyncio import client as kube
from kubernetes_asyncio import config as kube_config
from rich.console import Console
from rich.table import Table

from benchmarks.measuring import spread
from tools.cluster import ClusterInfo, Progress, ensure_images
from tools.demo.client import HubClient
from tools.demo.hub import HubProcess
from tools.demo.kube import Namespace
from tools.demo.settings import VARIABLE, Settings

ROUNDS = int(os.environ.get("ROUNDS", "7"))
IMAGE = "postgres:17"
CONFIG = Path(__file__).with_name("jupyterhub_config.py")
EXTRA = "JHUB_SAFETY_BENCH_CONFIG"
PASSWORD = "only-in-benchmarks"  # noqa: S105
#: The answer to a POST comes at once, and progress tells when the lab is ready.
_COMMON = """
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0}
"""
_OURS = f"""
c.SafeKubeSpawner.ownership_image = c.KubeSpawner.init_containers[0]["image"]
c.KubeSpawner.init_containers = []
c.SafeKubeSpawner.databases = [{{"kind": "postgres", "image": "{IMAGE}"}}]
"""
_BY_HAND = f"""
from functools import partial
from kubespawner.objects import make_pvc

async def make_claim(spawner):
    name = spawner._expand_user_properties("db-{{username}}")
    pvc = make_pvc(
        name=name, storage_class=spawner.storage_class, access_modes=["ReadWriteOnce"],
        selector={{}}, storage="1Gi", labels=spawner._build_common_labels({{}}), annotations={{}},
    )
    await spawner._make_create_pvc_request(pvc, spawner.k8s_api_request_timeout)

c.KubeSpawner.pre_spawn_hook = make_claim
c.KubeSpawner.delete_grace_period = 60
c.KubeSpawner.volumes = [
    *c.KubeSpawner.volumes,
    {{"name": "db", "persistentVolumeClaim": {{"claimName": "db-{{username}}"}}}},
]
own = c.KubeSpawner.init_containers[0]
own["command"] = [
    "sh", "-c", "mkdir -p /db/data; chown 1000:100 /home/jovyan /db /db/data",
]
own["securityContext"]["capabilities"]["add"] = ["CHOWN", "DAC_OVERRIDE"]
own["volumeMounts"] = [*own["volumeMounts"], {{"name": "db", "mountPath": "/db"}}]
server = {{
    "name": "postgres",
    "image": "{IMAGE}",
    "imagePullPolicy": "IfNotPresent",
    "args": ["postgres", "-c", "listen_addresses=127.0.0.1"],
    "env": [
        {{"name": "POSTGRES_USER", "value": "jovyan"}},
        {{"name": "POSTGRES_HOST_AUTH_METHOD", "value": "trust"}},
        {{"name": "PGDATA", "value": "/db/data"}},
    ],
    "resources": {{
        "requests": {{"memory": "64Mi", "cpu": "0.01"}},
        "limits": {{"memory": "512Mi", "cpu": "1"}},
    }},
    "securityContext": {{"runAsUser": 1000, "runAsGroup": 100}},
    "volumeMounts": [
        {{"name": "db", "mountPath": "/db"}}, {{"name": "home", "mountPath": "/home/jovyan"}},
    ],
    "startupProbe": {{
        "exec": {{"command": ["pg_isready", "-h", "127.0.0.1", "-U", "jovyan"]}},
        "periodSeconds": 1,
        "failureThreshold": 60,
    }},
}}
"""
_NATIVE = """
c.KubeSpawner.init_containers = [own, {**server, "restartPolicy": "Always"}]
"""
_CONTAINER = """
c.KubeSpawner.extra_containers = [server]
"""


@dataclass
class Variant:
    """One hub, and seconds from POST to ready: of first starts, and of second ones."""

    name: str
    safe: bool
    extra: str
    hub: HubProcess | None = None
    first: list[float] = field(default_factory=list)
    second: list[float] = field(default_factory=list)


def _variants() -> list[Variant]:
    return [
        Variant("with this library", True, _OURS),
        Variant("by hand, native sidecar", False, _BY_HAND + _NATIVE),
        Variant("by hand, ordinary container", False, _BY_HAND + _CONTAINER),
        Variant("with this library, no database", True, ""),
        Variant("plain KubeSpawner, no database", False, ""),
    ]


async def run(cluster: ClusterInfo, progress: Progress, rounds: int = ROUNDS) -> None:
    """Start the hubs, measure, print, clear away."""
    ensure_images(cluster.name, [IMAGE])
    variants = _variants()
    async with AsyncExitStack() as stack:
        with progress.step(f"Starting {len(variants)} hubs", about="30 s"):
            for number, variant in enumerate(variants):
                variant.hub = await stack.enter_async_context(_hub(cluster, variant, number))
        with progress.step(f"{rounds + 1} rounds", about=f"{3 * rounds} min"):
            for number in range(rounds + 1):
                # Turned, so that none always comes after the same one.
                turn = number % len(variants)
                for variant in variants[turn:] + variants[:turn]:
                    await _round(variant, number)
    _print(variants)


@asynccontextmanager
async def _hub(cluster: ClusterInfo, variant: Variant, number: int) -> AsyncIterator[HubProcess]:
    namespace = f"bench-databases-{number}"
    async with Namespace(cluster.kubeconfig, namespace) as space:
        await space.ensure()
        await space.delete_labs_and_claims(None)
        with tempfile.TemporaryDirectory(prefix="jhub-safety-bench-") as folder:
            directory = Path(folder)
            settings = Settings(
                namespace=namespace,
                lab_image=cluster.lab_image,
                init_image=cluster.init_image,
                storage_class=cluster.storage_class,
                password=PASSWORD,
                safe=variant.safe,
            )
            (directory / "settings.json").write_text(json.dumps(asdict(settings)))
            (directory / "extra_config.py").write_text(_COMMON + variant.extra)
            hub = HubProcess(
                CONFIG,
                directory,
                environment={
                    "KUBECONFIG": str(cluster.kubeconfig),
                    VARIABLE: str(directory / "settings.json"),
                    EXTRA: str(directory / "extra_config.py"),
                },
                hub_ip=cluster.host_ip or "127.0.0.1",
                python=sys.executable,
            )
            try:
                await hub.start()
                yield hub
            finally:
                hub.close()
                await _delete(cluster, namespace)


async def _delete(cluster: ClusterInfo, namespace: str) -> None:
    configuration = kube.Configuration()
    await kube_config.load_kube_config(str(cluster.kubeconfig), client_configuration=configuration)
    async with kube.ApiClient(configuration) as client:
        await kube.CoreV1Api(client).delete_namespace(namespace)


async def _round(variant: Variant, number: int) -> None:
    """A user who is new, and who comes again. The first round warms caches, and does not count."""
    assert variant.hub is not None
    async with await HubClient.login(variant.hub.url, f"user{number}", PASSWORD) as client:
        for times in (variant.first, variant.second):
            begin = time.perf_counter()
            await client.start_server()
            events = await client.progress()
            if not events[-1].get("ready"):
                raise RuntimeError(f"{variant.name}: not started: {events[-1]}")
            if number:
                times.append(time.perf_counter() - begin)
            await client.stop_server()


def _print(variants: list[Variant]) -> None:
    table = Table(
        title=f"POST to ready, medians of {len(variants[0].first)} (min to max)", box=None
    )
    for column in ("", "first start", "second start"):
        table.add_column(column, justify="left" if not column else "right")
    for variant in variants:
        table.add_row(variant.name, spread(variant.first), spread(variant.second))
    ours, native, container, *rest = variants
    for title, mine, other in (
        ("ratio to by hand, native, paired", ours, native),
        ("ratio to by hand, ordinary, paired", ours, container),
        ("ratio without a database, paired", *rest),
    ):
        table.add_row(
            title,
            *(
                spread([a / b for a, b in zip(one, two, strict=True)], "x")
                for one, two in ((mine.first, other.first), (mine.second, other.second))
            ),
        )
    Console().print(table)
