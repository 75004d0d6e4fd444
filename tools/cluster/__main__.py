"""python -m tools.cluster COMMAND"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

from . import (
    binaries,
    borrowed,
    built,
    cgroups,
    debian,
    images,
    info,
    processes,
    recipes,
    record,
    root,
)
from .errors import ClusterError
from .paths import Instance, binaries_dir
from .progress import Progress

_name = click.option(
    "--name", default="demo", show_default=True, help="Which cluster; each has its own data."
)


def _instance(name: str) -> Instance:
    try:
        return Instance(name)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _go_on_as_root() -> None:
    if root.needed():
        root.replace_by_root(sys.argv[1:])


@contextmanager
def _failures_told() -> Iterator[None]:
    try:
        yield
    except ClusterError as error:
        click.echo(f"\nError: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        click.echo("\nInterrupted; what had been started was stopped.", err=True)
        sys.exit(130)
    finally:
        root.give_back()


_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    # Once: an impatient second Ctrl-C would leave the cleaning up half done.
    for number in _ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """A small real Kubernetes on this machine for the demo, tests and benchmarks."""
    # A closed terminal or a CI job's time-out clean up like Ctrl-C. What a shell or nohup has set
    # to be ignored stays so.
    for number in _ENDING_SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)


@main.command()
@_name
@click.option("--cluster", type=click.Choice(info.KINDS), default="auto", show_default=True)
@click.option("--quiet", is_flag=True, help="Print steps and errors only.")
def up(name: str, cluster: str, quiet: bool) -> None:
    """Bring a cluster up and print where its kubeconfig is."""
    instance = _instance(name)
    with _failures_told():
        found = info.ensure_up(name, cluster)
    if not quiet:
        click.echo(f"{name} is up ({found.kind}). Its kubeconfig:", err=True)
        click.echo(instance.kubeconfig)


@main.command()
@_name
@click.option("--purge", is_flag=True, help="Delete its objects, volumes and unpacked images too.")
def down(name: str, purge: bool) -> None:
    """End a cluster; "up" starts it again with the same objects and volumes."""
    instance = _instance(name)
    found = record.load(instance)
    if found is not None and found.kind != built.KIND:
        with _failures_told():
            borrowed.down(instance, found, Progress())
        return
    _go_on_as_root()
    with _failures_told():
        built.down(instance, Progress(), purge=purge)


@main.command()
@_name
def status(name: str) -> None:
    """Say whether a cluster is up, and what of it runs. Exit code 3 when it is not up."""
    instance = _instance(name)
    found = record.load(instance)
    if found is None:
        click.echo(f"{name}: there is no such cluster")
        sys.exit(3)
    is_up = info.load(name) is not None
    click.echo(f"{name}: {'up' if is_up else 'not up'} ({found.kind}), data in {instance.root}")
    for process in found.processes:
        state = "runs" if processes.alive(process) else "is gone"
        click.echo(f"  {process.component:24} pid {process.pid:<8} {state}")
    if found.kind == built.KIND:
        click.echo(f"  {len(cgroups.processes(instance.cgroup))} processes with those of its pods")
    if not is_up:
        sys.exit(3)


@main.command("images")
@click.option("--name", default="", help="Load TAGS into this running cluster too.")
@click.argument("tags", nargs=-1)
def list_images(name: str, tags: tuple[str, ...]) -> None:
    """Build images that are missing, and say where their archives are.

    TAGS: of the images that are made on demand, "postgres:15"; or "all". Without any, those that
    every cluster has.
    """
    instance = _instance(name) if name else None
    _go_on_as_root()
    with _failures_told():
        progress = Progress()
        debian.ensure_programs(progress)
        wanted = tuple(entry.tag for entry in recipes.RECIPES) if tags == ("all",) else tags
        for image in images.ensure(progress, wanted or None):
            size = image.archive.stat().st_size / 1e6
            click.echo(f"{image.tag:24} {size:6.0f} MB  {image.archive}")
        if instance is not None:
            built.load_images(instance, wanted, progress)


@main.command()
def build() -> None:
    """Build Kubernetes and etcd, unless they are."""
    with _failures_told():
        binaries.ensure(Progress())
    click.echo(binaries_dir())


@main.command()
@_name
def kubeconfig(name: str) -> None:
    """Print the path of a cluster's kubeconfig."""
    click.echo(_instance(name).kubeconfig)


@main.command(context_settings={"ignore_unknown_options": True})
@_name
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def kubectl(name: str, arguments: tuple[str, ...]) -> None:
    """Run kubectl against a cluster: kubectl -- get pods."""
    config = _instance(name).kubeconfig
    if not config.exists():
        raise click.ClickException(
            f"{name} has no kubeconfig: bring it up first (up --name {name})"
        )
    own = binaries_dir() / "kubectl"
    with _failures_told():
        program = str(own) if own.exists() else borrowed.kubectl()
    # Not as a flag: before the name of a plugin kubectl takes none.
    env = dict(os.environ) | {"KUBECONFIG": str(config)}
    os.execve(program, [program, *arguments], env)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(prog_name="python -m tools.cluster")
