/*
 * Managed memory: QEMU's side of the ring
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What the pager is to do with pages is posted to a ring in shared memory; see
 * managed-memory/shared.h.  Whoever posts waits for the end.  A request that
 * need not be executed is taken back when there is no pager, or when it does
 * not answer: a slot that nobody has taken by changing its state, and one that
 * a pager had taken only once it is certain that no pager can execute it any
 * more.  One that must be waits, if need be for the next pager, which finds it
 * in the ring.
 *
 * Any thread may post.  A slot belongs to the thread that has set its bit in
 * slots_used, from before it is posted until it is free again.
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/bitmap.h"
#include "qemu/futex.h"
#include "qemu/lockable.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "backends/managed-memory-internal.h"
#include "trace.h"

/* How long to wait for a pager, and for one that did not answer before */
#define TIMEOUT_MS 1000
#define TIMEOUT_SLOW_MS 10
/* Between two looks at the state of the connection */
#define RECHECK_MS 50

static unsigned long slots_used[BITS_TO_LONGS(MM_RING_SLOTS)];
static bool pager_slow;

static QemuMutex buffer_lock;
static DECLARE_BITMAP(buffer_used, MM_RING_BUFFER_PAGES); /* under it */

static void __attribute__((constructor)) managed_memory_init_buffer(void)
{
    qemu_mutex_init(&buffer_lock);
}

static MmRingSlot *slot_at(unsigned index)
{
    return &managed_conn_ring()->slots[index];
}

int64_t managed_ring_deadline(void)
{
    return qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
           (qatomic_read(&pager_slow) ? TIMEOUT_SLOW_MS : TIMEOUT_MS);
}

bool managed_ring_give_up(int64_t deadline_ms)
{
    if (deadline_ms == INT64_MAX) {
        return false;
    }
    if (managed_conn_state() != MANAGED_CONN_CONNECTED) {
        return true;
    }
    if (qemu_clock_get_ms(QEMU_CLOCK_REALTIME) >= deadline_ms) {
        qatomic_set(&pager_slow, true);
        return true;
    }
    return false;
}

int managed_ring_claim(unsigned first)
{
    unsigned i;

    for (i = first; i < MM_RING_SLOTS; i++) {
        unsigned long bit = BIT_MASK(i);

        if (!(qatomic_fetch_or(&slots_used[BIT_WORD(i)], bit) & bit)) {
            return i;
        }
    }
    return -1;
}

/* The state is FREE: let others have the slot. */
static void release(unsigned index)
{
    qatomic_and(&slots_used[BIT_WORD(index)], ~BIT_MASK(index));
}

void managed_ring_post(unsigned index, const MmRingSlot *request)
{
    MmRingSlot *slot = slot_at(index);

    trace_managed_memory_posted(index, request->kind, request->range.region,
                                request->range.first_page,
                                request->range.nr_pages);
    slot->range = request->range;
    slot->kind = request->kind;
    slot->buffer = request->buffer;
    slot->pages = request->pages;
    qatomic_store_release(&slot->state, MM_RING_POSTED);
}

static bool free_taken_slot(void *opaque)
{
    MmRingSlot *slot = opaque;

    return qatomic_cmpxchg(&slot->state, MM_RING_TAKEN, MM_RING_FREE) ==
           MM_RING_TAKEN;
}

/* False if a pager may be at it. */
static bool take_back(MmRingSlot *slot)
{
    return qatomic_cmpxchg(&slot->state, MM_RING_POSTED, MM_RING_FREE) ==
           MM_RING_POSTED || managed_conn_if_lost(free_taken_slot, slot);
}

ManagedRingResult managed_ring_wait(unsigned index, int64_t deadline_ms,
                                    MmRingSlot *request)
{
    const struct timespec recheck = { .tv_nsec = RECHECK_MS * SCALE_MS };
    MmRingSlot *slot = slot_at(index);
    ManagedRingResult result;

    for (;;) {
        uint32_t state = qatomic_load_acquire(&slot->state);

        if (state == MM_RING_DONE) {
            *request = *slot;
            qatomic_set(&slot->state, MM_RING_FREE);
            qatomic_set(&pager_slow, false);
            result = MANAGED_RING_DONE;
            break;
        }
        if (managed_conn_state() == MANAGED_CONN_DETACHED) {
            *request = *slot;
            request->pages = 0;
            qatomic_set(&slot->state, MM_RING_FREE);
            result = MANAGED_RING_DETACHED;
            break;
        }
        if (managed_ring_give_up(deadline_ms) && take_back(slot)) {
            *request = *slot;
            request->pages = 0;
            result = MANAGED_RING_TAKEN_BACK;
            break;
        }
        qemu_futex(&slot->state, FUTEX_WAIT, state, &recheck, NULL, 0);
    }
    release(index);
    trace_managed_memory_executed(index, result);
    return result;
}

bool managed_ring_buffer_get(unsigned nr, unsigned *first)
{
    unsigned long found;

    QEMU_LOCK_GUARD(&buffer_lock);
    /* the lowest: pages that have been used once stay in memory */
    found = bitmap_find_next_zero_area(buffer_used, MM_RING_BUFFER_PAGES, 0,
                                       nr, 0);
    if (found >= MM_RING_BUFFER_PAGES) {
        return false;
    }
    bitmap_set(buffer_used, found, nr);
    *first = found;
    return true;
}

void managed_ring_buffer_put(unsigned first, unsigned nr)
{
    QEMU_LOCK_GUARD(&buffer_lock);
    bitmap_clear(buffer_used, first, nr);
}
