"""Running as root: bridges, mounts and containers need it, the person's files stay theirs."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from .errors import ClusterError
from .paths import REPOSITORY, cache_dir

# Inside these only root's own programs write, with owners that mean something to them: a volume
# keeps the uids of labs.
_ROOTS_OWN = {"containerd", "containerd-state", "etcd", "node"}

_KEPT = ("JHUB_SAFETY_CACHE", "PYTHONPATH")


def needed() -> bool:
    return os.geteuid() != 0


def command(arguments: Sequence[str]) -> list[str]:
    """The command line that runs `python -m tools.cluster ARGUMENTS` as root through sudo."""
    if shutil.which("sudo") is None:
        raise ClusterError("This needs root, and there is no sudo here: run it as root")
    # sudo resets some of the environment even with -E; these decide where everything lies.
    kept = [f"HOME={Path.home()}", f"PATH={os.environ.get('PATH', '')}"]
    kept += [f"{name}={os.environ[name]}" for name in _KEPT if name in os.environ]
    return ["sudo", "-E", "env", *kept, sys.executable, "-m", "tools.cluster", *arguments]


def replace_by_root(arguments: Sequence[str]) -> None:
    """Go on as root: does not come back."""
    argv = command(arguments)
    os.chdir(REPOSITORY)
    os.execvp(argv[0], argv)  # noqa: S606 - no shell is wanted


def give_back() -> None:
    """Let the person who called sudo own the cache: they read logs and the kubeconfig, and may
    delete it all."""
    if "SUDO_UID" not in os.environ or not cache_dir().is_dir():
        return
    uid, gid = int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"])
    for folder, below, files in os.walk(cache_dir()):
        below[:] = [name for name in below if name not in _ROOTS_OWN]
        for path in (Path(folder), *(Path(folder, name) for name in files)):
            try:
                os.chown(path, uid, gid, follow_symlinks=False)
            except OSError:
                continue  # deleted meanwhile
