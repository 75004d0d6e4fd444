"""What doctor says of a real cluster's storage classes, with and without the right to see them."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
from contextlib import closing
from typing import Any

import pytest
import pytest_asyncio

from tests.cluster.hubs import Hub, Setup
from tests.cluster.space import ROOT

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.asyncio(loop_scope="module"),
]

WRONG = """
c.SafeKubeSpawner.extra_pvcs = [
    {"name": "data-{username}", "class": "no-such-class", "capacity": "1Gi"}
]
"""
SEE = [{"apiGroups": ["storage.k8s.io"], "resources": ["storageclasses"], "verbs": ["list"]}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(space, hub_factory) -> Hub:
    made = await hub_factory(space, Setup(extra=WRONG))
    # As doctor recommends it: all that it finds now is about storage classes.
    with closing(sqlite3.connect(made.database)) as database:
        database.execute("PRAGMA journal_mode = WAL")
    await made.start()
    return made


async def doctor(hub: Hub, kubeconfig: str) -> tuple[int, list[dict[str, Any]]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "jhub_safety", "doctor", "--json"),
        *(f"--config={hub.config}", f"--namespace={hub.space.name}"),
        f"--db-url=sqlite:///{hub.database}",
        cwd=ROOT,
        env={**os.environ, **hub.environment, "KUBECONFIG": kubeconfig},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(120):
        out, err = await process.communicate()
    assert b"Traceback" not in err, err.decode()
    return process.returncode or 0, json.loads(out)


async def _until_logged(hub: Hub, *words: str) -> None:
    async with asyncio.timeout(30):
        while not hub.log_lines(*words):
            await asyncio.sleep(0.1)


async def test_an_operator_is_told_of_a_class_that_is_not_there(hub: Hub):
    code, found = await doctor(hub, str(hub.cluster.kubeconfig))
    subjects = {(one["severity"], one["subject"]) for one in found}
    assert code == 1
    assert ("error", "no-such-class") in subjects
    assert ("ok", hub.cluster.storage_class) in subjects


async def test_a_hub_without_the_right_says_so_in_one_line_and_serves(hub: Hub):
    code, found = await doctor(hub, hub.environment["KUBECONFIG"])
    assert (code, [one["code"] for one in found]) == (0, ["classes-not-seen"])
    await _until_logged(hub, "classes-not-seen", "KUBECONFIG")
    assert not hub.log_lines("class-unknown")


async def test_a_hub_with_the_right_warns_at_its_start(hub: Hub):
    await hub.space.allow_everywhere(SEE)
    try:
        await hub.restart()
        await _until_logged(hub, "class-unknown", "no-such-class")
        (line,) = hub.log_lines("class-unknown", "no-such-class")
        assert line.startswith("[W ")
    finally:
        await hub.space.forbid_everywhere()
