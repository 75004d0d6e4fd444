# Runs the old version of PostgreSQL for an upgrade, on a copy: the volume is mounted read-only here.
# First process of the container with the old image; see upgrade_new.sh, which leads.
#
# Environment: JHS_DATA. Files in the folder that both containers share:
#   go          the other one has the volume's lock, and wants the old version
#   old-ready   it answers, on the socket in the folder "old"
#   old-failed  it will not: a code and words, told by the other container
#   alive       touched by the other one every few seconds: a killed one says nothing any more
#   end         all is over
set -u
share=/run/jhub-safety-upgrade
copy=/scratch/data
server=

# shellcheck disable=SC2329 # by the traps
leave() {
    [ -z "$server" ] || kill -s QUIT "$server" 2>/dev/null
}
trap leave EXIT
trap 'exit 1' TERM INT

give_up() {
    echo "jhub-safety: $*"
    echo "$*" >"$share/old-failed.new" && mv "$share/old-failed.new" "$share/old-failed"
    exit 1
}

until [ -e "$share/go" ]; do
    [ ! -e "$share/end" ] || exit 0
    sleep 0.2
done
has=$(cat "$JHS_DATA/PG_VERSION")
is=$(postgres --version | sed -n 's/^postgres (PostgreSQL) \([0-9]*\).*/\1/p')
[ "$has" = "$is" ] || give_up version "$has" "$is"
# shellcheck disable=SC2046
set -- $(du -sk "$JHS_DATA") $(df -Pk /scratch | sed 1d)
[ "$6" -gt "$(($1 + 262144))" ] || give_up no-scratch "$1" "$6"
cp -a "$JHS_DATA" "$copy" || give_up copy
# Of a server that was killed; its number may be that of a process here.
rm -f "$copy/postmaster.pid"
chmod 0700 "$copy"
echo 'local all all trust' >"$share/hba"
mkdir -p "$share/old"
# The copy has the user's own settings: none of their libraries is loaded outside of their lab.
postgres -D "$copy" -c "data_directory=$copy" -c "hba_file=$share/hba" -c listen_addresses= \
    -c "unix_socket_directories=$share/old" -c port=5432 -c autovacuum=off -c fsync=off \
    -c archive_mode=off -c logging_collector=off -c ssl=off -c shared_preload_libraries= \
    -c session_preload_libraries= -c local_preload_libraries= &
server=$!
until pg_isready --quiet --host "$share/old" --username postgres; do
    kill -0 "$server" 2>/dev/null || give_up old-start
    sleep 0.2
done
: >"$share/old-ready"
until [ -e "$share/end" ]; do
    kill -0 "$server" 2>/dev/null || exit 1
    [ "$(($(date +%s) - $(stat -c %Y "$share/alive")))" -lt 120 ] || exit 1
    sleep 0.5
done
exit 0
