"""The images' archives: built once, kept under the key of their recipe, imported where needed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from . import archive, commands, debian, locks, rootfs
from .errors import ClusterError
from .paths import Instance, images_dir
from .progress import Progress
from .recipe import Recipe
from .recipes import RECIPES, recipe

# Kubernetes looks for images in this namespace of containerd only.
_CRI_NAMESPACE = "k8s.io"


@dataclass(frozen=True)
class Image:
    tag: str
    key: str
    archive: Path


def known(tags: Iterable[str] | None = None) -> tuple[Image, ...]:
    """Those of `tags`, or what a cluster always has, and where their archives are or will be.

    Raises ClusterError for a tag that the table does not have.
    """
    suite = debian.suite()
    return tuple(_image(entry, suite) for entry in _chosen(tags))


def _chosen(tags: Iterable[str] | None) -> tuple[Recipe, ...]:
    if tags is None:
        return tuple(entry for entry in RECIPES if not entry.on_demand)
    try:
        return tuple(recipe(tag) for tag in dict.fromkeys(tags))
    except KeyError as error:
        raise ClusterError(str(error.args[0])) from error


def _image(entry: Recipe, suite: str) -> Image:
    key = entry.key(suite)
    return Image(entry.tag, key, images_dir() / f"{entry.file_stem}-{key}.tar")


def ensure(progress: Progress, tags: Iterable[str] | None = None) -> tuple[Image, ...]:
    """Build the archives that are missing: those of `tags`, or of what a cluster always has.

    Raises ClusterError for a tag that the table does not have.
    """
    suite = debian.suite()
    images = []
    for entry in _chosen(tags):
        image = _image(entry, suite)
        if not image.archive.exists():
            # One lock an image: workers of a test run that need different ones build at once.
            with locks.held(images_dir() / f"{entry.file_stem}.lock", progress):
                # Another run may have built it while this one waited.
                if not image.archive.exists():
                    with progress.step(f"Building the image {entry.tag}", about=entry.about):
                        _build(entry, image)
        images.append(image)
    return tuple(images)


def _build(entry: Recipe, image: Image) -> None:
    folder = images_dir()
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{entry.file_stem}.log"
    log.unlink(missing_ok=True)
    # Beside the archives, not in /tmp: that is a small memory disk on many machines.
    work = Path(tempfile.mkdtemp(prefix=f"{entry.file_stem}-", dir=folder))
    try:
        work.chmod(0o755)
        rootfs.make(entry, work, log)
        archive.pack(work, entry.tag, entry.runtime, image.archive)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for older in folder.glob(f"{entry.file_stem}-*.tar"):
        if older != image.archive:
            older.unlink()


def import_into(instance: Instance, image: Image) -> None:
    """Load one archive into the containerd of a running instance."""
    commands.run(
        [
            "ctr",
            "--address",
            instance.containerd_socket,
            "--namespace",
            _CRI_NAMESPACE,
            "images",
            "import",
            image.archive,
        ],
        what=f"Importing the image {image.tag}",
        log=instance.log("ctr"),
        timeout=600,
    )
