"""A kind of database of your own: Redis. Copy it and change it.

Put it where the hub can import it: beside jupyterhub_config.py, or in the hub's image. Then

    c.SafeKubeSpawner.databases = ["redis_database.Redis"]

gives each user a Redis of their own. docs/extending.md explains each part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from jhub_safety.sidecars.server import DatabaseServer


@dataclass(frozen=True, kw_only=True)
class Redis(DatabaseServer):
    """A Redis whose every write is on the volume within a second."""

    kind: ClassVar[str] = "redis"

    # It asks for no password, so it may listen to nobody but the lab. What a hub writes in "args"
    # is checked against this when the hub starts ...
    listens: ClassVar[Mapping[str, frozenset[str]]] = MappingProxyType(
        {"bind": frozenset({"127.0.0.1"}), "protected_mode": frozenset({"yes"})}
    )
    # ... and against this: what has a key of its own in the entry.
    keys_for: ClassVar[Mapping[str, str]] = MappingProxyType({"port": "port", "dir": "folder"})

    # Succeeds when the server answers. While it loads its data it does not: "LOADING".
    ready: ClassVar[str] = '[ "$(redis-cli -h 127.0.0.1 -p $JHS_PORT ping)" = PONG ]'
    # Both print "redis-7". A newer server reads what an older one wrote, but not the other way;
    # taking versions for equal or not keeps a hub from finding that out with its users' data.
    server_version: ClassVar[str] = (
        "redis-server --version | sed -n 's/.* v=\\([0-9]*\\)\\..*/redis-\\1/p'"
    )
    # Redis does not write its version in plain words: the library keeps it beside the data.
    data_version: ClassVar[str] = (
        "[ -d $JHS_DATA/appendonlydir ] && "
        "{ said=$(cat $JHS_DATA/../.jhub-safety-version); echo ${said:-unknown}; }"
    )

    # Defaults of what an entry may say.
    image: str = "redis:7"
    port: int = 6379

    def arguments(self) -> list[str]:
        return ["redis-server", *self.last_arguments(), "--appendonly", "yes"]

    def last_arguments(self) -> list[str]:
        return [
            *("--bind", "127.0.0.1"),
            # The official image turns it off.
            *("--protected-mode", "yes"),
            *("--port", str(self.port)),
            *("--dir", self.data),
        ]

    def client_environment(self) -> dict[str, str]:
        return {"REDIS_URL": f"redis://127.0.0.1:{self.port}/0"}
