# Tickets and journal, the script's part (N1, N2, N5-N8). Sourced by lib.sh; workers/tickets.py describes the names.

# state_of TICKET: sets $state to open, worker, busy-N-PID-BORN, script, script-N, done or void; empty and failing: it is not there.
# A folder that is read while a name in it changes may show neither name, so an absence is looked at three times.
state_of() {
    for so_try in 1 2 3; do
        for so_file in "$tickets/$1".*; do
            state=${so_file##*.}
            case $state in
                open | worker | busy-* | script | script-* | done | void) [ -e "$so_file" ] && return 0 ;;
            esac
        done
    done
    state=
    return 1
}

# rename_ticket TICKET FROM TO (N2): one rename decides; fails when the name is gone
rename_ticket() { mv "$tickets/$1.$2" "$tickets/$1.$3" 2>/dev/null; }

# split_busy STATE: sets busy_n busy_pid busy_born
split_busy() {
    sb_rest=${1#busy-}
    busy_n=${sb_rest%%-*}
    sb_rest=${sb_rest#*-}
    busy_pid=${sb_rest%%-*}
    busy_born=${sb_rest#*-}
}

# group_of TICKET: sets $group
group_of() {
    group=${1%-*}
    group=${group%-*}
    group=${group#*-}
}

# ---- Journal ----------------------------------------------------------------------------------------------------------------------

# journal_of TICKET N: sets $entry to ok, fail, lost or start; empty: nothing is recorded
journal_of() {
    for entry in ok fail lost start; do
        [ -e "$journal/$1.$2.$entry" ] && return 0
    done
    entry=
    return 1
}

# record TICKET N ENTRY SERVICE VERB BY PID BORN [KEY=VALUE...]
record() {
    re_path=$journal/$1.$2.$3
    re_text="ticket=$1
n=$2
service=$4
verb=$5
by=$6
pid=$7
born=$8
boot=$boot
mono=
up=$(now_s)
wall=$(wall_s)
"
    shift 8
    for re_pair; do
        re_text="$re_text$re_pair
"
    done
    put_file "$re_path" "$re_text"
}

# record_lost TICKET N BY FILE: its process is gone; unless its end is on record, nobody will ever know it. FILE holds the ticket's list.
record_lost() {
    if journal_of "$1" "$2" && [ "$entry" != start ]; then return 0; fi
    field_of "$4" "$2.service"
    rl_service=$field
    field_of "$4" "$2.verb"
    rl_verb=$field
    record "$1" "$2" lost "$rl_service" "$rl_verb" "$3" '' '' 'reason=process gone'
    tell CommandEnded "ticket=$1" "n=$2" "service=$rl_service" "verb=$rl_verb" "by=$3" result=lost 'reason=process gone'
}

# limit_of TICKET N: sets $until_s, when the command's limit has passed (with 2 s for its launcher to end it by itself). Found once for
# each command: without a journal entry, or with one from before the clock was set, a limit that is found anew would never be reached.
# The younger of two ages counts: by the wall clock, and by the clock since the boot. One that was set forwards makes no command old.
limit_known=
limit_of() {
    [ "$limit_known" != "$1.$2" ] || return 0
    limit_known=$1.$2
    until_s=$(($(now_s) + DCSUP_COMMAND_LIMIT + 2))
    field_of "$journal/$1.$2.start" wall || return 0
    whole_seconds "$field" || return 0
    lo_age=$(($(wall_s) - seconds))
    field_of "$journal/$1.$2.start" mono || field_of "$journal/$1.$2.start" up
    if whole_seconds "$field"; then
        lo_young=$(($(now_s) - seconds))
        if [ "$lo_young" -ge 0 ] && [ "$lo_young" -lt "$lo_age" ]; then lo_age=$lo_young; fi
    fi
    [ "$lo_age" -lt 0 ] || until_s=$((until_s - lo_age))
    return 0
}

# whole_seconds READING: sets $seconds; fails when it is no clock's reading
whole_seconds() {
    seconds=${1%%.*}
    case $seconds in '' | *[!0-9]* | ????????????*) return 1 ;; esac
}

# ---- N6: clear the ground ---------------------------------------------------------------------------------------------------------

# Every other ticket of the group becomes void, and what still runs for one is ended or waited for. Rounds, because a worker may claim
# between our look and our rename; a disk that refuses renames refuses the worker's too, so one round of that is enough.
clear_ground() {
    refused=
    for cg_round in 1 2 3 4 5 6 7 8 9 10; do
        cg_found=
        for cg_file in "$tickets"/*-start.* "$tickets"/*-stop.*; do
            [ -e "$cg_file" ] || continue
            cg_name=${cg_file##*/}
            case ${cg_name##*.} in open | worker | busy-* | script | script-*) ;; *) continue ;; esac
            group_of "${cg_name%.*}"
            [ "$group" = "$DCSUP_GROUP" ] || continue
            cg_found=1
            void_ticket "${cg_name%.*}" "${cg_name##*.}"
        done
        [ -n "$cg_found" ] && [ -z "$refused" ] || return 0
    done
}

# void_ticket TICKET STATE
void_ticket() {
    case $2 in
        busy-*) end_busy "$1" "$2" ;;
        script-*) wait_for_mark "$1" "${2#script-}" ;;
    esac
    if rename_ticket "$1" "$2" void; then
        rm -f "$tickets/$1.alive" 2>/dev/null
    elif [ -e "$tickets/$1.$2" ]; then
        refused=1
    fi
}

# end_busy TICKET STATE: the tree behind a busy name is ended and seen gone, then its end is written (N3); another boot: it is gone (N4)
end_busy() {
    split_busy "$2"
    # without a boot id of our own the birth alone must tell
    if [ -z "$boot" ] || [ "${1%%-*}" = "$boot" ]; then end_group "$busy_pid" "$busy_born"; fi
    record_lost "$1" "$busy_n" worker "$tickets/$1.$2"
}

# wait_for_mark TICKET N: an older script's own command, which survived its script; waited for within its limit, then ended if its
# process is known. (A batch file does not know it, and goes on then: the guide has the same risk.)
wait_for_mark() {
    limit_of "$1" "$2"
    wm_until=$until_s
    field_of "$journal/$1.$2.start" pid
    wm_pid=$field
    field_of "$journal/$1.$2.start" born
    wm_born=$field
    while state_of "$1" && [ "$state" = "script-$2" ]; do
        [ -z "$boot" ] || [ "${1%%-*}" = "$boot" ] || break
        if [ -n "$wm_pid" ]; then is_running "$wm_pid" "$wm_born" || break; fi
        if [ "$(now_s)" -ge "$wm_until" ]; then
            [ -z "$wm_pid" ] || end_tree "$wm_pid"
            break
        fi
        nap
    done
    [ -e "$tickets/$1.script-$2" ] && record_lost "$1" "$2" script "$tickets/$1.script-$2"
}

# ---- This call's own ticket -------------------------------------------------------------------------------------------------------

# add_command SERVICE VERB: one more line of the ticket's list
commands=0
add_command() {
    commands=$((commands + 1))
    eval "service_$commands=\$1 verb_$commands=\$2"
}

# command N: sets $service and $verb
command_of() { eval "service=\$service_$1 verb=\$verb_$1"; }

# name_ticket: T = <boot>-<group>-<seq>-start|stop, unique on this disk
name_ticket() {
    while :; do
        ticket=${boot:-unknown}-$DCSUP_GROUP-$(date +%Y%m%d%H%M%S)$(printf '%07d' $$)-$dcsup_script
        set -- "$tickets/$ticket".*
        [ -e "$1" ] || return 0
        nap
    done
}

# make_ticket (N1): in the script, before the hook. Fails when the disk refuses, or nobody knows which boot this is.
make_ticket() {
    name_ticket
    [ -n "$boot" ] || return 1
    mt_text="ticket=$ticket
boot=$boot
group=$DCSUP_GROUP
script=$dcsup_script
event=$CLP_EVENT
disk=$CLP_DISK
server=$CLP_SERVER
factor=$CLP_FACTOR
previous=$CLP_SERVER_PREV
pid=$$
commands=$commands
"
    mt_n=0
    while [ "$mt_n" -lt "$commands" ]; do
        mt_n=$((mt_n + 1))
        command_of "$mt_n"
        mt_text="$mt_text$mt_n.service=$service
$mt_n.verb=$verb
"
    done
    put_file "$tickets/$ticket.alive" "0000000000
" && put_file "$tickets/$ticket.open" "$mt_text" && ticket_made=1
}

# keep_alive (N7): the script's own sign of life, once a second while it works on the ticket without a hook
alive_count=0
alive_at=0
keep_alive() {
    [ -n "$ticket_made" ] && [ -z "$refused" ] || return 0
    ka_now=$(now_s)
    [ "$ka_now" -ne "$alive_at" ] || return 0
    alive_at=$ka_now alive_count=$((alive_count + 1))
    put_file "$tickets/$ticket.alive" "$alive_count
"
}

# take_ticket (N2): from open or worker to script; while a command is under way it is waited for, within its limit, then ended.
# Fails when a later script made the ticket void: then nothing may be run for it any more.
#
# A disk that refuses every rename refuses the worker's too: then the script goes on without its ticket, as the guide would, and gives no
# sign of life any more, so that nobody claims a command when the disk takes renames again (N7). Before each command it tries once more.
refused='' unkillable=''
take_ticket() {
    [ -n "$ticket_made" ] && [ -z "$unkillable" ] || return 0
    tt_refused=0
    [ -z "$refused" ] || tt_refused=49
    refused=''
    while [ "$tt_refused" -lt 50 ]; do
        state_of "$ticket" || break
        case $state in
            void | done) return 1 ;;
            script | script-*) return 0 ;;
            open | worker)
                rename_ticket "$ticket" "$state" script && return 0
                tt_refused=$((tt_refused + 1))
                ;;
            busy-*)
                take_busy && return 0
                # a process that hangs in the kernel: beside it nothing is started, and what can be stopped is stopped
                [ -z "$unkillable" ] || { [ "$dcsup_script" = stop ] && return 0 || return 1; }
                ;;
        esac
    done
    refused=1
}

# take_busy: the ticket is busy ($state); succeeds when its process is gone and the ticket is ours
take_busy() {
    tb_state=$state
    split_busy "$tb_state"
    limit_of "$ticket" "$busy_n"
    if group_lives "$busy_pid" "$busy_born"; then
        if [ "$(now_s)" -lt "$until_s" ]; then
            nap
            return 1
        fi
        end_group "$busy_pid" "$busy_born" || unkillable=1
        return 1
    fi
    [ -e "$tickets/$ticket.$tb_state" ] || return 1
    record_lost "$ticket" "$busy_n" worker "$tickets/$ticket.$tb_state"
    rename_ticket "$ticket" "$tb_state" script && return 0
    [ ! -e "$tickets/$ticket.$tb_state" ] || tt_refused=$((tt_refused + 1))
    return 1
}

# close_ticket CODE (N8): before the script returns, whatever it returns; what is still under way for it is ended first
close_ticket() {
    if [ -n "$ticket_made" ]; then
        for ct_round in 1 2 3 4 5; do
            state_of "$ticket" || break
            ct_state=$state
            case $ct_state in
                done | void) break ;;
                busy-*) end_busy "$ticket" "$ct_state" ;;
            esac
            rename_ticket "$ticket" "$ct_state" done && break
        done
        rm -f "$tickets/$ticket.alive" 2>/dev/null
    fi
    tell ScriptEnded "ticket=$ticket" "script=$dcsup_script" "code=$1"
}

# call_hook LIMIT: sets $hook_code (0, 40, or anything else: dcsup is not there) and $hook_reason
call_hook() {
    exec_words "$DCSUP" hook "$dcsup_script" --folder "$DCSUP_FOLDER" --ticket "$ticket" --ack-timeout "$DCSUP_ACK_TIMEOUT" \
        --limit "$1" --command-limit "$DCSUP_COMMAND_LIMIT" --poll-limit "$DCSUP_POLL_LIMIT" --parent "$$" &
    child=$!
    guard_hook "$child" "$tickets/$ticket.alive" "$(($1 + 5))" >/dev/null 2>&1 &
    guard=$!
    wait_guarded
    hook_code=$code
    case $ended_by in
        8) hook_reason=hook-silent ;;
        9) hook_reason=hook-limit ;;
        *) hook_reason=hook-$code ;;
    esac
}
