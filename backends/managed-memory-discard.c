/*
 * Managed memory: discards
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The balloon, free page reporting, virtio-mem and others give pages back.
 * For managed memory only the pager can do that: it knows where the content
 * is and who is about to fill the page.  QEMU posts ranges to a ring in shared
 * memory, and goes on when the pager has executed them.  That order matters:
 * a discard that is executed late destroys what the guest has written since.
 *
 * Discards of a virtqueue element form a batch: neighbours are merged, all are
 * posted without waiting, and the batch's end waits for all of them.  They
 * are voluntary, so without a pager, or when it does not answer, they are
 * taken back: a slot that nobody has taken by changing its state, and one that
 * a pager had taken only once it is certain that no pager can execute it any
 * more.  All other discards must happen: they wait, if need be for the next
 * pager, which finds them in the ring.
 *
 * Any thread may post.  A slot belongs to the thread that has set its bit in
 * slots_used, from before it is posted until it is free again.
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/bitmap.h"
#include "qemu/futex.h"
#include "qemu/timer.h"
#include "backends/managed-memory-internal.h"
#include "trace.h"

/* How long a batch waits for a pager, and for one that did not answer before */
#define BATCH_TIMEOUT_MS 1000
#define BATCH_TIMEOUT_SLOW_MS 10
/* Between two looks at the state of the connection */
#define RECHECK_MS 50
/* Largest range of one slot: a large discard makes progress in steps */
#define SLOT_MAX_PAGES (1u << 20)

/* How a posted discard has ended */
typedef enum DiscardResult {
    DISCARD_DONE,
    DISCARD_SKIPPED,            /* taken back, will never be executed */
    DISCARD_ORDINARY,           /* detached: memory is QEMU's now */
} DiscardResult;

typedef struct DiscardBatch {
    bool active;
    int64_t deadline_ms;
    MmRange merged;             /* not posted yet; nr_pages 0: none */
    unsigned nr_slots;
    uint8_t slots[MM_RING_SLOTS];
} DiscardBatch;

QEMU_BUILD_BUG_ON(MM_RING_SLOTS > 256);

static __thread DiscardBatch batch;

static unsigned long slots_used[BITS_TO_LONGS(MM_RING_SLOTS)];
static bool pager_slow;
static uint64_t skipped_bytes;

static MmRingSlot *slot_at(unsigned index)
{
    return &managed_conn_ring()->slots[index];
}

static int64_t now_ms(void)
{
    return qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
}

/* ---- slots ---- */

static bool slot_claim(unsigned *index)
{
    unsigned i;

    for (i = 0; i < MM_RING_SLOTS; i++) {
        unsigned long bit = BIT_MASK(i);

        if (!(qatomic_fetch_or(&slots_used[BIT_WORD(i)], bit) & bit)) {
            *index = i;
            return true;
        }
    }
    return false;
}

/* The state is FREE: let others have the slot. */
static void slot_release(unsigned index)
{
    qatomic_and(&slots_used[BIT_WORD(index)], ~BIT_MASK(index));
}

static void slot_post(unsigned index, const MmRange *range)
{
    MmRingSlot *slot = slot_at(index);

    trace_managed_memory_discard(index, range->region, range->first_page,
                                 range->nr_pages);
    slot->range = *range;
    qatomic_store_release(&slot->state, MM_RING_POSTED);
    managed_conn_kick();
}

static bool free_taken_slot(void *opaque)
{
    MmRingSlot *slot = opaque;

    return qatomic_cmpxchg(&slot->state, MM_RING_TAKEN, MM_RING_FREE) ==
           MM_RING_TAKEN;
}

/* False if a pager may be at it. */
static bool slot_take_back(MmRingSlot *slot)
{
    return qatomic_cmpxchg(&slot->state, MM_RING_POSTED, MM_RING_FREE) ==
           MM_RING_POSTED || managed_conn_if_lost(free_taken_slot, slot);
}

static bool should_give_up(int64_t deadline_ms)
{
    if (deadline_ms == INT64_MAX) {
        return false;
    }
    if (managed_conn_state() != MANAGED_CONN_CONNECTED) {
        return true;
    }
    if (now_ms() >= deadline_ms) {
        qatomic_set(&pager_slow, true);
        return true;
    }
    return false;
}

/* @deadline_ms: INT64_MAX if the discard must happen */
static DiscardResult slot_wait(unsigned index, int64_t deadline_ms)
{
    const struct timespec recheck = { .tv_nsec = RECHECK_MS * SCALE_MS };
    MmRingSlot *slot = slot_at(index);
    DiscardResult result;

    for (;;) {
        uint32_t state = qatomic_load_acquire(&slot->state);

        if (state == MM_RING_DONE) {
            qatomic_set(&slot->state, MM_RING_FREE);
            qatomic_set(&pager_slow, false);
            result = DISCARD_DONE;
            break;
        }
        if (managed_conn_state() == MANAGED_CONN_DETACHED) {
            qatomic_set(&slot->state, MM_RING_FREE);
            result = DISCARD_ORDINARY;
            break;
        }
        if (should_give_up(deadline_ms) && slot_take_back(slot)) {
            qatomic_add(&skipped_bytes, slot->range.nr_pages *
                        (uint64_t)qemu_real_host_page_size());
            result = DISCARD_SKIPPED;
            break;
        }
        qemu_futex(&slot->state, FUTEX_WAIT, state, &recheck, NULL, 0);
    }
    slot_release(index);
    trace_managed_memory_discarded(index, result);
    return result;
}

/* ---- batches ---- */

static void batch_wait_first(void)
{
    slot_wait(batch.slots[0], batch.deadline_ms);
    batch.nr_slots--;
    memmove(&batch.slots[0], &batch.slots[1], batch.nr_slots);
}

static bool batch_claim(unsigned *index)
{
    while (!slot_claim(index)) {
        if (batch.nr_slots) {
            batch_wait_first();
        } else if (should_give_up(batch.deadline_ms)) {
            return false;
        } else {
            g_usleep(1000);
        }
    }
    return true;
}

static void batch_post_merged(void)
{
    unsigned index;

    if (!batch.merged.nr_pages) {
        return;
    }
    if (managed_conn_state() == MANAGED_CONN_CONNECTED && batch_claim(&index)) {
        slot_post(index, &batch.merged);
        batch.slots[batch.nr_slots++] = index;
    } else {
        qatomic_add(&skipped_bytes, batch.merged.nr_pages *
                    (uint64_t)qemu_real_host_page_size());
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
        batch.deadline_ms = now_ms() + (qatomic_read(&pager_slow) ?
                                        BATCH_TIMEOUT_SLOW_MS :
                                        BATCH_TIMEOUT_MS);
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

static DiscardResult discard_now(const MmRange *range)
{
    unsigned index;

    while (!slot_claim(&index)) {
        if (managed_conn_state() == MANAGED_CONN_DETACHED) {
            return DISCARD_ORDINARY;
        }
        g_usleep(1000);
    }
    slot_post(index, range);
    return slot_wait(index, INT64_MAX);
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
        } else if (discard_now(&range) == DISCARD_ORDINARY) {
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
