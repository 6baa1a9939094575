/*
 * Managed memory pager: where faults are dense
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A guest that turns to other data faults on page after page of what it needs
 * now, in any order.  Its pages lie together, so blocks of pages are counted.
 * While faults are concentrated, which is when they meet the same blocks again
 * far more often than by chance, a block that gets a few is read as a whole.
 *
 * That does not pay where a guest uses more than fits: what is read pushes out
 * what is no less wanted.  Faults that are spread over all that is in use are
 * therefore left alone.  Those that are concentrated and yet come back, to
 * blocks that were read as a whole a short while ago, were read in vain: if
 * that is the rule, nothing is for a while, a longer one each time.
 *
 * Time goes by in turns: so many faults that half of the blocks could have one,
 * but at most a second.
 *
 * Fault thread only.
 */
#ifndef MANAGED_MEMORY_DENSE_H
#define MANAGED_MEMORY_DENSE_H

#define MM_DENSE_PAGES 32       /* of a block, aligned */
#define MM_DENSE_FAULTS 2       /* in a turn */
#define MM_DENSE_REST 32        /* turns until a block is read again */
#define MM_DENSE_REST_MAX 1024  /* turns without any, if it is in vain */

typedef struct MmDenseBlock {
    uint16_t turn;              /* that the count is of */
    uint16_t read;              /* turn in which it was read; 0: never */
    uint8_t faults;
} MmDenseBlock;

typedef struct MmDense {
    MmDenseBlock *block;        /* owned */
    uint64_t nr_blocks;         /* that are in use */
    uint16_t turn;              /* never 0 */
    uint64_t turn_ends_ns;
    uint64_t faults;            /* of this turn */
    uint64_t met;               /* blocks that these have met */
    unsigned concentrated;      /* turns for which that is known */
    unsigned reads;             /* of blocks, that are not judged yet */
    unsigned vain;              /* blocks that had been read shortly before */
    unsigned judging;           /* turns since the first of these */
    uint16_t paid;              /* turn after which no more was wanted */
    unsigned off;               /* turns for which nothing is read */
    unsigned rest;              /* what that will be the next time */
} MmDense;

/** mm_dense_init: for a region of @nr_pages. */
void mm_dense_init(MmDense *d, uint64_t nr_pages);

/** mm_dense_destroy: free what it owns. */
void mm_dense_destroy(MmDense *d);

/**
 * mm_dense_fault: count a fault
 *
 * @page: index in the region
 * @in_use: pages of the region that have been touched
 * @now_ns: monotonic time
 */
void mm_dense_fault(MmDense *d, uint64_t page, uint64_t in_use,
                    uint64_t now_ns);

/** mm_dense_wants: is the block of @page, just counted, to be read whole? */
bool mm_dense_wants(const MmDense *d, uint64_t page);

/** mm_dense_read: the block of @page is being read. */
void mm_dense_read(MmDense *d, uint64_t page);

/**
 * mm_dense_turning: did the guest turn to other data when it last faulted?
 *
 * Then what comes in is going to be used, more than what is there.
 */
bool mm_dense_turning(const MmDense *d);

#endif
