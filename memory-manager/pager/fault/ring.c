/*
 * Managed memory pager: the ring through which QEMU has something done to pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The rules of the slots are in managed-memory/shared.h.  QEMU can write to all
 * of it: a request is copied, then checked.  One is executed after the other,
 * a long one in steps with faults in between; those that wait for a medium go
 * on beside the others.
 *
 * From when QEMU is told that it may have its memory back (DETACHED) no request
 * is executed any more: what the guest writes to then we do not hear of, so
 * that a page that is NEVER may have content.  QEMU does what is left when we
 * are gone.
 */
#include "qemu/osdep.h"
#include <linux/futex.h>
#include <sys/syscall.h>
#include "qemu/bitops.h"
#include "../region.h"
#include "../test-hooks.h"
#include "fault-internal.h"

static bool slot_move(MmRingSlot *slot, MmRingState from, MmRingState to)
{
    return qatomic_cmpxchg(&slot->state, from, to) == from;
}

void mm_ring_end(MmFault *f, unsigned index, uint32_t done)
{
    MmRingSlot *slot = &f->vm->ring->slots[index];

    mm_failpoint(MM_FP_RING_DONE);
    clear_bit(index, f->parked);
    slot->pages = done;
    if (slot_move(slot, MM_RING_TAKEN, MM_RING_DONE)) {
        /* shared futex: the waiter is another process */
        syscall(SYS_futex, &slot->state, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    }
}

static void acknowledge(MmFault *f)
{
    mm_ring_end(f, f->ring_slot, f->done);
    qatomic_set(&f->ring_slot, -1);
}

/* It goes on beside those that follow. */
static void park(MmFault *f)
{
    set_bit(f->ring_slot, f->parked);
    qatomic_set(&f->ring_slot, -1);
}

/*
 * Take a slot that is in @state: POSTED, or TAKEN by a former pager.  In turn,
 * else some would wait for ever for others that are posted again and again.
 */
static bool take(MmFault *f, MmRingState state)
{
    int n, i;

    for (n = 0; n < MM_RING_SLOTS; n++) {
        MmRingSlot *slot;

        i = (f->ring_next + n) % MM_RING_SLOTS;
        slot = &f->vm->ring->slots[i];

        if (qatomic_read(&slot->state) != state || test_bit(i, f->parked)) {
            continue;
        }
        if (slot_move(slot, state, MM_RING_TAKEN)) {
            qatomic_set(&f->ring_slot, i);
            f->ring_next = i + 1;
            /* pairs with mm_fault_retry(): noted, then DROPPING looked at */
            smp_mb();
            f->request = *slot;
            f->done = 0;
            mm_failpoint(MM_FP_RING_TAKEN);
            return true;
        }
    }
    return false;
}

/* The region of the request in progress, or NULL if that makes no sense. */
static MmRegion *request_region(const MmFault *f)
{
    const MmRange *range = &f->request.range;
    MmRegion *region = range->region < MM_MAX_REGIONS
                       ? f->vm->regions[range->region] : NULL;

    return region && range->nr_pages && range->first_page < region->nr_pages &&
           range->nr_pages <= region->nr_pages - range->first_page
           ? region : NULL;
}

/* Begin a request that goes on beside others; false: it cannot be. */
static bool begin(MmFault *f, MmRegion *region)
{
    switch (f->request.kind) {
    case MM_RING_FETCH:
        return mm_fetch_begin(f, region, &f->request, f->ring_slot);
    case MM_RING_STORE:
        return mm_import_begin(f, region, &f->request, f->ring_slot);
    default:
        return false;
    }
}

/* Go on with the request in progress; false: the reclaim thread first. */
static bool execute(MmFault *f)
{
    MmRegion *region = request_region(f);
    bool goes_on = true;

    if (region && f->request.kind == MM_RING_DISCARD) {
        goes_on = mm_discard_slice(f, region, &f->request.range);
        if (f->request.range.nr_pages) {
            return goes_on;
        }
    } else if (region && f->request.kind == MM_RING_OVERWRITE) {
        mm_overwrite(f, region, &f->request, &f->done);
    } else if (region && f->request.kind == MM_RING_LOOK) {
        mm_look(f, region, &f->request);
    } else if (region && f->request.kind == MM_RING_PIN) {
        mm_pin(f, region, &f->request);
    } else if (region && f->request.kind == MM_RING_ADOPT) {
        mm_adopt(f, region, &f->request, &f->done);
    } else if (region && f->request.kind == MM_RING_WAKE_READ) {
        mm_replay_read(f, region, &f->request, &f->done);
    } else if (region && f->request.kind == MM_RING_WAKE_WRITE) {
        mm_replay_write(f, region, &f->request, &f->done);
    } else if (region && begin(f, region)) {
        park(f);
        return true;
    }
    acknowledge(f);
    return goes_on;
}

bool mm_ring_poll(MmFault *f)
{
    if (f->lets_go) {
        return false;
    }
    if (f->ring_slot < 0) {
        f->left_behind = f->left_behind && take(f, MM_RING_TAKEN);
    }
    if (f->ring_slot < 0) {
        f->kicked = f->kicked && take(f, MM_RING_POSTED);
        if (!f->kicked) {
            return false;
        }
    }
    /* blocked: the reclaim thread's mm_fault_retry() brings us back */
    return execute(f);
}

void mm_fault_let_go(MmVM *vm, void *opaque)
{
    vm->fault->lets_go = *(bool *)opaque;
    vm->fault->kicked = true;
    mm_fetch_stop(vm->fault, NULL);
}

void mm_ring_resume(MmFault *f)
{
    f->left_behind = true;
    f->kicked = true;
}
