#!/bin/sh
# The guide's own stop sequence (G10, G11, G14, G15, G17-G19, G41, G43), in the reverse order of the start, for going back;
# lib-guide.sh says what it leaves out. CLP_EVENT says how the instance was started, not why it stops. Nothing is checked after a stop
# (G41). Like the guide's samples it always ends with 0, whatever happened.

script=stop
case $0 in */*) here=${0%/*} ;; *) here=. ;; esac
dcsup_here=$here
. "$here/lib-guide.sh"

leave_unless_up
site before-stop
backwards=
for service in $DCSUP_SERVICES; do
    backwards="$service $backwards"
done
for service in $backwards; do
    choose "$service"
    run_verb "$service"
done
site after-stop
exit 0
