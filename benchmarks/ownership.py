"""Giving a home of 100,000 files to its user takes no longer than one of 1 file.

The script of the init container, on this machine's disk: each pair runs over both homes, in
turns. For comparison, what hubs write by hand: ``chown -R``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from importlib.resources import files
from pathlib import Path

from benchmarks.measuring import spread

PAIRS = 20
FILES = 100_000
FOLDERS = 100
UID, GID = 1000, 100
SCRIPT = files("jhub_safety.sidecars").joinpath("ownership.sh").read_text()


def run() -> None:
    """Measure and print. Needs root, as the init container does."""
    if os.getuid() != 0:
        print("ownership: skipped, it needs root")
        return
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder, "small"), Path(folder, "large")
        _make(small, 1, 1)
        _make(large, FILES // FOLDERS, FOLDERS)
        ours: dict[Path, list[float]] = {small: [], large: []}
        for _ in range(PAIRS):
            for home, taken in ours.items():
                taken.append(1000 * _give(home))
        by_hand = {home: 1000 * _chown_all(home) for home in ours}
        ratios = [b / a for a, b in zip(ours[small], ours[large], strict=True)]
    print(f"Giving a home to its user, {PAIRS} pairs:")
    print(f"  1 file             {spread(ours[small], 'ms')};  chown -R {by_hand[small]:.0f} ms")
    print(f"  {FILES:,} files      {spread(ours[large], 'ms')};  chown -R {by_hand[large]:.0f} ms")
    print(f"  ratio              {spread(ratios, '')}")


def _make(home: Path, each: int, folders: int) -> None:
    for number in range(folders):
        folder = home / f"folder-{number}"
        folder.mkdir(parents=True)
        for name in range(each):
            (folder / f"{name}").touch()


def _give(home: Path) -> float:
    os.chown(home, 0, 0)
    shell = ["busybox", "sh"] if shutil.which("busybox") else ["sh"]
    begin = time.perf_counter()
    argv = [*shell, "-c", SCRIPT, "sh", "home", str(home), str(UID), str(GID)]
    subprocess.run(argv, check=True, capture_output=True)
    taken = time.perf_counter() - begin
    if (home.stat().st_uid, home.stat().st_gid) != (UID, GID):
        raise RuntimeError(f"{home} was not given")
    return taken


def _chown_all(home: Path) -> float:
    begin = time.perf_counter()
    subprocess.run(["chown", "-R", f"{UID}:{GID}", str(home)], check=True)
    return time.perf_counter() - begin


if __name__ == "__main__":
    run()
