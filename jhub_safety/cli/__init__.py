"""``jhub-safety``: one file per command group."""

from __future__ import annotations

import sys

import click

from jhub_safety import __version__
from jhub_safety.cli.claims import claims
from jhub_safety.cli.connection import notes, shown
from jhub_safety.cli.databases import databases
from jhub_safety.cli.db import db
from jhub_safety.cli.dbguard import accept, rebuild_command, status
from jhub_safety.cli.dbrepair import check, logout, repair
from jhub_safety.cli.doctor import doctor
from jhub_safety.cli.homes import homes
from jhub_safety.cli.moving import export_claims, reattach_claims
from jhub_safety.cli.sessions import sessions
from jhub_safety.errors import SafetyError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="jhub-safety")
def cli() -> None:
    """Keep the homes of a JupyterHub on Kubernetes safe.

    Commands that change something print their plan first and ask.
    """


for command in (status, accept, rebuild_command, check, repair, logout):
    db.add_command(command)
cli.add_command(claims)
cli.add_command(doctor)
cli.add_command(homes)
claims.add_command(export_claims)
claims.add_command(reattach_claims)
cli.add_command(databases)
cli.add_command(db)
cli.add_command(sessions)


def main() -> None:
    """Entry point: errors of this library end as one sentence, not as a traceback."""
    try:
        cli(prog_name="jhub-safety")
    except SafetyError as error:
        notes.print(shown(f"jhub-safety: {error}"))
        sys.exit(1)
