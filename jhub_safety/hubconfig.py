"""What a hub's configuration file says, without starting the hub: the CLI's view of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from traitlets import import_item
from traitlets.config import Config
from traitlets.config.loader import ConfigFileNotFound, PyFileConfigLoader

from jhub_safety.checked import check_section, check_settings, safe_class
from jhub_safety.errors import ConfigError
from jhub_safety.homes import default_template
from jhub_safety.hub.checking import containers_of, mounts_of, needs_of
from jhub_safety.owner import Owner
from jhub_safety.sessions.reconciler import SessionReconciler
from jhub_safety.settings import STYLE_NAMES, SafetySettings, effective
from jhub_safety.spawner import SafeKubeSpawner
from jhub_safety.volumes.classes import Need
from jhub_safety.volumes.model import Question
from jhub_safety.volumes.names import Generation, Place, spare_names

#: Where the Zero to JupyterHub image has it, then where a hub started by hand has it.
DEFAULT_FILES = (
    Path("/usr/local/etc/jupyterhub/jupyterhub_config.py"),
    Path("jupyterhub_config.py"),
)

_OF_LABS = ("uid", "gid", "fs_gid", "node_selector", "tolerations", "image_pull_secrets")


@dataclass(frozen=True, slots=True)
class HubConfig:
    """The settings that decide about homes."""

    settings: SafetySettings
    hub_name: str
    #: "" when the configuration leaves it to the pod's own.
    namespace: str
    template: str
    slug_scheme: str
    db_url: str
    #: Storage classes that are configured, and for what.
    needs: tuple[Need, ...] = ()
    #: KubeSpawner's, as they are configured.
    volume_mounts: tuple[Any, ...] = ()
    #: Containers that the hub adds to a lab, as they are configured.
    containers: tuple[Any, ...] = ()
    #: What a home is configured to have; "" when the configuration leaves it open.
    storage_capacity: str = ""
    #: The whole of it.
    everything: Config = field(default_factory=Config)
    #: What is set of KubeSpawner's traits that say where and as whom labs run.
    of_labs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def connect_args(self) -> Mapping[str, Any]:
        """As :attr:`SessionsConfig.connect_args`."""
        return connect_args_of(self.everything)

    @property
    def per_server(self) -> bool:
        return Generation("configured", self.template, "safe").per_server

    def owner(self, user: str, server: str = "", identity: str | None = None) -> Owner:
        return Owner(self.hub_name, user, server if self.per_server else "", identity)

    def question(
        self, owner: Owner, saved: str | None, former_users: tuple[str, ...] = ()
    ) -> Question:
        """The question that a spawn of *owner* asks."""
        declared = self.settings.declared_generations(self.template, self.slug_scheme)
        style = STYLE_NAMES[0] if self.slug_scheme == "safe" else STYLE_NAMES[1]
        place = Place(self.namespace, self.namespace)
        generation = Generation("new", self.template, style)
        name = generation.render(owner, place=place)
        return Question(
            owner=owner,
            own_name=name or owner.claim_name,
            spare_names=spare_names(generation, owner, place=place),
            saved=saved,
            place=place,
            known=self.settings.known_generations(self.template, self.slug_scheme),
            declared=declared,
            per_server=self.per_server,
            former_users=former_users,
        )


@dataclass(frozen=True, slots=True)
class SessionsConfig:
    """The settings that decide about sessions, also where the spawner is no KubeSpawner."""

    reconciler: SessionReconciler
    hub_name: str
    #: "" when the configuration leaves it to the pod's own.
    namespace: str
    db_url: str
    #: Host and port at which the hub's own API is reached, from here and from labs.
    addresses: tuple[tuple[str, int], ...]
    #: Whether a hub with this configuration opens a control socket.
    compares: bool
    component_label: str
    user_namespaces: bool
    #: The whole of it.
    everything: Config

    @property
    def connect_args(self) -> Mapping[str, Any]:
        """How the hub connects to its database besides the address; may hold secrets."""
        return connect_args_of(self.everything)


def connect_args_of(config: Config) -> Mapping[str, Any]:
    """``connect_args`` of ``JupyterHub.db_kwargs``: TLS towards a server, for example."""
    return (config.JupyterHub.get("db_kwargs") or {}).get("connect_args") or {}


def load(path: Path | None, namespace: str) -> HubConfig:
    """Read the configuration file at *path*, or the first default one that exists.

    *namespace* counts where the file names none. The file is run as the hub runs it.

    Raises:
        ConfigError: there is no such file, or it cannot be used.
    """
    return understand(_run(path), namespace)


def load_sessions(path: Path | None, namespace: str) -> SessionsConfig:
    """The same file, for what it says of sessions.

    Raises:
        ConfigError: there is no such file, or it cannot be used.
    """
    return understand_sessions(_run(path), namespace)


def _run(path: Path | None) -> Config:
    chosen = path or next((file for file in DEFAULT_FILES if file.exists()), None)
    if chosen is None:
        raise ConfigError(
            "no jupyterhub_config.py found. Run this where the hub runs "
            "(kubectl exec -it deploy/hub -- jhub-safety ...) or name the file with --config."
        )
    chosen = chosen.absolute()
    try:
        # The chart's file prints what it loads; the commands' own output must stay theirs.
        with redirect_stdout(sys.stderr):
            return PyFileConfigLoader(chosen.name, path=str(chosen.parent)).load_config()
    except ConfigFileNotFound as error:
        what = "no such file" if not chosen.exists() else "a file that it includes is missing"
        raise ConfigError(f"{chosen}: {what}") from error
    except Exception as error:
        raise ConfigError(f"{chosen} cannot be run: {type(error).__name__}: {error}") from error


def understand(config: Config, namespace: str) -> HubConfig:
    """Raises ConfigError when a setting cannot be used."""
    cls = _spawner_class(config)
    check_settings(cls, config)
    ours = Config()
    for name in SafetySettings.class_trait_names(config=True):
        if (value := effective(cls, config, name)) is not None:
            ours.SafetySettings[name] = value
    settings = SafetySettings(config=ours)
    namespace = effective(cls, config, "namespace") or namespace
    of_labs = {name: effective(cls, config, name) for name in _OF_LABS}
    return HubConfig(
        settings=settings,
        hub_name=settings.hub_name or namespace,
        namespace=namespace,
        template=effective(cls, config, "pvc_name_template")
        # What a hub that only observes will do once it enforces is what people want to know.
        or default_template(cls, "enforce"),
        slug_scheme=effective(cls, config, "slug_scheme") or "safe",
        db_url=_db_url(config.JupyterHub.get("db_url") or "sqlite:///jupyterhub.sqlite"),
        needs=needs_of(cls, config),
        volume_mounts=mounts_of(cls, config),
        containers=containers_of(cls, config),
        storage_capacity=effective(cls, config, "storage_capacity") or "",
        everything=config,
        of_labs={name: value for name, value in of_labs.items() if value is not None},
    )


def understand_sessions(config: Config, namespace: str) -> SessionsConfig:
    """As the hub itself does it (hub/reconciling.py). Raises ConfigError."""
    chosen = _chosen_class(config)
    if not isinstance(chosen, type):
        raise ConfigError(f"JupyterHub.spawner_class {chosen!r} is no class")
    check_section(SessionReconciler, config)
    reconciler = SessionReconciler(config=config)
    safe = safe_class(chosen)
    cls: Any = safe or chosen
    mode = effective(cls, config, "sessions") or "enforce"
    if mode == "observe":
        reconciler.dry_run = True
    namespace = effective(cls, config, "namespace") or namespace
    return SessionsConfig(
        reconciler=reconciler,
        hub_name=effective(cls, config, "hub_name") or namespace,
        namespace=namespace,
        db_url=_db_url(config.JupyterHub.get("db_url") or "sqlite:///jupyterhub.sqlite"),
        addresses=_addresses(config),
        compares=reconciler.enabled
        and mode != "off"
        and (safe is not None or not reconciler.on_kubernetes),
        component_label=effective(cls, config, "component_label") or "singleuser-server",
        user_namespaces=bool(effective(cls, config, "enable_user_namespaces")),
        everything=config,
    )


def _addresses(config: Config) -> tuple[tuple[str, int], ...]:
    """Where the hub listens, and where labs reach it (app.py:1250, JupyterHub 6.1.1)."""
    hub = config.JupyterHub
    port = int(hub.get("hub_port") or 8081)
    found = [
        _address(hub.get("hub_bind_url") or "") or (hub.get("hub_ip") or "", port),
        _address(hub.get("hub_connect_url") or ""),
        (hub.hub_connect_ip, int(hub.get("hub_connect_port") or port))
        if hub.get("hub_connect_ip")
        else None,
    ]
    # An address that means every interface is reached on this one.
    own = {"": "127.0.0.1", "*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
    reached = [(own.get(one[0], one[0]), one[1]) for one in found if one is not None]
    return tuple(dict.fromkeys(reached))


def _address(url: str) -> tuple[str, int] | None:
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https"):
            return None
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise ConfigError(f"{url!r} is no URL of a hub: {error}") from error


def _db_url(configured: str) -> str:
    # A bare path, as JupyterHub takes it (app.py:1561, 6.1.1).
    return configured if "://" in configured else f"sqlite:///{configured}"


def _chosen_class(config: Config) -> Any:
    chosen = config.JupyterHub.get("spawner_class", SafeKubeSpawner)
    if isinstance(chosen, str):
        known = {point.name: point for point in entry_points(group="jupyterhub.spawners")}
        try:
            chosen = known[chosen].load() if chosen in known else import_item(chosen)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"JupyterHub.spawner_class {chosen!r}: {error}") from error
    return chosen


def _spawner_class(config: Config) -> type[Any]:
    chosen = _chosen_class(config)
    safe = safe_class(chosen) if isinstance(chosen, type) else None
    if safe is None:
        raise ConfigError(
            f"JupyterHub.spawner_class {chosen!r} is no KubeSpawner; it has no claims to look at."
        )
    return safe
