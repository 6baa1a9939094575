/*
 * Managed memory pager: sequential streams of faults
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Pages filled in one go cost a tenth of pages filled one by one, but pages
 * that nobody wants cost memory.  A fault that goes on where an earlier one
 * has ended doubles that stream's window; any other fault starts a new stream
 * in place of the oldest.  Fault thread only.
 */
#ifndef MANAGED_MEMORY_STREAM_H
#define MANAGED_MEMORY_STREAM_H

#define MM_STREAMS 8
#define MM_WINDOW_MAX 256

typedef struct MmStreams {
    struct {
        uint64_t next;          /* page at which the stream would go on */
        unsigned window;        /* pages, 0: unused */
    } stream[MM_STREAMS];
    unsigned current;           /* of the fault that is being served */
    unsigned oldest;
} MmStreams;

/**
 * mm_stream_window: how many pages from @page on are worth filling at once
 *
 * @s: streams of a region
 * @page: the faulting page
 * @first: window of a new stream, 1..MM_WINDOW_MAX
 */
unsigned mm_stream_window(MmStreams *s, uint64_t page, unsigned first);

/** mm_stream_filled: the fault's fill has ended before page @end. */
void mm_stream_filled(MmStreams *s, uint64_t end);

/**
 * mm_stream_extend: what a stream has been given now ends before page @end
 *
 * @stream: s->current at the fault; another fault may have taken it since
 * @from: page before which it ended so far
 */
void mm_stream_extend(MmStreams *s, unsigned stream, uint64_t from,
                      uint64_t end);

#endif
