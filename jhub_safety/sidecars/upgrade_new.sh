# Moves the data of one volume to another major version of PostgreSQL, by dump and restore. First
# process of the container with the new image; the old version runs beside it (upgrade_old.sh).
#
# - The old folder is opened by no server and never deleted. Its name changes, at the very end.
# - What is half made when this is killed is thrown away by the next run.
# - Only names change once the new folder is whole and was compared with the old one. Killed
#   between the two renames, the next run completes them, or the keeper of the user's next lab.
#
# Files in the volume, each with the words TO KEPT SEAL:
#   .jhub-safety-upgrading   the folder data.new-TO is ours, and not whole
#   .jhub-safety-switching   it is whole; the same file, renamed
# KEPT is the old folder's new name. SEAL tells whether a server has used the old folder since.
#
# Environment: JHS_DATA, JHS_USER, and what the official image takes for its first start.
# JHS_SHARE, JHS_MESSAGE and JHS_MOUNTS: other paths, for tests.
set -u
share=${JHS_SHARE:-/run/jhub-safety-upgrade}
message=${JHS_MESSAGE:-/dev/termination-log}
volume=${JHS_DATA%/*}
upgrading=$volume/.jhub-safety-upgrading
switching=$volume/.jhub-safety-switching
server=
pulse=
# Whether the unfinished folder is this run's. Without the lock it may be another's.
mine=

say() { echo "jhub-safety: $*"; }

# end CODE WORD...: what the command reads. Plain words only; it makes sentences of them.
end() {
    say "$@"
    echo "jhub-safety $*" >"$message"
    case $1 in upgraded | already | nothing) exit 0 ;; *) exit 1 ;; esac
}

# shellcheck disable=SC2329 # by the traps
leave() {
    : >"$share/end"
    [ -z "$pulse" ] || kill "$pulse" 2>/dev/null
    if [ -n "$server" ]; then
        kill -s QUIT "$server" 2>/dev/null
        wait "$server"
    fi
    # Its room is the user's.
    [ -z "$mine" ] || discard
}
trap leave EXIT
trap 'exit 1' TERM INT

flush() { sync -f "$volume" 2>/dev/null || sync; }

# Sets seal: changes whenever a server starts on the old folder, or ends.
take_seal() {
    seal=$(sha256sum <"$JHS_DATA/global/pg_control" | cut -c 1-64)
    [ -n "$seal" ] || end unknown-data
}

# Sets to, kept and sum. The user's SQL can write to this volume.
read_words() {
    read -r to kept sum <"$1"
    case $to in "" | *[!0-9]*) end marker ;; esac
    case $kept in */* | "" | .*) end marker ;; esac
}

discard() {
    [ -s "$upgrading" ] || return 0
    read_words "$upgrading"
    rm -rf "$JHS_DATA.new-$to"
    rm -f "$upgrading"
}

switch() {
    read_words "$switching"
    if [ -e "$JHS_DATA" ]; then
        [ ! -e "$volume/$kept" ] || end in-the-way "$kept"
        mv "$JHS_DATA" "$volume/$kept" || end rename
    fi
    mv "$JHS_DATA.new-$to" "$JHS_DATA" || end rename
    flush
    rm -f "$switching"
}

lock() {
    command -v flock >/dev/null || end no-lock
    # The new server inherits it: it is held until the last of its processes has ended.
    exec 9>>"$volume/.jhub-safety-lock"
    left=20
    until trouble=$(flock -n 9 2>&1); do
        [ -z "$trouble" ] || end no-lock
        [ "$left" -gt 0 ] || end busy
        left=$((left - 1))
        sleep 1
    done
}

finish_what_was_begun() {
    if [ -s "$switching" ]; then
        read_words "$switching"
        # Made by a container runtime or a keeper between the two renames. Goes only when empty.
        rmdir "$JHS_DATA" 2>/dev/null
        if [ ! -d "$JHS_DATA.new-$to" ]; then
            rm -f "$switching"
        elif [ -e "$JHS_DATA" ] && take_seal && [ "$seal" != "$sum" ]; then
            say "the old version was used since it was copied; once more from the beginning"
            mv "$switching" "$upgrading"
        else
            switch
            end upgraded "$(cat "$volume/$kept/PG_VERSION")" "$to" "$kept"
        fi
    fi
    discard
}

# The uid that owns the data is the one to run as: known only from here.
look_at_the_data() {
    grep -q " $volume " "${JHS_MOUNTS:-/proc/mounts}" || end no-volume
    # shellcheck disable=SC2046
    set -- $(stat -c '%u %g' "$JHS_DATA" 2>/dev/null || stat -c '%u %g' "$volume")
    [ "$1" = "$(id -u)" ] || end owner "$1" "$2"
    [ -w "$volume" ] && [ -x "$volume" ] || end permission
    [ ! -L "$JHS_DATA" ] || end unknown-data
    lock
    finish_what_was_begun
    [ -e "$JHS_DATA" ] || end nothing
    inside=$(ls -A "$JHS_DATA") || end permission
    [ -n "$inside" ] || end nothing
    [ ! -e "$volume/.jhub-safety-half-made" ] || end half-made
    has=$(cat "$JHS_DATA/PG_VERSION") || end unknown-data
    case $has in "" | *[!0-9]*) end unknown-data ;; esac
    is=$(postgres --version | sed -n 's/^postgres (PostgreSQL) \([0-9]*\).*/\1/p')
    [ "$has" != "$is" ] || end already "$is"
    [ "$has" -lt "$is" ] || end older "$has" "$is"
    [ -z "$(ls -A "$JHS_DATA/pg_tblspc")" ] || end tablespaces
    new=$JHS_DATA.new-$is
    [ ! -e "$new" ] || end in-the-way "${new##*/}"
    # shellcheck disable=SC2046
    set -- $(du -sk "$JHS_DATA") $(df -Pk "$volume" | sed 1d)
    # Beside as much again: the files of an empty server, and what a load writes before its data.
    need=$(($1 + 131072))
    [ "$6" -gt "$need" ] || end no-space "$need" "$6"
    folder=${JHS_DATA##*/} number=1
    kept=$folder.$has
    while [ -e "$volume/$kept" ]; do
        number=$((number + 1))
        kept=$folder.$has-$number
    done
    take_seal
    sum=$seal
}

start_the_old_one() {
    : >"$share/go"
    until [ -e "$share/old-ready" ]; do
        # shellcheck disable=SC2046
        [ ! -s "$share/old-failed" ] || end $(cat "$share/old-failed")
        sleep 0.2
    done
}

# An account without a name has none for initdb.
name_the_account() {
    getent passwd "$(id -u)" >/dev/null 2>&1 && return
    for library in /usr/lib/*/libnss_wrapper.so /usr/lib/libnss_wrapper.so; do
        if [ -s "$library" ]; then
            echo "postgres:x:$(id -u):$(id -g):PostgreSQL:/:/bin/false" >"$share/passwd"
            echo "postgres:x:$(id -g):" >"$share/group"
            export NSS_WRAPPER_PASSWD="$share/passwd" NSS_WRAPPER_GROUP="$share/group"
            export LD_PRELOAD="$library"
            return
        fi
    done
}

# ask WHERE DATABASE SQL
ask() { psql -XAtq -v ON_ERROR_STOP=1 -h "$share/$1" -d "$2" -c "$3"; }

FIRST="SELECT rolname FROM pg_authid WHERE oid = 10"
# What a dump does not write, and what CREATE ROLE in it would find there already.
NAMES="SELECT quote_ident(rolname), '\"' || replace(rolname, '\"', '\"\"') || '\"'
    FROM pg_authid WHERE oid = 10"
CLOSED="SELECT count(*) FROM pg_database WHERE NOT datallowconn AND datname <> 'template0'"
# 1 for those that each server has; and the database as a connection string has it.
DATABASES="SELECT (datname IN ('postgres', 'template1'))::int,
    'dbname=''' || replace(replace(datname, '\\', '\\\\'), '''', '\\''') || ''''
    FROM pg_database WHERE datallowconn ORDER BY 1 DESC, datname"
ACCOUNTS="SELECT rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin,
    rolreplication, rolbypassrls, rolconnlimit, rolpassword, rolvaliduntil::text,
    (SELECT array_agg(g.rolname ORDER BY g.rolname COLLATE \"C\") FROM pg_auth_members m
        JOIN pg_authid g ON g.oid = m.roleid WHERE m.member = r.oid)
    FROM pg_authid r WHERE rolname !~ '^pg_' ORDER BY rolname COLLATE \"C\""
THEIRS="n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND NOT EXISTS (
    SELECT FROM pg_depend d WHERE d.objid = o.oid AND d.classid = o.tableoid
    AND d.deptype IN ('e', 'i'))"
# Not what a version adds by itself: multiranges and their arrays (14), NOT NULL as a constraint (18).
OBJECTS="SELECT * FROM (
    SELECT 'relation' AS what, n.nspname::text AS a, o.relname::text AS b, o.relkind::text AS c
        FROM pg_class o JOIN pg_namespace n ON n.oid = relnamespace WHERE $THEIRS
    UNION ALL SELECT 'function', n.nspname, o.proname, pg_get_function_identity_arguments(o.oid)
        FROM pg_proc o JOIN pg_namespace n ON n.oid = pronamespace WHERE $THEIRS
    UNION ALL SELECT 'type', n.nspname, o.typname, o.typtype::text
        FROM pg_type o JOIN pg_namespace n ON n.oid = typnamespace
        WHERE typtype <> 'm' AND typcategory <> 'A' AND $THEIRS
    UNION ALL SELECT 'constraint', n.nspname, o.conname, o.contype::text
        FROM pg_constraint o JOIN pg_namespace n ON n.oid = connamespace
        WHERE contype <> 'n' AND $THEIRS
    UNION ALL SELECT 'trigger', o.tgrelid::regclass::text, o.tgname, o.tgenabled::text
        FROM pg_trigger o WHERE NOT tgisinternal
    UNION ALL SELECT 'policy', o.polrelid::regclass::text, o.polname, '' FROM pg_policy o
    UNION ALL SELECT 'extension', o.extname, '', '' FROM pg_extension o
    UNION ALL SELECT 'schema', n.nspname, '', '' FROM pg_namespace n WHERE n.nspname !~ '^pg_'
) AS every ORDER BY what, a COLLATE \"C\", b COLLATE \"C\", c COLLATE \"C\""

make_the_new_one() {
    # Who made the old one: by default the account of the settings.
    PGUSER=$JHS_USER
    first=$(ask old template1 "$FIRST" || PGUSER=postgres ask old template1 "$FIRST") || end account
    PGUSER=$first
    [ "$(ask old template1 "$CLOSED")" = 0 ] || end closed
    shape="FROM pg_database WHERE datname = 'template0'"
    encoding=$(ask old template1 "SELECT pg_encoding_to_char(encoding) $shape") || end dump
    collate=$(ask old template1 "SELECT datcollate $shape") || end dump
    ctype=$(ask old template1 "SELECT datctype $shape") || end dump
    mine=1
    echo "$is $kept $sum" >"$upgrading" && flush
    name_the_account
    set -- --pgdata="$new" --username="$first" --auth=trust --no-sync \
        --encoding="$encoding" --lc-collate="$collate" --lc-ctype="$ctype"
    # As the official entrypoint has it: a hub's own arguments are written for a shell.
    eval 'initdb "$@" '"${POSTGRES_INITDB_ARGS:-}" || end initdb
    printf '\nhost all all all %s\n' "${POSTGRES_HOST_AUTH_METHOD:-trust}" >>"$new/pg_hba.conf"
    mkdir -p "$share/new"
    # /dev/shm has 64 MB in a container: too little for several processes that make one index.
    postgres -D "$new" -c listen_addresses= -c "unix_socket_directories=$share/new" -c port=5432 \
        -c fsync=off -c full_page_writes=off -c wal_level=minimal -c max_wal_senders=0 \
        -c max_wal_size=64MB -c autovacuum=off -c max_parallel_maintenance_workers=0 &
    server=$!
    until pg_isready --quiet --host "$share/new"; do
        kill -0 "$server" 2>/dev/null || end new-start
        sleep 0.2
    done
}

# load DATABASE: SQL from standard input into the new server; the first error ends it.
load() { psql -Xq -v ON_ERROR_STOP=1 -h "$share/new" -d "$1" -o /dev/null; }

# dump PROGRAM ARGUMENT...: of the old server. A pipe does not tell how its first part ended.
dump() { "$@" || : >"$share/dump-failed"; }

move_all() {
    names=$(ask old template1 "$NAMES") || end dump
    dump pg_dumpall --globals-only --database template1 --host "$share/old" |
        grep -vxF -e "CREATE ROLE ${names%%|*};" -e "CREATE ROLE ${names#*|};" |
        load postgres || end restore
    ask old template1 "$DATABASES" >"$share/databases" || end dump
    while IFS='|' read -r plain database; do
        if [ "$plain" = 1 ]; then
            dump pg_dump --host "$share/old" --dbname "$database" | load "$database" || end restore
        else
            dump pg_dump --create --host "$share/old" --dbname "$database" |
                load postgres || end restore
        fi
    done <"$share/databases"
    [ ! -e "$share/dump-failed" ] || end dump
}

# contents WHERE DATABASE: every row, value of a sequence and large object, and what is defined.
# Lines of data cannot begin with one backslash.
contents() {
    ask "$1" "$2" "$OBJECTS" >"$share/objects" || : >"$share/dump-failed"
    dump pg_dump --data-only --host "$share/$1" --dbname "$2" 2>>"$share/warnings" |
        LC_ALL=C sed -e '/^-- Dumped /d' -e '/^\\restrict /d' -e '/^\\unrestrict /d' |
        cat "$share/objects" - | sha256sum
}

compare_all() {
    [ "$(ask old template1 "$ACCOUNTS")" = "$(ask new template1 "$ACCOUNTS")" ] || end compare
    while IFS='|' read -r plain database; do
        was=$(contents old "$database")
        is_now=$(contents new "$database")
        if [ -e "$share/dump-failed" ]; then
            cat "$share/warnings"
            end dump
        fi
        [ "$was" = "$is_now" ] || end compare
    done <"$share/databases"
}

# The same text for the same values from both servers; and no setting of an account in the way.
export PGUSER PGPORT=5432 PGTZ=UTC PGCONNECT_TIMEOUT=30 LC_MESSAGES=C
export PGOPTIONS="-c default_transaction_read_only=off -c statement_timeout=0 -c lock_timeout=0"

PGUSER=$JHS_USER
: >"$share/alive"
while sleep 5; do : >"$share/alive"; done &
pulse=$!
look_at_the_data
say "from version $has to $is"
start_the_old_one
make_the_new_one
move_all
say "loaded; comparing"
compare_all
kill -s INT "$server"
wait "$server" || end new-stop
server=
take_seal
[ "$seal" = "$sum" ] || end used
flush
mine=
mv "$upgrading" "$switching" && flush
switch
end upgraded "$has" "$is" "$kept"
