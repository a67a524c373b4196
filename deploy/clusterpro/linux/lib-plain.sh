# The guide's own sequence, from where the journal stands, and what start.sh and stop.sh have in common. Sourced by lib.sh.

# verb_of SERVICE: sets $verb for this script and CLP_EVENT (G8-G15); a site may set another that the guide allows, but a service of kind
# command knows start and stop only
verb_of() {
    kind_of "$1"
    if [ "$value" = command ]; then
        verb=$dcsup_script
        return 0
    fi
    case $value.$dcsup_script.$CLP_EVENT in
        agent.start.START) verb=start ;;         # G12
        agent.start.FAILOVER) verb=recover ;;    # G13
        agent.stop.START) verb=stop ;;           # G14
        agent.stop.FAILOVER) verb=faststop ;;    # G15
        *.start.START) verb=recover ;;           # G8
        *.start.FAILOVER) verb=recover ;;        # G9
        *.stop.START) verb=faststop ;;           # G10
        *.stop.FAILOVER) verb=faststop ;;        # G11
    esac
    value_of DCSUP_VERB "$1_${dcsup_script}_$CLP_EVENT"
    case $dcsup_script.$value in
        start.start | start.recover | stop.stop | stop.faststop) verb=$value ;;
    esac
}

# list_commands: the call's commands in execution order: a start in the order of DCSUP_SERVICES (G23), a stop in reverse
list_commands() {
    lc_order=
    for lc_service in $DCSUP_SERVICES; do
        if [ "$dcsup_script" = stop ]; then lc_order="$lc_service $lc_order"; else lc_order="$lc_order $lc_service"; fi
    done
    for lc_service in $lc_order; do
        verb_of "$lc_service"
        add_command "$lc_service" "$verb"
    done
}

# decline REASON CODE: what a script does that rightly runs nothing
decline() {
    tell ScriptDeclined "script=$dcsup_script" "reason=$1" "event=$CLP_EVENT" "disk=$CLP_DISK"
    exit "$2"
}

# announce N: the INFO line before a command runs (G19), once
announce() {
    eval "an_done=\${announced_$1-}"
    [ -z "$an_done" ] || return 0
    eval "announced_$1=1"
    command_of "$1"
    if [ "$dcsup_script" = start ]; then cluster_log "$service" INFO "$MSG_STARTING"; else cluster_log "$service" INFO "$MSG_STOPPING"; fi
}

announce_all() {
    aa_n=0
    while [ "$aa_n" -lt "$commands" ]; do
        aa_n=$((aa_n + 1))
        announce "$aa_n"
    done
}

# ask_dcsup LIMIT: sets $hook_code; anything but 0 and 40 means that the plain sequence must go on
ask_dcsup() {
    hook_code=75
    if ! make_ticket; then
        hook_reason=no-ticket
    elif [ -e "$DCSUP_FOLDER/dcsup.bypass" ]; then
        hook_reason=bypass
    else
        announce_all
        call_hook "$1"
    fi
}

# fall_back: takes the ticket; fails when a later script took the ground from under this one
fall_back() {
    tell FallbackTaken "ticket=$ticket" "reason=$hook_reason"
    text_of "$MSG_FALLBACK" "$hook_reason"
    echo "$text"
    take_ticket
}

# run_plain N: runs command N of the list, marked as the script's own; sets $code. Fails when the ticket was made void meanwhile.
#
# The command runs in a nested shell that survives a killed script, writes the end into the journal and takes the mark back, so that a
# later script can wait for it (N6).
run_plain() {
    announce "$1"
    command_of "$1"
    if [ -n "$ticket_made" ] && ! rename_ticket "$ticket" script "script-$1"; then
        state_of "$ticket"
        case $state in void | done) return 1 ;; esac
    fi
    marked=$1
    run_nested "$1" "$service" "$verb" &
    child=$!
    wait "$child"
    code=$?
    child='' marked=''
}

# run_verb SERVICE VERB: dcserver and dcagent take the verb as a word; a service of kind command has a command for each
run_verb() {
    kind_of "$1"
    case $value.$2 in
        command.start) value_of DCSUP_START "$1" && run_words "$value" ;;
        command.stop) value_of DCSUP_STOP "$1" && run_words "$value" ;;
        *) value_of DCSUP_COMMAND "$1" && run_words "$value" "$2" ;;
    esac
}

# run_nested N SERVICE VERB: the body of the nested shell
run_nested() {
    trap - TERM INT HUP
    # sh has no name for a subshell's own id; a child's parent id is it
    tag=$(exec sh -c 'echo "$PPID"')
    birth_of "$tag"
    rn_born=$birth
    record "$ticket" "$1" start "$2" "$3" script "$tag" "$rn_born"
    tell CommandStarted "ticket=$ticket" "n=$1" "service=$2" "verb=$3" by=script
    rn_began=$(now_s)
    run_verb "$2" "$3"
    rn_code=$?
    if [ "$rn_code" -eq 0 ]; then rn_result=ok; else rn_result=fail; fi
    rn_took=$(($(now_s) - rn_began))
    record "$ticket" "$1" "$rn_result" "$2" "$3" script "$tag" "$rn_born" "code=$rn_code" ran=1 "duration_s=$rn_took" reason=
    tell CommandEnded "ticket=$ticket" "n=$1" "service=$2" "verb=$3" by=script "result=$rn_result" ran=1 "code=$rn_code" "duration_s=$rn_took"
    [ -z "$ticket_made" ] || rename_ticket "$ticket" "script-$1" script
    exit "$rn_code"
}

# note_healthy N: dcstatus was 0 before the start: nothing to run, and the journal says so
note_healthy() {
    command_of "$1"
    record "$ticket" "$1" ok "$service" "$verb" script '' '' code=0 ran=0 duration_s=0 reason=already-healthy
    tell CommandStarted "ticket=$ticket" "n=$1" "service=$service" "verb=$verb" by=script
    tell CommandEnded "ticket=$ticket" "n=$1" "service=$service" "verb=$verb" by=script result=ok ran=0 code=0 reason=already-healthy
}

# interrupted CODE: the cluster manager ends this script: what it started is ended with it, the ticket closed (N8)
interrupted() {
    trap '' TERM INT HUP
    [ -z "$guard" ] || kill -USR1 "$guard" 2>/dev/null
    [ -z "$child" ] || end_tree "$child"
    [ -z "$marked" ] || record_lost "$ticket" "$marked" script "$tickets/$ticket.script-$marked"
    [ -z "$ticket" ] || close_ticket "$1"
    exit "$1"
}
