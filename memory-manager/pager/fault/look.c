/*
 * Managed memory pager: where the content of pages is, for who asks
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Migration need not read pages that are zero, and must populate none.  The
 * page map alone does not tell: after the death of a pager a page may be there
 * that the map calls NEVER, or SWAPPED.  So QEMU asks, and what is answered is
 * so at that moment: it takes this thread to bring a page in.  What the guest
 * writes later QEMU learns from its dirty bitmap, which it clears before it
 * asks.
 */
#include "qemu/osdep.h"
#include "../region.h"
#include "fault-internal.h"

/* Half of a fill value takes the place of the checksum. */
static bool is_zero(const MmPageMap *map, uint64_t page, uint64_t entry)
{
    return mm_entry_tier(entry) == MM_TIER_FILL && !mm_entry_place(entry) &&
           !map->checksums[page];
}

static MmLook look_at(const MmRegion *region, uint64_t page)
{
    uint64_t unit = mm_region_unit(region, page);
    uint64_t entry = mm_map_get(&region->map, unit);

    if (mm_entry_state(entry) == MM_PAGE_NEVER) {
        return MM_LOOK_NEVER;
    }
    if (mm_entry_state(entry) == MM_PAGE_CANDIDATE) {
        return MM_LOOK_IDLE;
    }
    if (mm_entry_state(entry) != MM_PAGE_SWAPPED) {
        return MM_LOOK_CONTENT;
    }
    /* of a huge page each part lies elsewhere */
    entry = mm_map_get(&region->map, page);
    return is_zero(&region->map, page, entry) ? MM_LOOK_ZERO : MM_LOOK_SWAPPED;
}

void mm_look(MmFault *f, MmRegion *region, const MmRingSlot *request)
{
    uint64_t page = request->range.first_page;
    unsigned i, nr = request->range.nr_pages;
    uint8_t *answer;

    if (nr > MM_RING_LOOK_MAX || request->buffer >= MM_RING_BUFFER_PAGES) {
        return;
    }
    answer = f->vm->ring->buffer[request->buffer];
    mm_region_reconcile(f->vm, region, page, nr);
    for (i = 0; i < nr; i++) {
        answer[i] = look_at(region, page + i);
    }
}
