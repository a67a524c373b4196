# What the guide's start.sh, stop.sh and watch.sh share. POSIX sh; sourced, never run.
#
# The guide's plain sequence (G8-G24, G43 in the project's documentation) and nothing else: no dcsup, no ticket, no time limit. These
# scripts are for going back. What they do not do either, as the guide's own samples do not: end with anything but 0 when a command failed,
# wait for a bounded time only, see to it that the agent runs before the server is started.
#
# Settings: dcsup.env beside this file (lib.sh of the supervised scripts describes it). Used of it: DCSUP_SERVICES, DCSUP_KIND_S,
# DCSUP_COMMAND_S, DCSUP_START_S, DCSUP_STOP_S, DCSUP_STATUS_S, DCSUP_WAIT_S, DCSUP_LOG_ID_S, DCSUP_VERB_S_..., DCSUP_INTERVAL, CLP_BIN,
# DCSUP_MESSAGES. The site's own code stands in site/, as there.

. "$here/dcsup.env"
. "$DCSUP_MESSAGES"

# value_of PREFIX SERVICE: sets $value to what PREFIX_SERVICE holds
value_of() {
    key=$2
    while :; do
        case $key in *-*) key=${key%%-*}_${key#*-} ;; *) break ;; esac
    done
    eval "value=\${$1_$key-}"
}

# run_words COMMAND ARGUMENT...: a command as the settings have it: the path of one file, or words of sh
run_words() {
    command=$1
    shift
    if [ -f "$command" ]; then "$command" "$@"; else eval "$command \"\$@\""; fi
}

clp() {
    command=$1
    shift
    "${CLP_BIN:+$CLP_BIN/}$command" "$@"
}

# pause SECONDS; without armsleep a loop would not pause at all
pause() { clp armsleep "$1" || sleep "$1"; }

broadcast() { clp armbcast /MSG "$1" /A; }

# choose SERVICE: sets $kind, $verb (G8-G15, or the site's own choice), $wait (G20), $log_id (G19) and $name
choose() {
    value_of DCSUP_KIND "$1"
    kind=$value name="DataCoordinator $1"
    case $kind.$script.$CLP_EVENT in
        server.*) verb=recover wait=20 log_id=1 ;;
        agent.*.START) verb=start wait=10 log_id=2 ;;
        agent.*) verb=recover wait=10 log_id=2 ;;
        command.*) verb=start wait=10 log_id=3 name=$1 ;;
    esac
    if [ "$script" = stop ]; then
        case $kind.$CLP_EVENT in agent.START | command.*) verb=stop ;; *) verb=faststop ;; esac
    fi
    value_of DCSUP_VERB "$1_${script}_$CLP_EVENT"
    verb=${value:-$verb}
    value_of DCSUP_WAIT "$1"
    wait=${value:-$wait}
    value_of DCSUP_LOG_ID "$1"
    log_id=${value:-$log_id}
}

# run_verb SERVICE: the command for $verb, with an INFO line before it and an ERR line if it fails (G19)
run_verb() {
    if [ "$script" = start ]; then log INFO "$MSG_STARTING"; else log INFO "$MSG_STOPPING"; fi
    case $kind.$verb in
        command.start) value_of DCSUP_START "$1" && run_words "$value" ;;
        command.stop) value_of DCSUP_STOP "$1" && run_words "$value" ;;
        *) value_of DCSUP_COMMAND "$1" && run_words "$value" "$verb" ;;
    esac && return 0
    if [ "$script" = start ]; then log ERR "$MSG_START_FAILED"; else log ERR "$MSG_STOP_FAILED"; fi
    return 1
}

# log LEVEL FORMAT
log() {
    # shellcheck disable=SC2059  # the formats are our own messages
    clp clplogcmd -m "$(printf "$2" "$name")" -i "$log_id" -l "$1"
}

ask_status() {
    value_of DCSUP_STATUS "$1"
    run_words "$value"
}

# site PLACE: the site's own code (G43), on the highest-priority node or another (G21)
site() {
    if [ "${CLP_SERVER-}" = OTHER ]; then branch=other; else branch=home; fi
    for file in "$here/site/$1-$branch.sh" "$here/site/$1.sh"; do
        if [ -f "$file" ]; then
            sh "$file"
            return 0
        fi
    done
}

# leave_unless_up: no cluster (G17) or no disk (G18): say so and run nothing
leave_unless_up() {
    case ${CLP_EVENT-} in
        START | FAILOVER) ;;
        *)
            broadcast "$MSG_NO_CLUSTER"
            exit 0
            ;;
    esac
    if [ "${CLP_DISK-}" = FAILURE ]; then
        broadcast "$MSG_NO_DISK"
        exit 0
    fi
}
