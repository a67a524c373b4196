# Processes: births, groups, trees. Sourced by lib.sh; the same rules as workers/processes.py, and the same births.
#
# A process is named by its id and its birth, one token that says when it began (N4): ids are reused, and behind an id with another
# birth runs a stranger, who is never touched. A group lives while any member that is not a zombie lives (N3).

# read_proc PID: sets p_state p_parent p_group p_born from /proc; fails when there is no such process
read_proc() {
    { IFS= read -r rp_line <"/proc/$1/stat"; } 2>/dev/null || return 1
    # shellcheck disable=SC2086  # the fields behind the name, which may itself hold anything
    set -- ${rp_line##*") "}
    [ $# -ge 20 ] || return 1
    p_state=$1 p_parent=$2 p_group=$3
    shift 19
    p_born=$1
}

# birth_of PID: sets $birth; fails when there is no such process
birth_of() {
    birth=
    if [ -r /proc/self/stat ]; then
        read_proc "$1" && birth=$p_born
    else
        birth=$(TZ=UTC0 LC_ALL=C ps -o lstart= -p "$1" 2>/dev/null | tr -cd '0-9A-Za-z')
    fi
    [ -n "$birth" ]
}

# One line per process: id, parent, group, state
process_table() {
    if [ -r /proc/self/stat ]; then
        for pt_entry in /proc/[0-9]*; do
            read_proc "${pt_entry#/proc/}" && echo "${pt_entry#/proc/} $p_parent $p_group $p_state"
        done
    else
        ps -A -o pid= -o ppid= -o pgid= -o stat=
    fi
}

# is_running PID [BIRTH]: whether it runs (a zombie does not), and is the one that began then
is_running() {
    birth_of "$1" || return 1
    [ -z "${2-}" ] || [ "$birth" = "$2" ] || return 1
    process_table | awk -v pid="$1" '$1 == pid && $4 !~ /^[ZX]/ { found = 1 } END { exit !found }'
}

# group_lives PID BIRTH
group_lives() {
    if birth_of "$1" && [ "$birth" != "$2" ]; then return 1; fi
    process_table | awk -v group="$1" '$3 == group && $4 !~ /^[ZX]/ { found = 1 } END { exit !found }'
}

# end_group PID BIRTH: returns when the group is seen gone; fails when it is still there after 30 s: a process that hangs in the kernel
end_group() {
    [ "$1" -gt 1 ] || return 1
    eg_until=$(($(now_s) + 30))
    while group_lives "$1" "$2"; do
        kill -s KILL -- "-$1" 2>/dev/null # dash does not understand `kill -9 --`
        [ "$(now_s)" -lt "$eg_until" ] || return 1
        nap
    done
    return 0
}

# tree_of PID: PID and what descends from it, without zombies, one a line
tree_of() {
    process_table | awk -v root="$1" '
        { parent[$1] = $2; state[$1] = $4 }
        END {
            for (pid in parent) {
                up = pid
                for (depth = 0; depth < 64 && up != root && (up in parent); depth++) up = parent[up]
                if (up == root && state[pid] !~ /^[ZX]/) print pid
            }
        }' | sort -n
}

# end_tree PID: ends it with all that descends from it, and sees them gone. All are halted first, so that none starts another unseen;
# a daemon that left on purpose has another parent, and stays.
end_tree() {
    et_victims=
    for et_round in 1 2 3 4 5; do
        et_found=$(tree_of "$1")
        [ "$et_found" = "$et_victims" ] && break
        et_victims=$et_found
        # shellcheck disable=SC2086
        kill -s STOP $et_victims 2>/dev/null
    done
    [ -n "$et_victims" ] || return 0
    # shellcheck disable=SC2086
    kill -s KILL $et_victims 2>/dev/null
    for et_round in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        [ -n "$(tree_of "$1")" ] || return 0
        nap
    done
    return 1
}
