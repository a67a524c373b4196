#!/bin/sh
# The guide's own watch loop, watch.sh SERVICE (G22): the resident process of the service's application resource. It asks dcstatus, an
# interval apart, for as long as the answer is 0, and ends with any other.

script=watch
case $0 in */*) here=${0%/*} ;; *) here=. ;; esac
dcsup_here=$here
. "$here/lib-guide.sh"

service=${1:-${DCSUP_SERVICES##* }}
while :; do
    ask_status "$service"
    code=$?
    [ "$code" -eq 0 ] || exit "$code"
    pause "$DCSUP_INTERVAL"
done
