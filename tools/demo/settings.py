"""Where demo and drill keep things, and the settings file that their hub's configuration reads."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from tools.cluster import ClusterError, ClusterInfo

from .hub import HubProcess, cache_dir

CONFIG = Path(__file__).with_name("jupyterhub_config.py")
CLUSTER = "demo"
# Names the settings file to the configuration file.
VARIABLE = "JHUB_SAFETY_DEMO"


@dataclass(frozen=True)
class Settings:
    """What jupyterhub_config.py needs to know.

    safe: with the library; False is plain KubeSpawner.
    databases: what c.SafeKubeSpawner.databases is to be. None: none, and an init container
        of the hub's own gives homes to their users, as plain KubeSpawner needs it.
    """

    namespace: str
    lab_image: str
    init_image: str
    storage_class: str
    password: str
    safe: bool
    admins: tuple[str, ...] = ()
    databases: tuple[dict[str, str], ...] | None = None


def state_dir(name: str) -> Path:
    """~/.cache/jhub-safety/NAME, for its owner only: the password lies in it."""
    path = cache_dir() / name
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def password(state: Path) -> str:
    """Made at the first start and kept, so that a browser's saved one still works."""
    file = state / "password"
    if not file.exists():
        _write_private(file, secrets.token_urlsafe(12))
    return file.read_text()


def namespace_for(cluster: ClusterInfo, wanted: str) -> str:
    """`wanted`, or the only namespace that may be used on a cluster that is not ours alone."""
    return cluster.namespace or wanted


def make_hub(
    cluster: ClusterInfo, settings: Settings, state: Path, *, port: int | None = None
) -> HubProcess:
    """The hub of demo or drill, not started yet."""
    file = state / "settings.json"
    _write_private(file, json.dumps(asdict(settings), indent=2))
    environment = {"KUBECONFIG": str(cluster.kubeconfig), VARIABLE: str(file)}
    return HubProcess(
        CONFIG, state / "hub", environment=environment, hub_ip=hub_ip(cluster), port=port
    )


def hub_ip(cluster: ClusterInfo) -> str:
    """Address of this machine on which the cluster's pods reach a hub. Raises ClusterError."""
    chosen = os.environ.get("JHUB_SAFETY_HOST_IP") or cluster.host_ip
    if not chosen:
        # Listening everywhere to make it work would show the demo to the whole network.
        raise ClusterError(
            f"It is not known under which address the pods of {cluster.server} reach this machine:"
            " name one of this machine's addresses in JHUB_SAFETY_HOST_IP. The hub's API will"
            " listen on it."
        )
    return chosen


def _write_private(file: Path, text: str) -> None:
    # Made anew with its mode: one that exists may have been opened by others already.
    file.unlink(missing_ok=True)
    file.touch(mode=0o600, exist_ok=False)
    file.write_text(text)
