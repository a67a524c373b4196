#!/bin/sh
# Start script of the failover group: the guide's own sequence (G8, G9, G12, G13, G16-G21, G43) for an agent and a server on one
# machine, the agent first (G23). Like the guide's samples it always ends with 0, whatever happened.

. "$(dirname "$0")/site.env"

# Where the site's own code goes (G43); the names are those of the guide's branches.
business_on_normal_start() { :; }
business_after_failover() { :; }
business_after_return() { :; }
business_on_highest_priority_server() { :; }
business_on_other_server() { :; }

say_info() { "$CLP_BIN/clplogcmd" -m "$2" -i "$1" -l INFO; }
say_error() { "$CLP_BIN/clplogcmd" -m "$2" -i "$1" -l ERR; }
broadcast() { "$CLP_BIN/armbcast" /MSG "$1" /A; }

# wait_until_healthy STATUS-COMMAND SECONDS: wait first, then ask; without limit (G20)
wait_until_healthy() {
    "$CLP_BIN/armsleep" "$2"
    until "$1"; do
        "$CLP_BIN/armsleep" "$2"
    done
}

start_agent() {
    say_info 2 "DataCoordinator agent: $1"
    if "$AGENT_COMMAND" "$1"; then
        wait_until_healthy "$AGENT_STATUS" 10
    else
        say_error 2 "DataCoordinator agent: $1 failed"
    fi
}

start_server() {
    say_info 1 "DataCoordinator server: $1"
    if "$SERVER_COMMAND" "$1"; then
        wait_until_healthy "$SERVER_STATUS" 20
    else
        say_error 1 "DataCoordinator server: $1 failed"
    fi
}

by_priority() {
    if [ "${CLP_SERVER:-}" = OTHER ]; then
        business_on_other_server
    else
        business_on_highest_priority_server
    fi
}

case "${CLP_EVENT:-}" in
START | FAILOVER)
    if [ "${CLP_DISK:-}" = FAILURE ]; then
        broadcast "The switchable partition could not be attached on $NODE_NAME"
        exit 0
    fi
    if [ "$CLP_EVENT" = START ]; then
        business_on_normal_start
        start_agent start
        start_server recover
    else
        start_agent recover
        start_server recover
        business_after_failover
    fi
    by_priority
    ;;
RECOVER)
    business_after_return
    ;;
*)
    broadcast "The cluster is not running on $NODE_NAME"
    ;;
esac
exit 0
