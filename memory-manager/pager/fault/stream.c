/*
 * Managed memory pager: streams of faults
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "stream.h"

/* Steps that a fault may be ahead of its stream: pages that were there. */
#define GAP_MIN 4
#define GAP_MAX 16
/* Faults after which a stream that none of them was part of has ended. */
#define LIFETIME 256
/* Windows after which a stream has proved itself. */
#define PROVEN 2

static bool is_alive(const MmStreams *s, const MmStream *stream)
{
    return s->faults - stream->used < LIFETIME;
}

/*
 * What is caught by chance must not keep a large window alive, so the gap is a
 * small part of it, and old streams catch nothing.
 */
static bool goes_on(const MmStreams *s, const MmStream *stream, uint64_t page)
{
    int64_t ahead = page - stream->next;
    int64_t steps = stream->window ? ahead / stream->stride : -1;
    int64_t gap = MAX(MIN(stream->window / 8, GAP_MAX), GAP_MIN);

    return steps >= 0 && ahead % stream->stride == 0 && steps <= gap &&
           is_alive(s, stream);
}

/* The same fault once more: it had to wait, or it is another thread's, too. */
static MmStream *find_again(MmStreams *s, uint64_t page)
{
    unsigned i;

    for (i = 0; i < MM_STREAMS; i++) {
        if (s->stream[i].window && s->stream[i].last == page &&
            is_alive(s, &s->stream[i])) {
            return &s->stream[i];
        }
    }
    return NULL;
}

static MmStream *find(MmStreams *s, uint64_t page)
{
    unsigned i;

    for (i = 0; i < MM_STREAMS; i++) {
        if (goes_on(s, &s->stream[i], page)) {
            return &s->stream[i];
        }
    }
    return NULL;
}

/* Of all distances, one that comes twice is no wonder yet. */
static unsigned factor_of(const MmStream *stream)
{
    if (!stream->windows && ABS(stream->stride) > 1) {
        return 1;
    }
    return stream->windows < PROVEN ? 2 : 4;
}

static void widen(MmStream *stream)
{
    unsigned factor = factor_of(stream);

    stream->windows++;
    stream->window = MIN(stream->window * factor, MM_WINDOW_MAX);
}

/* A stream of this thread that goes nowhere yet, and is near. */
static MmStream *find_near(MmStreams *s, uint32_t tid, uint64_t page)
{
    unsigned i;

    for (i = 0; i < MM_STREAMS; i++) {
        MmStream *stream = &s->stream[i];
        int64_t distance = page - stream->last;

        if (stream->window && !stream->windows && stream->tid == tid &&
            distance && ABS(distance) <= MM_STRIDE_MAX) {
            stream->stride = distance;
            return stream;
        }
    }
    return NULL;
}

static MmStream *replace_oldest(MmStreams *s)
{
    MmStream *oldest = &s->stream[0];
    unsigned i;

    for (i = 1; i < MM_STREAMS; i++) {
        if (s->stream[i].used < oldest->used) {
            oldest = &s->stream[i];
        }
    }
    oldest->stride = 1;
    oldest->windows = 0;
    return oldest;
}

MmStream *mm_stream_fault(MmStreams *s, uint32_t tid, uint64_t page,
                          unsigned first)
{
    MmStream *stream = find_again(s, page);

    if (stream) {
        return stream;
    }
    stream = find(s, page);
    if (stream) {
        widen(stream);
    } else {
        stream = find_near(s, tid, page) ?: replace_oldest(s);
        stream->window = first;
    }
    stream->tid = tid;
    stream->last = page;
    stream->next = page + stream->stride;
    stream->used = ++s->faults;
    return stream;
}

void mm_stream_filled(MmStream *stream, uint64_t next)
{
    stream->next = next;
}

void mm_stream_extend(MmStream *stream, uint64_t from, uint64_t next)
{
    if (stream->next == from) {
        stream->next = next;
    }
}
