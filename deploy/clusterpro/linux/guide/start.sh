#!/bin/sh
# The guide's own start sequence (G8, G9, G12, G13, G16-G21, G23, G43), for going back; lib-guide.sh says what it leaves out.
# Like the guide's samples it always ends with 0, whatever happened.

script=start
case $0 in */*) here=${0%/*} ;; *) here=. ;; esac
dcsup_here=$here
. "$here/lib-guide.sh"

# wait_healthy SERVICE: wait first, then ask; without limit (G20)
wait_healthy() {
    pause "$wait"
    until ask_status "$1"; do
        pause "$wait"
    done
}

if [ "${CLP_EVENT-}" = RECOVER ]; then # G16: this node is back in the cluster; nothing is started
    site recover
    exit 0
fi
leave_unless_up
for service in $DCSUP_SERVICES; do
    choose "$service"
    run_verb "$service" && wait_healthy "$service"
done
if [ "$CLP_EVENT" = START ]; then site start-normal; else site start-failover; fi
exit 0
