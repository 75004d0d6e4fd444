#!/bin/bash
# The entry point of our redis image. It keeps to what the official image promises.
set -eu

if [[ ${1:-} == -* || ${1:-} == *.conf || $# -eq 0 ]]; then
    set -- redis-server "$@"
fi
if [[ $1 == redis-server ]]; then
    if (($(id -u) == 0)); then
        find . ! -user redis -exec chown redis {} +
        exec setpriv --reuid redis --regid redis --clear-groups "${BASH_SOURCE[0]}" "$@"
    fi
    umask 0077
    # The official build has it off. Options may follow a file's name, but not come before it.
    if [[ ${2:--} == -* && " $* " != *' --protected-mode '* ]]; then
        shift
        set -- redis-server --protected-mode no "$@"
    fi
fi
exec "$@"
