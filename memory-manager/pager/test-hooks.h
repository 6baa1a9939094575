/*
 * Managed memory pager: points where the tests interfere
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Only qemu-memory-pager-test is built with MM_TEST_HOOKS; in the pager that
 * ships, every hook is nothing.  Failpoints and mutations come from the
 * environment, see test-hooks.c.
 */
#ifndef MANAGED_MEMORY_TEST_HOOKS_H
#define MANAGED_MEMORY_TEST_HOOKS_H

/* One protection switched off; the torture test must then fail. */
typedef enum MmMutation {
    MM_MUT_NO_WAKE,             /* attach does not wake waiting faults */
    MM_MUT_PUNCH_FIRST,         /* a page is punched before it is stored */
    MM_MUT_NO_DMA_COUNT,        /* DMA counters are not looked at */
    MM_MUT_NO_CHECKSUM,         /* content from a tier is not verified */
    MM_MUT_NO_MAP_OWNER,        /* pages are mapped without owning them */
    MM_MUT_FREE_EARLY,          /* a place is free before its page is placed */
    MM_MUT__MAX
} MmMutation;

typedef enum MmFailpoint {
    MM_FP_ATTACH,               /* everything known, nothing served yet */
    MM_FP_CLAIMING,             /* no place that is in use is claimed yet */
    MM_FP_RECONCILE,            /* between two chunks of the attach scan */
    MM_FP_FAULT_READ,           /* faults read, none served */
    MM_FP_FILLING,              /* page is FILLING, nothing placed */
    MM_FP_PLACED,               /* page placed, still FILLING */
    MM_FP_MAPPING,              /* page is MAPPING, not mapped */
    MM_FP_MAPPED,               /* page mapped, still MAPPING */
    MM_FP_CANDIDATE,            /* pages are CANDIDATE, not zapped */
    MM_FP_ZAPPED,               /* pages are zapped */
    MM_FP_WRITEBACK,            /* pages are WRITEBACK, nothing stored */
    MM_FP_STORED,               /* content stored, not published */
    MM_FP_DROPPING,             /* pages are DROPPING, not punched */
    MM_FP_PUNCHED,              /* pages punched, still DROPPING */
    MM_FP_SWAPPED,              /* pages are SWAPPED, waiters not served */
    MM_FP_MOVING,               /* content in its new place, not published */
    MM_FP_MOVED,                /* and published */
    MM_FP_RING_TAKEN,           /* request taken, not begun */
    MM_FP_DISCARDING,           /* pages are DISCARDING, not punched */
    MM_FP_DISCARD_PUNCHED,      /* pages punched, still DISCARDING */
    MM_FP_RING_DONE,            /* request executed, not acknowledged */
    MM_FP_REGION_ADD,           /* region made, QEMU not told */
    MM_FP_TIER_LOAD,            /* a read is about to start; may fail */
    MM_FP_TIER_STORE,           /* a write is about to start; may fail */
    MM_FP__MAX
} MmFailpoint;

#ifdef MM_TEST_HOOKS

/** mm_test_init: read the environment; before the process is jailed. */
void mm_test_init(int argc, char **argv);

/** mm_test_done: write the failpoints' hit counts; before a normal exit. */
void mm_test_done(void);

/** mm_test_jail_probe: try what the jail must forbid, if told so. */
void mm_test_jail_probe(void);

/** mm_mutated: is this protection switched off? */
bool mm_mutated(MmMutation mutation);

/**
 * mm_failpoint: count a hit; die, wait or fail if it is this one's turn
 *
 * Returns 0, or the -errno that an I/O has to end with.
 */
int mm_failpoint(MmFailpoint point);

#else

static inline void mm_test_init(int argc, char **argv)
{
}

static inline void mm_test_done(void)
{
}

static inline void mm_test_jail_probe(void)
{
}

static inline bool mm_mutated(MmMutation mutation)
{
    return false;
}

static inline int mm_failpoint(MmFailpoint point)
{
    return 0;
}

#endif
#endif
