/*
 * Managed memory pager: guests that wake up
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "wake.h"

/* Out are so many times as many pages as in memory, if it sleeps. */
#define ASLEEP_TIMES 3
#define AWAKE_TIMES 2
/* And no more are in memory than this part of what it had. */
#define FALLEN 2
/*
 * It wakes up if it faults so often in so long: once for so many pages that it
 * has, within bounds.  An idle one gets back what its kernel needs, some 15 MiB
 * of 512, of which a fault brings in a block.
 */
#define STIR_SHARE (16 * MM_WAKE_BLOCK_PAGES)
#define STIR_MIN 64
#define STIR_MAX 256
#define STIR_NS 1000000000ULL
/* For how long it is recorded what it wants. */
#define RECORD_NS 10000000000ULL

#define TO(state) (1u << MM_WAKE_##state)

static const uint8_t edges[MM_WAKE__MAX] = {
    [MM_WAKE_AWAKE] = TO(ASLEEP),
    [MM_WAKE_ASLEEP] = TO(STIRRING) | TO(AWAKE),
    [MM_WAKE_STIRRING] = TO(WAKING) | TO(ASLEEP),
    [MM_WAKE_WAKING] = TO(AWAKE),
};

static void set_state(MmWake *w, MmWakeState to)
{
    assert(edges[w->state] & (1u << to));
    w->state = to;
    w->most = 0;
}

void mm_wake_set_init(MmWakeSet *set, uint64_t nr_pages)
{
    set->nr_blocks = DIV_ROUND_UP(nr_pages, MM_WAKE_BLOCK_PAGES);
    set->recorded = bitmap_new(set->nr_blocks);
    set->seen = bitmap_new(set->nr_blocks);
}

void mm_wake_set_destroy(MmWakeSet *set)
{
    g_free(set->recorded);
    g_free(set->seen);
}

void mm_wake_set_note(MmWakeSet *set, uint64_t page)
{
    set_bit(page / MM_WAKE_BLOCK_PAGES, set->seen);
}

void mm_wake_set_forget(MmWakeSet *set)
{
    bitmap_zero(set->seen, set->nr_blocks);
}

void mm_wake_set_record(MmWakeSet *set)
{
    bitmap_copy(set->recorded, set->seen, set->nr_blocks);
    mm_wake_set_forget(set);
}

uint64_t mm_wake_set_pages(const MmWakeSet *set)
{
    return bitmap_count_one(set->recorded, set->nr_blocks) *
           MM_WAKE_BLOCK_PAGES;
}

/* In turn: after MM_WAKE_PART times it has been each one's. */
bool mm_wake_set_left_out(uint64_t block, unsigned times)
{
    return (block + times) % MM_WAKE_PART == 0;
}

void mm_wake_set_keep(MmWakeSet *set, uint64_t block)
{
    while ((block = find_next_bit(set->recorded, set->nr_blocks, block)) <
           set->nr_blocks) {
        set_bit(block++, set->seen);
    }
}

bool mm_wake_set_has(const MmWakeSet *set, uint64_t block)
{
    return test_bit(block, set->recorded);
}

void mm_wake_set_put(MmWakeSet *set, uint64_t block, bool recorded)
{
    if (recorded) {
        set_bit(block, set->recorded);
    } else {
        clear_bit(block, set->recorded);
    }
}

uint64_t mm_wake_set_next(const MmWakeSet *set, uint64_t block,
                          unsigned times)
{
    do {
        block = find_next_bit(set->recorded, set->nr_blocks, block);
    } while (block < set->nr_blocks && mm_wake_set_left_out(block, times) &&
             ++block);
    return block;
}

bool mm_wake_records(const MmWake *w)
{
    return w->state == MM_WAKE_STIRRING || w->state == MM_WAKE_WAKING;
}

bool mm_wake_fault(MmWake *w, uint64_t now_ns)
{
    switch (w->state) {
    case MM_WAKE_ASLEEP:
        set_state(w, MM_WAKE_STIRRING);
        w->began_ns = now_ns;
        w->faults = 1;
        return false;
    case MM_WAKE_STIRRING:
        if (++w->faults < w->enough) {
            return false;
        }
        set_state(w, MM_WAKE_WAKING);
        w->times++;
        return true;
    default:
        return false;
    }
}

MmWakeLook mm_wake_look(MmWake *w, uint64_t resident, uint64_t out,
                        uint64_t now_ns)
{
    if (!w->looked_at) {
        /* a new pager's: it may sleep, and nobody knows what it had */
        w->looked_at = true;
        w->most = resident + out;
    }
    switch (w->state) {
    case MM_WAKE_AWAKE:
        w->most = MAX(w->most, resident);
        if (out >= ASLEEP_TIMES * resident && resident < w->most / FALLEN) {
            set_state(w, MM_WAKE_ASLEEP);
            w->enough = MIN(MAX((resident + out) / STIR_SHARE, STIR_MIN),
                            STIR_MAX);
        }
        break;
    case MM_WAKE_ASLEEP:
        if (out < AWAKE_TIMES * resident) {
            set_state(w, MM_WAKE_AWAKE);
        }
        break;
    case MM_WAKE_STIRRING:
        if (now_ns - w->began_ns > STIR_NS) {
            set_state(w, MM_WAKE_ASLEEP);
            return MM_WAKE_FORGET;
        }
        break;
    case MM_WAKE_WAKING:
        if (now_ns - w->began_ns > RECORD_NS) {
            set_state(w, MM_WAKE_AWAKE);
            return MM_WAKE_RECORD;
        }
        break;
    default:
        g_assert_not_reached();
    }
    return MM_WAKE_NOTHING;
}
