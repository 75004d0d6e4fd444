"""A lost database of 100,000 users made again: at most 20 s, with the listing of their claims.

The claims come from a stand-in for the API server (see there what it leaves out).
"""

from __future__ import annotations

import asyncio
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kubernetes_asyncio import client as kube

from benchmarks import claimserver
from jhub_safety.hub.recovering import Gathered, gather, rebuild
from jhub_safety.hubdb.condition import look
from jhub_safety.recovery.rebuild import People

USERS = 100_000
ROUNDS = 3


def run() -> None:
    """Print seconds of each step: median and range."""
    # JupyterHub's migrations log each step.
    logging.disable(logging.INFO)
    took: dict[str, list[float]] = {}

    def timed(step: str, work: Callable[[], Any]) -> Any:
        begun = time.perf_counter()
        found = work()
        took.setdefault(step, []).append(time.perf_counter() - begun)
        return found

    with claimserver.running(USERS) as address:
        for _ in range(ROUNDS):
            with tempfile.TemporaryDirectory() as folder:
                url = f"sqlite:///{Path(folder) / 'hub.sqlite'}"
                begun = time.perf_counter()
                gathered: Gathered = timed(
                    "list, parse, decide", lambda: asyncio.run(_listed(address))
                )

                def write(found: People = gathered.people, url: str = url) -> Any:
                    return rebuild(url, found, admins=(), db_kwargs={})

                timed("write", write)
                took.setdefault("all of that", []).append(time.perf_counter() - begun)
                timed("again: nothing to write", write)
                condition = timed("look, thoroughly", lambda url=url: look(url))
                assert (condition.users, condition.unsafe) == (USERS, "")
                timed("look, while running", lambda url=url: look(url, thorough=False))
    for step, values in took.items():
        print(
            f"{step}: {statistics.median(values):.2f} s ({min(values):.2f} to {max(values):.2f}), "
            f"{USERS:,} users, {ROUNDS} times"
        )


async def _listed(address: str) -> Gathered:
    configuration = kube.Configuration(host=address)
    async with kube.ApiClient(configuration) as client:
        return await gather(
            kube.CoreV1Api(client),
            claimserver.NAMESPACE,
            claimserver.HUB,
            component="singleuser-server",
            everywhere=False,
        )


if __name__ == "__main__":
    run()
