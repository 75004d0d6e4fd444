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
# JHS_ALONE (1: no other pod can have this volume),
# JHS_STALE (takes away what only says that a server had run),
# JHS_DATA_VERSION (prints nothing where there is no server's data), JHS_SERVER_VERSION; for these
# also JHS_PORT and JHS_USER. JHS_STATE, JHS_MESSAGE and JHS_MOUNTS: other paths, for tests.
# Arguments: the server's own entrypoint and its arguments.
set -u
state=${JHS_STATE:-/run/jhub-safety}/$JHS_NAME
message=${JHS_MESSAGE:-/dev/termination-log}
volume=${JHS_DATA%/*}
# What this keeps in the volume beside the data. Each may be a trap of whoever can write there: as
# root (run_as "image") nothing is written through a link.
lock=$volume/.jhub-safety-lock
reserve=$volume/.jhub-safety-reserve
half_made=$volume/.jhub-safety-half-made
version=$volume/.jhub-safety-version
entrypoint=${1:-}
child=
stopping=

stop() {
    stopping=1
    # A shell starts background processes with SIGINT ignored; servers set their own handlers.
    [ -n "$child" ] || return 0
    kill -s "$JHS_STOP" "$child" 2>/dev/null
    # It is lost on an entrypoint that still makes the data; what it runs then must get it, too.
    [ -e "$state/ready" ] || insist "$child" 9>&- &
}
insist() { while sleep 1 && kill -s "$JHS_STOP" "$1" 2>/dev/null; do :; done; }
trap stop TERM INT QUIT

say() { echo "jhub-safety: $*"; }

# tell CODE WORD...: what the hub reads of this try. Plain words only; the hub makes sentences.
tell() {
    say "$@"
    echo "jhub-safety $*" >"$message"
    exit 1
}

# Not on the next try either.
fail() {
    touch "$state/failed"
    tell "$@"
}

no_permission() { fail permission "$(stat -c '%u %a' "$1")" "$(id -u)"; }

hold() {
    say "the server is not run; the lab is. What was wrong is told above, and by the hub"
    while [ -z "$stopping" ]; do
        # A signal that comes right before "wait" does not end it: never a long sleep.
        sleep 1 &
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

# Two servers on the same data destroy it. Only where no other pod can have the volume nothing but the
# lock is missing; that is told once, by a restart, as nothing else of a container's words is read.
go_on_unlocked() {
    say "this volume cannot be locked: $1"
    # An image that lacks the server, too, says that by itself, and nothing is opened.
    command -v "$entrypoint" >/dev/null || return 0
    [ "${JHS_ALONE:-}" = 1 ] || fail no-lock
    [ -e "$state/unlocked" ] || ! touch "$state/unlocked" || tell unlocked
}

locked=
lock() {
    if ! command -v flock >/dev/null; then
        go_on_unlocked "there is no flock in this image"
        return 0
    fi
    # A redirection of exec that fails would end the shell without a word.
    touch "$lock" 2>/dev/null && [ -w "$lock" ] || no_permission "$lock"
    # The server inherits it: it is held until the last of its processes has ended.
    exec 9>>"$lock"
    left=$1
    until trouble=$(flock -n 9 2>&1); do
        if [ -n "$trouble" ]; then
            go_on_unlocked "$trouble"
            return 0
        fi
        [ "$left" -gt 0 ] || fail busy
        [ -z "$stopping" ] || exit 0
        left=$((left - 1))
        sleep 1
    done
    locked=1
}

# One that was killed between its two renames: the new folder is whole (see upgrade_new.sh).
finish_an_upgrade() {
    marker=$volume/.jhub-safety-switching
    [ -s "$marker" ] && [ ! -L "$marker" ] && [ ! -e "$JHS_DATA" ] || return 0
    read -r to _ <"$marker"
    case $to in "" | *[!0-9]*) return 0 ;; esac
    [ -d "$JHS_DATA.new-$to" ] && mv "$JHS_DATA.new-$to" "$JHS_DATA" && rm -f "$marker"
}

look_at_the_data() {
    grep -q " $volume " "${JHS_MOUNTS:-/proc/mounts}" || fail no-volume
    [ -r "$volume" ] && [ -w "$volume" ] && [ -x "$volume" ] || no_permission "$volume"
    # As root, with an entrypoint that steps down to an account of its own: it has to get through.
    [ "$(id -u)" != 0 ] || chmod a+x "$volume"
    for one in "$JHS_DATA" "$lock" "$reserve" "$reserve.new" "$half_made" "$version" "$version.new"; do
        [ ! -L "$one" ] || fail link
    done
    [ ! -e "$JHS_DATA" ] || [ -d "$JHS_DATA" ] || fail unknown-data
    lock 20
    finish_an_upgrade
    [ -e "$JHS_DATA" ] || mkdir "$JHS_DATA" || no_permission "$volume"
    ls -A "$JHS_DATA" >/dev/null 2>&1 || no_permission "$JHS_DATA"
    if [ -e "$half_made" ] && ! is_empty "$JHS_DATA"; then
        # Its first start was cut off before the server ever answered: nothing was stored in it. Or
        # it is under way in another pod, whose server would go on in the folder that was moved.
        [ -n "$locked" ] || fail no-lock
        [ ! -e "$JHS_DATA.half-made" ] || fail half-made-again
        mv "$JHS_DATA" "$JHS_DATA.half-made" && mkdir "$JHS_DATA" && tell half-made
        no_permission "$JHS_DATA"
    elif is_empty "$JHS_DATA"; then
        # A server has been ready in this volume, or something else is in it (another `folder`?):
        # there is data somewhere, and no new one takes its place.
        [ ! -e "$version" ] || fail missing-data
        for one in "$volume"/*; do
            case ${one##*/} in
            lost+found | "${JHS_DATA##*/}" | "${JHS_DATA##*/}".*) ;;
            *) [ ! -e "$one" ] || fail missing-data ;;
            esac
        done
        touch "$half_made" || no_permission "$volume"
    else
        has=$(eval "$JHS_DATA_VERSION" 2>/dev/null)
        is=$(eval "$JHS_SERVER_VERSION" 2>/dev/null)
        [ -n "$has" ] || fail unknown-data
        [ "$has" = "$is" ] || [ "$has" = unknown ] || [ -z "$is" ] || fail version "$has" "$is"
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

# A file that is cut off on a full volume says nothing, and a kind may go by it alone.
note_the_version() {
    [ ! -L "$version" ] && [ ! -L "$version.new" ] && [ ! -d "$version" ] || return 0
    [ "$(cat "$version" 2>/dev/null)" != "$1" ] || return 0
    echo "$1" >"$version.new"
    [ "$(cat "$version.new" 2>/dev/null)" = "$1" ] && mv "$version.new" "$version"
}

await_the_server() {
    began=$(date +%s)
    until eval "$JHS_READY" >/dev/null 2>&1; do
        # The lab goes on without an answer by then, and may use a server that cannot be asked
        # (an image without the client program): from here on this is data, whatever comes.
        [ $(($(date +%s) - began)) -lt "$JHS_DEADLINE" ] || rm -f "$half_made"
        sleep 0.1
    done
    rm -f "$half_made"
    [ -z "$JHS_AFTER_READY" ] || eval "$JHS_AFTER_READY" || say "the account was left as it is"
    is=$(eval "$JHS_SERVER_VERSION" 2>/dev/null)
    [ -z "$is" ] || note_the_version "$is"
    touch "$state/ready"
    keep_a_reserve
}

mkdir -p "$state"
[ -e "$state/since" ] || date +%s >"$state/since"
rm -f "$state/ready"
[ ! -e "$state/failed" ] || hold
look_at_the_data
mind_the_space
# Nobody else has this data open. Without the lock that is not known, and what is left stays.
[ -z "$locked" ] || [ -z "${JHS_STALE:-}" ] || eval "$JHS_STALE"

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
touch "$state/failed"
exit "$code"
