/*
 * Managed memory pager: candidates that wait for their second chance to pass
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Oldest first.  One thread only.
 */
#ifndef MANAGED_MEMORY_FIFO_H
#define MANAGED_MEMORY_FIFO_H

/* What it holds at first, and at most. */
#define MM_FIFO_MIN 16384
#define MM_FIFO_MAX (1u << 24)

/* A page, or a huge page; there may be one for 32 KiB of memory. */
typedef struct MmCandidate {
    uint64_t page:46;
    uint64_t nr_pages:10;     /* 1, or a huge page's */
    uint64_t region:8;        /* id */
} MmCandidate;

typedef struct MmFifo {
    MmCandidate *ring;          /* owned */
    unsigned size;              /* entries, a power of two */
    unsigned head;
    unsigned nr;                /* entries in use */
    uint64_t pages;             /* of these */
} MmFifo;

/** mm_fifo_init: empty, for MM_FIFO_MIN candidates. */
void mm_fifo_init(MmFifo *fifo);

/** mm_fifo_fit: make room for @pages in all, or as many as it may hold. */
void mm_fifo_fit(MmFifo *fifo, uint64_t pages);

/** mm_fifo_room: how many more there is room for. */
unsigned mm_fifo_room(const MmFifo *fifo);

/** mm_fifo_push: append a candidate; there is room. */
void mm_fifo_push(MmFifo *fifo, MmCandidate candidate);

/** mm_fifo_first: the oldest, good until the next push; NULL if empty. */
const MmCandidate *mm_fifo_first(const MmFifo *fifo);

/** mm_fifo_pop: take the oldest out; there is one. */
MmCandidate mm_fifo_pop(MmFifo *fifo);

#endif
