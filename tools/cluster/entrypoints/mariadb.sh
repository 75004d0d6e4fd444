#!/bin/bash
# The entry point of our mariadb image. It keeps to what the official image promises: the same
# variables, paths, users and signals, so that the same values work with both.
set -Eeuo pipefail
shopt -s nullglob

EXTENSIONS=/docker-entrypoint-initdb.d

fail() {
    printf '[ERROR] [Entrypoint]: %s\n' "$*" >&2
    exit 1
}

say() {
    printf '[Note] [Entrypoint]: %s\n' "$*"
}

# setting NAME: exports MARIADB_NAME from itself, MYSQL_NAME, or the file of either's ..._FILE.
setting() {
    local mine="MARIADB_$1" name value='' source=''
    for name in "MARIADB_$1" "MYSQL_$1"; do
        local file="${name}_FILE"
        if [[ -n ${!name:-} && -n ${!file:-} ]]; then
            fail "both $name and $file are set: keep one"
        fi
        if [[ -z $source && -n ${!name:-} ]]; then
            value=${!name} source=$name
        elif [[ -z $source && -n ${!file:-} ]]; then
            value=$(<"${!file}") source=$file
        fi
        unset "$file"
    done
    export "$mine=$value"
}

only_informs() {
    local argument
    for argument; do
        case $argument in
            -'?' | --help | --print-defaults | -V | --version) return 0 ;;
        esac
    done
    return 1
}

# asked NAME ARGUMENTS...: the value of a setting that the server would start with.
asked() {
    local name=$1
    shift
    "$@" --verbose --help --log-bin-index="$(mktemp -u)" 2>/dev/null |
        awk -v name="$name" '$1 == name && /^[^ \t]/ { $1 = ""; sub(/^ +/, ""); print; exit }'
}

quoted() {
    local text=${1//\\/\\\\}
    printf "'%s'" "${text//\'/\\\'}"
}

identifier() {
    # shellcheck disable=SC2016
    printf '`%s`' "${1//\`/\`\`}"
}

client() {
    mariadb --no-defaults --protocol=socket --socket="$SOCKET" --user=root "$@"
}

# with_temporary_server TODO ARGUMENTS...: a server that only this script can reach.
with_temporary_server() {
    local todo=$1 process
    shift
    "$@" --skip-networking --socket="$SOCKET" --wsrep-on=OFF --skip-log-bin \
        --loose-innodb-buffer-pool-load-at-startup=0 &
    process=$!
    local tries=600
    until client --database=mysql --execute='SELECT 1' >/dev/null 2>&1; do
        kill -0 "$process" 2>/dev/null || fail 'the temporary server ended'
        ((tries-- > 0)) || fail 'the temporary server does not answer'
        sleep 0.1
    done
    "$todo"
    kill "$process"
    wait "$process" || fail 'the temporary server did not end well'
}

require_password() {
    if [[ -z $MARIADB_ROOT_PASSWORD$MARIADB_ROOT_PASSWORD_HASH$MARIADB_ALLOW_EMPTY_ROOT_PASSWORD$MARIADB_RANDOM_ROOT_PASSWORD ]]; then
        fail "the database is not initialised and root has no password: set one of" \
            "MARIADB_ROOT_PASSWORD, MARIADB_ROOT_PASSWORD_HASH," \
            "MARIADB_ALLOW_EMPTY_ROOT_PASSWORD, MARIADB_RANDOM_ROOT_PASSWORD"
    fi
}

initialise() {
    say 'Initializing database files'
    local options=("${@:2}")
    mariadb-install-db --datadir="$DATADIR" --rpm --auth-root-authentication-method=normal \
        --skip-test-db --cross-bootstrap \
        ${options[@]+"${options[@]}"} --loose-innodb-buffer-pool-load-at-startup=0 >/dev/null
}

fill() {
    if [[ -z ${MARIADB_INITDB_SKIP_TZINFO:-} ]]; then
        { echo 'SET SESSION sql_log_bin=0;'; mariadb-tzinfo-to-sql /usr/share/zoneinfo 2>/dev/null; } |
            client --database=mysql
    fi
    run_extensions() {
        local file database=()
        if [[ -n $MARIADB_DATABASE ]]; then database=(--database="$MARIADB_DATABASE"); fi
        for file in "$EXTENSIONS"/*; do
            say "$file"
            case $file in
                *.sh)
                    if [[ -x $file ]]; then
                        "$file"
                    else
                        # shellcheck disable=SC1090
                        source "$file"
                    fi
                    ;;
                *.sql) client "${database[@]}" <"$file" ;;
                *.sql.gz) gunzip -c "$file" | client "${database[@]}" ;;
                *.sql.xz) xzcat "$file" | client "${database[@]}" ;;
                *.sql.zst) zstd -dc "$file" | client "${database[@]}" ;;
                *) say "ignored: $file" ;;
            esac
        done
    }
    local by='' health host
    if [[ -n $MARIADB_RANDOM_ROOT_PASSWORD ]]; then
        MARIADB_ROOT_PASSWORD=$(head -c 24 /dev/urandom | base64)
        say "GENERATED ROOT PASSWORD: $MARIADB_ROOT_PASSWORD"
    fi
    health=$(head -c 24 /dev/urandom | base64)
    if [[ -n $MARIADB_ROOT_PASSWORD_HASH ]]; then
        by="IDENTIFIED BY PASSWORD $(quoted "$MARIADB_ROOT_PASSWORD_HASH")"
    else
        by="IDENTIFIED BY $(quoted "$MARIADB_ROOT_PASSWORD")"
    fi
    {
        for host in localhost 127.0.0.1 ::1; do
            echo "CREATE USER healthcheck@'$host' IDENTIFIED BY $(quoted "$health");"
        done
        if [[ -n $MARIADB_DATABASE ]]; then
            echo "CREATE DATABASE IF NOT EXISTS $(identifier "$MARIADB_DATABASE");"
        fi
        if [[ -n $MARIADB_USER && -n $MARIADB_PASSWORD$MARIADB_PASSWORD_HASH ]]; then
            if [[ -n $MARIADB_PASSWORD_HASH ]]; then
                echo "CREATE USER $(quoted "$MARIADB_USER")@'%' IDENTIFIED BY PASSWORD" \
                    "$(quoted "$MARIADB_PASSWORD_HASH");"
            else
                echo "CREATE USER $(quoted "$MARIADB_USER")@'%' IDENTIFIED BY" \
                    "$(quoted "$MARIADB_PASSWORD");"
            fi
            if [[ -n $MARIADB_DATABASE ]]; then
                echo "GRANT ALL ON $(identifier "${MARIADB_DATABASE//_/\\_}").*" \
                    "TO $(quoted "$MARIADB_USER")@'%';"
            fi
        fi
    } | client --database=mysql
    printf '[mariadb-client]\nport=3306\nsocket=%s\nuser=healthcheck\npassword=%s\n' \
        "$SOCKET" "$health" >"$DATADIR/.my-healthcheck.cnf"
    run_extensions
    # Last: from now on the client above would need a password.
    {
        if [[ $MARIADB_ROOT_HOST != localhost ]]; then
            echo "CREATE USER root@$(quoted "$MARIADB_ROOT_HOST") $by;"
            echo "GRANT ALL ON *.* TO root@$(quoted "$MARIADB_ROOT_HOST") WITH GRANT OPTION;"
            echo "GRANT PROXY ON ''@'%' TO root@$(quoted "$MARIADB_ROOT_HOST") WITH GRANT OPTION;"
        fi
        # mariadb-install-db makes these two without a password.
        echo "DROP USER IF EXISTS root@'127.0.0.1', root@'::1';"
        echo "ALTER USER root@localhost $by;"
    } | client --database=mysql
}

upgrade() {
    mariadb-upgrade --no-defaults --protocol=socket --socket="$SOCKET" --user=root \
        --upgrade-system-tables
}

upgrade_if_needed() {
    local now before='' file
    for file in "$DATADIR/mariadb_upgrade_info" "$DATADIR/mysql_upgrade_info"; do
        if [[ -s $file ]]; then
            read -r -d '' before <"$file" || true
            break
        fi
    done
    now=$(mariadbd --version | sed -E 's/.*Ver ([0-9]+\.[0-9]+\.[0-9]+-MariaDB).*/\1/')
    if [[ ${before%%[[:space:]]*} == "$now" ]]; then
        return
    fi
    if [[ -z $MARIADB_AUTO_UPGRADE ]]; then
        say "The system tables are of ${before:-an unknown version} and this is $now:" \
            "MARIADB_AUTO_UPGRADE=1 upgrades them"
        return
    fi
    say "Upgrading the system tables from ${before:-an unknown version} to $now"
    if [[ -z $MARIADB_DISABLE_UPGRADE_BACKUP ]]; then
        backup() {
            mariadb-dump --no-defaults --protocol=socket --socket="$SOCKET" --user=root \
                --skip-lock-tables --databases mysql | gzip \
                >"$DATADIR/system_mysql_backup_${before:-unknown}.sql.gz"
        }
        with_temporary_server backup "$@" --skip-grant-tables
    fi
    with_temporary_server upgrade "$@" --skip-grant-tables
}

if [[ ${1:-} == -* || $# -eq 0 ]]; then
    set -- mariadbd "$@"
fi

if [[ $1 == mariadbd || $1 == mysqld ]] && ! only_informs "${@:2}"; then
    DATADIR=$(asked datadir "$@")
    SOCKET=$(asked socket "$@")
    DATADIR=${DATADIR%/}
    [[ -n $DATADIR && -n $SOCKET ]] || fail "the server refuses its settings: $("$@" --verbose --help 2>&1 >/dev/null | tail -n 3)"
    if (($(id -u) == 0)); then
        mkdir -p "$DATADIR" "${SOCKET%/*}"
        find "$DATADIR" "${SOCKET%/*}" ! -user mysql -exec chown mysql: {} +
        export HOME=/var/lib/mysql
        exec setpriv --reuid mysql --regid mysql --init-groups "${BASH_SOURCE[0]}" "$@"
    fi
    mkdir -p "$DATADIR"
    # The one variable that has another name there.
    : "${MYSQL_ALLOW_EMPTY_ROOT_PASSWORD:=${MYSQL_ALLOW_EMPTY_PASSWORD:-}}"
    for name in ROOT_HOST ROOT_PASSWORD ROOT_PASSWORD_HASH ALLOW_EMPTY_ROOT_PASSWORD \
        RANDOM_ROOT_PASSWORD DATABASE USER PASSWORD PASSWORD_HASH AUTO_UPGRADE \
        DISABLE_UPGRADE_BACKUP; do
        setting "$name"
    done
    MARIADB_ROOT_HOST=${MARIADB_ROOT_HOST:-%}
    if [[ ! -d $DATADIR/mysql ]]; then
        require_password
        ls "$EXTENSIONS/" >/dev/null # fails now, not when the data is half made
        initialise "$@"
        with_temporary_server fill "$@"
        # So that the next start has nothing to upgrade.
        printf '%s' "$(mariadbd --version | sed -E 's/.*Ver ([0-9]+\.[0-9]+\.[0-9]+-MariaDB).*/\1/')" \
            >"$DATADIR/mysql_upgrade_info"
        say 'MariaDB init process done. Ready for start up.'
    else
        upgrade_if_needed "$@"
    fi
fi
exec "$@"
