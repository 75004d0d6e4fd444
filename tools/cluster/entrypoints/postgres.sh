#!/bin/bash
# The entry point of our postgres images. It keeps to what the official image promises: the same
# variables, paths, users and signals, so that the same values work with both.
set -Eeuo pipefail
shopt -s nullglob

SOCKETS=/var/run/postgresql
EXTENSIONS=/docker-entrypoint-initdb.d

fail() {
    printf 'Error: %s\n' "$*" >&2
    exit 1
}

# setting NAME [DEFAULT]: exports NAME from itself, from the file that NAME_FILE names, or DEFAULT.
setting() {
    local name=$1 file="$1_FILE" value
    if [[ -n ${!name:-} && -n ${!file:-} ]]; then
        fail "both $name and $file are set: keep one"
    fi
    value=${!name:-${2:-}}
    if [[ -n ${!file:-} ]]; then
        value=$(<"${!file}")
    fi
    export "$name=$value"
    unset "$file"
}

# For commands that only print something a server is neither needed nor made.
only_informs() {
    local argument
    for argument; do
        case $argument in
            -'?' | --help | --describe-config | -V | --version) return 0 ;;
        esac
    done
    return 1
}

make_folders() {
    local mine=$1
    mkdir -p "$PGDATA" "$SOCKETS"
    # A volume's root may be another's: then initdb or the server say what is wrong with it.
    chmod 0700 "$PGDATA" || true
    chmod 3775 "$SOCKETS" || true
    if [[ -n ${POSTGRES_INITDB_WALDIR:-} ]]; then
        mkdir -p "$POSTGRES_INITDB_WALDIR"
        chmod 0700 "$POSTGRES_INITDB_WALDIR"
    fi
    if [[ $mine == root ]]; then
        find "$PGDATA" "$SOCKETS" ${POSTGRES_INITDB_WALDIR:+"$POSTGRES_INITDB_WALDIR"} \
            ! -user postgres -exec chown postgres {} +
    fi
}

# From 18 on the volume is /var/lib/postgresql. Data, or a volume, at an earlier version's place
# would be passed over silently, and an empty database made beside it.
refuse_data_elsewhere() {
    ((PG_MAJOR >= 18)) || return 0
    [[ $PGDATA == "/var/lib/postgresql/$PG_MAJOR/docker" && ! -s $PGDATA/PG_VERSION ]] || return 0
    local place found=()
    for place in /var/lib/postgresql /var/lib/postgresql/data /var/lib/postgresql/*/docker; do
        if [[ -s $place/PG_VERSION ]]; then found+=("$place"); fi
    done
    if grep -q ' /var/lib/postgresql/data ' /proc/self/mountinfo; then
        found+=("/var/lib/postgresql/data (a volume that would not be used)")
    fi
    ((${#found[@]} == 0)) || fail "from PostgreSQL 18 on the data is in $PGDATA and the volume is" \
        "/var/lib/postgresql, but there is: ${found[*]}. Nothing was changed."
}

require_password() {
    if [[ -z $POSTGRES_PASSWORD && $POSTGRES_HOST_AUTH_METHOD != trust ]]; then
        fail "the database is not initialised and the superuser has no password: set" \
            "POSTGRES_PASSWORD, or POSTGRES_HOST_AUTH_METHOD=trust to let everybody in without one"
    fi
}

# initdb refuses a uid that has no name. libnss-wrapper gives it one, for initdb alone.
initialise() {
    local arguments=() password=/dev/null names=()
    eval "arguments=($POSTGRES_INITDB_ARGS)"
    if [[ -n ${POSTGRES_INITDB_WALDIR:-} ]]; then
        arguments+=(--waldir "$POSTGRES_INITDB_WALDIR")
    fi
    if ! getent passwd "$(id -u)" >/dev/null; then
        local wrapper
        for wrapper in /usr/lib/*/libnss_wrapper.so /usr/lib/libnss_wrapper.so; do
            names=(
                LD_PRELOAD="$wrapper"
                NSS_WRAPPER_PASSWD="$(mktemp)"
                NSS_WRAPPER_GROUP="$(mktemp)"
            )
            echo "postgres:x:$(id -u):$(id -g):PostgreSQL:$PGDATA:/bin/false" \
                >"${names[1]#*=}"
            echo "postgres:x:$(id -g):" >"${names[2]#*=}"
            break
        done
    fi
    if [[ -n $POSTGRES_PASSWORD ]]; then
        password=$(mktemp)
        printf '%s\n' "$POSTGRES_PASSWORD" >"$password"
        arguments=(--pwfile "$password" "${arguments[@]}")
    fi
    local code=0
    env ${names[@]+"${names[@]}"} \
        initdb --pgdata "$PGDATA" --username "$POSTGRES_USER" "${arguments[@]}" || code=$?
    [[ $password == /dev/null ]] || rm -f "$password"
    ((${#names[@]} == 0)) || rm -f "${names[1]#*=}" "${names[2]#*=}"
    ((code == 0)) || exit "$code"
    # Some builds of the server look for their socket in /tmp, as do their clients.
    if [[ $(postgres -D "$PGDATA" -C unix_socket_directories) == /tmp ]]; then
        echo "unix_socket_directories = '$SOCKETS, /tmp'" >>"$PGDATA/postgresql.conf"
    fi
}

allow_hosts() {
    local method=$POSTGRES_HOST_AUTH_METHOD
    if [[ -z $method ]]; then
        method=$(postgres -D "$PGDATA" "$@" -C password_encryption)
    fi
    printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"
}

run_sql() {
    local database=$1
    shift
    PGHOST=$SOCKETS PGHOSTADDR='' psql --no-psqlrc --no-password --set ON_ERROR_STOP=1 \
        --username "$POSTGRES_USER" --dbname "$database" "$@"
}

run_extensions() {
    local file
    for file in "$EXTENSIONS"/*; do
        echo "$0: $file"
        case $file in
            *.sh)
                if [[ -x $file ]]; then
                    "$file"
                else
                    # shellcheck disable=SC1090
                    source "$file"
                fi
                ;;
            *.sql) run_sql "$POSTGRES_DB" --file "$file" ;;
            *.sql.gz) gunzip -c "$file" | run_sql "$POSTGRES_DB" ;;
            *.sql.xz) xzcat "$file" | run_sql "$POSTGRES_DB" ;;
            *.sql.zst) zstd -dc "$file" | run_sql "$POSTGRES_DB" ;;
            *) echo "$0: ignored: $file" ;;
        esac
    done
}

# A server that nobody but this script can reach, for as long as its argument takes.
with_temporary_server() {
    local todo=$1 options
    shift
    options=$(printf '%q ' "$@" -c listen_addresses= -p "${PGPORT:-5432}")
    pg_ctl --pgdata "$PGDATA" --options "$options" --wait start
    "$todo"
    pg_ctl --pgdata "$PGDATA" --mode fast --wait stop
}

fill() {
    export PGPASSWORD="${PGPASSWORD:-$POSTGRES_PASSWORD}"
    local known
    known=$(run_sql postgres --tuples-only --no-align --set name="$POSTGRES_DB" \
        <<<"SELECT 1 FROM pg_database WHERE datname = :'name'")
    if [[ -z $known ]]; then
        run_sql postgres --set name="$POSTGRES_DB" <<<'CREATE DATABASE :"name"'
    fi
    run_extensions
    unset PGPASSWORD
}

if [[ ${1:-} == -* || $# -eq 0 ]]; then
    set -- postgres "$@"
fi

if [[ $1 == postgres ]] && ! only_informs "${@:2}"; then
    if (($(id -u) == 0)); then
        make_folders root
        export HOME=/var/lib/postgresql
        exec setpriv --reuid postgres --regid postgres --init-groups "${BASH_SOURCE[0]}" "$@"
    fi
    make_folders other
    setting POSTGRES_PASSWORD
    setting POSTGRES_USER postgres
    setting POSTGRES_DB "$POSTGRES_USER"
    setting POSTGRES_INITDB_ARGS
    export POSTGRES_HOST_AUTH_METHOD=${POSTGRES_HOST_AUTH_METHOD:-}
    if [[ ! -s $PGDATA/PG_VERSION ]]; then
        refuse_data_elsewhere
        require_password
        ls "$EXTENSIONS/" >/dev/null # fails now, not when the data is half made
        initialise
        allow_hosts "${@:2}"
        with_temporary_server fill "${@:2}"
        echo 'PostgreSQL init process complete; ready for start up.'
    else
        echo 'The data folder has a database: initialisation is left out.'
    fi
fi
exec "$@"
