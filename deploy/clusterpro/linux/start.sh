#!/bin/sh
# The group's start script (CLUSTERPRO script resource) in mode supervise. Settings and rules: lib.sh.
#
# Returns 0 when every service is up; 40 when one is not; 1 when nothing was to be done here (no cluster, no disk).

dcsup_script=start
case $0 in */*) dcsup_here=${0%/*} ;; *) dcsup_here=. ;; esac
. "$dcsup_here/lib.sh"

# wait_healthy SERVICE [now]: polls dcstatus until it is 0 (G20: a pause before each poll), but no longer than the start's deadline.
# The first pause is always a whole one, so that a service which has just been started gets its chance. `now`: it was started long ago,
# by dcsup: it is asked at once, and has had its chance when the deadline has passed.
wait_healthy() {
    if [ "${2-}" = now ]; then
        ask_status "$1" && return 0
        [ "$(now_s)" -lt $((dcsup_began + DCSUP_START_DEADLINE)) ] || return 1
    fi
    value_of DCSUP_WAIT "$1"
    wh_pause=$value
    if [ -z "$wh_pause" ]; then
        kind_of "$1"
        case $value in agent | command) wh_pause=10 ;; *) wh_pause=20 ;; esac
    fi
    while :; do
        keep_alive
        rest "$wh_pause"
        ask_status "$1" && return 0
        wh_left=$((dcsup_began + DCSUP_START_DEADLINE - $(now_s)))
        [ "$wh_left" -gt 0 ] || return 1
        [ "$wh_left" -ge "$wh_pause" ] || wh_pause=$wh_left
    done
}

# start_one N: command N of the list, from where the journal stands; sets $start_code when it fails
start_one() {
    take_ticket || return 1
    command_of "$1"
    keep_alive
    journal_of "$ticket" "$1"
    case $entry in
        ok)
            wait_healthy "$service" now && return 0
            cluster_log "$service" ERR "$MSG_START_LATE"
            return 1
            ;;
        fail) # a known failure is never repeated, by nobody
            cluster_log "$service" ERR "$MSG_START_FAILED"
            return 1
            ;;
    esac
    if ask_status "$service"; then
        announce "$1"
        note_healthy "$1"
        return 0
    fi
    run_plain "$1" || return 1
    if [ "$code" -ne 0 ]; then
        cluster_log "$service" ERR "$MSG_START_FAILED"
        return 1
    fi
    wait_healthy "$service" && return 0
    cluster_log "$service" ERR "$MSG_START_LATE"
    return 1
}

# plain_start: the guide's sequence; 0 when every service is up, else 40
plain_start() {
    ps_n=0
    while [ "$ps_n" -lt "$commands" ]; do
        ps_n=$((ps_n + 1))
        start_one "$ps_n" || return 40
    done
    return 0
}

# report_verdict: the ERR line for a start that dcsup's verdict calls failed (G19): for the service whose command failed, else the last
report_verdict() {
    rv_n=0
    while [ "$rv_n" -lt "$commands" ]; do
        rv_n=$((rv_n + 1))
        command_of "$rv_n"
        if ! journal_of "$ticket" "$rv_n" || [ "$entry" != ok ]; then break; fi
    done
    cluster_log "$service" ERR "$MSG_START_FAILED"
}

trap 'interrupted 1' TERM INT HUP
mkdir -p "$tickets" "$journal" "$outbox" 2>/dev/null
find_boot

case $CLP_EVENT in
    START) place=start-normal ;;
    FAILOVER) place=start-failover ;;
    RECOVER) # G16: this node is back in the cluster; nothing is started
        site recover
        decline recover 0
        ;;
    *) # G17
        broadcast "$MSG_NO_CLUSTER"
        decline cluster-not-running 1
        ;;
esac

clear_ground
if [ "$CLP_DISK" = FAILURE ]; then # G18
    broadcast "$MSG_NO_DISK"
    decline disk-failure 1
fi

list_commands
ask_dcsup "$DCSUP_START_DEADLINE"
case $hook_code in
    0) result=0 ;;
    40)
        result=40
        report_verdict
        ;;
    *) if fall_back; then
        plain_start
        result=$?
    else
        result=40
    fi ;;
esac
close_ticket "$result"
[ "$result" -ne 0 ] || site "$place"
exit "$result"
