"""A lost database of 100,000 users made again: at most 20 s, of which the listing is about 6 s."""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jhub_safety.cluster.claims import Claim
from jhub_safety.hub.recovering import rebuild
from jhub_safety.hubdb.condition import look
from jhub_safety.owner import HUB_LABEL, KUBESPAWNER_USER
from jhub_safety.recovery.rebuild import People, people

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

    for _ in range(ROUNDS):
        items = [_item(number) for number in range(USERS)]
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite:///{Path(folder) / 'hub.sqlite'}"
            claims = timed("parse claims", lambda given=items: list(map(Claim.parse, given)))
            found: People = timed("decide", lambda given=claims: people(given, "jhub"))

            def write(found: People = found, url: str = url) -> Any:
                return rebuild(url, found, admins=(), db_kwargs={})

            timed("write", write)
            timed("again: nothing to write", write)
            condition = timed("look, thoroughly", lambda url=url: look(url))
            assert (condition.users, condition.unsafe) == (USERS, "")
            timed("look, while running", lambda url=url: look(url, thorough=False))
    for step, values in took.items():
        print(
            f"{step}: {statistics.median(values):.2f} s ({min(values):.2f} to {max(values):.2f}), "
            f"{USERS:,} users, {ROUNDS} times"
        )


def _item(number: int) -> Mapping[str, Any]:
    """As the API has it; every tenth name needs escaping."""
    user = f"user-{number}" if number % 10 else f"user.{number}@school.edu"
    return {
        "metadata": {
            "name": f"claim-{number}",
            "namespace": "jhub",
            "uid": f"uid-{number}",
            "resourceVersion": "1",
            "creationTimestamp": datetime(2026, 1, 1, tzinfo=UTC).isoformat(),
            "annotations": {KUBESPAWNER_USER: user},
            "labels": {"component": "singleuser-storage", HUB_LABEL: "jhub"},
        },
        "spec": {"resources": {"requests": {"storage": "10Gi"}}},
        "status": {"phase": "Bound"},
    }


if __name__ == "__main__":
    run()
