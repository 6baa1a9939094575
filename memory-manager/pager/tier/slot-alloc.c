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
    g_free(slots->pinned);
    g_free(slots->kept);
    g_mutex_clear(&slots->lock);
}

void mm_slots_grow(MmSlotAlloc *slots, uint64_t nr_slots)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&slots->lock);

    if (nr_slots <= slots->nr_slots) {
        return;
    }
    slots->used = bitmap_zero_extend(slots->used, slots->nr_slots, nr_slots);
    if (slots->pinned) {
        slots->pinned = bitmap_zero_extend(slots->pinned, slots->nr_slots,
                                           nr_slots);
        slots->kept = bitmap_zero_extend(slots->kept, slots->nr_slots,
                                         nr_slots);
    }
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

    if (slots->nr_used + slots->nr_kept + slots->nr_withdrawn ==
        slots->nr_slots) {
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

static void free_locked(MmSlotAlloc *slots, uint64_t first, unsigned nr)
{
    uint64_t slot;

    assert(first + nr <= slots->nr_slots);
    assert(find_next_zero_bit(slots->used, first + nr, first) == first + nr);
    slots->nr_used -= nr;
    if (!slots->pinned) {
        bitmap_clear(slots->used, first, nr);
        return;
    }
    for (slot = first; slot < first + nr; slot++) {
        if (test_bit(slot, slots->pinned)) {
            assert(!test_and_set_bit(slot, slots->kept));
            slots->nr_kept++;
        } else {
            clear_bit(slot, slots->used);
        }
    }
}

void mm_slots_free(MmSlotAlloc *slots, uint64_t first, unsigned nr)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&slots->lock);

    free_locked(slots, first, nr);
}

void mm_slots_withdraw(MmSlotAlloc *slots, uint64_t first, unsigned nr)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&slots->lock);

    assert(find_next_zero_bit(slots->used, first + nr, first) == first + nr);
    assert(nr <= slots->nr_used);
    slots->nr_used -= nr;
    slots->nr_withdrawn += nr;
}

void mm_slots_readmit(MmSlotAlloc *slots, uint64_t first, unsigned nr)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&slots->lock);

    assert(nr <= slots->nr_withdrawn);
    slots->nr_withdrawn -= nr;
    slots->nr_used += nr;
    free_locked(slots, first, nr);
}

static bool is_kept(const MmSlotAlloc *slots, uint64_t slot)
{
    return slots->kept && test_bit(slot, slots->kept);
}

bool mm_slots_claim(MmSlotAlloc *slots, uint64_t slot)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&slots->lock);

    if (slot >= slots->nr_slots) {
        return false;
    }
    if (is_kept(slots, slot)) {
        clear_bit(slot, slots->kept);
        slots->nr_kept--;
    } else if (test_and_set_bit(slot, slots->used)) {
        return false;
    }
    slots->nr_used++;
    return true;
}

static void begin_pins_locked(MmSlotAlloc *slots)
{
    if (!slots->pinned) {
        /* there are none of no bits */
        slots->pinned = bitmap_new(MAX(slots->nr_slots, 1));
        slots->kept = bitmap_new(MAX(slots->nr_slots, 1));
    }
}

bool mm_slots_pin(MmSlotAlloc *slots, uint64_t slot)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&slots->lock);

    if (slot >= slots->nr_slots || !test_bit(slot, slots->used) ||
        is_kept(slots, slot)) {
        return false;
    }
    begin_pins_locked(slots);
    set_bit(slot, slots->pinned);
    return true;
}

void mm_slots_pin_all(MmSlotAlloc *slots)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&slots->lock);

    assert(!slots->nr_used && !slots->pinned);
    begin_pins_locked(slots);
    bitmap_set(slots->used, 0, slots->nr_slots);
    bitmap_set(slots->pinned, 0, slots->nr_slots);
    bitmap_set(slots->kept, 0, slots->nr_slots);
    slots->nr_kept = slots->nr_slots;
}

void mm_slots_unpin(MmSlotAlloc *slots)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&slots->lock);

    if (slots->kept) {
        bitmap_andnot(slots->used, slots->used, slots->kept, slots->nr_slots);
    }
    g_clear_pointer(&slots->pinned, g_free);
    g_clear_pointer(&slots->kept, g_free);
    slots->nr_kept = 0;
}

void mm_slots_count(MmSlotAlloc *slots, uint64_t *used, uint64_t *total)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&slots->lock);

    *used = slots->nr_used;
    *total = slots->nr_slots;
}
