#!/bin/sh
# The group's stop script (CLUSTERPRO script resource) in mode supervise. Settings and rules: lib.sh.
#
# Returns 0, also when nothing was to be done (no cluster, no disk) and when a command failed: a failed stop makes CLUSTERPRO shut the
# operating system down by default. Only with DCSUP_REPORT_FAILURE=1, and a service proved to be running at the deadline, it returns 1.

dcsup_script=stop
case $0 in */*) dcsup_here=${0%/*} ;; *) dcsup_here=. ;; esac
. "$dcsup_here/lib.sh"

# stop_one N: runs the verb unless the journal has it ended; dcstatus is not asked first
stop_one() {
    take_ticket || return 1
    keep_alive
    journal_of "$ticket" "$1"
    case $entry in ok | fail) return 0 ;; esac
    run_plain "$1" || return 1
    [ "$code" -eq 0 ] || cluster_log "$service" ERR "$MSG_STOP_FAILED"
    return 0
}

# is_left_running SERVICE: whether dcstatus still says 0 at the deadline. Unknown is no proof.
is_left_running() {
    while ask_status "$1"; do
        [ "$(now_s)" -lt $((dcsup_began + DCSUP_STOP_DEADLINE)) ] || return 0
        keep_alive
        rest 1
    done
    return 1
}

# judge: the end state decides, and only where the site asked for it (G41: the guide checks nothing after a stop)
judge() {
    [ "$DCSUP_REPORT_FAILURE" = 1 ] || return 0
    ju_n=0
    while [ "$ju_n" -lt "$commands" ]; do
        ju_n=$((ju_n + 1))
        command_of "$ju_n"
        if is_left_running "$service"; then
            cluster_log "$service" ERR "$MSG_STILL_RUNNING"
            return 1
        fi
    done
    return 0
}

# plain_stop: the guide's sequence: every command, whatever became of the one before
plain_stop() {
    ps_n=0
    while [ "$ps_n" -lt "$commands" ]; do
        ps_n=$((ps_n + 1))
        stop_one "$ps_n" || return 0
    done
    judge
}

trap 'interrupted 0' TERM INT HUP
mkdir -p "$tickets" "$journal" "$outbox" 2>/dev/null
find_boot

case $CLP_EVENT in
    START | FAILOVER) ;;
    *) # G17
        broadcast "$MSG_NO_CLUSTER"
        decline cluster-not-running 0
        ;;
esac

clear_ground
if [ "$CLP_DISK" = FAILURE ]; then # G18
    broadcast "$MSG_NO_DISK"
    decline disk-failure 0
fi

site before-stop
list_commands
ask_dcsup "$DCSUP_STOP_DEADLINE"
case $hook_code in
    0) result=0 ;;
    40)
        judge
        result=$?
        ;;
    *)
        result=0
        if fall_back; then
            plain_stop
            result=$?
        fi
        ;;
esac
close_ticket "$result"
site after-stop
exit "$result"
