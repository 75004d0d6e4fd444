"""The table of images: one entry is all that a further image needs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from .archive import Runtime
from .paths import HERE

# Part of every image's key: count it up when the way of building changes what comes out.
_BUILDER = 1

LAB = "jhub-safety/lab:1"
BUSYBOX = "jhub-safety/busybox:1"
PAUSE = "jhub-safety/pause:1"

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Recipe:
    """How an image is made.

    packages: Debian packages beside debootstrap's minimal set; None makes an image that holds
        nothing but busybox.
    requirements: a pip requirements file, installed into /opt/venv.
    script: shell commands run as root inside the finished root file system.
    about: how long it takes on two cores, for the person who waits.
    """

    tag: str
    runtime: Runtime
    about: str
    packages: tuple[str, ...] | None = None
    requirements: Path | None = None
    script: str = ""

    @property
    def file_stem(self) -> str:
        return self.tag.replace("/", "-").replace(":", "-")

    def key(self, suite: str) -> str:
        """A short hash of all that decides what is in the image."""
        facts = asdict(self) | {"builder": _BUILDER, "about": ""}
        facts["suite"] = suite if self.packages is not None else ""
        facts["requirements"] = self.requirements.read_text() if self.requirements else ""
        text = json.dumps(facts, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


RECIPES: tuple[Recipe, ...] = (
    # The sandbox container of a pod only has to exist. It cannot be PID 1 for a shared process
    # namespace (it reaps nothing), which no lab asks for.
    Recipe(PAUSE, Runtime(cmd=("/bin/sleep", "inf"), env={"PATH": _PATH}), about="1 s"),
    Recipe(BUSYBOX, Runtime(cmd=("/bin/sh",), env={"PATH": _PATH}), about="1 s"),
    Recipe(
        LAB,
        Runtime(
            cmd=("jupyterhub-singleuser",),
            user="1000:100",
            working_dir="/home/jovyan",
            env={
                "PATH": f"/opt/venv/bin:{_PATH}",
                "HOME": "/home/jovyan",
                "LANG": "C.UTF-8",
                "SHELL": "/bin/bash",
                "NB_USER": "jovyan",
                "NB_UID": "1000",
                "NB_GID": "100",
            },
        ),
        about="2 minutes",
        packages=("python3", "python3-venv", "ca-certificates"),
        requirements=HERE / "lab-requirements.txt",
        script="""
useradd --no-user-group --gid 100 --uid 1000 --create-home --shell /bin/bash jovyan
# Source maps are half of JupyterLab's files and serve no lab.
find /opt/venv/share/jupyter -name '*.map' -delete
# A broken image shows here, not as a lab that does not start.
su jovyan -c '/opt/venv/bin/jupyterhub-singleuser --version && /opt/venv/bin/jupyter-lab --version'
""",
    ),
)


def recipe(tag: str) -> Recipe:
    for entry in RECIPES:
        if entry.tag == tag:
            return entry
    raise KeyError(f"no image {tag!r}; known: {', '.join(entry.tag for entry in RECIPES)}")
