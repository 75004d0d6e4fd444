# Whether the lab may start now: the server answers, cannot run, or its time is over.
# Environment: JHS_NAME, JHS_DEADLINE (seconds), JHS_REQUIRED (1: nothing but the server will do).
state=/run/jhub-safety/$JHS_NAME
left=40
while [ "$left" -gt 0 ]; do
    [ ! -e "$state/ready" ] || exit 0
    if [ "$JHS_REQUIRED" != 1 ]; then
        [ ! -e "$state/failed" ] || exit 0
        [ "$(($(date +%s) - $(cat "$state/since")))" -lt "$JHS_DEADLINE" ] || exit 0
    fi
    left=$((left - 1))
    sleep 0.2
done
exit 1
