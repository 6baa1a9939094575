/*
 * Unit tests: the reclaim thread's part, step by step
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A VM with one tier, whose queue completes a store when the test says so, and
 * a region of which the first half is in memory: page N holds N + 1.
 */
#ifndef RECLAIM_RIG_H
#define RECLAIM_RIG_H

#include "memory-manager/pager/fault/fault-internal.h"
#include "memory-manager/pager/reclaim/reclaim-internal.h"
#include "memory-manager/pager/region.h"
#include "vm-rig.h"

#define BATCH MM_TIER_IO_PAGES

typedef QSIMPLEQ_HEAD(, MmTierIO) IOList;

typedef struct HeldQueue {
    MmTierQueue base;
    MmTierQueue *former;        /* in the place of which it is */
    IOList held;
    IOList completed;
    unsigned nr_held;
} HeldQueue;

typedef struct ReclaimRig {
    MmVM *vm;
    MmReclaim *r;
    MmRegion *region;           /* another one in each test */
    HeldQueue queue;
} ReclaimRig;

typedef struct ReclaimTest {
    const char *name;
    void (*fn)(void);
} ReclaimTest;

extern ReclaimRig rig;

/** reclaim_rig_candidates: make pages as they are after a zap. */
void reclaim_rig_candidates(uint64_t page, unsigned nr);

/**
 * reclaim_rig_complete: complete the @nth store that is held
 *
 * @err: errno value with which it fails, or 0
 */
void reclaim_rig_complete(unsigned nth, int err);

/** reclaim_rig_swapped: assert that @page is, and that it holds @content. */
void reclaim_rig_swapped(uint64_t page, uint64_t content);

/** reclaim_rig_all_swapped: and pages with what they had from the start. */
void reclaim_rig_all_swapped(uint64_t page, uint64_t nr);

/**
 * reclaim_rig_main: run tests
 *
 * @name: of them together
 */
int reclaim_rig_main(int argc, char **argv, const char *name,
                     const ReclaimTest *tests, unsigned nr);

#endif
