"""Configuration checked, and the spawner class that it comes to; without the hub's application.

Commands run a hub's configuration file, and JupyterHub's application takes 1.5 s to import.
"""

from __future__ import annotations

from kubespawner import KubeSpawner
from traitlets import HasTraits, TraitError
from traitlets.config import Config, Configurable

from jhub_safety.errors import ConfigError
from jhub_safety.homes import default_template
from jhub_safety.labsettings import SECTION
from jhub_safety.settings import SafetySettings, effective
from jhub_safety.spawner import SafeKubeSpawner, SafetyMixin
from jhub_safety.volumes.names import Generation


def safe_class(chosen: type) -> type | None:
    """*chosen* with the mixin, or None when it is no KubeSpawner."""
    if issubclass(chosen, SafetyMixin):
        return chosen
    if not issubclass(chosen, KubeSpawner):
        return None
    if chosen is KubeSpawner:
        return SafeKubeSpawner
    # Its own name stays visible: c.TheirSpawner.x goes on working, as does c.SafeKubeSpawner.x.
    return type(f"Safe{chosen.__name__}", (SafetyMixin, chosen), {"__module__": chosen.__module__})


def check_settings(cls: type[HasTraits], config: Config) -> None:
    """Check what people wrote for our traits, before anybody logs in.

    Raises:
        ConfigError: an unknown name, a value of the wrong form, or a template that cannot be
            used. JupyterHub itself would say so at the first spawn, or never.
    """
    traits = cls.class_traits(config=True)
    own = SafetySettings.class_trait_names(config=True)
    sections = [name for name in cls.section_names() if name in config]  # type: ignore[attr-defined]
    ours = Config()
    for section in sections:
        for name, value in config[section].items():
            if section == SECTION and name not in traits:
                raise ConfigError(_unknown(section, name, list(traits)))
            if name in own:
                ours[SECTION][name] = value
    try:
        settings = SafetySettings(config=ours)
        # A default is not validated, and the chart's values are one.
        settings.extra_pvcs = settings.extra_pvcs
    except TraitError as error:
        # traitlets' text names the trait of an instance and the value; add where it was written.
        raise ConfigError(f"{SECTION}: {error}") from error

    template = effective(cls, config, "pvc_name_template") or default_template(cls, settings.homes)
    generation = Generation("configured", template, "safe")
    if settings.homes == "enforce" and "userid" in generation.fields:
        raise ConfigError(
            f"{SECTION}.pvc_name_template: {template!r} contains {{userid}}, a number that "
            "every user gets anew when the hub database is lost, and with it an empty home. "
            "Wanted: a template without it, or none at all. Existing claims are still found "
            f"when you set {SECTION}.earlier_pvc_name_templates = [{template!r}]."
        )


def check_section(cls: type[Configurable], config: Config) -> None:
    """The same for one of our own configuration sections.

    Raises:
        ConfigError: an unknown name, or a value of the wrong form.
    """
    section, known = cls.__name__, cls.class_trait_names(config=True)
    for name in config.get(section, {}):
        if name not in known:
            raise ConfigError(_unknown(section, name, list(known)))
    try:
        cls(config=config)
    except TraitError as error:
        raise ConfigError(f"{section}: {error}") from error


def _unknown(section: str, name: str, known: list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=1)
    hint = f" Did you mean {section}.{near[0]}?" if near else ""
    return f"{section}.{name} is not a setting.{hint}"
