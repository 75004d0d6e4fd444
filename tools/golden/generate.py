"""Run earlier releases of KubeSpawner and write down the names that they make.

``python -m tools.golden.generate [RELEASE ...]``; see README.md here.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tools.golden import collisions
from tools.golden.releases import RELEASES, Release

HERE = Path(__file__).resolve().parent
GOLDEN = HERE.parent.parent / "tests" / "golden"
CACHE = Path.home() / ".cache" / "jhub-safety" / "golden"

# Every release loads a cluster's configuration when a spawner is made. Nothing
# connects to it: the probe keeps the reflectors from starting.
KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: none
clusters: [{name: none, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: none, user: {token: none}}]
contexts: [{name: none, context: {cluster: none, user: none, namespace: hub}}]
"""

# Packages whose version decides a name, or is written into an annotation.
RECORDED = ("escapism", "kubernetes", "kubernetes_asyncio", "tornado", "traitlets")


def find_python(minor: str) -> str:
    """Path of the interpreter ``minor`` ("3.6"), from pyenv or the PATH."""
    versions = Path.home() / ".pyenv" / "versions"
    for found in sorted(versions.glob(f"{minor}.*/bin/python3"), reverse=True):
        return str(found)
    on_path = shutil.which(f"python{minor}")
    if on_path is None:
        raise SystemExit(f"generate: no Python {minor}; install it with `pyenv install {minor}`")
    return on_path


def run(command: list[str], **kwargs: Any) -> str:
    """Run at nice 10 and return stdout; raises CalledProcessError on failure."""
    niced = ["nice", "-n", "10", *command]
    return str(
        subprocess.run(niced, check=True, stdout=subprocess.PIPE, text=True, **kwargs).stdout
    )


def environment(release: Release) -> Path:
    """The release's own virtual environment, made when missing; returns its Python."""
    folder = CACHE / release.version
    python = folder / "bin" / "python"
    finished = folder / "finished"
    wanted = "\n".join(release.requirements)
    if finished.exists() and finished.read_text() == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    run([find_python(release.python), "-m", "venv", str(folder)])
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if release.python == "3.6":
        # Its bundled pip 18 takes packages that need a newer Python.
        run([*install, "--upgrade", "pip<22"])
    run([*install, f"jupyterhub-kubespawner=={release.version}", *release.requirements])
    finished.write_text(wanted)
    return python


def probe(release: Release, cases: list[dict[str, Any]]) -> dict[str, Any]:
    """Ask one release about every case; the answer is probe.py's, with a fuller header."""
    python = environment(release)
    home = CACHE / "home"
    (home / ".kube").mkdir(parents=True, exist_ok=True)
    (home / ".kube" / "config").write_text(KUBECONFIG)
    question = home / "question.json"
    if not release.named_servers:
        cases = [case for case in cases if not case["server"]]
    question.write_text(json.dumps({"variants": release.variants, "cases": cases}))
    env = {
        "HOME": str(home),
        "KUBECONFIG": str(home / ".kube" / "config"),
        "LC_ALL": "C.UTF-8",
        "PATH": os.environ["PATH"],
        "PYTHONWARNINGS": "ignore",
    }
    answer = json.loads(run([str(python), str(HERE / "probe.py"), str(question)], env=env))
    plain = answer["records"][0]
    if plain["user"] != "alice" or "pvc" not in plain["variants"]["default"]:
        # No release fails on this one: the environment is at fault, not the release.
        raise SystemExit(f"generate: {release.version} does not run here: {plain}")
    frozen = run([str(python), "-m", "pip", "freeze"]).replace("-", "_").splitlines()
    versions = dict(line.split("==") for line in frozen if "==" in line)
    packages = {name: versions[name] for name in RECORDED if name in versions}
    header = {
        "release": release.version,
        **answer["header"],
        "packages": packages,
        "charts": release.charts,
        "named_servers": release.named_servers,
    }
    return {"header": header, "records": [shorten(record) for record in answer["records"]]}


def shorten(record: dict[str, Any]) -> dict[str, Any]:
    """Lift annotations and labels out of the variants, where they are always the same."""
    claims: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    for variant, made in record.pop("variants").items():
        if "error" not in made:
            found = {"annotations": made.pop("annotations"), "labels": made.pop("labels")}
            if metadata and metadata != found:
                raise AssertionError(f"{record}: {variant} has its own annotations or labels")
            metadata = found
        claims[variant] = made
    return {**record, "claims": claims, **metadata}


def table_of(release: Release) -> Path:
    return GOLDEN / f"kubespawner-{release.version}.json"


def write(path: Path, head: dict[str, Any], name: str, rows: list[dict[str, Any]]) -> None:
    """JSON with one row per line, so that a changed name is one changed line."""
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    header = json.dumps(head, ensure_ascii=False, indent=1)
    path.write_text(f'{{"header": {header},\n"{name}": [\n{lines}\n]}}\n', encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("releases", nargs="*", help="default: all of them")
    asked = parser.parse_args().releases
    unknown = set(asked) - {release.version for release in RELEASES}
    if unknown:
        raise SystemExit(f"generate: not in releases.py: {', '.join(sorted(unknown))}")
    cases = json.loads((GOLDEN / "names.json").read_text(encoding="utf-8"))
    for release in RELEASES:
        if asked and release.version not in asked:
            continue
        result = probe(release, cases)
        write(table_of(release), result["header"], "records", result["records"])
        print(release.version, len(result["records"]), "records", file=sys.stderr)
    paths = [path for path in map(table_of, RELEASES) if path.exists()]
    tables = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    head, pairs = collisions.find(tables)
    write(GOLDEN / "collisions.json", head, "pairs", pairs)
    print(len(pairs), "collisions", file=sys.stderr)


if __name__ == "__main__":
    main()
