/*
 * Managed memory pager: streams of faults
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Pages filled in one go cost a tenth of pages filled one by one, but pages
 * that nobody wants cost memory.  So a stream that goes on where its last
 * window has ended gets a larger one, and anything else begins with a small
 * one: what is filled in vain is never more than a few times what was of use.
 *
 * A stream has a stride: 1 to begin with, else the distance between a thread's
 * last two faults, if that is short; such a one has to come three times before
 * its window grows.  A few pages that were there anyway are passed over.
 *
 * Fault thread only.
 */
#ifndef MANAGED_MEMORY_STREAM_H
#define MANAGED_MEMORY_STREAM_H

#define MM_STREAMS 8
#define MM_WINDOW_MAX 256       /* steps */
#define MM_STRIDE_MAX 512       /* pages, either way */

typedef struct MmStream {
    uint64_t next;              /* page at which the stream would go on */
    uint64_t last;              /* page of its last fault */
    int64_t stride;             /* pages; not 0 */
    unsigned window;            /* steps; 0: unused */
    unsigned windows;           /* that have been followed by another */
    uint32_t tid;               /* of the last fault */
    uint64_t used;              /* when: number of a fault */
} MmStream;

typedef struct MmStreams {
    MmStream stream[MM_STREAMS];
    uint64_t faults;
} MmStreams;

/**
 * mm_stream_fault: the stream that a fault belongs to
 *
 * @s: streams of a region
 * @tid: thread that has faulted
 * @page: where
 * @first: window of a new stream, 1..MM_WINDOW_MAX
 *
 * Its window, from @page on, is worth filling; the caller says with
 * mm_stream_filled() how far that has come.
 */
MmStream *mm_stream_fault(MmStreams *s, uint32_t tid, uint64_t page,
                          unsigned first);

/** mm_stream_filled: everything before @next, in the stream's direction. */
void mm_stream_filled(MmStream *stream, uint64_t next);

/**
 * mm_stream_extend: more has been filled since then
 *
 * @from: where it ended so far; another fault may have taken the stream since
 * @next: where it ends now
 */
void mm_stream_extend(MmStream *stream, uint64_t from, uint64_t next);

#endif
