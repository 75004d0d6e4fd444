# Whether the lab may start now: the server answers, cannot run, or its time is over.
# Environment: JHS_NAME, JHS_DEADLINE (seconds), JHS_REQUIRED (1: nothing but the server will do),
# JHS_STATE (for tests).
state=${JHS_STATE:-/run/jhub-safety}/$JHS_NAME
left=40
while [ "$left" -gt 0 ]; do
    [ ! -e "$state/ready" ] || exit 0
    if [ "$JHS_REQUIRED" != 1 ]; then
        [ ! -e "$state/failed" ] || exit 0
        since=$(cat "$state/since" 2>/dev/null)
        # Whoever may write SQL may write there: some shells run what they find in a sum.
        case $since in
        '' | *[!0-9]*) ;;
        *) [ "$(($(date +%s) - since))" -lt "$JHS_DEADLINE" ] || exit 0 ;;
        esac
    fi
    left=$((left - 1))
    sleep 0.2
done
exit 1
