"""python -m tools.demo up | down | drill"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import kubernetes_asyncio

from tools.cluster import ClusterError

from . import drill as drill_module
from . import run
from .client import ClientError
from .hub import HubError

# What a step of ours raises with a message made for a person; anything else is a bug, shown whole.
EXPECTED = (ClusterError, ClientError, HubError, kubernetes_asyncio.client.ApiException)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """A real JupyterHub on a real Kubernetes of this machine."""


@main.command()
def up() -> None:
    """Start the demo and keep it until Ctrl-C."""
    sys.exit(run.up())


@main.command()
def down() -> None:
    """Stop a demo that runs elsewhere, and its Kubernetes."""
    sys.exit(run.down())


@main.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def cli(arguments: tuple[str, ...]) -> None:
    """Run jhub-safety with these ARGUMENTS for the demo's hub."""
    sys.exit(run.cli(arguments))


@main.command()
@click.option("--vanilla", is_flag=True, help="Plain KubeSpawner: shows what goes wrong without.")
@click.option(
    "--json",
    "report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the measurements to this file as well.",
)
def drill(vanilla: bool, report: Path | None) -> None:
    """Lose the hub database on purpose. Exit code 0 when every home came back unchanged."""
    sys.exit(drill_module.run(vanilla=vanilla, report=report))


if __name__ == "__main__":
    try:
        main(prog_name="python -m tools.demo")
    except EXPECTED as error:
        click.echo(f"\nError: {error}", err=True)
        sys.exit(1)
