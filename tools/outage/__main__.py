"""python -m tools.outage"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import sys
from pathlib import Path

import click
import kubernetes_asyncio
from rich.console import Console

from tools.cluster import ClusterError, ClusterInfo, Progress, ensure_up
from tools.cluster import load as load_cluster
from tools.databases import NoServers
from tools.demo import interrupts
from tools.demo.client import ClientError
from tools.demo.hub import LOG, HubError, end_recorded
from tools.demo.run import stop_cluster
from tools.demo.settings import CLUSTER, hub_ip, state_dir

from .cluster import OutageNamespace
from .losing import ENGINES, database
from .replay import Replay, Scale
from .report import Report, show

EXPECTED = (ClusterError, ClientError, HubError, NoServers, kubernetes_asyncio.client.ApiException)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--db", "engine", type=click.Choice(ENGINES), default="sqlite", show_default=True)
@click.option("--users", type=click.IntRange(min=10), default=1000, show_default=True)
@click.option("--labs", type=click.IntRange(min=2), default=20, show_default=True)
@click.option("--at-once", type=click.IntRange(min=1), default=20, show_default=True)
@click.option(
    "--interval",
    type=click.FloatRange(min=5.0),
    default=60.0,
    show_default=True,
    help="Seconds between two looks of the hub at its database.",
)
@click.option("--cluster", "name", default=CLUSTER, show_default=True, help="Of tools.cluster.")
@click.option(
    "--json",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the measurements to this file as well.",
)
def main(
    engine: str, users: int, labs: int, at_once: int, interval: float, name: str, file: Path | None
) -> None:
    """Replay the DataHub outage of 2017 on a real cluster. Exit code 1: a promise was broken."""
    interrupts.treat_all_as_ctrl_c()
    progress = Progress()
    was_up = load_cluster(name) is not None
    try:
        scale = Scale(users, labs, at_once, interval)
        cluster = ensure_up(name, os.environ.get("CLUSTER") or "auto", progress)
        if cluster.namespace is not None:
            raise ClusterError(
                f"{cluster.kind} allows the namespace {cluster.namespace} only; this makes, and "
                "deletes, one of its own"
            )
        report = asyncio.run(_replay(cluster, engine, scale, progress))
    except KeyboardInterrupt:
        progress.say("Interrupted; the hub was stopped and its namespace deleted.")
        sys.exit(130)
    finally:
        interrupts.ignore()
        if not was_up and name == CLUSTER and load_cluster(name) is not None:
            stop_cluster()
    if file is not None:
        file.write_text(json.dumps(report.as_json(), indent=2) + "\n")
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    console.print()
    show(report, console)
    progress.say(f"The hub's log: {state_dir('outage') / 'hub' / LOG}")
    sys.exit(0 if report.passed else 1)


async def _replay(cluster: ClusterInfo, engine: str, scale: Scale, progress: Progress) -> Report:
    directory = state_dir("outage") / "hub"
    # One that was killed may have left its hub.
    end_recorded(directory)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    async with OutageNamespace(cluster.kubeconfig, f"outage-{secrets.token_hex(4)}") as namespace:
        await namespace.ensure()
        try:
            with database(engine, directory) as made:
                replay = Replay(
                    cluster, namespace, made, directory, scale, progress, hub_ip=hub_ip(cluster)
                )
                return await replay.run()
        finally:
            await namespace.delete()


if __name__ == "__main__":
    try:
        main(prog_name="python -m tools.outage")
    except EXPECTED as error:
        click.echo(f"\nError: {error}", err=True)
        sys.exit(1)
