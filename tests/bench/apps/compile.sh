#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Two compilers at the same time, each of which needs some 180 MB.

set -e
case $1 in
load)
    gcc -O0 -c /mm/big.c -o /tmp/1.o
    ;;
work)
    gcc -O0 -c /mm/big.c -o /tmp/1.o &
    gcc -O0 -c /mm/big.c -o /tmp/2.o
    wait $!
    ;;
esac
