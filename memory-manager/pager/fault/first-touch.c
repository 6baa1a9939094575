/*
 * Managed memory pager: pages that were never populated
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Zeroes.  The guest gets a few pages at once, so that it can go on; if it goes
 * from one to the next, the rest of a window is filled while it does.
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "../region.h"
#include "../test-hooks.h"
#include "fault-internal.h"

/* Pages of a first touch that the guest waits for, while there are plenty. */
#define FIRST_TOUCH_PAGES 8

static bool same_kind(const MmRegion *region, uint64_t page, uint64_t first)
{
    uint64_t entry;

    if (page >= region->nr_pages || !mm_region_reconciled(region, page)) {
        return false;
    }
    entry = mm_map_get(&region->map, page);
    return mm_entry_state(entry) == mm_entry_state(first) &&
           mm_entry_tier(entry) == mm_entry_tier(first) &&
           mm_entry_place(entry) == mm_entry_place(first);
}

/* Fill up to @want never populated pages from @page on; returns how many. */
static unsigned populate(MmFault *f, MmRegion *region, uint64_t page,
                         unsigned want, MmWaitReason *reason)
{
    uint64_t entries[MM_POPULATE_PAGES] = {};
    uint64_t first = mm_map_get(&region->map, page);
    MmPlaced placed;
    unsigned nr, i;

    assert(want <= MM_POPULATE_PAGES);
    for (nr = 0; nr < want && same_kind(region, page + nr, first); nr++) {
        uint64_t entry = mm_map_get(&region->map, page + nr);

        entries[nr] = mm_entry_with_state(entry, MM_PAGE_FILLING);
        mm_map_move(&region->map, page + nr, entry, entries[nr]);
    }
    mm_failpoint(MM_FP_FILLING);
    mm_nodes_prefer(f->vm->nodes, f->node);
    placed = mm_place_pages(f, region, page, entries, f->zeroes, nr);
    for (i = placed.nr; i < nr; i++) {
        mm_unfill(region, page + i, entries[i]);
    }
    MM_STAT_ADD(f->vm, pages_populated, placed.nr);
    *reason = placed.reason;
    return placed.nr;
}

/* How many pages up to @page, at most @want, have never been populated. */
static unsigned never_below(const MmRegion *region, uint64_t page,
                            unsigned want)
{
    uint64_t first = mm_map_get(&region->map, page);
    unsigned nr = 1;

    while (nr < want && nr <= page && same_kind(region, page - nr, first)) {
        nr++;
    }
    return nr;
}

/* Pages that a first touch gets at once. */
static unsigned first_touch(const MmStream *stream, bool plenty)
{
    /* every so many pages: those in between are not wanted */
    if (ABS(stream->stride) > 1 && stream->windows) {
        return 1;
    }
    if (!plenty) {
        return MIN(stream->window, MM_POPULATE_PAGES);
    }
    return MIN(stream->window, FIRST_TOUCH_PAGES);
}

static void go_ahead(MmFault *f, MmRegion *region, MmStream *stream,
                     unsigned now)
{
    f->ahead.region = region->id;
    f->ahead.stream = stream - region->streams.stream;
    f->ahead.page = stream->next;
    f->ahead.nr = stream->window - now;
}

MmWaitReason mm_serve_never(MmFault *f, MmRegion *region, uint64_t page)
{
    bool plenty = mm_fault_plenty(f, MM_WINDOW_MAX);
    MmStream *stream = mm_stream_fault(&region->streams, f->tid, page,
                                       plenty ? FIRST_TOUCH_PAGES : 1);
    unsigned now = mm_fault_room(f, first_touch(stream, plenty));
    bool up = stream->stride == 1, down = stream->stride == -1;
    MmWaitReason reason;
    unsigned placed;

    if (!now) {
        return MM_WAIT_LIMIT;
    }
    if (down) {
        now = never_below(region, page, now);
    }
    placed = populate(f, region, down ? page - now + 1 : page, now, &reason);
    MM_STAT_ADD(f->vm, fault_missing, placed != 0);
    if (up) {
        mm_stream_filled(stream, page + placed);
        if (plenty && placed == now && stream->window > now) {
            go_ahead(f, region, stream, now);
        }
        return placed ? MM_WAIT_NONE : reason;
    }
    if (placed < now) {
        /* downwards the faulting page is the last one */
        return placed && !down ? MM_WAIT_NONE : reason ?: MM_WAIT_BUSY;
    }
    if (down) {
        mm_stream_filled(stream, page - placed);
    }
    return MM_WAIT_NONE;
}

bool mm_serve_ahead(MmFault *f)
{
    MmRegion *region = f->vm->regions[f->ahead.region];
    unsigned want = MIN(f->ahead.nr, MM_POPULATE_PAGES);
    unsigned left = f->ahead.nr - want;
    uint64_t page = f->ahead.page;
    MmWaitReason reason;
    unsigned placed;

    f->ahead.nr = 0;
    if (!want || !region || page >= region->nr_pages ||
        !mm_fault_plenty(f, want) || !mm_region_reconciled(region, page) ||
        mm_entry_state(mm_map_get(&region->map, page)) != MM_PAGE_NEVER) {
        return false;
    }
    placed = populate(f, region, page, want, &reason);
    mm_stream_extend(&region->streams.stream[f->ahead.stream], page,
                     page + placed);
    if (placed == want) {
        f->ahead.page = page + placed;
        f->ahead.nr = left;
    }
    return f->ahead.nr != 0;
}
