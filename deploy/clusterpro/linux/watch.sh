#!/bin/sh
# The resident watch script (CLUSTERPRO application resource) in mode supervise: watch.sh [SERVICE]. Settings: lib.sh.
#
# Lives as long as the service is healthy; its end makes the application monitor act (G22). It ends with dcstatus's own code: the one that
# the watch hook saw and left in watch/<service>.code, or, whenever the hook ends in any other way, the one that it polls for itself.

dcsup_script=watch
case $0 in */*) dcsup_here=${0%/*} ;; *) dcsup_here=. ;; esac
. "$dcsup_here/lib.sh"

# plain_watch: the guide's loop. A dcstatus that does not return is unknown, and the guide would wait too.
plain_watch() {
    while :; do
        ask_status "$service"
        if [ "$code" -ne 0 ] && [ "$ended_by" -ne 9 ]; then exit "$code"; fi
        rest "$DCSUP_INTERVAL"
    done
}

# exec_hook ARGUMENT...: the hook, with dcstatus as words behind `--`
exec_hook() {
    value_of DCSUP_STATUS "$service"
    if [ -f "$value" ]; then
        exec_words "$DCSUP" hook watch "$@" -- "$value"
    else
        eval "exec_words \"\$DCSUP\" hook watch \"\$@\" -- $value"
    fi
}

# watch_by_hook: ends the script with dcstatus's code when the hook ended 40; returns when dcsup is not there
watch_by_hook() {
    rm -f "$watch_folder/$service.code" "$watch_folder/$service.hook" 2>/dev/null
    exec_hook --folder "$DCSUP_FOLDER" --service "$service" --boot "$boot" --interval "$DCSUP_INTERVAL" \
        --poll-limit "$DCSUP_POLL_LIMIT" --confirm "$DCSUP_CONFIRM" --parent "$$" &
    child=$!
    guard_hook "$child" "$watch_folder/$service.hook" 0 >/dev/null 2>&1 &
    guard=$!
    wait_guarded
    [ "$code" -eq 40 ] || return 0
    status_code=
    { read -r status_code <"$watch_folder/$service.code"; } 2>/dev/null
    case $status_code in '' | *[!0-9]*) return 0 ;; esac
    [ $((status_code % 256)) -ne 0 ] || status_code=1
    exit "$status_code"
}

trap 'interrupted 143' TERM INT HUP
service=${1:-${DCSUP_SERVICES##* }}
watch_folder=$DCSUP_FOLDER/watch
mkdir -p "$watch_folder" "$outbox" 2>/dev/null
find_boot
[ -e "$DCSUP_FOLDER/dcsup.bypass" ] || [ -z "$boot" ] || watch_by_hook
plain_watch
