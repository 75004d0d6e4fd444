"""MySQL and MariaDB, by their official images or ones that keep their contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from jhub_safety.sidecars.server import DatabaseServer

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
#: What the servers take before the name of an option, and still set it.
_BEFORE = "(?:loose_|skip_|enable_|disable_|maximum_)*"


@dataclass(frozen=True, kw_only=True)
class MySQL(DatabaseServer):
    """A MySQL whose accounts have no password, and which listens to nobody but the lab."""

    kind: ClassVar[str] = "mysql"
    listens: ClassVar[Mapping[str, frozenset[str]]] = MappingProxyType(
        # They also take any beginning of a name that is clear.
        {f"{_BEFORE}(?:mysqlx_)?bind(?:_.*)?": _LOOPBACK, f"{_BEFORE}admin_a.*": _LOOPBACK}
    )
    keys_for: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            f"{_BEFORE}(?:datad.*|innodb_data_h.*|innodb_log_g.*|innodb_undo_d.*)|-h": "folder",
            f"{_BEFORE}port|-P": "port",
            "(?:MYSQL|MARIADB)_DATABASE": "database",
        }
    )
    # The server of the first initialization has no network, so that TCP means ready. MariaDB 11
    # has no program of the former name any more.
    upgrade: ClassVar[str] = "see docs: Database upgrades, MySQL and MariaDB"
    ready: ClassVar[str] = (
        "$(command -v mariadb-admin || command -v mysqladmin) --no-defaults --protocol=tcp "
        "--host=127.0.0.1 --port=$JHS_PORT --user=$JHS_USER ping"
    )
    server_version: ClassVar[str] = (
        "$(command -v mariadbd || command -v mysqld) --no-defaults --version | sed -n "
        "-e 's/.* Ver \\([0-9]*\\.[0-9]*\\)[^ ]*MariaDB.*/mariadb-\\1/p' "
        "-e t -e 's/.* Ver \\([0-9]*\\.[0-9]*\\).*/mysql-\\1/p'"
    )
    # Written beside the data by this library. Data from before it, and a file that was cut off, say
    # "unknown", and the server itself refuses what it cannot read.
    data_version: ClassVar[str] = (
        "[ -d $JHS_DATA/mysql ] && "
        "{ said=$(cat $JHS_DATA/../.jhub-safety-version); echo ${said:-unknown}; }"
    )

    # Client programs log in by the name of the account that they run as. Refused, and left alone,
    # when the user has given root a password.
    after_ready: ClassVar[str] = (
        "$(command -v mariadb || command -v mysql) --no-defaults --protocol=tcp --host=127.0.0.1 "
        "--port=$JHS_PORT --user=root --execute=\"CREATE USER IF NOT EXISTS '$JHS_USER'@'%'; "
        "GRANT ALL ON *.* TO '$JHS_USER'@'%' WITH GRANT OPTION\""
    )

    image: str = "mysql:8.4"
    port: int = 3306

    def environment(self) -> dict[str, str]:
        return {"MYSQL_ALLOW_EMPTY_PASSWORD": "1", "MYSQL_DATABASE": self.database}

    def arguments(self) -> list[str]:
        # An argument that begins with "-" makes both images put their server's name before it.
        return [
            f"--datadir={self.data}",
            "--bind-address=127.0.0.1",
            f"--port={self.port}",
            # MySQL 8 has a second protocol, by default for everybody on port 33060. "loose":
            # MariaDB and the first initialization do not know it.
            "--loose-mysqlx-bind-address=127.0.0.1",
        ]

    def last_arguments(self) -> list[str]:
        return self.arguments()

    def client_environment(self) -> dict[str, str]:
        return {
            "MYSQL_HOST": "127.0.0.1",
            "MYSQL_TCP_PORT": str(self.port),
        }


@dataclass(frozen=True, kw_only=True)
class MariaDB(MySQL):
    """The same of MariaDB."""

    kind: ClassVar[str] = "mariadb"
    image: str = "mariadb:11.4"

    def environment(self) -> dict[str, str]:
        return {"MARIADB_ALLOW_EMPTY_ROOT_PASSWORD": "1", "MARIADB_DATABASE": self.database}
