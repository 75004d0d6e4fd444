"""What the hub looks at once it has started, and logs: nothing here delays or fails a start."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any

from kubespawner.clients import load_config, shared_client
from traitlets.config import Config

from jhub_safety.cluster import storageclasses
from jhub_safety.errors import Doubt
from jhub_safety.finding import Finding, Severity
from jhub_safety.homes import inherited_default
from jhub_safety.settings import SafetySettings, effective
from jhub_safety.volumes.classes import Need, check, needs, not_seen
from jhub_safety.volumes.mounts import check_sub_paths

if TYPE_CHECKING:
    from jupyterhub.app import JupyterHub

#: Seconds after which a cluster that does not answer is not waited for.
TIMEOUT = 30.0


def needs_of(cls: type[Any], config: Config) -> tuple[Need, ...]:
    """Which storage classes a hub with spawner class *cls* and this *config* will ask for.

    What profiles override for a single server is not known beforehand.
    """

    def setting(name: str) -> Any:
        value = effective(cls, config, name)
        return inherited_default(cls, name)[0] if value is None else value

    ours = Config()
    for name in ("extra_pvcs", "databases"):
        if (entries := effective(cls, config, name)) is not None:
            ours.SafetySettings[name] = entries
    settings = SafetySettings(config=ours)
    return needs(
        settings.extra_volumes(),
        homes=bool(setting("storage_pvc_ensure")),
        home_class=setting("storage_class"),
        home_capacity=setting("storage_capacity"),
        grow_homes=bool(effective(cls, config, "grow_homes")),
    )


def mounts_of(cls: type[Any], config: Config) -> tuple[Any, ...]:
    """``volume_mounts``, which may be a dictionary by any key."""
    mounts = effective(cls, config, "volume_mounts") or []
    return tuple(mounts.values() if isinstance(mounts, Mapping) else mounts)


def containers_of(cls: type[Any], config: Config) -> tuple[Any, ...]:
    """``extra_containers`` and ``init_containers``, which may be dictionaries by any key."""
    found: list[Any] = []
    for name in ("extra_containers", "init_containers"):
        containers = effective(cls, config, name) or []
        found += containers.values() if isinstance(containers, Mapping) else containers
    return tuple(found)


def look_at_folders(cls: type[Any], config: Config) -> list[Finding]:
    """Whether homes on one claim are looked for, and where they are mounted."""
    return check_sub_paths(
        effective(cls, config, "home_sub_path") or "",
        effective(cls, config, "homes") or "enforce",
        mounts_of(cls, config),
    )


async def look_at_classes(cls: type[Any], config: Config) -> list[Finding]:
    """Ask the cluster; its not answering is a finding."""
    wanted = needs_of(cls, config)
    if not wanted:
        return []
    # As a spawner does it (kubespawner/spawner.py:222, 7.1.0); there may be none yet.
    load_config(
        host=effective(cls, config, "k8s_api_host") or "",
        ssl_ca_cert=effective(cls, config, "k8s_api_ssl_ca_cert") or "",
        verify_ssl=effective(cls, config, "k8s_api_verify_ssl"),
    )
    try:
        found = await storageclasses.read_all(shared_client("CoreV1Api"), timeout=TIMEOUT)
    except Doubt as doubt:
        return [not_seen(doubt)]
    # Not the claims: thousands are doctor's business, not a starting hub's.
    return check(found, wanted)


def wire(app: JupyterHub, spawner_class: type) -> None:
    """Look once, in the background, when the hub has started."""
    start, cleanup = app.start, app.cleanup
    tasks: list[asyncio.Task[None]] = []

    @wraps(start)
    async def started() -> None:
        await start()
        # "jupyterhub token" and "upgrade-db" return from start() at once.
        if app._start_future.done():
            tasks.append(asyncio.ensure_future(_look(app, spawner_class)))

    @wraps(cleanup)
    async def cleaned_up() -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await cleanup()

    app.start, app.cleanup = started, cleaned_up


async def _look(app: JupyterHub, spawner_class: type) -> None:
    try:
        found = look_at_folders(spawner_class, app.config)
        for finding in [*found, *await look_at_classes(spawner_class, app.config)]:
            tell(app, finding)
    except Exception as error:  # noqa: BLE001 - the hub serves; what is missing is said
        app.log.warning("The hub was not looked at whole: %s", type(error).__name__)


def tell(app: JupyterHub, finding: Finding) -> None:
    """Warn of what will surprise somebody. What could not be looked at is no alarm."""
    if finding.severity is Severity.OK:
        return
    level = "info" if finding.severity is Severity.UNKNOWN else "warning"
    getattr(app.log, level)("%s (%s) %s", finding.severity, finding.code, finding)
