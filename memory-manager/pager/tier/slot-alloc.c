/*
 * Managed memory pager: allocator of slots in a tier's file
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "slot-alloc.h"

void mm_slots_init(MmSlotAlloc *slots)
{
    memset(slots, 0, sizeof(*slots));
    g_mutex_init(&slots->lock);
}

void mm_slots_destroy(MmSlotAlloc *slots)
{
    g_free(slots->used);
    g_mutex_clear(&slots->lock);
}

void mm_slots_grow(MmSlotAlloc *slots, uint64_t nr_slots)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&slots->lock);

    if (nr_slots <= slots->nr_slots) {
        return;
    }
    slots->used = bitmap_zero_extend(slots->used, slots->nr_slots, nr_slots);
    slots->nr_slots = nr_slots;
}

/*
 * Slots that are searched for a run of the wanted length, from the first free
 * one on.  Bounds the time under the lock, which the fault thread takes too.
 */
#define SEARCH_SLOTS 65536

/* Best run in reach of @from: *@best, and its length up to @nr. */
static unsigned find_run(const MmSlotAlloc *slots, uint64_t from, unsigned nr,
                         uint64_t *best)
{
    uint64_t first = find_next_zero_bit(slots->used, slots->nr_slots, from);
    uint64_t reach = MIN(first + SEARCH_SLOTS, slots->nr_slots);
    unsigned best_len = 0;

    while (first < reach && best_len < nr) {
        uint64_t end = find_next_bit(slots->used,
                                     MIN(first + nr, slots->nr_slots), first);

        if (end - first > best_len) {
            *best = first;
            best_len = end - first;
        }
        first = find_next_zero_bit(slots->used, reach, end);
    }
    return best_len;
}

unsigned mm_slots_alloc(MmSlotAlloc *slots, unsigned nr, uint64_t *first)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&slots->lock);
    uint64_t from_start = 0;
    unsigned len, len_from_start;

    if (slots->nr_used == slots->nr_slots) {
        return 0;
    }
    len = find_run(slots, slots->hint, nr, first);
    if (len < nr) {
        len_from_start = find_run(slots, 0, nr, &from_start);
        if (len_from_start > len) {
            len = len_from_start;
            *first = from_start;
        }
    }
    bitmap_set(slots->used, *first, len);
    slots->nr_used += len;
    slots->hint = *first + len < slots->nr_slots ? *first + len : 0;
    return len;
}

void mm_slots_free(MmSlotAlloc *slots, uint64_t first, unsigned nr)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&slots->lock);

    assert(first + nr <= slots->nr_slots);
    assert(find_next_zero_bit(slots->used, first + nr, first) == first + nr);
    bitmap_clear(slots->used, first, nr);
    slots->nr_used -= nr;
}

bool mm_slots_claim(MmSlotAlloc *slots, uint64_t slot)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&slots->lock);

    if (slot >= slots->nr_slots || test_bit(slot, slots->used)) {
        return false;
    }
    set_bit(slot, slots->used);
    slots->nr_used++;
    return true;
}

void mm_slots_count(MmSlotAlloc *slots, uint64_t *used, uint64_t *total)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&slots->lock);

    *used = slots->nr_used;
    *total = slots->nr_slots;
}
