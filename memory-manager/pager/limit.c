/*
 * Managed memory pager: the resident limit and its watermarks
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What a limit means to faults and to reclaim.  What the limit is comes from
 * control/resident-limit.c.
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "limit.h"

/*
 * The slack and the reserve: shares of the limit, but 1 MiB to 64 MiB, and
 * never most of it.  What is slack is not used, so it is small: of a guest that
 * uses half as much again as fits, one per cent of slack makes two more faults
 * of a hundred.
 */
#define SLACK_DIVISOR 256
#define RESERVE_DIVISOR 64
#define SHARE_MIN_PAGES 256
#define SHARE_MAX_PAGES 16384

/* Beyond the reserve: time for the first step, and how slow it may become */
#define FIRST_STEP_NS 1000000000ULL
#define MAX_DOUBLINGS 16

static uint64_t share(const MmLimit *l, uint64_t pages, unsigned divisor)
{
    uint64_t part = MAX(pages / divisor, SHARE_MIN_PAGES);

    return MIN(MAX(MIN(part, SHARE_MAX_PAGES), l->unit), pages / 4);
}

static uint64_t unit(const MmLimit *l)
{
    return MAX(qatomic_read(&l->unit), 1);
}

void mm_limit_set(MmLimit *l, uint64_t pages)
{
    uint64_t slack = share(l, pages, SLACK_DIVISOR);

    if (pages == UINT64_MAX) {
        qatomic_set(&l->high, UINT64_MAX);
        qatomic_set(&l->low, UINT64_MAX);
        qatomic_set(&l->reserve, 0);
    } else {
        qatomic_set(&l->high, pages - slack);
        qatomic_set(&l->low, pages - 2 * slack);
        qatomic_set(&l->reserve, share(l, pages, RESERVE_DIVISOR));
    }
    qatomic_set(&l->limit, pages);
}

/* ... so many pages more, of which it has given some? */
static bool reserve_has(const MmLimit *l, uint64_t given, uint64_t more)
{
    uint64_t reserve = qatomic_read(&l->reserve);

    return more <= reserve && given <= reserve - more;
}

uint64_t mm_limit_room(const MmLimit *l, uint64_t resident, uint64_t want)
{
    uint64_t limit = qatomic_read(&l->limit);
    uint64_t room = limit - MIN(resident, limit);
    uint64_t over = resident - MIN(resident, limit);

    if (room >= unit(l)) {
        return MIN(want, room);
    }
    if ((qatomic_read(&l->stuck) || qatomic_read(&l->blind)) &&
        reserve_has(l, over, unit(l) - room)) {
        return want < unit(l) ? 1 : unit(l);
    }
    return 0;
}

uint64_t mm_limit_pause_ns(const MmLimit *l, uint64_t resident)
{
    uint64_t limit = qatomic_read(&l->limit);
    uint64_t reserve = MAX(qatomic_read(&l->reserve), 1);
    uint64_t steps;

    if (!qatomic_read(&l->stuck) || !qatomic_read(&l->held) ||
        (resident < limit && limit - resident >= unit(l))) {
        return UINT64_MAX;
    }
    steps = (resident - MIN(resident, limit)) / reserve;
    return (FIRST_STEP_NS * unit(l) / reserve) <<
           MIN(MAX(steps, 1) - 1, MAX_DOUBLINGS);
}

bool mm_limit_above_high(const MmLimit *l, uint64_t resident)
{
    return resident > qatomic_read(&l->high);
}

bool mm_limit_above_low(const MmLimit *l, uint64_t resident)
{
    return resident > qatomic_read(&l->low);
}
