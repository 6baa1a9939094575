/*
 * Managed memory pager: where faults are dense
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A guest that turns to other data faults on page after page of what it needs
 * now, in any order.  Its pages lie together, so blocks of pages are counted:
 * one that gets several faults while blocks get one on average is being turned
 * to, and is read as a whole.
 *
 * That does not pay where a guest uses more than fits, evenly: what is read
 * pushes out what is no less wanted.  Chance makes such blocks dense, too.  So
 * a block that was read as a whole is not again for MM_DENSE_REST times as many
 * faults as there are blocks, which bounds what is read in vain.
 *
 * Fault thread only.
 */
#ifndef MANAGED_MEMORY_DENSE_H
#define MANAGED_MEMORY_DENSE_H

#define MM_DENSE_PAGES 32       /* of a block, aligned */
#define MM_DENSE_FAULTS 3       /* in a turn: one fault per block on average */
#define MM_DENSE_REST 200       /* turns */

typedef struct MmDenseBlock {
    uint16_t turn;              /* that the count is of */
    uint16_t read;              /* turn in which it was read as a whole */
    uint8_t faults;
} MmDenseBlock;

typedef struct MmDense {
    MmDenseBlock *block;        /* owned */
    uint64_t faults;            /* of this turn */
    uint16_t turn;
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
 */
void mm_dense_fault(MmDense *d, uint64_t page, uint64_t in_use);

/** mm_dense_read: is the block of @page to be read as a whole?  Then it is. */
bool mm_dense_read(MmDense *d, uint64_t page);

#endif
