#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# A table of 95,000 rows of 4,000 bytes in memory, read and changed at random.

set -e
rows=95000
case $1 in
load)
    sqlite3 /tmp/db "
        pragma journal_mode = off; pragma synchronous = off;
        create table t(id integer primary key, n integer, v blob);
        with recursive r(i) as
            (select 1 union all select i + 1 from r limit $rows)
        insert into t select i, 0, randomblob(4000) from r;"
    ;;
work)
    sqlite3 /tmp/db "
        pragma journal_mode = off; pragma synchronous = off;
        with recursive r(i) as
            (select 1 union all select i + 1 from r limit 40000)
        select sum(length(v)) from r
        join t on t.id = abs(random() + 0 * i) % $rows + 1;
        with recursive r(i) as
            (select 1 union all select i + 1 from r limit 20000)
        update t set n = n + 1 where id in
            (select abs(random() + 0 * i) % $rows + 1 from r);"
    ;;
esac
