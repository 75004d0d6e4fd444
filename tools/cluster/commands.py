"""Programs that run to their end: their output goes to a log, an interruption ends them."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import ClusterError


def run(
    argv: Sequence[str | Path],
    *,
    what: str,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 3600.0,
) -> None:
    """Run a long program with its output in `log`; ClusterError names the log when it fails.

    It gets a session of its own and is ended as a group on Ctrl-C or a timeout (seconds): a
    debootstrap or go build that went on in the background would spoil the next attempt.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(argument) for argument in argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(env) if env is not None else None,
            cwd=cwd,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout)
        except BaseException as error:
            _end_group(process)
            if isinstance(error, subprocess.TimeoutExpired):
                raise ClusterError(f"{what}: not done after {timeout:.0f} s", log) from error
            raise
    if code != 0:
        raise ClusterError(f"{what}: {Path(argv[0]).name} ended with exit code {code}", log)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            continue


def output(
    argv: Sequence[str | Path],
    *,
    what: str,
    env: Mapping[str, str] | None = None,
    timeout: float = 60.0,
) -> str:
    """The standard output of a short program; ClusterError with its error output otherwise."""
    try:
        done = subprocess.run(
            [str(argument) for argument in argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=dict(env) if env is not None else None,
            timeout=timeout,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ClusterError(f"{what}: {error}") from error
    if done.returncode != 0:
        raise ClusterError(f"{what}: {' '.join(map(str, argv))}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def succeeds(argv: Sequence[str | Path], *, timeout: float = 30.0) -> bool:
    """Whether a short program exists and ends with exit code 0."""
    try:
        output(argv, what="check", timeout=timeout)
    except ClusterError:
        return False
    return True
