"""The one package that knows JupyterHub's application object and its private corners."""

from __future__ import annotations

import sys

from traitlets.config import Config
from traitlets.config.loader import LazyConfigValue

from jhub_safety.spawner import SafeKubeSpawner


def setup(c: Config) -> None:
    """Switch everything on, with safe defaults, in a jupyterhub_config.py.

    The spawner class that the hub has configured is respected: one with the mixin stays, a
    plain KubeSpawner (or none at all) becomes SafeKubeSpawner, another KubeSpawner subclass
    gets the mixin put in front of it, and any other spawner is left alone. As later
    configuration files may choose another class, the choice is made again, and all settings
    are checked, when the hub has loaded everything: a setting that cannot be used then ends the
    hub with a :class:`~jhub_safety.errors.ConfigError`, before its database is opened.
    """
    configured = c.JupyterHub.get("spawner_class")
    if configured is None or isinstance(configured, LazyConfigValue):
        c.JupyterHub.spawner_class = SafeKubeSpawner
    # A command that only reads the configuration has not imported the application, and must not
    # pay for it.
    if "jupyterhub.app" not in sys.modules:
        return
    from jupyterhub.app import JupyterHub

    from jhub_safety.hub.application import attach

    # Under "jupyterhub token" or "upgrade-db" there is no application, and instance()
    # would make one.
    if JupyterHub.initialized():
        attach(JupyterHub.instance())


__all__ = ["setup"]
