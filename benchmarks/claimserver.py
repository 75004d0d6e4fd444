"""As much of an API server as listing 100,000 claims takes, in a process of its own.

Answers are made before the first one is asked for: what is measured against it is the library's
side, the connection included. A real API server reads and writes them meanwhile: about 0.45 s for
20,000 claims.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from jhub_safety.cluster.listing import PAGE
from jhub_safety.owner import HUB_LABEL, KUBESPAWNER_USER

#: Bytes of a claim as API servers give it, most of them of managedFields (20,000: 31 MB).
SIZE = 1550
NAMESPACE, HUB = "jhub", "jhub"
_TABLE = {
    "kind": "Table",
    "apiVersion": "meta.k8s.io/v1",
    "metadata": {"resourceVersion": "1"},
    "columnDefinitions": [{"name": name} for name in ("Name", "Ready", "Status", "IP", "Node")],
    "rows": [],
}


def item(number: int) -> Mapping[str, Any]:
    """As the API has it; every tenth name needs escaping."""
    user = f"user-{number}" if number % 10 else f"user.{number}@school.edu"
    made: dict[str, Any] = {
        "metadata": {
            "name": f"claim-{number}",
            "namespace": NAMESPACE,
            "uid": f"uid-{number}",
            "resourceVersion": "1",
            "creationTimestamp": datetime(2026, 1, 1, tzinfo=UTC).isoformat(),
            "annotations": {KUBESPAWNER_USER: user},
            "labels": {"component": "singleuser-storage", HUB_LABEL: HUB},
        },
        "spec": {"resources": {"requests": {"storage": "10Gi"}}},
        "status": {"phase": "Bound"},
    }
    missing = SIZE - len(json.dumps(made))
    fields = {f"f:jhub-safety/{n}": {} for n in range(missing // 26)}
    made["metadata"]["managedFields"] = [{"manager": "jhub", "fieldsV1": fields}]
    return made


def _pages(count: int) -> list[bytes]:
    pages = []
    for start in range(0, count, PAGE):
        end = min(start + PAGE, count)
        more = {"continue": str(end // PAGE), "remainingItemCount": count - end}
        body = {
            "kind": "PersistentVolumeClaimList",
            "apiVersion": "v1",
            "metadata": {"resourceVersion": "1", **(more if end < count else {})},
            "items": [item(number) for number in range(start, end)],
        }
        pages.append(json.dumps(body).encode())
    return pages


def serve(count: int) -> None:
    """Print the port when all is ready, and serve until it is ended."""
    pages = _pages(count)

    async def answer(request: web.Request) -> web.Response:
        if request.path.endswith("/persistentvolumeclaims"):
            page = pages[int(request.query.get("continue", "0"))]
            return web.Response(body=page, content_type="application/json")
        return web.json_response(_TABLE)

    async def ready(app: web.Application) -> None:
        print(app["port"], flush=True)

    listening = socket.create_server(("127.0.0.1", 0))
    app = web.Application()
    app["port"] = listening.getsockname()[1]
    app.router.add_get("/{path:.*}", answer)
    app.on_startup.append(ready)
    web.run_app(app, sock=listening, print=lambda *_: None)


@contextmanager
def running(count: int) -> Iterator[str]:
    """Its address, while the block runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.claimserver", str(count)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
