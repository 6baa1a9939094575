/*
 * Managed memory pager: discards
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * QEMU tells which pages the guest has given back (balloon, free page
 * reporting, virtio-mem).  Their content is not owed any more: whatever holds
 * it is freed, and the pages are NEVER again.  The order is publish, punch,
 * free, acknowledge; after the acknowledgement nothing may touch the pages
 * any more, since new content may be there.
 *
 * Discards do not look at DMA counters: free page reporting maps the very pages
 * that it discards.
 *
 * The fault thread does this, so that a discard never meets a page that is
 * just being placed; long ranges go in slices, with faults in between.
 */
#include "qemu/osdep.h"
#include "../region.h"
#include "../test-hooks.h"
#include "../uffd.h"
#include "fault-internal.h"

/* Pages per slice: bounds what a fault waits for a discard. */
#define SLICE_PAGES 1024

/*
 * Move a page out of every state whose content is elsewhere or present.
 * Returns 0, 1 if it has to be punched, -1 if the reclaim thread has it.
 */
static int discard_page(MmFault *f, MmRegion *region, uint64_t page)
{
    for (;;) {
        uint64_t entry = mm_map_get(&region->map, page);
        uint64_t never = mm_entry_at(mm_entry_with_state(entry, MM_PAGE_NEVER),
                                     MM_TIER_NONE, 0);
        MmTier *tier = mm_vm_tier(f->vm, mm_entry_tier(entry));

        switch (mm_entry_state(entry)) {
        case MM_PAGE_NEVER:
            return 0;
        case MM_PAGE_SWAPPED:
            if (!mm_map_cas(&region->map, page, entry, never)) {
                break;      /* moved to another place just now */
            }
            if (tier) {
                tier->ops->free(tier, mm_entry_place(entry), 1);
            }
            return 0;
        case MM_PAGE_LOST:
            /* a page with a hardware error may still be there: punch it */
            mm_map_move(&region->map, page, entry, never);
            return 1;
        case MM_PAGE_FILLING:
            mm_load_cancel(f, region, page, 1, MM_PAGE_NEVER);
            return 0;
        case MM_PAGE_RESIDENT:
        case MM_PAGE_CANDIDATE:
        case MM_PAGE_WRITEBACK:
            if (mm_map_cas(&region->map, page, entry,
                           mm_entry_with_state(entry, MM_PAGE_DISCARDING))) {
                return 1;
            }
            break;
        case MM_PAGE_DROPPING:
            return -1;
        default:
            g_assert_not_reached();
        }
    }
}

/* Punch what is DISCARDING in [page, page + nr), and make it NEVER. */
static void finish_slice(MmFault *f, MmRegion *region, uint64_t page,
                         uint64_t nr, uint64_t to_punch)
{
    uint64_t i;

    if (to_punch) {
        mm_failpoint(MM_FP_DISCARDING);
        /*
         * Fails for want of kernel memory only: a page that stays is found
         * present by its next fault, and the guest may not ask for zeroes.
         */
        mm_region_punch(region, page, nr);
        mm_failpoint(MM_FP_DISCARD_PUNCHED);
        for (i = page; i < page + nr; i++) {
            uint64_t entry = mm_map_get(&region->map, i);

            if (mm_entry_state(entry) == MM_PAGE_DISCARDING) {
                mm_map_move(&region->map, i, entry,
                            mm_entry_at(mm_entry_with_state(entry,
                                                            MM_PAGE_NEVER),
                                        MM_TIER_NONE, 0));
            }
        }
    }
    MM_STAT_ADD(f->vm, pages_discarded, nr);
    /* who is still there faults again */
    mm_waiters_remove(&f->waiters, region->hva + page * MM_PAGE_SIZE,
                      nr * MM_PAGE_SIZE, mm_fault_latency, f);
    mm_uffd_wake(f->vm->uffd, region->hva + page * MM_PAGE_SIZE,
                 nr * MM_PAGE_SIZE);
}

/* A part of a huge page cannot be discarded, and QEMU does not ask for it. */
static void whole_pages(const MmRegion *region, MmRange *range)
{
    uint64_t unit = region->unit_pages;
    uint64_t end = range->first_page + range->nr_pages;
    uint64_t first = QEMU_ALIGN_UP(range->first_page, unit);

    end = QEMU_ALIGN_DOWN(end, unit);
    range->first_page = first;
    range->nr_pages = end - MIN(first, end);
}

bool mm_discard_slice(MmFault *f, MmRegion *region, MmRange *range)
{
    uint64_t page, nr, i, to_punch = 0;
    bool blocked = false;

    whole_pages(region, range);
    page = range->first_page;
    nr = MIN(range->nr_pages, SLICE_PAGES);
    mm_region_reconcile(f->vm, region, page, nr);
    for (i = 0; i < nr; i += region->unit_pages) {
        int ret = mm_region_is_huge(region)
                  ? mm_huge_in_discard(f, region, page + i)
                  : discard_page(f, region, page + i);

        if (ret < 0) {
            blocked = true;
            nr = i;
        }
        to_punch += ret > 0;
    }
    if (nr) {
        finish_slice(f, region, page, nr, to_punch);
    }
    range->first_page += nr;
    range->nr_pages -= nr;
    return !blocked;
}
