#!/bin/sh
# Stop script of the failover group: the guide's own sequence (G10, G11, G14, G15, G17-G19, G21, G41, G43) for an agent and a server
# on one machine, in the reverse order of the start. CLP_EVENT says how the instance had been started, not why it stops.
# Nothing is checked after a stop (G41). Like the guide's samples it always ends with 0, whatever happened.

. "$(dirname "$0")/site.env"

# Where the site's own code goes (G43).
business_on_normal_stop() { :; }
business_on_stop_after_failover() { :; }

say_info() { "$CLP_BIN/clplogcmd" -m "$2" -i "$1" -l INFO; }
say_error() { "$CLP_BIN/clplogcmd" -m "$2" -i "$1" -l ERR; }
broadcast() { "$CLP_BIN/armbcast" /MSG "$1" /A; }

stop_agent() {
    say_info 2 "DataCoordinator agent: $1"
    "$AGENT_COMMAND" "$1" || say_error 2 "DataCoordinator agent: $1 failed"
}

stop_server() {
    say_info 1 "DataCoordinator server: $1"
    "$SERVER_COMMAND" "$1" || say_error 1 "DataCoordinator server: $1 failed"
}

case "${CLP_EVENT:-}" in
START | FAILOVER)
    if [ "${CLP_DISK:-}" = FAILURE ]; then
        broadcast "The switchable partition could not be attached on $NODE_NAME"
        exit 0
    fi
    if [ "$CLP_EVENT" = START ]; then
        business_on_normal_stop
        stop_server faststop
        stop_agent stop
    else
        business_on_stop_after_failover
        stop_server faststop
        stop_agent faststop
    fi
    ;;
*)
    broadcast "The cluster is not running on $NODE_NAME"
    ;;
esac
exit 0
