# SPDX-License-Identifier: GPL-2.0-or-later
#
# Helpers shared by the shell scripts of the fork: messages, and commands that
# take long enough to need progress, a log and the log's tail on failure.
# Sourced, never run.

say()
{
    printf '%s\n' "$*"
}

die()
{
    printf '%s: error: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# The line of a log that tells best how far the command is.
log_progress()
{
    tail -c 2000 "$1" 2>/dev/null | tr '\r' '\n' | grep -v '^ *$' | tail -n 1 |
        cut -c 1-60
}

# run_logged LABEL LOGFILE COMMAND...
# Runs COMMAND with its output in LOGFILE. A terminal shows a live line, other
# outputs get one line now and then. On failure the log's tail is shown.
run_logged()
{
    local label=$1 log=$2 start=$SECONDS next=15 status=0 pid columns line
    shift 2
    mkdir -p "$(dirname "$log")"
    "$@" >"$log" 2>&1 </dev/null &
    pid=$!
    # shellcheck disable=SC2064 # pid is wanted as it is now
    trap "kill $pid 2>/dev/null; exit 130" INT TERM
    while kill -0 "$pid" 2>/dev/null; do
        if [ -t 1 ]; then
            # Cut to the terminal's width: a line that wraps cannot be replaced.
            columns=$(stty size <&1 2>/dev/null | cut -d ' ' -f 2)
            line="$label: $((SECONDS - start)) s  $(log_progress "$log")"
            printf '\r\033[K%s' "${line:0:${columns:-80}-1}"
        elif [ $((SECONDS - start)) -ge $next ]; then
            say "$label: $next s  $(log_progress "$log")"
            next=$((next + 15))
        fi
        sleep 0.2
    done
    wait "$pid" || status=$?
    trap - INT TERM
    if [ -t 1 ]; then
        printf '\r\033[K'
    fi
    if [ $status -ne 0 ]; then
        say "$label: FAILED after $((SECONDS - start)) s (exit status $status)"
        say "--- last lines of $log"
        tail -n 40 "$log"
        say "---"
        return $status
    fi
    if [ $SECONDS -gt $start ]; then
        say "$label: done in $((SECONDS - start)) s"
    fi
}
