"""The one package that knows JupyterHub's application object and its private corners."""

from jhub_safety.hub.application import (
    check_section,
    check_settings,
    finish,
    safe_class,
    setup,
)

__all__ = ["check_section", "check_settings", "finish", "safe_class", "setup"]
