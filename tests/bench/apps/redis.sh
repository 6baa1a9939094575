#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# 100,000 values of 4,000 bytes, all of which are asked for equally often.

set -e
bench="redis-benchmark -q -s /tmp/redis.sock -r 100000 -d 4000"
case $1 in
load)
    redis-server --save '' --appendonly no --port 0 \
        --unixsocket /tmp/redis.sock --daemonize yes --logfile /tmp/redis.log
    until redis-cli -s /tmp/redis.sock ping >/dev/null 2>&1; do
        sleep 0.1
    done
    $bench -t set -n 180000 -P 16
    ;;
work)
    $bench -t set,get -n 40000
    ;;
esac
