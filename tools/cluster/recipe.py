"""What an image is made of; the table of them is recipes.py."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from .archive import Runtime
from .downloads import Download

# Part of every image's key: count it up when the way of building changes what comes out.
_BUILDER = 2

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Recipe:
    """How an image is made.

    packages: Debian packages beside debootstrap's minimal set; None makes an image that holds
        nothing but busybox.
    requirements: a pip requirements file, installed into /opt/venv.
    downloads: archives of other registries, unpacked before the script runs.
    files: programs of our own; from the path inside the image to the file here.
    script: shell commands run as root inside the finished root file system.
    about: how long it takes on two cores, for the person who waits.
    on_demand: built and loaded when somebody asks for it by its tag, not by "up".
    """

    tag: str
    runtime: Runtime
    about: str
    packages: tuple[str, ...] | None = None
    requirements: Path | None = None
    downloads: tuple[Download, ...] = ()
    files: tuple[tuple[str, Path], ...] = ()
    script: str = ""
    on_demand: bool = False

    @property
    def file_stem(self) -> str:
        return self.tag.replace("/", "-").replace(":", "-")

    def key(self, suite: str) -> str:
        """A short hash of all that decides what is in the image."""
        facts = asdict(self) | {"builder": _BUILDER, "about": "", "on_demand": ""}
        facts["suite"] = suite if self.packages is not None else ""
        facts["requirements"] = self.requirements.read_text() if self.requirements else ""
        facts["files"] = [(inside, source.read_text()) for inside, source in self.files]
        text = json.dumps(facts, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
