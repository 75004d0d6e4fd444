"""PostgreSQL, by the official image (13 to 18) or one that keeps its contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from jhub_safety.sidecars.server import DatabaseServer


@dataclass(frozen=True, kw_only=True)
class Postgres(DatabaseServer):
    """A PostgreSQL that trusts whoever comes from the lab, and listens to nobody else."""

    kind: ClassVar[str] = "postgres"
    #: "Fast" shutdown. At SIGTERM it waits until each client has left.
    stop_signal: ClassVar[str] = "INT"
    data_mode: ClassVar[str] = "0700"
    listens: ClassVar[Mapping[str, frozenset[str]]] = MappingProxyType(
        {"listen_addresses": frozenset({"127.0.0.1", "localhost", "::1"})}
    )
    # The server of the first initialization has a Unix socket only, so that TCP means ready.
    # Without a user name it asks for that of an account which an arbitrary uid does not have.
    ready: ClassVar[str] = (
        "pg_isready --quiet --host 127.0.0.1 --port $JHS_PORT --username $JHS_USER"
    )
    server_version: ClassVar[str] = (
        "postgres --version | sed -n 's/^postgres (PostgreSQL) \\([0-9]*\\).*/\\1/p'"
    )
    data_version: ClassVar[str] = "cat $JHS_DATA/PG_VERSION"

    image: str = "postgres:17"
    port: int = 5432

    def environment(self) -> dict[str, str]:
        return {
            "POSTGRES_USER": self.user,
            "POSTGRES_DB": self.database,
            "POSTGRES_HOST_AUTH_METHOD": "trust",
            "PGDATA": self.data,
        }

    def arguments(self) -> list[str]:
        return ["postgres", "-c", "listen_addresses=127.0.0.1", "-c", f"port={self.port}"]

    def client_environment(self) -> dict[str, str]:
        return {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": self.user,
            "PGDATABASE": self.database,
        }
