/*
 * Managed memory pager: pages that are swapped out
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The faulting page and, if the fault goes on where others have been, the rest
 * of the stream's window: pages that are one value throughout at once, others
 * by reads.
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "../region.h"
#include "../test-hooks.h"
#include "fault-internal.h"

/* What a window loads at once takes this thread's time, while others wait. */
#define IMMEDIATE_LOADS 32

/* A page that is one value throughout, kept in place and checksum. */
static MmWaitReason fill(MmFault *f, MmRegion *region, uint64_t page,
                         uint64_t entry)
{
    uint64_t value = (uint64_t)region->map.checksums[page] << 32 |
                     (uint32_t)mm_entry_place(entry);
    uint64_t *word = (uint64_t *)f->fill_page;
    uint64_t filling = mm_entry_with_state(entry, MM_PAGE_FILLING);
    MmWaitReason reason;
    unsigned i;

    if (!mm_fault_room(f, 1)) {
        return MM_WAIT_LIMIT;
    }
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
 * Begin to bring in a stream's window, at most @room pages; returns how many
 * steps of it.  Some reads are left to those who wait.
 */
static unsigned load_window(MmFault *f, MmRegion *region,
                            const MmStream *stream, uint64_t page,
                            unsigned room)
{
    unsigned chunk = ABS(stream->stride) == 1 ? MM_LOAD_PAGES : 1;
    unsigned done = 0, at_once = 0;

    while (done < stream->window && room && at_once < IMMEDIATE_LOADS &&
           (!done || f->nr_free_loads > MM_LOADS_KEPT)) {
        unsigned nr = MIN(MIN(chunk, stream->window - done), room);
        uint64_t first = page + done * stream->stride;

        if (first >= region->nr_pages) {
            break;      /* over one end or the other */
        }
        if (stream->stride == -1) {
            nr = MIN(nr, first + 1);
            first -= nr - 1;
        }
        room -= load_chunk(f, region, first, nr);
        done += nr;
        /* the first pages are those that somebody waits for */
        at_once += mm_load_reap_immediate(f);
        if (done == nr) {
            mm_load_flush(f);
        }
    }
    mm_load_flush(f);
    return done;
}

MmWaitReason mm_serve_swapped(MmFault *f, MmRegion *region, uint64_t page,
                              uint64_t entry)
{
    MmStream *stream = mm_stream_fault(&region->streams, f->tid, page, 1);
    unsigned room = mm_fault_room(f, stream->window);
    MmWaitReason reason;

    if (!room) {
        return MM_WAIT_LIMIT;
    }
    if (is_fill(entry)) {
        reason = fill(f, region, page, entry);
        if (reason != MM_WAIT_NONE) {
            return reason;
        }
        MM_STAT_ADD(f->vm, fault_zero, 1);
    }
    mm_stream_filled(stream, page + stream->stride *
                     load_window(f, region, stream, page, room));
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
