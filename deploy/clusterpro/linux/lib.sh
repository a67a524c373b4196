# What start.sh, stop.sh and watch.sh share. POSIX sh; sourced, never run.
#
# These are the scripts that CLUSTERPRO runs in mode `supervise`. They hold the plain sequence of NEC's guide (G8-G24 in the project's
# documentation) and their part of the node protocol (N1-N9: who runs a command, and when). Normally a script makes a ticket, calls
# `dcsup hook ...` and waits; the node's worker runs the commands. Whenever dcsup is not there (missing, crashed, hanging, nobody takes
# the ticket), the script takes the ticket back and goes on with the guide's own sequence, from where the journal stands.
#
# The rules that must never be broken here:
#   N1  the script makes the ticket, before it calls the hook; no ticket on the disk: plain sequence, nobody else can run
#   N2  a ticket changes hands by rename only; after a failed rename one looks again, never assumes
#   N6  first of all the ground is cleared: every other ticket of the group becomes void, and what runs for it is ended
#   N7  the ticket lives as long as its script: its sign of life is refreshed
#   N8  the script closes its ticket before it returns, whatever the code
#
# Files: lib.sh (settings, words, bounded calls), lib-processes.sh, lib-tickets.sh, lib-plain.sh (the guide's sequence),
# messages.en.sh / messages.ja.sh (what people read), dcsup.env (this node's settings), site/*.sh (the site's own code).
#
# ---- Settings, in `dcsup.env` beside this file (plain sh assignments) -------------------------------------------------------------
#
#   A *command* is either the path of one file (spaces are no harm), or words as one types them in sh.
#
#   DCSUP                   command that runs dcsup, e.g. /opt/dcsup/bin/dcsup
#   DCSUP_FOLDER            the node folder: outbox, tickets, journal; on a local disk
#   DCSUP_GROUP             the failover group's name in dcsup: a-z 0-9 -
#   DCSUP_BOOT_FILE         file whose first line is this boot's id, or
#   DCSUP_BOOT_COMMAND      command that prints it; neither: the operating system's. The same as `boot` in dcsup.toml
#   DCSUP_BOOT_LIMIT        s that this command may take; default 5
#   DCSUP_SERVICES          services in start order, e.g. "agent server" (G23); a stop runs in reverse
#   For each service S (a `-` in its name is written `_` here):
#   DCSUP_KIND_S            agent, server or command (a DBMS, say: G24); default: S itself
#   DCSUP_COMMAND_S         command for the verbs (dcserver, dcagent), or, for kind command,
#   DCSUP_START_S, DCSUP_STOP_S  the command that starts it and the one that stops it
#   DCSUP_STATUS_S          its dcstatus
#   DCSUP_WAIT_S            seconds to wait before each poll of a start (G20); default 20 server, 10 any other
#   DCSUP_LOG_ID_S          id in the cluster log (G19); default 1 server, 2 agent, 3 command
#   DCSUP_VERB_S_start_START, ..._start_FAILOVER, ..._stop_START, ..._stop_FAILOVER
#                           another verb than G8-G15 say: start or recover; stop or faststop. Not for kind command
#   DCSUP_ACK_TIMEOUT       s in which the ticket must be taken; default 4. All other durations are whole seconds
#   DCSUP_START_DEADLINE    s after which a start that is not up is given up; default 600
#   DCSUP_STOP_DEADLINE     the same for a stop; default 600
#   DCSUP_COMMAND_LIMIT     s that one command may take before a later script ends it; default 300
#   DCSUP_INTERVAL          s between two polls of the watch (G22); default 10
#   DCSUP_POLL_LIMIT        s after which a dcstatus counts as unknown; default 30
#   DCSUP_CONFIRM           failing polls in a row that end the watch hook; default 1
#   DCSUP_HOOK_SILENCE      s without a sign of life after which a hook counts as hanging; default 5
#   DCSUP_REPORT_FAILURE    1: a stop whose service is proved to be running at the deadline returns non-zero; default 0.
#                           CLUSTERPRO's own default is then to shut the operating system down
#   DCSUP_SITE_LIMIT        s that one of the site's own scripts may take; default 60
#   CLP_BIN                 folder of clplogcmd, armsleep and armbcast; empty: they are on PATH
#   DCSUP_MESSAGES          file with the texts; default messages.en.sh beside this file
#   DCSUP_LANG              en or ja: of what dcsup itself says
#
# ---- The site's own code (G43) ----------------------------------------------------------------------------------------------------
#
#   site/<place>-home.sh or site/<place>-other.sh (G21: on the highest-priority node, or another), else site/<place>.sh. Places:
#   start-normal, start-failover (after the services are up), recover (G16), before-stop, after-stop. Each has DCSUP_SITE_LIMIT
#   seconds; that it fails is written to the cluster log and changes nothing else.

die_unconfigured() {
    echo "dcsup: $dcsup_here/dcsup.env cannot be read" >&2
    [ "$dcsup_script" = stop ] && exit 0
    exit 1
}

# read first, and only then obeyed: a syntax error in a sourced file ends the shell, and a stop must not end badly
[ -r "$dcsup_here/dcsup.env" ] && sh -n "$dcsup_here/dcsup.env" 2>/dev/null || die_unconfigured
. "$dcsup_here/dcsup.env"

# whole NAME DEFAULT: a setting that is a whole number, or its default: arithmetic on anything else ends the shell
whole() {
    eval "wh_value=\${$1-}"
    case $wh_value in
        '' | *[!0-9]* | ?????????*) eval "$1=\$2" ;;
        0*[1-9]*) eval "$1=\${wh_value#\"\${wh_value%%[1-9]*}\"}" ;; # a leading 0 would make it octal
        0*) eval "$1=0" ;;
    esac
}

# one_line NAME: a variable of the cluster manager's, with its line ends made blanks: in our files a line is a field
line_end='
'
one_line() {
    eval "ol_rest=\${$1-}" ol_line=
    while :; do
        case $ol_rest in
            *"$line_end"*) ol_line="$ol_line${ol_rest%%"$line_end"*} " ol_rest=${ol_rest#*"$line_end"} ;;
            *) break ;;
        esac
    done
    eval "$1=\$ol_line\$ol_rest"
}

: "${DCSUP:=dcsup}" "${DCSUP_FOLDER:=}" "${DCSUP_GROUP:=}" "${DCSUP_BOOT_FILE:=}" "${DCSUP_BOOT_COMMAND:=}" "${DCSUP_SERVICES:=}"
: "${DCSUP_ACK_TIMEOUT:=4}" "${DCSUP_REPORT_FAILURE:=0}" "${CLP_BIN:=}" "${DCSUP_MESSAGES:=$dcsup_here/messages.en.sh}"
for pair in START_DEADLINE:600 STOP_DEADLINE:600 COMMAND_LIMIT:300 INTERVAL:10 POLL_LIMIT:30 CONFIRM:1 HOOK_SILENCE:5 SITE_LIMIT:60 \
    BOOT_LIMIT:5; do
    whole "DCSUP_${pair%:*}" "${pair#*:}"
done
for name in CLP_EVENT CLP_DISK CLP_SERVER CLP_FACTOR CLP_SERVER_PREV; do one_line "$name"; done

[ -r "$DCSUP_MESSAGES" ] || DCSUP_MESSAGES=$dcsup_here/messages.en.sh
. "$DCSUP_MESSAGES"

tickets=$DCSUP_FOLDER/tickets
journal=$DCSUP_FOLDER/journal
outbox=$DCSUP_FOLDER/outbox
ticket=        # this call's ticket, as soon as it has a name
ticket_made=   # 1 once it is on the disk
child=         # what this script waits for at the moment; ended when the script is
guard=         # the subshell that bounds it
marked=        # the number of our own command under way
boot=

# Two clocks in whole seconds. Limits and deadlines are counted on the one that nobody can set, where there is one.
now_s() {
    if { IFS='. ' read -r ns_up ns_rest </proc/uptime; } 2>/dev/null; then echo "$ns_up"; else date +%s; fi
}
wall_s() { date +%s; }
dcsup_began=$(now_s)

# A short pause. Fractions are not in POSIX, though every system that we know has them.
nap() { sleep 0.1 2>/dev/null || sleep 1; }

# value_of PREFIX SERVICE: sets $value to what PREFIX_SERVICE holds
value_of() {
    vo_key=$2
    while :; do
        case $vo_key in *-*) vo_key=${vo_key%%-*}_${vo_key#*-} ;; *) break ;; esac
    done
    eval "value=\${$1_$vo_key-}"
}

kind_of() {
    value_of DCSUP_KIND "$1"
    [ -n "$value" ] || value=$1
}

# run_words COMMAND ARGUMENT...: a command as the settings have it
run_words() {
    rw_command=$1
    shift
    if [ -f "$rw_command" ]; then "$rw_command" "$@"; else eval "$rw_command \"\$@\""; fi
}

# The same in this very process, so that its parent is the script itself: a hook must see when its script dies (N7).
exec_words() {
    ew_command=$1
    shift
    if [ -f "$ew_command" ]; then exec "$ew_command" "$@"; else eval "exec $ew_command \"\$@\""; fi
}

# put_file PATH TEXT: in one step; fails when the disk refuses
put_file() {
    pf_aside=${1%/*}/.tmp-${tag:-$$}-${1##*/}
    if { printf '%s' "$2" >"$pf_aside" && [ -s "$pf_aside" ] && mv -f "$pf_aside" "$1"; } 2>/dev/null; then return 0; fi
    rm -f "$pf_aside" 2>/dev/null
    return 1
}

# field_of FILE KEY: sets $field, empty if there is none
field_of() {
    field=
    [ -r "$1" ] || return 1
    while IFS='=' read -r fo_key fo_value; do
        [ "$fo_key" = "$2" ] && field=$fo_value
    done <"$1"
    [ -n "$field" ]
}

find_boot() {
    if [ -n "$DCSUP_BOOT_FILE" ]; then
        IFS= read -r boot <"$DCSUP_BOOT_FILE" || [ -n "$boot" ]
    elif [ -n "$DCSUP_BOOT_COMMAND" ]; then
        boot=$(limited "$DCSUP_BOOT_LIMIT" run_words "$DCSUP_BOOT_COMMAND") || boot=
    elif [ -r /proc/sys/kernel/random/boot_id ]; then
        read -r boot </proc/sys/kernel/random/boot_id
    else
        boot=$(sysctl -n kern.bootsessionuuid)
    fi 2>/dev/null
    boot=$(printf '%s' "$boot" | tr -cd '0-9A-Za-z')
    [ -n "$boot" ]
}

# ---- What goes to the cluster and to the outbox -----------------------------------------------------------------------------------

clp() {
    clp_command=$1
    shift
    "${CLP_BIN:+$CLP_BIN/}$clp_command" "$@"
}

# text_of FORMAT WORD: sets $text
text_of() {
    # shellcheck disable=SC2059  # the formats are our own messages
    text=$(printf "$1" "$2")
}

# cluster_log SERVICE LEVEL FORMAT: one line in the cluster log (G19)
cluster_log() {
    kind_of "$1"
    case $value in
        agent) cl_id=2 cl_name="DataCoordinator $1" ;;
        command) cl_id=3 cl_name=$1 ;;
        *) cl_id=1 cl_name="DataCoordinator $1" ;;
    esac
    value_of DCSUP_LOG_ID "$1"
    text_of "$3" "$cl_name"
    cl_id=${value:-$cl_id}
    clp clplogcmd -m "$text" -i "$cl_id" -l "$2"
}

broadcast() { clp armbcast /MSG "$1" /A; }

# tell TYPE KEY=VALUE...: a fact as plain lines (the forwarder makes facts of them); on a full disk it is lost, and the script goes on
line_number=0
tell() {
    te_text="type=$1
source=script
boot=$boot
"
    shift
    for te_pair; do
        te_text="$te_text$te_pair
"
    done
    line_number=$((line_number + 1))
    te_stamp=$(date +%s%N)
    case $te_stamp in *N*) te_stamp=${te_stamp%%N*}999999999 ;; esac
    put_file "$outbox/$te_stamp-${tag:-$$}-$(printf '%06d' "$line_number").line" "$te_text"
}

# ---- Bounded calls ----------------------------------------------------------------------------------------------------------------

# A guard is a subshell beside what it bounds. It tells by its own exit code that it had to end it (8: silent, 9: limit). It is sent away
# with USR1, which the script itself does not trap: a fresh subshell forgets a trapped signal that comes before its own trap is set.
# It sleeps a second at a time, so that it never outstays its call for longer.
sleep_guarded() {
    sleep 1 &
    guard_sleep=$!
    wait "$guard_sleep"
}

# guard_ends CHILD CODE: from here on the guard is not sent away any more, or its caller would never hear why the child ended
guard_ends() {
    trap '' USR1
    end_tree "$1"
    exit "$2"
}

# guard_limit CHILD SECONDS
guard_limit() {
    guard_sleep=
    trap '[ -z "$guard_sleep" ] || kill "$guard_sleep" 2>/dev/null; exit 0' USR1
    gl_age=0
    while [ "$gl_age" -lt "$2" ]; do
        sleep_guarded
        gl_age=$((gl_age + 1))
    done
    guard_ends "$1" 9
}

# guard_hook CHILD SIGN_OF_LIFE SECONDS(0: none): ends a hook that shows no sign of life, or outlives its limit
guard_hook() {
    guard_sleep=
    trap '[ -z "$guard_sleep" ] || kill "$guard_sleep" 2>/dev/null; exit 0' USR1
    gh_seen='' gh_silent=0 gh_age=0
    while :; do
        sleep_guarded
        gh_age=$((gh_age + 1)) gh_silent=$((gh_silent + 1)) gh_sign=''
        { read -r gh_sign <"$2"; } 2>/dev/null
        if [ "$gh_sign" != "$gh_seen" ]; then gh_seen=$gh_sign gh_silent=0; fi
        if [ "$gh_silent" -ge "$DCSUP_HOOK_SILENCE" ]; then guard_ends "$1" 8; fi
        if [ "$3" -gt 0 ] && [ "$gh_age" -ge "$3" ]; then guard_ends "$1" 9; fi
    done
}

# wait_guarded: waits for $child, bounded by $guard; sets $code, and $ended_by to 8 or 9 if the guard ended it
wait_guarded() {
    wait "$child"
    code=$?
    child=''
    kill -USR1 "$guard" 2>/dev/null
    wait "$guard" 2>/dev/null
    ended_by=$?
    guard=''
}

# limited SECONDS COMMAND...: its exit code; $ended_by is 9 when it had to be ended
limited() {
    li_seconds=$1
    shift
    "$@" &
    child=$!
    guard_limit "$child" "$li_seconds" >/dev/null 2>&1 &
    guard=$!
    wait_guarded
    return "$code"
}

# rest SECONDS: what the guide does between polls
rest() {
    clp armsleep "$1" &
    child=$!
    wait "$child"
    re_code=$?
    if [ "$re_code" -eq 126 ] || [ "$re_code" -eq 127 ]; then # there is none: a loop without a pause would be worse
        sleep "$1" &
        child=$!
        wait "$child"
    fi
    child=''
}

# ask_status SERVICE: 0 healthy; sets $code, and $ended_by to 9 when dcstatus did not return in time (unknown)
ask_status() {
    value_of DCSUP_STATUS "$1"
    limited "$DCSUP_POLL_LIMIT" run_words "$value" >/dev/null 2>&1
    [ "$code" -eq 0 ] && [ "$ended_by" -ne 9 ]
}

# site PLACE: the site's own code (G43), on the highest-priority node or another (G21)
site() {
    if [ "$CLP_SERVER" = OTHER ]; then si_branch=other; else si_branch=home; fi
    for si_file in "$dcsup_here/site/$1-$si_branch.sh" "$dcsup_here/site/$1.sh"; do
        [ -f "$si_file" ] || continue
        limited "$DCSUP_SITE_LIMIT" sh "$si_file" && return 0
        text_of "$MSG_SITE_FAILED" "${si_file##*/}"
        clp clplogcmd -m "$text" -i 1 -l ERR
        return 0
    done
}

. "$dcsup_here/lib-processes.sh"
. "$dcsup_here/lib-tickets.sh"
. "$dcsup_here/lib-plain.sh"
