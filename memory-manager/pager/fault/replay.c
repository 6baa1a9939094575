/*
 * Managed memory pager: reading what a guest that wakes up is going to want
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * wake.h has when, and what is recorded.  Blocks are read in the order of their
 * addresses, which is about that of their places; faults go first, and keep
 * some reads to themselves.  It ends where more would push out what is there.
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "fault-internal.h"

static void count_out(const MmVM *vm, uint64_t *out)
{
    int i;

    *out = 0;
    for (i = 0; i < MM_MAX_REGIONS; i++) {
        if (vm->regions[i]) {
            const uint64_t *count = vm->regions[i]->map.count;

            *out += qatomic_read(&count[MM_CLASS_SWAPPED]) +
                    qatomic_read(&count[MM_CLASS_ZERO]);
        }
    }
}

static void for_each_set(const MmVM *vm, void (*fn)(MmWakeSet *set))
{
    int i;

    for (i = 0; i < MM_MAX_REGIONS; i++) {
        if (vm->regions[i]) {
            fn(&vm->regions[i]->wake_set);
        }
    }
}

static void begin(MmFault *f)
{
    f->replay.on = true;
    f->replay.region = 0;
    f->replay.page = 0;
    f->replay.left = 0;
}

void mm_replay_look(MmFault *f)
{
    uint64_t out;

    count_out(f->vm, &out);
    switch (mm_wake_look(&f->wake, qatomic_read(&f->vm->total_resident), out,
                         f->now_ns)) {
    case MM_WAKE_FORGET:
        for_each_set(f->vm, mm_wake_set_forget);
        break;
    case MM_WAKE_RECORD:
        for_each_set(f->vm, mm_wake_set_record);
        break;
    default:
        break;
    }
}

void mm_replay_fault(MmFault *f, MmRegion *region, uint64_t page)
{
    if (mm_wake_fault(&f->wake, f->now_ns)) {
        begin(f);
    }
    if (mm_wake_records(&f->wake)) {
        mm_wake_set_note(&region->wake_set, page);
    }
}

void mm_fault_replay(MmVM *vm, void *opaque)
{
    uint64_t *count = opaque;
    int i;

    *count = 0;
    for (i = 0; i < MM_MAX_REGIONS; i++) {
        if (vm->regions[i]) {
            *count += mm_wake_set_pages(&vm->regions[i]->wake_set);
        }
    }
    begin(vm->fault);
}

/* The next block that is to be read; false if there is none any more. */
static bool next_block(MmFault *f)
{
    for (; f->replay.region < MM_MAX_REGIONS; f->replay.region++) {
        MmRegion *region = f->vm->regions[f->replay.region];
        uint64_t block;

        if (region) {
            block = mm_wake_set_next(&region->wake_set, f->replay.page /
                                     MM_WAKE_BLOCK_PAGES, f->wake.times);
            if (block < region->wake_set.nr_blocks) {
                f->replay.page = block * MM_WAKE_BLOCK_PAGES;
                f->replay.left = MM_WAKE_BLOCK_PAGES;
                return true;
            }
        }
        f->replay.page = 0;
    }
    return false;
}

bool mm_replay_step(MmFault *f)
{
    MmRegion *region;
    unsigned done;

    if (!f->replay.on || f->nr_free_loads <= MM_LOADS_KEPT ||
        mm_load_put_off(f)) {
        return false;   /* it goes on when a read has ended, or begun */
    }
    if (!mm_fault_plenty(f, MM_WAKE_BLOCK_PAGES) ||
        (!f->replay.left && !next_block(f))) {
        f->replay.on = false;
        return false;
    }
    region = f->vm->regions[f->replay.region];
    if (!region) {
        f->replay.left = 0;
        return true;
    }
    if (mm_wake_records(&f->wake)) {
        mm_wake_set_note(&region->wake_set, f->replay.page);
    }
    done = mm_swap_in_some(f, region, f->replay.page, f->replay.left);
    f->replay.page += done ?: f->replay.left;
    f->replay.left -= done ?: f->replay.left;
    return true;
}
