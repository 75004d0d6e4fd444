"""Databases of earlier JupyterHubs, made by JupyterHub's own migrations."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing

#: In a process of its own: alembic replaces all handlers of the root logger.
ALEMBIC = """
import sys
import alembic.command, alembic.config
from jupyterhub import dbutil
url, do, to = sys.argv[1:]
with dbutil._temp_alembic_ini(url) as ini:
    getattr(alembic.command, do)(alembic.config.Config(ini), to)
"""


def alembic(url: str, do: str, to: str) -> str:
    """Change the schema as JupyterHub does; the revision that it has then."""
    subprocess.run([sys.executable, "-c", ALEMBIC, url, do, to], check=True)
    return revision(url)


def downgrade(url: str) -> str:
    """To the schema before the newest, as an earlier JupyterHub left it."""
    return alembic(url, "downgrade", "-1")


def revision(url: str) -> str:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
        (found,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(found)
