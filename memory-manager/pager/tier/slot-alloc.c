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
 * What bounds a search, and the time under the lock, which the fault thread
 * takes too: free runs looked at, and slots from the first free one on.  In a
 * file that has been in use for long a run of the wanted length may be nowhere;
 * the longest of many is several times as long as the first.
 */
#define SEARCH_RUNS 128
#define SEARCH_SLOTS 65536

typedef struct Search {
    unsigned want;
    unsigned runs_left;
    uint64_t best;
    unsigned best_len;          /* 0: none yet, up to want */
} Search;

/* Look at the free runs from @from on. */
static void search(const MmSlotAlloc *slots, Search *s, uint64_t from)
{
    uint64_t first = find_next_zero_bit(slots->used, slots->nr_slots, from);
    uint64_t reach = MIN(first + SEARCH_SLOTS, slots->nr_slots);

    while (first < reach && s->best_len < s->want && s->runs_left) {
        uint64_t end = find_next_bit(slots->used,
                                     MIN(first + s->want, slots->nr_slots),
                                     first);

        if (end - first > s->best_len) {
            s->best = first;
            s->best_len = end - first;
        }
        s->runs_left--;
        first = find_next_zero_bit(slots->used, reach, end);
    }
}

unsigned mm_slots_alloc(MmSlotAlloc *slots, unsigned nr, uint64_t *first)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&slots->lock);
    Search s = { .want = nr, .runs_left = SEARCH_RUNS };

    if (slots->nr_used == slots->nr_slots) {
        return 0;
    }
    search(slots, &s, slots->hint);
    if (s.best_len < nr) {
        search(slots, &s, 0);
    }
    bitmap_set(slots->used, s.best, s.best_len);
    slots->nr_used += s.best_len;
    *first = s.best;
    slots->hint = s.best + s.best_len;
    if (slots->hint == slots->nr_slots) {
        slots->hint = 0;
    }
    return s.best_len;
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
