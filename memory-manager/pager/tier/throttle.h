/*
 * Managed memory pager: how fast a VM may use a tier
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Two leaky buckets, as in QEMU's block layer (docs/throttle.txt): what is
 * transferred goes in, the rate is what leaks, and nothing may begin while the
 * bucket is over its burst.  What begins may fill it beyond that, so that a
 * transfer larger than the burst is possible, and those after it wait for it.
 *
 * QEMU's own are not used, since they bring along its timers, and with them
 * the RCU thread (vm.h).
 */
#ifndef MANAGED_MEMORY_THROTTLE_H
#define MANAGED_MEMORY_THROTTLE_H

#include "managed-memory/proto.h"

typedef struct MmBucket {
    uint64_t rate;              /* units per second, 0: no limit */
    uint64_t burst;             /* units */
    double level;               /* units */
} MmBucket;

typedef struct MmThrottle {
    /* atomic */
    bool enabled;               /* whether there is any limit */

    GMutex lock;
    /* protected by lock */
    MmBucket bytes;
    MmBucket operations;
    uint64_t now_ns;            /* up to when both have leaked */
} MmThrottle;

/** mm_throttle_init: without limits. */
void mm_throttle_init(MmThrottle *t);

/** mm_throttle_destroy: nobody uses it any more. */
void mm_throttle_destroy(MmThrottle *t);

/**
 * mm_throttle_set: from now on, with empty buckets; any thread
 *
 * A burst of 0 is a tenth of a second's worth, and at least one unit.
 */
void mm_throttle_set(MmThrottle *t, const MmMsgIOLimits *limits);

/**
 * mm_throttle_take: may a transfer begin?  If so, it is counted
 *
 * @bytes: of the transfer
 * @now_ns: by a clock that does not go back
 *
 * Returns 0 if it may, else how many ns to wait at least.  Any thread.
 */
uint64_t mm_throttle_take(MmThrottle *t, uint64_t bytes, uint64_t now_ns);

/** mm_throttle_wait: the same for a transfer of any size, not counted. */
uint64_t mm_throttle_wait(MmThrottle *t, uint64_t now_ns);

#endif
