#!/bin/sh
# Run the kernel-fact programs and print their verdicts as TAP
#
# usage: run.sh FOLDER PROGRAM...
#
# FOLDER holds the programs; files that they need while they run go into a
# folder of their own below it, which should be on a local disk.  What a
# program prints becomes TAP comments.  The exit status is 0 if no fact is
# broken.
#
# SPDX-License-Identifier: GPL-2.0-or-later
set -u

folder=$(cd "$1" && pwd) || exit 1
shift
seconds_each=60

TMPDIR=$(mktemp -d "$folder/scratch-XXXXXX") || exit 1
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
trap 'exit 1' INT TERM

# The reason that the last line of a program's output gives.
reason() {
    sed -n 's/^SKIP: //p' "$TMPDIR/output" | tail -n 1
}

uptime_seconds() {
    cut -d' ' -f1 /proc/uptime
}

echo "TAP version 13"
echo "1..$#"
number=0 passed=0 failed=0 skipped=0
for name; do
    number=$((number + 1))
    start=$(uptime_seconds)
    timeout -k 5 $seconds_each "$folder/$name" >"$TMPDIR/output" 2>&1
    status=$?
    end=$(uptime_seconds)
    case $status in
    0)
        passed=$((passed + 1))
        echo "ok $number - $name"
        ;;
    77)
        skipped=$((skipped + 1))
        echo "ok $number - $name # SKIP $(reason)"
        ;;
    124 | 143)
        failed=$((failed + 1))
        echo "not ok $number - $name"
        echo "# did not end within $seconds_each s"
        ;;
    *)
        failed=$((failed + 1))
        echo "not ok $number - $name"
        echo "# exit status $status"
        ;;
    esac
    sed '/^SKIP: /d; s/^/# /' "$TMPDIR/output"
    echo "$start $end" | awk '{ printf "# %.1f s\n", $2 - $1 }'
done
echo "# $passed facts hold, $failed broken, $skipped not tested"
[ "$failed" -eq 0 ]
