"""A kind of database of your own: MongoDB. An example to read; it has not been run.

Written after the documentation of MongoDB and of the official image. The project's own tests have
no MongoDB server: try it on one user first, with a stop and a start in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

from jhub_safety.sidecars.server import DatabaseServer


@dataclass(frozen=True, kw_only=True)
class MongoDB(DatabaseServer):
    """A MongoDB without accounts, for the lab only."""

    kind: ClassVar[str] = "mongodb"
    # "--bind_ip", "--bind_ip_all" and "--ipv6"; options may be cut short, as far as they are clear.
    listens: ClassVar[Mapping[str, frozenset[str]]] = MappingProxyType(
        {"bind.*": frozenset({"127.0.0.1", "localhost"})}
    )
    keys_for: ClassVar[Mapping[str, str]] = MappingProxyType({"port": "port", "dbpath": "folder"})

    ready: ClassVar[str] = (
        "mongosh --quiet --host 127.0.0.1 --port $JHS_PORT --eval 'db.adminCommand({ping: 1}).ok' "
        "| grep -q 1"
    )
    # A server starts on data of its own version and of the one before it. Data that is moved on
    # cannot go back, so a hub should decide that, not an image that was renewed.
    server_version: ClassVar[str] = (
        "mongod --version | sed -n 's/^db version v\\([0-9]*\\.[0-9]*\\).*/mongodb-\\1/p'"
    )
    data_version: ClassVar[str] = (
        "[ -e $JHS_DATA/WiredTiger ] && "
        "{ said=$(cat $JHS_DATA/../.jhub-safety-version); echo ${said:-unknown}; }"
    )

    image: str = "mongo:8.0"
    port: int = 27017
    # Its own default is half of the node's memory: a cache that no container of a lab has.
    resources: Mapping[str, Mapping[str, str]] = field(
        default_factory=lambda: MappingProxyType(
            {
                "requests": {"memory": "256Mi", "cpu": "0.01"},
                "limits": {"memory": "1Gi", "cpu": "1"},
            }
        )
    )

    def arguments(self) -> list[str]:
        # No last_arguments(): an option that is given twice is an error to mongod.
        return [
            "mongod",
            *("--dbpath", self.data),
            *("--bind_ip", "127.0.0.1"),
            *("--port", str(self.port)),
            *("--wiredTigerCacheSizeGB", "0.25"),
        ]

    def client_environment(self) -> dict[str, str]:
        return {"MONGODB_URI": f"mongodb://127.0.0.1:{self.port}/{self.database}"}
