"""What the claim commands cost on a hub with many claims, as an operator waits for them.

The commands run as they are typed, each in a process of its own. Floor: the start of the same
program with nothing to do (its imports). Claims are real objects of a class that never binds; the
hub's database has as many users. No labs: pods are read only where a column asks for them.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from jupyterhub import orm
from kubernetes_asyncio import client as kube
from kubernetes_asyncio import config as kube_config
from rich.console import Console
from rich.table import Table

from benchmarks.measuring import spread
from jhub_safety import owner as marks
from jhub_safety.cluster.claims import ClaimsApi
from jhub_safety.owner import Owner
from tools.cluster import ClusterInfo, Progress

CLAIMS = 10_000
ROUNDS = 5
NAMESPACE = "bench-claims"
ENTRY = "data-{owner_slug}-{owner_hash}"
CONFIG = f"""
c = get_config()
c.JupyterHub.spawner_class = "jhub-safety"
c.KubeSpawner.namespace = "{NAMESPACE}"
c.KubeSpawner.storage_capacity = "10Gi"
larger = {{"groups": {{"db": {{"capacity": "5Gi"}}}}}}
c.SafeKubeSpawner.extra_pvcs = [{{"name": "{ENTRY}", "capacity": "2Gi", "overrides": larger}}]
"""
COMMANDS = {
    "claims list": ("list",),
    "claims list --json": ("list", "--json"),
    "claims list --csv": ("list", "--csv"),
    "claims list --orphaned": ("list", "--orphaned"),
    "claims list --mounted-by": ("list", "--mounted-by"),
    "claims resize (dry run of half of them)": (*("resize", "--component=extra-pvc", "--dry-run"),),
    "claims delete (dry run of half of them)": (*("delete", "--component=extra-pvc", "--dry-run"),),
}


async def run(cluster: ClusterInfo, progress: Progress, *, namespace: str = NAMESPACE) -> None:
    """Make the claims where they are missing, measure, print."""
    configuration = kube.Configuration()
    await kube_config.load_kube_config(str(cluster.kubeconfig), client_configuration=configuration)
    async with kube.ApiClient(configuration) as client:
        with progress.step(f"Making {CLAIMS} claims (kept for the next time)", about="1 min"):
            await _make(kube.CoreV1Api(client), namespace)
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        (directory / "jupyterhub_config.py").write_text(CONFIG.replace(NAMESPACE, namespace))
        with progress.step(f"Making a database of {CLAIMS} users", about="10 s"):
            _make_database(directory / "jupyterhub.sqlite")
        _measure(cluster, directory)


async def _make(api: kube.CoreV1Api, namespace: str) -> None:
    try:
        await api.create_namespace(kube.V1Namespace(metadata=kube.V1ObjectMeta(name=namespace)))
    except kube.ApiException as error:
        if error.status != 409:
            raise
    there = await ClaimsApi(api, namespace, timeout=60).list()
    manifests = (_manifest(number, namespace) for number in range(CLAIMS))
    missing = iter([one for one in manifests if one.metadata.name not in there])

    async def worker() -> None:
        for manifest in missing:
            await api.create_namespaced_persistent_volume_claim(
                namespace, manifest, _preload_content=False
            )

    await asyncio.gather(*(worker() for _ in range(16)))


def _manifest(number: int, namespace: str) -> kube.V1PersistentVolumeClaim:
    """In turns a home and an extra volume; one user in ten has left."""
    owner = Owner(namespace, f"user.{number // 2}@school.edu")
    extra = number % 2
    name = f"data-{owner.slug}-{owner.hash}" if extra else owner.claim_name
    annotations = owner.annotations("jhub-safety") | ({marks.VOLUME: ENTRY} if extra else {})
    component = "extra-pvc" if extra else "singleuser-storage"
    return kube.V1PersistentVolumeClaim(
        metadata=kube.V1ObjectMeta(
            name=name,
            annotations=annotations,
            labels={"app": "jupyterhub", "component": component, **owner.labels()},
        ),
        spec=kube.V1PersistentVolumeClaimSpec(
            access_modes=["ReadWriteOnce"],
            # No such class: the claims stay Pending, and no volumes are made for them.
            storage_class_name="none",
            resources=kube.V1VolumeResourceRequirements(requests={"storage": "1Gi"}),
        ),
    )


def _make_database(file: Path) -> None:
    db = orm.new_session_factory(f"sqlite:///{file}")()
    now = datetime.now(UTC).replace(tzinfo=None)
    group = orm.Group(name="db")
    db.add(group)
    for number in range(CLAIMS):
        user = orm.User(name=f"user.{number}@school.edu", last_activity=now)
        if number % 10 != 0:
            db.add(user)
            if number % 3 == 0:
                group.users.append(user)
    db.commit()
    db.close()
    db.get_bind().dispose()


def _measure(cluster: ClusterInfo, directory: Path) -> None:
    floors = [_timed(cluster, directory, ("list", "--help"))[0] for _ in range(ROUNDS)]
    table = Table(title=f"{CLAIMS} claims, median of {ROUNDS} (min to max)", box=None)
    for title in ("", "from key to prompt", "beyond the program's start", "lines"):
        table.add_column(title, justify="left" if not title else "right")
    table.add_row("the program's start (--help)", spread(floors), "", "")
    for title, arguments in COMMANDS.items():
        found = [_timed(cluster, directory, arguments) for _ in range(ROUNDS)]
        whole = [seconds for seconds, _ in found]
        beyond = [mine - floor for mine, floor in zip(whole, floors, strict=True)]
        table.add_row(title, spread(whole), spread(beyond), str(found[0][1]))
    Console(width=120).print(table)


def _timed(cluster: ClusterInfo, directory: Path, arguments: tuple[str, ...]) -> tuple[float, int]:
    """Seconds, and lines that were printed."""
    command, *rest = arguments
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "jhub_safety", "claims", command, *rest],
        cwd=directory,
        env={**os.environ, "KUBECONFIG": str(cluster.kubeconfig), "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        check=False,
    )
    took = time.perf_counter() - begin
    assert done.returncode == 0, done.stderr[-2000:]
    return took, len(done.stdout.splitlines()) + len(done.stderr.splitlines())
