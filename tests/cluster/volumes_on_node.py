"""Volumes where the node keeps them: looked into, spoiled, and made small for real.

Only where the node is this machine, and its volumes are folders of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.cluster.space import Space
from tools.cluster import ClusterInfo
from tools.cluster.namespace import HOLDER
from tools.cluster.paths import Instance
from tools.cluster.record import load

#: What keeper and server write by themselves, also where nothing is done to the data.
WRITTEN_BY_ITSELF = ("postmaster.pid", "postmaster.opts", ".jhub-safety")


def node_pid(cluster: ClusterInfo) -> int:
    """A process in the node's own mount namespace; skips where there is none."""
    found = load(Instance(cluster.name)) if cluster.kind == "built" else None
    if found is None or cluster.volumes is None:
        pytest.skip("the node's volumes are not to be had on this machine")
    return next(one.pid for one in found.processes if one.component == HOLDER)


async def volume_on_node(cluster: ClusterInfo, space: Space, claim: str) -> Path:
    """The claim's volume as the node sees it, with what is mounted on it."""
    volume = (await space.claim(claim)).spec.volume_name
    found = await space._core.read_persistent_volume(volume)
    return Path(f"/proc/{node_pid(cluster)}/root{found.spec.host_path.path}")


def digests(folder: Path) -> dict[str, str]:
    """sha256 of each file below it, or what a link leads to, by path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if any(word in path.name for word in WRITTEN_BY_ITSELF):
            continue
        if path.is_symlink():
            found[str(path.relative_to(folder))] = f"-> {path.readlink()}"
        elif path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path.relative_to(folder))] = digest
    return found


def owners(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Owner, group and time of the last change of it and all below, by path."""
    found = {}
    for path in (folder, *folder.rglob("*")):
        seen = path.lstat()
        found[str(path.relative_to(folder))] = (seen.st_uid, seen.st_gid, seen.st_ctime_ns)
    return found


def put_back(template: Path, volume: Path) -> None:
    """Make a volume what it was, owners and times too."""
    empty(volume)
    subprocess.run(["cp", "-a", f"{template}/.", str(volume)], check=True)


def empty(volume: Path) -> None:
    for one in volume.iterdir():
        if one.is_dir() and not one.is_symlink():
            shutil.rmtree(one)
        else:
            one.unlink()


def _in_node(cluster: ClusterInfo, *argv: str) -> None:
    enter = ["nsenter", f"--mount=/proc/{node_pid(cluster)}/ns/mnt", "--"]
    subprocess.run([*enter, *argv], check=True, capture_output=True)


async def _unmount(cluster: ClusterInfo, path: str) -> None:
    # Its last container may be a moment away from its end.
    async with asyncio.timeout(30):
        while True:
            try:
                return _in_node(cluster, "umount", path)
            except subprocess.CalledProcessError:
                await asyncio.sleep(0.2)


@asynccontextmanager
async def small_file_system(cluster: ClusterInfo, volume: Path, mib: int) -> AsyncIterator[None]:
    """A real file system of that size in the volume's place, with the volume's content.

    No pod must have the volume open, at the beginning and at the end.
    """
    path = "/" + str(volume).split("/root/", 1)[1]
    _in_node(cluster, "cp", "-a", path, f"{path}.small")
    _in_node(cluster, "mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=0755", "small", path)
    try:
        _in_node(cluster, "cp", "-a", f"{path}.small/.", path)
        yield
    finally:
        await _unmount(cluster, path)
        _in_node(cluster, "rm", "-rf", f"{path}.small")


@asynccontextmanager
async def read_only_file_system(cluster: ClusterInfo, volume: Path) -> AsyncIterator[None]:
    """The volume as a file server has it that lets nobody change it, root neither."""
    path = "/" + str(volume).split("/root/", 1)[1]
    _in_node(cluster, "mount", "--bind", path, path)
    _in_node(cluster, "mount", "-o", "remount,ro,bind", path)
    try:
        yield
    finally:
        await _unmount(cluster, path)
