"""Safety plugins for JupyterHub on Kubernetes: homes, sessions, database, volumes.

In ``jupyterhub_config.py`` (or ``hub.extraConfig`` of the Zero to JupyterHub chart)::

    import jhub_safety
    jhub_safety.setup(c)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["SafeKubeSpawner", "SafetyMixin", "setup"]

if TYPE_CHECKING:
    from jhub_safety.hub import setup
    from jhub_safety.spawner import SafeKubeSpawner, SafetyMixin

_EXPORTS = {
    "SafeKubeSpawner": "jhub_safety.spawner",
    "SafetyMixin": "jhub_safety.spawner",
    "setup": "jhub_safety.hub",
}


def __getattr__(name: str) -> Any:
    # Imported on first use: the CLI and the pure modules must not pay for
    # (or depend on) JupyterHub and KubeSpawner.
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
