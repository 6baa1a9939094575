/*
 * Managed memory pager: sequential streams of faults
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "stream.h"

unsigned mm_stream_window(MmStreams *s, uint64_t page, unsigned first)
{
    unsigned i;

    for (i = 0; i < MM_STREAMS; i++) {
        if (s->stream[i].window && s->stream[i].next == page) {
            s->current = i;
            s->stream[i].window = MIN(s->stream[i].window * 2, MM_WINDOW_MAX);
            return s->stream[i].window;
        }
    }
    s->current = s->oldest;
    s->oldest = (s->oldest + 1) % MM_STREAMS;
    s->stream[s->current].window = first;
    return first;
}

void mm_stream_filled(MmStreams *s, uint64_t end)
{
    s->stream[s->current].next = end;
}

void mm_stream_extend(MmStreams *s, unsigned stream, uint64_t from,
                      uint64_t end)
{
    if (s->stream[stream].next == from) {
        s->stream[stream].next = end;
    }
}
