/*
 * Managed memory: huge pages in the balloon
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A guest gives back pages of 4 KiB, in any order, and a huge page can be
 * discarded only as a whole.  So each page that is in the balloon has a bit;
 * when a huge page is in it with all its parts, it is discarded.
 *
 * That must not be one of which the guest uses any part.  Drivers tell of a
 * page that they take out before anybody uses it, or at the latest before they
 * put another one in, and wait for the answer.  When the device is reset, by a
 * reboot, another kernel or a snapshot that is loaded, nothing is in the
 * balloon any more.
 *
 * Under the BQL.
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "backends/managed-memory-internal.h"

#define BALLOON_PAGE_SIZE 4096
#define UNIT_PAGES (MANAGED_HUGE_PAGE_SIZE / BALLOON_PAGE_SIZE)

static ManagedRegion *find_huge(const void *host)
{
    ManagedRegion *region;

    RCU_READ_LOCK_GUARD();
    /* regions come and go under the BQL, too: it stays */
    region = managed_region_find(host);
    return region && region->page_size == MANAGED_HUGE_PAGE_SIZE ? region
                                                                 : NULL;
}

static bool is_whole(const ManagedRegion *region, uint64_t unit)
{
    uint64_t end = unit + UNIT_PAGES;

    return find_next_zero_bit(region->ballooned, end, unit) == end;
}

bool managed_memory_balloon_slow(void *host, bool inflate)
{
    ManagedRegion *region = find_huge(host);
    uint64_t page, unit;

    if (!region) {
        return false;
    }
    if (!region->ballooned) {
        region->ballooned = bitmap_new(region->size / BALLOON_PAGE_SIZE);
    }
    page = ((uint8_t *)host - region->hva) / BALLOON_PAGE_SIZE;
    unit = QEMU_ALIGN_DOWN(page, UNIT_PAGES);
    if (!inflate) {
        clear_bit(page, region->ballooned);
    } else if (!test_and_set_bit(page, region->ballooned) &&
               is_whole(region, unit)) {
        managed_memory_discard_slow(region->hva + unit * BALLOON_PAGE_SIZE,
                                    MANAGED_HUGE_PAGE_SIZE);
    }
    return true;
}

void managed_memory_balloon_reset_slow(void)
{
    g_autoptr(GPtrArray) regions = managed_regions_snapshot();
    unsigned i;

    for (i = 0; i < regions->len; i++) {
        ManagedRegion *region = regions->pdata[i];

        g_clear_pointer(&region->ballooned, g_free);
        managed_region_unref(region);
    }
}
