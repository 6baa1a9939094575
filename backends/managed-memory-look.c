/*
 * Managed memory: asking the pager where the content of pages is
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The page map, which QEMU can read, is a hint only: after the death of a pager
 * it may call a page empty that is not.  Where it knows of none there is
 * nothing to ask: to take a page for one with content is never wrong.
 */
#include "qemu/osdep.h"
#include "backends/managed-memory-internal.h"

/* Returns false if there is no answer. */
static bool ask(const MmRange *range, unsigned buffer)
{
    MmRingSlot request = {
        .range = *range, .kind = MM_RING_LOOK, .buffer = buffer,
    };
    int slot = managed_ring_claim(MANAGED_RING_RESERVED);

    if (slot < 0) {
        return false;
    }
    managed_ring_post(slot, &request);
    managed_conn_kick();
    return managed_ring_wait(slot, managed_ring_deadline(), &request) ==
           MANAGED_RING_DONE;
}

static void look(const MmRange *range, uint8_t *answer)
{
    unsigned buffer;

    if (!managed_ring_buffer_get(1, &buffer)) {
        return;
    }
    memset(managed_conn_ring()->buffer[buffer], MM_LOOK_CONTENT,
           range->nr_pages);
    if (ask(range, buffer)) {
        memcpy(answer, managed_conn_ring()->buffer[buffer], range->nr_pages);
    }
    managed_ring_buffer_put(buffer, 1);
}

/* In an RCU critical section. */
static bool any_of_interest(const ManagedRegion *region, const MmRange *range)
{
    unsigned i;

    for (i = 0; i < range->nr_pages; i++) {
        switch (mm_entry_state(
                    qatomic_read(&region->map[range->first_page + i]))) {
        case MM_PAGE_NEVER:
        case MM_PAGE_SWAPPED:
        case MM_PAGE_CANDIDATE:
            return true;
        default:
            break;
        }
    }
    return false;
}

bool managed_memory_look_slow(const void *host, unsigned nr, uint8_t *answer)
{
    MmRange range = { .nr_pages = nr };
    bool any;

    assert(nr <= MM_RING_LOOK_MAX);
    WITH_RCU_READ_LOCK_GUARD() {
        ManagedRegion *region = managed_region_find(host);

        if (!region) {
            return false;
        }
        range.region = region->id;
        range.first_page = ((const uint8_t *)host - region->hva) /
                           qemu_real_host_page_size();
        any = any_of_interest(region, &range);
    }
    if (nr) {
        memset(answer, MM_LOOK_CONTENT, nr);
    }
    if (any) {
        look(&range, answer);
    }
    return true;
}
