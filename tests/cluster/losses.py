"""Losing namespaces and volumes for real, and an operator's shell beside it."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.hubs import Hub
from tests.cluster.space import ROOT, Space

TIMEOUT = 180.0
MERGE = "application/merge-patch+json"


@dataclass(frozen=True)
class Said:
    status: int
    out: str
    err: str


class Volumes:
    """The cluster's volumes, as an administrator has them at hand."""

    def __init__(self, core: Any) -> None:
        self.core = core

    async def of(self, *namespaces: str) -> dict[str, Any]:
        """By name, those that are or were claimed in these namespaces."""
        found = await self.core.list_persistent_volume()
        return {
            one.metadata.name: one
            for one in found.items
            if one.spec.claim_ref and one.spec.claim_ref.namespace in namespaces
        }

    async def phase(self, name: str, *wanted: str) -> None:
        """Wait until it has one of these phases."""
        async with asyncio.timeout(60):
            while (await self.core.read_persistent_volume(name)).status.phase not in wanted:
                await asyncio.sleep(0.1)

    async def forget(self, name: str) -> None:
        """Delete the object; its data stays. What a new cluster would know of it."""
        await self.core.delete_persistent_volume(name)
        async with asyncio.timeout(60):
            while True:
                found = await self.core.list_persistent_volume()
                if name not in {one.metadata.name for one in found.items}:
                    return
                await asyncio.sleep(0.1)

    async def discard(self, *namespaces: str) -> None:
        """Let Kubernetes delete them and their data, once their claims are gone."""
        for name in await self.of(*namespaces):
            await self.core.patch_persistent_volume(
                name,
                {"spec": {"persistentVolumeReclaimPolicy": "Delete"}},
                _content_type=MERGE,
            )


@dataclass(frozen=True)
class Site:
    """An operator's shell."""

    directory: Path
    volumes: Volumes

    async def run(
        self, hub: Hub, command: str, *rest: str, answer: str = "", kubeconfig: Path | None = None
    ) -> Said:
        """`jhub-safety claims ...` with an administrator's rights, for this hub."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "jhub_safety", "claims", command),
            *(f"--config={hub.config}", *rest),
            cwd=ROOT,
            env={
                **os.environ,
                **hub.environment,
                "KUBECONFIG": str(kubeconfig or hub.cluster.kubeconfig),
                "XDG_STATE_HOME": str(self.directory),
            },
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(TIMEOUT):
                out, err = await process.communicate(answer.encode())
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode is not None
        assert b"Traceback" not in err, err.decode()
        return Said(process.returncode, out.decode(), " ".join(err.decode().split()))

    def journal(self) -> list[dict[str, Any]]:
        file = self.directory / "jhub-safety" / "journal.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()]


def moving(space: Space) -> tuple[str, str]:
    return f"--to-namespace={space.name}", f"--hub={space.name}"


def moved(marks: dict[str, dict[str, str]], here: Space, there: Space) -> dict[str, dict[str, str]]:
    """The same marks, of the other hub: hubs are called as their namespaces here."""
    return {
        name: {
            key: there.name if (key, value) == ("jhub-safety/hub", here.name) else value
            for key, value in written.items()
        }
        for name, written in marks.items()
    }


def bindings(volumes: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Which claim each is bound to, and since which write."""
    return {
        name: (one.spec.claim_ref.uid, one.metadata.resource_version)
        for name, one in volumes.items()
    }


async def lose(space: Space) -> None:
    """Delete the namespace with all that is in it, for real."""
    await space.delete()
    async with asyncio.timeout(120):
        while True:
            found = await space._core.list_namespace()
            if space.name not in {one.metadata.name for one in found.items}:
                return
            await asyncio.sleep(0.2)


async def write_files(hub: Hub, user: str) -> str:
    """Start a lab, save a file in its home and one in its extra volume. What is in them."""
    content = secrets.token_hex(16)
    async with await hub.login(user) as lab:
        await lab.start_server()
        await lab.wait_ready()
        await lab.lab_exec(
            f"for where in ('/home/jovyan', '/data'): "
            f"open(where + '/kept.txt', 'w').write(where + {content!r})"
        )
        await lab.stop_server()
    return content


async def read_files(hub: Hub, user: str) -> tuple[str, str]:
    async with await hub.login(user) as lab:
        await lab.start_server()
        await lab.wait_ready()
        said = await lab.lab_exec(
            "print(open('/home/jovyan/kept.txt').read(), open('/data/kept.txt').read())"
        )
        await lab.stop_server()
    home, data = said.split()
    return home, data


def mode(file: Path) -> int:
    return file.stat().st_mode & 0o777


def text(file: Path) -> str:
    return file.read_text()


def put(file: Path, content: str) -> None:
    file.write_text(content)


def names_in(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


async def make_taker(space: Space, volume: str) -> None:
    """A claim that asks for this very volume."""
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        "volumeName": volume,
    }
    await space._core.create_namespaced_persistent_volume_claim(
        space.name, {"metadata": {"name": "taker"}, "spec": spec}
    )


async def all_marks(space: Space) -> dict[str, dict[str, str]]:
    return {name: await space.marks(name) for name in await space.uids()}
