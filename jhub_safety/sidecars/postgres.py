"""PostgreSQL, by the official image (13 to 18) or one that keeps its contract."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from jhub_safety.errors import ConfigError
from jhub_safety.sidecars.checks import plain_option
from jhub_safety.sidecars.server import DatabaseServer

#: One-letter options without a value, and what the others mean that matter here (postgres(1)).
_BARE = "bEeFijlnOPsT"
_LETTERS = {"h": "listen_addresses", "D": "data_directory", "p": "port"}


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
    keys_for: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "data_directory|PGDATA|POSTGRES_INITDB_WALDIR": "folder",
            "port": "port",
            "POSTGRES_USER": "user",
            "POSTGRES_DB": "database",
        }
    )
    # The server of the first initialization has a Unix socket only, so that TCP means ready.
    # Without a user name it asks for that of an account which an arbitrary uid does not have.
    upgrade: ClassVar[str] = "jhub-safety databases upgrade --help"
    ready: ClassVar[str] = (
        "pg_isready --quiet --host 127.0.0.1 --port $JHS_PORT --username $JHS_USER"
    )
    server_version: ClassVar[str] = (
        "postgres --version | sed -n 's/^postgres (PostgreSQL) \\([0-9]*\\).*/\\1/p'"
    )
    data_version: ClassVar[str] = "cat $JHS_DATA/PG_VERSION"

    # It holds a pid of the former container. Where any process here has it by chance, the server
    # says "lock file already exists" and ends: seen at every second start after a node was lost.
    stale: ClassVar[str] = "rm -f $JHS_DATA/postmaster.pid"

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

    def last_arguments(self) -> list[str]:
        return self.arguments()[1:]

    @classmethod
    def options(cls, args: Sequence[str]) -> list[tuple[str, str]]:
        """As the server reads them: "-c name=value", "-cname=value", "--name=value", "-Fi"."""
        found = []
        words = iter(args)
        for word in words:
            letters = word.strip()[1:] if word.strip().startswith("-") else ""
            while letters and letters[0] in _BARE:
                if letters[0] == "i":
                    found.append(("listen_addresses", "*"))
                letters = letters[1:]
            if not letters:
                continue
            value = letters[1:] or next(words, "")
            if letters[0] in "c-":
                name, _, value = value.partition("=")
                found.append((plain_option(name), value.strip()))
            else:
                found.append((_LETTERS.get(letters[0], f"-{letters[0]}"), value.strip()))
        return found

    def check(self, where: str) -> None:
        super().check(where)
        if re.search(r"waldir|(^|\s)-X", self.env.get("POSTGRES_INITDB_ARGS", "")):
            raise ConfigError(
                f"{where}.env: POSTGRES_INITDB_ARGS would put a part of the data outside of its "
                "claim, and it would be lost when the lab stops. Leave --waldir out"
            )

    def client_environment(self) -> dict[str, str]:
        return {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": self.user,
            "PGDATABASE": self.database,
        }
