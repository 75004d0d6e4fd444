#!/bin/sh
# Keeps one database server of one lab. It is the first process of the server's container.
#
# - Nothing in the data folder is ever deleted. What is not understood is left alone and told.
# - A server that cannot run never keeps the lab from running: it is tried, then held, and the
#   container goes on without it. Why is in the termination message of the try before, which
#   outlives the restart (lastState) and which the hub reads.
#
# Environment: JHS_NAME, JHS_DATA, JHS_RESERVE (KiB), JHS_STOP (signal), JHS_MODE (of the data
# folder, or empty), and commands that the kind of server brings: JHS_READY, JHS_AFTER_READY,
# JHS_DATA_VERSION (prints nothing where there is no server's data), JHS_SERVER_VERSION; for these
# also JHS_PORT and JHS_USER.
# Arguments: the server's own entrypoint and its arguments.
set -u
state=/run/jhub-safety/$JHS_NAME
volume=${JHS_DATA%/*}
reserve=$volume/.jhub-safety-reserve
half_made=$volume/.jhub-safety-half-made
child=
stopping=

stop() {
    stopping=1
    # A shell starts background processes with SIGINT ignored; servers set their own handlers.
    [ -z "$child" ] || kill -s "$JHS_STOP" "$child" 2>/dev/null
}
trap stop TERM INT QUIT

say() { echo "jhub-safety: $*"; }

# tell CODE WORD...: what the hub reads of this try. Plain words only; the hub makes sentences.
tell() {
    say "$@"
    echo "jhub-safety $*" >/dev/termination-log
    exit 1
}

# Not on the next try either.
fail() {
    : >"$state/failed"
    tell "$@"
}

hold() {
    say "the server is not run; the lab is. What was wrong is told above, and by the hub"
    while [ -z "$stopping" ]; do
        sleep 3600 &
        wait $!
    done
    exit 0
}

is_empty() { [ -z "$(ls -A "$1")" ]; }

# Used and whole size of the volume, and what is free, in KiB.
space() {
    df -Pk "$volume" | {
        read -r _
        read -r _ size used free _
        echo "$used $size $free"
    }
}

lock() {
    command -v flock >/dev/null || return 0
    # The server inherits it: it is held until the last of its processes has ended.
    exec 9>>"$volume/.jhub-safety-lock"
    left=$1
    until trouble=$(flock -n 9 2>&1); do
        if [ -n "$trouble" ]; then
            say "this volume cannot be locked: $trouble"
            return 0
        fi
        [ "$left" -gt 0 ] || fail busy
        [ -z "$stopping" ] || exit 0
        left=$((left - 1))
        sleep 1
    done
}

look_at_the_data() {
    grep -q " $volume " /proc/mounts || fail no-volume
    [ -w "$volume" ] && [ -x "$volume" ] || fail permission "$(stat -c '%u %a' "$volume")" "$(id -u)"
    lock 20
    [ -e "$JHS_DATA" ] || mkdir "$JHS_DATA" || fail permission "$(stat -c '%u %a' "$volume")" "$(id -u)"
    if ! ls -A "$JHS_DATA" >/dev/null 2>&1; then
        fail permission "$(stat -c '%u %a' "$JHS_DATA")" "$(id -u)"
    fi
    if [ -e "$half_made" ] && ! is_empty "$JHS_DATA"; then
        # Its first start was cut off before the server ever answered: nothing was stored in it.
        [ ! -e "$JHS_DATA.half-made" ] || fail half-made-again
        mv "$JHS_DATA" "$JHS_DATA.half-made" && mkdir "$JHS_DATA" && tell half-made
    elif is_empty "$JHS_DATA"; then
        : >"$half_made"
    else
        has=$(eval "$JHS_DATA_VERSION" 2>/dev/null)
        is=$(eval "$JHS_SERVER_VERSION" 2>/dev/null)
        [ -n "$has" ] || fail unknown-data
        [ "$has" = "$is" ] || [ "$has" = unknown ] || fail version "$has" "$is"
    fi
    # With an fsGroup the kubelet opens every folder to the group, which servers refuse.
    [ -z "$JHS_MODE" ] || chmod "$JHS_MODE" "$JHS_DATA" 2>/dev/null
}

mind_the_space() {
    # shellcheck disable=SC2046
    set -- $(space)
    if [ -s "$reserve" ] && [ "$3" -lt "$JHS_RESERVE" ]; then
        rm -f "$reserve"
        tell disk-full "$1" "$2"
    fi
}

keep_a_reserve() {
    [ "$JHS_RESERVE" -gt 0 ] && [ ! -s "$reserve" ] || return 0
    # shellcheck disable=SC2046
    set -- $(space)
    [ "$3" -gt $((4 * JHS_RESERVE)) ] || return 0
    # Zeros that are written take room; a file with a hole does not.
    head -c "$((1024 * JHS_RESERVE))" /dev/zero >"$reserve.new" && mv "$reserve.new" "$reserve"
}

await_the_server() {
    until eval "$JHS_READY" >/dev/null 2>&1; do sleep 0.1; done
    [ -z "$JHS_AFTER_READY" ] || eval "$JHS_AFTER_READY" || say "the account was left as it is"
    rm -f "$half_made"
    eval "$JHS_SERVER_VERSION" >"$volume/.jhub-safety-version" 2>/dev/null
    : >"$state/ready"
    keep_a_reserve
}

mkdir -p "$state"
[ -e "$state/since" ] || date +%s >"$state/since"
rm -f "$state/ready"
[ ! -e "$state/failed" ] || hold
look_at_the_data
mind_the_space

# Runs the server to its end. Its last lines become the message (FallbackToLogsOnError).
run() {
    "$@" &
    child=$!
    [ -z "$stopping" ] || stop
    while :; do
        wait "$child"
        code=$?
        kill -0 "$child" 2>/dev/null || break
    done
    child=
    [ -z "$stopping" ] || exit 0
    [ "$code" -ne 0 ] || code=1
    # Once it has answered, a restart is what it needs.
    [ ! -e "$state/ready" ] || exit "$code"
}

[ -z "$stopping" ] || exit 0
await_the_server 9>&- &
run "$@"
say "the server ended before it answered; once more"
sleep 1
run "$@"
: >"$state/failed"
exit "$code"
