/*
 * Managed memory pager: pages that are swapped out
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The faulting page and, if the fault goes on where others have been, the rest
 * of the stream's window: pages that are one value throughout at once, others
 * by reads, a few of them in each round.
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "../region.h"
#include "../test-hooks.h"
#include "fault-internal.h"

/*
 * What is begun at once of a window: whatever it is takes this thread's time,
 * while the faulting page's read may have ended, and others wait.
 */
#define CHUNKS_AT_ONCE 8
/* What is read around a page, aligned, if so much of the limit is free. */
#define AROUND_PAGES MM_DENSE_PAGES
#define ROOM_SHARE 4
#define IMMEDIATE_LOADS 32

/* A page that is one value throughout, kept in place and checksum; for room. */
static MmWaitReason fill(MmFault *f, MmRegion *region, uint64_t page,
                         uint64_t entry)
{
    uint64_t value = (uint64_t)region->map.checksums[page] << 32 |
                     (uint32_t)mm_entry_place(entry);
    uint64_t *word = (uint64_t *)f->fill_page;
    uint64_t filling = mm_entry_with_state(entry, MM_PAGE_FILLING);
    MmWaitReason reason;
    unsigned i;

    for (i = 0; i < MM_PAGE_SIZE / sizeof(value); i++) {
        word[i] = value;
    }
    mm_map_move(&region->map, page, entry, filling);
    mm_failpoint(MM_FP_FILLING);
    mm_nodes_prefer(f->vm->nodes, f->node);
    if (!mm_place_pages(f, region, page, &filling, f->fill_page, 1,
                        &reason)) {
        mm_unfill(region, page, filling);
        return reason;
    }
    return MM_WAIT_NONE;
}

static bool is_fill(uint64_t entry)
{
    return mm_entry_state(entry) == MM_PAGE_SWAPPED &&
           mm_entry_tier(entry) <= MM_TIER_FILL;
}

/* Bring in what is swapped of [first, first + nr); returns how many pages. */
static unsigned load_chunk(MmFault *f, MmRegion *region, uint64_t first,
                           unsigned nr)
{
    unsigned i, got, sum = 0;

    for (i = 0; i < nr && first + i < region->nr_pages; i += got ?: 1) {
        uint64_t entry = mm_map_get(&region->map, first + i);

        if (is_fill(entry) && mm_region_reconciled(region, first + i)) {
            got = fill(f, region, first + i, entry) == MM_WAIT_NONE;
        } else {
            got = mm_load_start(f, region, first + i, nr - i);
        }
        sum += got;
    }
    return sum;
}

/*
 * Begin to bring in @steps pages from @page on, at most @room and as many as is
 * good at once; returns how many steps.  Some loads, and what the I/O limits
 * let begin, are left to those who wait.
 */
static unsigned load_window(MmFault *f, MmRegion *region, uint64_t page,
                            int64_t stride, unsigned steps, unsigned room)
{
    unsigned chunk = ABS(stride) == 1 ? MM_LOAD_PAGES : 1;
    unsigned done = 0, at_once = 0, chunks;

    for (chunks = 0; chunks < CHUNKS_AT_ONCE && done < steps && room &&
         at_once < IMMEDIATE_LOADS &&
         (!done || (f->nr_free_loads > MM_LOADS_KEPT && !mm_load_put_off(f)));
         chunks++) {
        unsigned nr = MIN(MIN(chunk, steps - done), room);
        uint64_t first = page + done * stride;

        if (first >= region->nr_pages) {
            break;      /* over one end or the other */
        }
        if (stride == -1) {
            nr = MIN(nr, first + 1);
            first -= nr - 1;
        }
        room -= load_chunk(f, region, first, nr);
        done += nr;
        /* the first pages are those that somebody waits for */
        at_once += mm_load_reap_immediate(f);
        if (!chunks) {
            mm_load_flush(f);
        }
    }
    mm_load_flush(f);
    return done;
}

/* In place of another's, unless there is nothing left of this one. */
static void keep_rest(MmFault *f, MmRegion *region, MmStream *stream,
                      unsigned steps)
{
    if (!steps) {
        return;
    }
    f->rest.region = region->id;
    f->rest.stream = stream - region->streams.stream;
    f->rest.page = stream->next;
    f->rest.stride = stream->stride;
    f->rest.steps = steps;
}

/* Is there so much room that the guest must have been swapped out? */
static bool plenty(const MmFault *f)
{
    return mm_fault_plenty(f, qatomic_read(&f->vm->limit.limit) / ROOM_SHARE);
}

/*
 * No stream, but the guest wakes up, or turns to other data.  Neighbours were
 * evicted together, and reading them costs less than the faults that they would
 * take.
 */
static bool read_around(MmFault *f, MmRegion *region, MmStream *stream,
                        uint64_t page, bool dense)
{
    uint64_t first = QEMU_ALIGN_DOWN(page, AROUND_PAGES);

    if (stream->windows || ABS(stream->stride) > 1 ||
        (!dense && !plenty(f))) {
        return false;
    }
    load_window(f, region, page, 1, 1, 1);
    if (stream->stride == 1) {
        stream->window = AROUND_PAGES;
        mm_stream_filled(stream, first + AROUND_PAGES);
    }
    keep_rest(f, region, stream, AROUND_PAGES);
    f->rest.page = first;
    f->rest.stride = 1;
    return true;
}

/* The window, or what lies around; nothing of it is waited for. */
static void load_all(MmFault *f, MmRegion *region, MmStream *stream,
                     uint64_t page, unsigned room, bool dense)
{
    unsigned done;

    if (read_around(f, region, stream, page, dense)) {
        return;
    }
    done = load_window(f, region, page, stream->stride, stream->window, room);
    mm_stream_filled(stream, page + stream->stride * done);
    keep_rest(f, region, stream, stream->window - done);
}

/* The reserve is for pages that somebody waits for. */
static unsigned room_ahead(MmFault *f, unsigned steps)
{
    uint64_t resident = qatomic_read(&f->vm->total_resident);

    return resident < qatomic_read(&f->vm->limit.limit)
           ? mm_fault_room(f, steps) : 0;
}

bool mm_swap_in_ahead(MmFault *f)
{
    MmRegion *region = f->vm->regions[f->rest.region];
    unsigned steps = f->rest.steps;
    uint64_t page = f->rest.page;
    MmStream *stream;
    unsigned done;

    if (!steps || f->nr_free_loads <= MM_LOADS_KEPT || mm_load_put_off(f)) {
        return false;   /* it goes on when a read has ended, or begun */
    }
    f->rest.steps = 0;
    if (!region) {
        return false;
    }
    done = load_window(f, region, page, f->rest.stride, steps,
                       room_ahead(f, steps));
    stream = &region->streams.stream[f->rest.stream];
    mm_stream_extend(stream, page, page + f->rest.stride * done);
    f->rest.page = page + f->rest.stride * done;
    f->rest.steps = done ? steps - done : 0;
    return f->rest.steps != 0;
}

unsigned mm_swap_in_some(MmFault *f, MmRegion *region, uint64_t page,
                         unsigned nr)
{
    f->tid = 0;
    f->node = MM_NODE_ANY;
    return load_window(f, region, page, 1, nr, room_ahead(f, nr));
}

/* Counted once, however often it has to be tried again. */
static bool is_dense(MmFault *f, MmRegion *region, uint64_t page)
{
    uint64_t never = qatomic_read(&region->map.count[MM_CLASS_NEVER]);

    return !f->retrying && mm_dense_fault(&region->dense, page,
                                          region->nr_pages - never, f->now_ns);
}

MmWaitReason mm_serve_swapped(MmFault *f, MmRegion *region, uint64_t page,
                              uint64_t entry)
{
    MmStream *stream = mm_stream_fault(&region->streams, f->tid, page, 1);
    unsigned room = mm_fault_room(f, stream->window);
    bool dense = is_dense(f, region, page);
    MmWaitReason reason;

    /* not a page that the operator wants back */
    if (f->tid && !f->retrying) {
        mm_replay_fault(f, region, page);
    }
    if (!room) {
        return MM_WAIT_LIMIT;
    }
    if (is_fill(entry)) {
        reason = fill(f, region, page, entry);
        if (reason != MM_WAIT_NONE) {
            return reason;
        }
        MM_STAT_ADD(f->vm, fault_zero, 1);
        room--;
    }
    load_all(f, region, stream, page, room, dense);
    if (is_fill(entry)) {
        return MM_WAIT_NONE;
    }
    switch (mm_entry_state(mm_map_get(&region->map, page))) {
    case MM_PAGE_SWAPPED:
        return mm_load_wait_reason(f, region, page);
    case MM_PAGE_FILLING:
        MM_STAT_ADD(f->vm, fault_swapin, 1);
        return MM_WAIT_LOAD;
    default:
        MM_STAT_ADD(f->vm, fault_swapin, 1);
        return MM_WAIT_NONE;
    }
}
