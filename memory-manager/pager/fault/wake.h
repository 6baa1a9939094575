/*
 * Managed memory pager: guests that wake up
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A guest that was mostly swapped out and gets to work again needs much the
 * same pages each time, in another order.  So blocks that it faults on in the
 * first seconds are recorded, and when it wakes up the next time those are read
 * without waiting for its faults, as far as there is room.
 *
 *   AWAKE     it works with what it has in memory, however little
 *   ASLEEP    three quarters are swapped out, and less than half of what it
 *             had in memory when it was awake still is
 *   STIRRING  some faults: a timer, perhaps; if no more come, it sleeps on
 *   WAKING    many faults: what was recorded is read, what it faults on is
 *             recorded anew
 *
 * What is read ahead shows no faults, wanted or not.  So one block in
 * MM_WAKE_PART is left out each time, others each time: unless it is wanted,
 * or was in memory all the time, it is not in the next record.
 *
 * The record is the pager's own: it is lost with it, and made again.  It goes
 * along when the guest migrates.
 *
 * Fault thread only.
 */
#ifndef MANAGED_MEMORY_WAKE_H
#define MANAGED_MEMORY_WAKE_H

#define MM_WAKE_BLOCK_PAGES 32
#define MM_WAKE_PART 8

typedef enum MmWakeState {
    MM_WAKE_AWAKE,
    MM_WAKE_ASLEEP,
    MM_WAKE_STIRRING,
    MM_WAKE_WAKING,
    MM_WAKE__MAX
} MmWakeState;

/* Of a VM. */
typedef struct MmWake {
    MmWakeState state;          /* set by set_state() only */
    uint64_t began_ns;          /* STIRRING, WAKING: when the former began */
    unsigned faults;            /* STIRRING: since then */
    unsigned enough;            /* of these to wake up */
    bool looked_at;             /* once, at least */
    uint64_t most;              /* AWAKE: pages that it had in memory */
    unsigned times;             /* that it has woken up */
} MmWake;

/* Of a region: blocks by index. */
typedef struct MmWakeSet {
    unsigned long *recorded;    /* owned */
    unsigned long *seen;        /* owned; since it stirs */
    uint64_t nr_blocks;
} MmWakeSet;

/** mm_wake_set_init: nothing is recorded; for a region of @nr_pages. */
void mm_wake_set_init(MmWakeSet *set, uint64_t nr_pages);

/** mm_wake_set_destroy: free what it owns. */
void mm_wake_set_destroy(MmWakeSet *set);

/** mm_wake_set_note: the block of @page is wanted. */
void mm_wake_set_note(MmWakeSet *set, uint64_t page);

/** mm_wake_set_forget: what has been noted was not worth it. */
void mm_wake_set_forget(MmWakeSet *set);

/** mm_wake_set_record: what has been noted replaces what is recorded. */
void mm_wake_set_record(MmWakeSet *set);

/** mm_wake_set_pages: how many pages the recorded blocks have. */
uint64_t mm_wake_set_pages(const MmWakeSet *set);

/** mm_wake_set_left_out: is @block, which is recorded, left out this time? */
bool mm_wake_set_left_out(uint64_t block, unsigned times);

/** mm_wake_set_keep: what is recorded from @block on is in the next record. */
void mm_wake_set_keep(MmWakeSet *set, uint64_t block);

/** mm_wake_set_has: is @block recorded? */
bool mm_wake_set_has(const MmWakeSet *set, uint64_t block);

/** mm_wake_set_put: it is, or not, whatever has been noted. */
void mm_wake_set_put(MmWakeSet *set, uint64_t block, bool recorded);

/**
 * mm_wake_set_next: first recorded block from @block on that is to be read
 *
 * @times: MmWake.times, says which ones are left out
 *
 * Returns @set->nr_blocks if there is none.
 */
uint64_t mm_wake_set_next(const MmWakeSet *set, uint64_t block,
                          unsigned times);

/** mm_wake_records: are faults to be noted? */
bool mm_wake_records(const MmWake *w);

/**
 * mm_wake_fault: it has faulted on a swapped page
 *
 * Returns whether it wakes up with this one.
 */
bool mm_wake_fault(MmWake *w, uint64_t now_ns);

/* What a look has found. */
typedef enum MmWakeLook {
    MM_WAKE_NOTHING,
    MM_WAKE_FORGET,             /* what has been noted */
    MM_WAKE_RECORD,
} MmWakeLook;

/**
 * mm_wake_look: as time goes by; again as long as it changes the state
 *
 * @resident: pages in memory
 * @out: pages that are not, but have content
 */
MmWakeLook mm_wake_look(MmWake *w, uint64_t resident, uint64_t out,
                        uint64_t now_ns);

#endif
