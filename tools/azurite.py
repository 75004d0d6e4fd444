"""Azurite, Microsoft's emulator of Azure Blob Storage, for tests of snapshots on az://.

From npm, into the cache folder; it listens on this machine alone. Account and key are those that
every copy of it has.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path

from tools.setup import SetupError, cache_dir, system_node, wheel_node

PACKAGE = "azurite@3.35.0"
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
#: Seconds for npm, and for the emulator to listen.
INSTALL, START = 300.0, 60.0
_VERSION = "2021-12-02"


class NoAzurite(Exception):
    """It is not there, and cannot be had."""


def ensure() -> list[str | Path]:
    """The command that starts it; installed first where it is missing.

    Raises:
        NoAzurite: why it cannot be had.
    """
    home = cache_dir() / "azurite"
    try:
        node, npm = system_node() or wheel_node(home, sys.executable)
    except SetupError as error:
        raise NoAzurite(str(error)) from error
    script = home / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    stamp = home / "installed"
    if not script.exists() or not stamp.exists() or stamp.read_text() != PACKAGE:
        home.mkdir(parents=True, exist_ok=True)
        how = ["--no-audit", "--no-fund", "--no-save", "--ignore-scripts"]
        try:
            done = subprocess.run(
                [*npm, "install", *how, "--prefix", str(home), PACKAGE],
                capture_output=True,
                text=True,
                timeout=INSTALL,
                check=False,
                # npm starts by "env node".
                env={**os.environ, "PATH": f"{Path(node).parent}{os.pathsep}{os.environ['PATH']}"},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NoAzurite(f"npm install {PACKAGE}: {error}") from error
        if done.returncode or not script.exists():
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise NoAzurite(f"npm install {PACKAGE}: {' '.join(last)}")
        stamp.write_text(PACKAGE)
    return [node, script]


@contextmanager
def running() -> Iterator[str]:
    """Its address, while the block runs; what it keeps goes with it.

    Raises:
        NoAzurite: it cannot be had, or does not start.
    """
    command = ensure()
    with tempfile.TemporaryDirectory() as folder:
        options = ["--blobHost", "127.0.0.1", "--blobPort", "0", "--location", folder]
        process = subprocess.Popen(
            [*command, *options, "--disableTelemetry", "--skipApiVersionCheck"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
        )
        killer = threading.Timer(START, process.kill)
        killer.start()
        try:
            assert process.stdout is not None  # noqa: S101
            said = ""
            for line in process.stdout:
                said += line
                if found := re.search(r"listens on (http://\S+)", line):
                    break
            else:
                raise NoAzurite(f"it ended at its start: {said[-300:]}")
            killer.cancel()
            # Nobody reads the rest, and a full pipe would stop it.
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield found[1]
        finally:
            killer.cancel()
            process.terminate()
            process.wait()


def make_container(address: str, name: str) -> None:
    """As an operator makes one, by its own API."""
    date = formatdate(usegmt=True)
    headers = f"x-ms-date:{date}\nx-ms-version:{_VERSION}"
    whole = f"PUT{chr(10) * 12}{headers}\n/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    digest = hmac.new(base64.b64decode(KEY), whole.encode(), hashlib.sha256).digest()
    request = urllib.request.Request(  # noqa: S310 - http:// of our own
        f"{address}/{ACCOUNT}/{name}?restype=container",
        method="PUT",
        headers={
            "x-ms-date": date,
            "x-ms-version": _VERSION,
            "Content-Length": "0",
            "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}",
        },
    )
    urllib.request.urlopen(request, timeout=30).close()  # noqa: S310 - http:// of our own


def environment(address: str) -> dict[str, str]:
    """By which a client finds it instead of Azure."""
    return {
        "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": KEY,
        "AZURE_STORAGE_USE_EMULATOR": "true",
        "AZURITE_BLOB_STORAGE_URL": address,
        "AZURE_ALLOW_HTTP": "true",
    }
