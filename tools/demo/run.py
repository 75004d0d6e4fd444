"""`make demo` and `make demo-down`."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from tools.cluster import ClusterInfo, Progress, ensure_images, ensure_up
from tools.cluster import load as load_cluster

from . import interrupts
from .client import HubClient
from .hub import HubError, HubProcess, cache_dir, end_recorded
from .identity import Identity
from .kube import Namespace
from .settings import (
    CLUSTER,
    CONFIG,
    VARIABLE,
    Settings,
    make_hub,
    namespace_for,
    password,
    state_dir,
)

USER = "ada"
ADMIN = "admin"
PORT = 8000
# Of the version of the lab's psql, which else begins with a warning.
DATABASE = "postgres:15"
ROOT = Path(__file__).resolve().parents[2]
STOP_TIMEOUT = 90.0


@dataclass(frozen=True)
class Running:
    """A demo in its terminal, as recorded for other programs. url: "" until it is up."""

    program: Identity
    url: str = ""


def running() -> Running | None:
    """The demo that runs on this account, if any."""
    try:
        content = json.loads(_record().read_text())
        found = Running(Identity(**content["program"]), content["url"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return found if found.program.alive() else None


def up() -> int:
    """Bring everything up, and keep it until Ctrl-C. Gives the exit code."""
    console = Console()
    already = running()
    if already is not None:
        where = already.url or "it is still starting"
        console.print(f"A demo runs already: {where} (make demo-down stops it)")
        return 0
    interrupts.treat_all_as_ctrl_c()
    progress = Progress()
    # A hub that outlived its demo, because that was killed, would hold ports and database.
    end_recorded(state_dir("demo") / "hub")
    _write_record()
    code = 0
    try:
        cluster = ensure_up(CLUSTER, os.environ.get("CLUSTER") or "auto", progress)
        asyncio.run(_serve(cluster, progress, console))
    except KeyboardInterrupt:
        console.print("\nStopping.")
    except HubError as error:
        progress.say(f"\nError: {error}")
        code = 1
    finally:
        interrupts.ignore()
        _clean_up(progress)
    return code


def cli(arguments: tuple[str, ...]) -> int:
    """Run `jhub-safety` as an operator of the demo's hub would, where that hub runs."""
    cluster = load_cluster(CLUSTER)
    if running() is None or cluster is None:
        print("No demo runs. Start one: make demo", file=sys.stderr)
        return 1
    state = state_dir("demo")
    environment = {
        "KUBECONFIG": str(cluster.kubeconfig),
        VARIABLE: str(state / "settings.json"),
        "JHUB_SAFETY_CONFIG": str(CONFIG),
    }
    program = [sys.executable, "-m", "jhub_safety", *arguments]
    ended = subprocess.run(program, check=False, cwd=state / "hub", env=os.environ | environment)
    return ended.returncode


def down() -> int:
    """Stop a demo that runs elsewhere, or what a killed one has left. Gives the exit code."""
    console = Console()
    found = running()
    if found is not None:
        Progress().say(f"Stopping the demo on {found.url}")
        found.program.end(STOP_TIMEOUT)
    end_recorded(cache_dir() / "demo" / "hub")
    if load_cluster(CLUSTER) is not None:
        stop_cluster()
    _record().unlink(missing_ok=True)
    console.print("Nothing of the demo runs any more. Its data away as well:")
    console.print(f"  .venv/bin/python -m tools.cluster down --name {CLUSTER} --purge")
    return 0


def stop_cluster() -> None:
    """End the demo's cluster; claims and their data stay where it is our own."""
    argv = [sys.executable, "-m", "tools.cluster", "down", "--name", CLUSTER]
    # A session of its own: a second Ctrl-C must not end it half-way.
    subprocess.run(argv, cwd=ROOT, check=False, start_new_session=True)


async def _serve(cluster: ClusterInfo, progress: Progress, console: Console) -> None:
    state = state_dir("demo")
    settings = Settings(
        namespace=namespace_for(cluster, "demo"),
        lab_image=cluster.lab_image,
        init_image=cluster.init_image,
        storage_class=cluster.storage_class,
        password=password(state),
        safe=True,
        admins=(ADMIN,),
        databases=({"kind": "postgres", "image": DATABASE},),
    )
    await asyncio.to_thread(ensure_images, CLUSTER, [DATABASE], progress)
    async with Namespace(cluster.kubeconfig, settings.namespace) as namespace:
        uid = await namespace.ensure()
    _set_aside_another_clusters_hub(state, uid, progress)
    hub = make_hub(cluster, settings, state, port=_port())
    # Only the demo's own stop ends its labs. A killed hub leaves them alone.
    hub.arguments.append("--JupyterHub.cleanup_servers=True")
    try:
        with progress.step("Starting JupyterHub", about="6 s"):
            await hub.start()
        _write_record(hub.url)
        async with await HubClient.login(hub.url, USER, settings.password) as ada:
            with progress.step(f"Starting the lab of {USER} and its PostgreSQL", about="12 s"):
                model = await ada.server()
                if model is None or not (model["ready"] or model["pending"]):
                    await ada.start_server()
                await ada.wait_ready()
        console.rule("jhub-safety demo", align="left")
        # Unwrapped, for copying.
        console.print(_welcome(hub, cluster, settings), soft_wrap=True, highlight=False)
        while hub.running():
            await asyncio.sleep(0.5)
        raise HubError(f"The hub has ended by itself; its log: {hub.log}")
    finally:
        if hub.running():
            with progress.step("Stopping JupyterHub and its labs", about="5 s"):
                hub.close()
        hub.close()


def _set_aside_another_clusters_hub(state: Path, uid: str, progress: Progress) -> None:
    """A hub's database is of the namespace whose claims it names.

    Seen: the cluster was purged, the database stayed, and the library refused to start the lab of
    a user whose home was there and is missing. As it should; but here nothing was lost.
    """
    mark, hub = state / "namespace-uid", state / "hub"
    if hub.exists() and (not mark.exists() or mark.read_text() != uid):
        aside = state / f"hub.before-{uid}"
        hub.rename(aside)
        progress.say(f"The last demo's hub was of another cluster; its files are in {aside}")
    mark.write_text(uid)


def _welcome(hub: HubProcess, cluster: ClusterInfo, settings: Settings) -> str:
    kubectl = f"python -m tools.cluster kubectl --name {CLUSTER} -- -n {settings.namespace}"
    return f"""\
[bold]{hub.url}[/bold]
User [bold]{USER}[/bold] (any other name works as well; [bold]{ADMIN}[/bold] may administer),
password [bold]{settings.password}[/bold]

What to try next
  * log in, and save a file in the lab: it lies in a claim of {USER}'s own
  * in a terminal of the lab, [bold]psql[/bold]: PostgreSQL of {USER}'s own. Make a table, stop the
    server in the Hub Control Panel, start it again: the table is there
  * make drill             lose the hub database on purpose, and see whose home comes back
  * make drill VANILLA=1   the same without this library
  * .venv/bin/{kubectl} get pods,pvc
  * .venv/bin/python -m tools.demo cli sessions list     (or: cli claims list, cli --help)

Kubernetes: {cluster.kind}, {cluster.server}
Hub log:    {hub.log}

[bold]Ctrl-C here[/bold], or make demo-down elsewhere, stops all of it. {_kept(cluster)}"""


def _kept(cluster: ClusterInfo) -> str:
    if cluster.kind == "built":
        return "Claims and hub database stay for the next time."
    # It is somebody else's machinery, in which nothing of ours should be left behind.
    return f"What was made in this {cluster.kind} cluster, claims included, is deleted then."


def _port() -> int | None:
    """8000 when it is free, since browsers and people remember it."""
    with socket.socket() as probe:
        # As servers do, or the port would count as taken for a minute after the last demo.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError:
            return None
    return PORT


def _clean_up(progress: Progress) -> None:
    _record().unlink(missing_ok=True)
    if load_cluster(CLUSTER) is not None:
        stop_cluster()
    progress.say("Stopped.")


def _record() -> Path:
    return cache_dir() / "demo" / "running.json"


def _write_record(url: str = "") -> None:
    program = Identity.of(os.getpid())
    if program is not None:
        _record().write_text(json.dumps(asdict(Running(program, url)), indent=2) + "\n")
