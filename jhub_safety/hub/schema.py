"""The schema that the installed JupyterHub has."""

from __future__ import annotations

from alembic.config import Config
from alembic.script import ScriptDirectory
from jupyterhub import dbutil


def newest_revision() -> str:
    """What it is called (orm.py:1527, 6.1.1)."""
    # Any address: it is written to a temporary file, and the real one has a password.
    with dbutil._temp_alembic_ini("sqlite://") as ini:
        return str(ScriptDirectory.from_config(Config(ini)).get_heads()[0])
