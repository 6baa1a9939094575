/*
 * Managed memory pager: how fast a VM may use a tier
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "throttle.h"

#define NS_PER_S 1e9
#define DEFAULT_BURST 10        /* parts of a second */

void mm_throttle_init(MmThrottle *t)
{
    *t = (MmThrottle) {};
    g_mutex_init(&t->lock);
}

void mm_throttle_destroy(MmThrottle *t)
{
    g_mutex_clear(&t->lock);
}

static void set_bucket(MmBucket *b, uint64_t rate, uint64_t burst)
{
    *b = (MmBucket) {
        .rate = rate, .burst = burst ?: MAX(rate / DEFAULT_BURST, 1),
    };
}

void mm_throttle_set(MmThrottle *t, const MmMsgIOLimits *limits)
{
    g_mutex_lock(&t->lock);
    set_bucket(&t->bytes, limits->bps, limits->bps_burst);
    set_bucket(&t->operations, limits->iops, limits->iops_burst);
    qatomic_set(&t->enabled, limits->bps || limits->iops);
    g_mutex_unlock(&t->lock);
}

static void leak(MmBucket *b, double seconds)
{
    b->level = MAX(b->level - b->rate * seconds, 0);
}

/* What has leaked in several steps is off by less than a nanosecond's. */
static uint64_t wait_for(const MmBucket *b)
{
    double extra = b->level - b->burst;
    double ns = b->rate && extra > 0 ? extra / b->rate * NS_PER_S : 0;

    return ns >= 1 ? ns + 1 : 0;
}

static uint64_t wait_locked(MmThrottle *t, uint64_t now_ns)
{
    if (now_ns > t->now_ns) {
        double seconds = (double)(now_ns - t->now_ns) / NS_PER_S;

        leak(&t->bytes, seconds);
        leak(&t->operations, seconds);
        t->now_ns = now_ns;
    }
    return MAX(wait_for(&t->bytes), wait_for(&t->operations));
}

uint64_t mm_throttle_take(MmThrottle *t, uint64_t bytes, uint64_t now_ns)
{
    uint64_t wait;

    if (!qatomic_read(&t->enabled)) {
        return 0;
    }
    g_mutex_lock(&t->lock);
    wait = wait_locked(t, now_ns);
    if (!wait) {
        t->bytes.level += bytes;
        t->operations.level++;
    }
    g_mutex_unlock(&t->lock);
    return wait;
}

uint64_t mm_throttle_wait(MmThrottle *t, uint64_t now_ns)
{
    uint64_t wait;

    g_mutex_lock(&t->lock);
    wait = wait_locked(t, now_ns);
    g_mutex_unlock(&t->lock);
    return wait;
}
