#!/bin/sh
# Watch script of one service, server or agent: the resident process of its application resource (G22). It asks dcstatus, 10 s
# apart, for as long as the answer is 0, and ends with any other.

. "$(dirname "$0")/site.env"

case "${1:-server}" in
server) status=$SERVER_STATUS ;;
agent) status=$AGENT_STATUS ;;
*)
    echo "usage: watch.sh server|agent" >&2
    exit 2
    ;;
esac

while :; do
    "$status"
    code=$?
    [ "$code" -eq 0 ] || exit "$code"
    "$CLP_BIN/armsleep" 10
done
