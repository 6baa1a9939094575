/*
 * Managed memory: discards
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The balloon, free page reporting, virtio-mem and others give pages back.
 * For managed memory only the pager can do that: it knows where the content
 * is and who is about to fill the page.  QEMU posts ranges to the ring, and
 * goes on when the pager has executed them.  That order matters: a discard
 * that is executed late destroys what the guest has written since.
 *
 * Discards of a virtqueue element form a batch: neighbours are merged, all are
 * posted without waiting, and the batch's end waits for all of them.  They
 * are voluntary: without a pager, or when it does not answer, they are taken
 * back.  All other discards must happen.
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "backends/managed-memory-internal.h"

/* Largest range of one slot: a large discard makes progress in steps */
#define SLOT_MAX_PAGES (1u << 20)

typedef struct DiscardBatch {
    bool active;
    int64_t deadline_ms;
    MmRange merged;             /* not posted yet; nr_pages 0: none */
    unsigned nr_slots;
    uint8_t slots[MM_RING_SLOTS];
} DiscardBatch;

QEMU_BUILD_BUG_ON(MM_RING_SLOTS > 256);

static __thread DiscardBatch batch;

static uint64_t skipped_bytes;

static void post(unsigned index, const MmRange *range)
{
    const MmRingSlot request = { .range = *range, .kind = MM_RING_DISCARD };

    managed_ring_post(index, &request);
    managed_conn_kick();
}

static void skipped(const MmRange *range)
{
    qatomic_add(&skipped_bytes,
                range->nr_pages * (uint64_t)qemu_real_host_page_size());
}

/* ---- batches ---- */

static void batch_wait_first(void)
{
    MmRingSlot request;

    if (managed_ring_wait(batch.slots[0], batch.deadline_ms, &request) ==
        MANAGED_RING_TAKEN_BACK) {
        skipped(&request.range);
    }
    batch.nr_slots--;
    memmove(&batch.slots[0], &batch.slots[1], batch.nr_slots);
}

/* Returns a slot, or -1 if it is not worth to wait for one any more. */
static int batch_claim(void)
{
    int index;

    while ((index = managed_ring_claim(0)) < 0) {
        if (batch.nr_slots) {
            batch_wait_first();
        } else if (managed_ring_give_up(batch.deadline_ms)) {
            break;
        } else {
            g_usleep(1000);
        }
    }
    return index;
}

static void batch_post_merged(void)
{
    int index = -1;

    if (!batch.merged.nr_pages) {
        return;
    }
    if (managed_conn_state() == MANAGED_CONN_CONNECTED) {
        index = batch_claim();
    }
    if (index >= 0) {
        post(index, &batch.merged);
        batch.slots[batch.nr_slots++] = index;
    } else {
        skipped(&batch.merged);
    }
    batch.merged.nr_pages = 0;
}

static bool merge(MmRange *to, const MmRange *range)
{
    if (!to->nr_pages || to->region != range->region ||
        (uint64_t)to->nr_pages + range->nr_pages > SLOT_MAX_PAGES) {
        return false;
    }
    if (range->first_page == to->first_page + to->nr_pages) {
        to->nr_pages += range->nr_pages;
        return true;
    }
    if (range->first_page + range->nr_pages == to->first_page) {
        to->first_page = range->first_page;
        to->nr_pages += range->nr_pages;
        return true;
    }
    return false;
}

static void batch_add(const MmRange *range)
{
    if (!merge(&batch.merged, range)) {
        batch_post_merged();
        batch.merged = *range;
    }
}

void managed_memory_discard_begin(void)
{
    if (managed_memory_used()) {
        batch.active = true;
        batch.deadline_ms = managed_ring_deadline();
    }
}

void managed_memory_discard_end(void)
{
    if (!batch.active) {
        return;
    }
    batch_post_merged();
    while (batch.nr_slots) {
        batch_wait_first();
    }
    batch.active = false;
}

/* ---- discards that must happen ---- */

/* False if the memory is QEMU's own now. */
static bool discard_now(const MmRange *range)
{
    MmRingSlot request;
    int index;

    while ((index = managed_ring_claim(0)) < 0) {
        if (managed_conn_state() == MANAGED_CONN_DETACHED) {
            return false;
        }
        g_usleep(1000);
    }
    post(index, range);
    return managed_ring_wait(index, INT64_MAX, &request) == MANAGED_RING_DONE;
}

bool managed_memory_discard_slow(void *host, size_t length)
{
    size_t page = qemu_real_host_page_size();
    MmRange range;
    uint64_t left = length / page;

    WITH_RCU_READ_LOCK_GUARD() {
        ManagedRegion *region = managed_region_find(host);

        if (!region) {
            return false;
        }
        range.region = region->id;
        range.first_page = ((uint8_t *)host - region->hva) / page;
    }
    for (; left; left -= range.nr_pages) {
        range.nr_pages = MIN(left, SLOT_MAX_PAGES);
        if (batch.active) {
            batch_add(&range);
        } else if (!discard_now(&range)) {
            return false;
        }
        range.first_page += range.nr_pages;
    }
    return true;
}

bool managed_memory_remap_slow(void *host, size_t length)
{
    bool ours = false;

    WITH_RCU_READ_LOCK_GUARD() {
        ManagedRegion *region = managed_region_find(host);

        if (region) {
            uint8_t *end = (uint8_t *)host + length;

            ours = true;
            /* of a huge page all is lost */
            host = region->hva + QEMU_ALIGN_DOWN((uint8_t *)host - region->hva,
                                                 region->page_size);
            length = QEMU_ALIGN_UP(end - (uint8_t *)host, region->page_size);
        }
    }
    if (ours) {
        /* also takes away the mark of a poisoned page */
        madvise(host, length, MADV_DONTNEED);
    }
    return ours && managed_memory_discard_slow(host, length);
}

uint64_t managed_discards_skipped(void)
{
    return qatomic_read(&skipped_bytes);
}
