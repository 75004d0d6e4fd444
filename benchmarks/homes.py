"""What finding homes costs a hub with many claims, against a bare listing.

The claims are real objects in a real API server; no lab mounts them. Floor: the same pages, read
and not parsed, in the same run. Loop stall: how late a timer of 5 ms fires meanwhile.
"""

from __future__ import annotations

import asyncio
import resource
import time
from typing import Any

from kubernetes_asyncio import client as kube
from kubernetes_asyncio import config as kube_config
from rich.console import Console
from rich.table import Table

from benchmarks.measuring import spread, timed, watched
from jhub_safety.cluster.claims import ClaimsApi
from jhub_safety.cluster.listing import PAGE
from jhub_safety.owner import Owner
from jhub_safety.settings import SafetySettings
from jhub_safety.volumes.home import decide
from jhub_safety.volumes.index import ClaimIndex
from jhub_safety.volumes.listing import SharedListing
from jhub_safety.volumes.model import Observation, Question, Verdict
from jhub_safety.volumes.names import OWN_TEMPLATE, Place
from tools.cluster import ClusterInfo, Progress

CLAIMS = 20_000
LOGINS = 1_000
ROUNDS = 5
NAMESPACE = "bench-homes"
SETTINGS = SafetySettings(earlier_generations=["2017", "kubespawner-6"])


async def run(cluster: ClusterInfo, progress: Progress) -> None:
    """Make the claims where they are missing, measure, print."""
    configuration = kube.Configuration()
    await kube_config.load_kube_config(str(cluster.kubeconfig), client_configuration=configuration)
    async with kube.ApiClient(configuration) as client:
        api = kube.CoreV1Api(client)
        with progress.step(f"Making {CLAIMS} claims (kept for the next time)", about="2 min"):
            await _make(api)
        await _measure(api)


async def _make(api: kube.CoreV1Api) -> None:
    try:
        await api.create_namespace(kube.V1Namespace(metadata=kube.V1ObjectMeta(name=NAMESPACE)))
    except kube.ApiException as error:
        if error.status != 409:
            raise
    there = await ClaimsApi(api, NAMESPACE, timeout=60).list()
    missing = iter([n for n in range(CLAIMS) if _manifest(n).metadata.name not in there])

    async def worker() -> None:
        for number in missing:
            await api.create_namespaced_persistent_volume_claim(
                NAMESPACE, _manifest(number), _preload_content=False
            )

    await asyncio.gather(*(worker() for _ in range(16)))


def _manifest(number: int) -> kube.V1PersistentVolumeClaim:
    """A third each: ours, KubeSpawner 6's with its annotation, 2017's without any."""
    owner = Owner(NAMESPACE, f"user.{number}@school.edu")
    annotations: dict[str, str] = {}
    labels = {"app": "jupyterhub", "component": "singleuser-storage"}
    match number % 3:
        case 0:
            name = owner.claim_name
            annotations = owner.annotations("jhub-safety")
            labels |= owner.labels()
        case 1:
            name = f"claim-user-2e{number}-40school-2eedu"
            annotations = {"hub.jupyter.org/username": owner.user}
        case _:
            name = f"claim-user-{number}-school-edu-{number}"
    return kube.V1PersistentVolumeClaim(
        metadata=kube.V1ObjectMeta(name=name, annotations=annotations, labels=labels),
        spec=kube.V1PersistentVolumeClaimSpec(
            access_modes=["ReadWriteOnce"],
            # No such class: the claims stay Pending, and no volumes are made for them.
            storage_class_name="none",
            resources=kube.V1VolumeResourceRequirements(requests={"storage": "1Gi"}),
        ),
    )


async def _floor(api: kube.CoreV1Api) -> None:
    """The bytes of all pages, unparsed but for the token of the next one."""
    token: str | None = None
    while True:
        more: dict[str, Any] = {"_continue": token} if token else {}
        response = await api.list_namespaced_persistent_volume_claim(
            NAMESPACE, limit=PAGE, _preload_content=False, **more
        )
        raw = await response.read()
        response.release()
        start = raw.find(b'"continue":"', 0, 400)
        if start < 0:
            return
        token = raw[start + 12 : raw.index(b'"', start + 12)].decode()


async def _measure(api: kube.CoreV1Api) -> None:
    claims = ClaimsApi(api, NAMESPACE, timeout=60)
    floors, ours, stalls = [], [], []
    index = ClaimIndex()
    for _ in range(ROUNDS):
        floors.append(await timed(lambda: _floor(api)))
        listing = SharedListing(claims.list, max_age=0)
        async with watched() as stall:
            ours.append(await timed(listing.claims))
        stalls.append(stall.longest)
        index = await listing.claims()

    questions = [_question(number) for number in range(LOGINS)]
    begin = time.perf_counter()
    verdicts = [
        decide(question, Observation(index.about(question), complete=True)).verdict
        for question in questions
    ]
    each = (time.perf_counter() - begin) / LOGINS

    storm = SharedListing(claims.list, max_age=5)
    begin = time.perf_counter()
    async with watched() as storm_stall:
        await asyncio.gather(*(storm.claims() for _ in range(LOGINS)))
    storm_took = time.perf_counter() - begin

    table = Table(title=f"{len(index)} claims, median of {ROUNDS} (min to max)", box=None)
    table.add_column("")
    table.add_column("", justify="right")
    table.add_row("bare listing, pages read only", spread(floors))
    table.add_row("complete listing, parsed and indexed", spread(ours))
    ratios = [mine / floor for mine, floor in zip(ours, floors, strict=True)]
    table.add_row("ratio, paired", spread(ratios, "x"))
    table.add_row("longest loop stall", spread([1000 * stall for stall in stalls], "ms"))
    table.add_row("one decision", f"{1e6 * each:.0f} us")
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in Verdict)
    table.add_row(f"{LOGINS} decisions", counts)
    table.add_row(f"{LOGINS} logins at once, one listing", f"{storm_took:.2f} s")
    table.add_row("  longest loop stall", f"{1000 * storm_stall.longest:.0f} ms")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    table.add_row("peak memory of this process", f"{peak:.0f} MiB")
    Console().print(table)


def _question(number: int) -> Question:
    owner = Owner(NAMESPACE, f"user.{number}@school.edu")
    return Question(
        owner=owner,
        own_name=owner.claim_name,
        saved=None,
        place=Place(NAMESPACE, NAMESPACE),
        known=SETTINGS.known_generations(OWN_TEMPLATE, "safe"),
        declared=SETTINGS.declared_generations(OWN_TEMPLATE, "safe"),
    )
