"""Makes the root file systems of images: busybox alone, or Debian by debootstrap and pip."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from . import bases, commands, debian, downloads
from .errors import ClusterError
from .recipe import Recipe

_FOLDERS = ("bin", "dev", "etc", "home", "proc", "root", "run", "sys", "tmp", "usr/bin", "var")

# Set on many hosts; the build inside the chroot has to reach the same index and proxies.
# PIP_FIND_LINKS is left out on purpose: it names a folder of the host.
_PASSED_ON = (
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_TRUSTED_HOST",
    "PIP_DEFAULT_TIMEOUT",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)
_PIP_SETTINGS = {"PIP_INDEX_URL": "index-url", "PIP_EXTRA_INDEX_URL": "extra-index-url"}
_CA_VARIABLES = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")
_CA_INSIDE = "tmp/build-ca.pem"

_DROPPED = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/i18n",
    "var/cache/apt",
    "var/cache/debconf",
    "var/lib/apt/lists",
    "var/log",
    "root/.cache",
    "debootstrap",
)


def make(recipe: Recipe, target: Path, log: Path) -> None:
    """Fill the empty folder `target` with the root file system of `recipe`."""
    if recipe.packages is None:
        _busybox(target)
    else:
        _debian(recipe, target, log)


def _busybox(target: Path) -> None:
    program = debian.static_busybox()
    if program is None:
        raise ClusterError("No static busybox on this machine: install busybox-static")
    for folder in _FOLDERS:
        (target / folder).mkdir(parents=True, exist_ok=True)
    (target / "tmp").chmod(0o1777)
    shutil.copy(program, target / "bin" / "busybox")
    (target / "bin" / "busybox").chmod(0o755)
    (target / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (target / "etc" / "group").write_text("root:x:0:\nusers:x:100:\n")
    applets = commands.output([program, "--list"], what="Listing busybox's commands").split()
    for applet in applets:
        if applet != "busybox":
            (target / "bin" / applet).symlink_to("busybox")
    # Scripts name their interpreter and env by the usual paths.
    (target / "usr" / "bin" / "env").symlink_to("../../bin/busybox")


def _debian(recipe: Recipe, target: Path, log: Path) -> None:
    bases.unpack(target, log)
    env = _environment(target)
    for download in recipe.downloads:
        downloads.unpack(download, target, log)
    for inside, source in recipe.files:
        shutil.copy(source, target / inside.lstrip("/"))
        (target / inside.lstrip("/")).chmod(0o755)
    # Programs that look for their libraries beside themselves ask /proc where that is. It goes with
    # the mount namespace.
    script = "set -eu\nmount -t proc proc /proc\n"
    if recipe.packages:
        script += (
            f"apt-get update\napt-get install -y --no-install-recommends"
            f" {' '.join(recipe.packages)}\n"
        )
    if recipe.requirements is not None:
        shutil.copy(recipe.requirements, target / "tmp" / "requirements.txt")
        script += (
            "python3 -m venv /opt/venv\n"
            "/opt/venv/bin/pip install --no-cache-dir -r /tmp/requirements.txt\n"
        )
    script += recipe.script
    if Path("/etc/resolv.conf").exists():
        shutil.copy("/etc/resolv.conf", target / "etc" / "resolv.conf")
    commands.run(
        [*bases.ISOLATED, "chroot", target, "/bin/sh", "-c", script],
        what=f"Installing into {recipe.tag}",
        log=log,
        env=env,
    )
    _strip(target)


def _environment(target: Path) -> dict[str, str]:
    env = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    for variable, setting in _PIP_SETTINGS.items():
        value = _pip_setting(setting)
        if variable not in env and value:
            env[variable] = value
    authority = next((os.environ[name] for name in _CA_VARIABLES if os.environ.get(name)), "")
    authority = authority or _pip_setting("cert")
    if authority and Path(authority).is_file():
        (target / "tmp").mkdir(exist_ok=True)
        shutil.copy(authority, target / _CA_INSIDE)
        env["PIP_CERT"] = f"/{_CA_INSIDE}"
        # For apt, when its mirror is reached by TLS.
        (target / "tmp" / "apt.conf").write_text(f'Acquire::https::CAInfo "/{_CA_INSIDE}";\n')
        env["APT_CONFIG"] = "/tmp/apt.conf"  # noqa: S108 - inside the image
    return env | {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


def _pip_setting(setting: str) -> str:
    """What the host's pip configuration files say, "" when they say nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", f"global.{setting}"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else ""


def _strip(target: Path) -> None:
    """Drop what no container needs, and what came from the host for the build alone."""
    for name in _DROPPED:
        shutil.rmtree(target / name, ignore_errors=True)
    for folder in (target / "tmp", target / "dev"):
        for entry in folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    # apt and dpkg inside a container fail without these.
    for name in ("var/cache/apt/archives/partial", "var/lib/apt/lists/partial", "var/log/apt"):
        (target / name).mkdir(parents=True, exist_ok=True)
    for name in ("etc/resolv.conf", "etc/hostname", bases.POLICY, bases.DPKG_SETTINGS):
        (target / name).unlink(missing_ok=True)
