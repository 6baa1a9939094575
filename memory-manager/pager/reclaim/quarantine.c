/*
 * Managed memory pager: places that may still be written to
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Whoever kills the pager finds a list as it is at that instruction: ranges
 * become valid by their nr, which is written last, and leave one list when they
 * are in the other.
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "quarantine.h"

static bool overlap(const MmPlaceRange *a, const MmPlaceRange *b)
{
    return a->nr && b->nr && a->tier == b->tier &&
           a->place < b->place + b->nr && b->place < a->place + a->nr;
}

static void set_range(MmPlaceRange *range, uint32_t tier, uint64_t place,
                      uint32_t nr)
{
    range->tier = tier;
    range->place = place;
    barrier();
    qatomic_set(&range->nr, nr);
    barrier();
}

static void clear_range(MmPlaceRange *range)
{
    barrier();
    qatomic_set(&range->nr, 0);
    barrier();
}

static bool any_overlaps(const MmPlaceRange *ranges, unsigned nr,
                         const MmPlaceRange *range)
{
    unsigned i;

    for (i = 0; i < nr; i++) {
        if (overlap(&ranges[i], range)) {
            return true;
        }
    }
    return false;
}

/* Is something on its way to it now, to find out whether its tier works? */
static bool is_tried(const MmState *state, const MmPlaceRange *range)
{
    return any_overlaps(state->storing, MM_STORING, range);
}

static bool in_quarantine(const MmState *state, const MmPlaceRange *range)
{
    return any_overlaps(state->quarantine, MM_QUARANTINE, range);
}

static void readmit(MmVM *vm, MmPlaceRange *range)
{
    MmPlaceRange was = *range;

    clear_range(range);
    if (was.nr) {
        MmTier *tier = vm->by_number[was.tier];

        tier->ops->readmit(tier, was.place, was.nr);
    }
}

/* Its places are withdrawn; the oldest range that is not tried makes room. */
static void add(MmVM *vm, const MmPlaceRange *range)
{
    MmState *state = vm->state;
    MmPlaceRange *next;
    unsigned i = 0;

    /* one store tries one range */
    QEMU_BUILD_BUG_ON(MM_STORING >= MM_QUARANTINE);
    do {
        next = &state->quarantine[state->quarantine_next];
        state->quarantine_next = (state->quarantine_next + 1) % MM_QUARANTINE;
    } while (is_tried(state, next) && ++i < MM_QUARANTINE);
    readmit(vm, next);
    set_range(next, range->tier, range->place, range->nr);
}

void mm_quarantine_begin(MmVM *vm, unsigned slot, const MmTier *tier,
                         const MmTierIO *io)
{
    MmPlaceRange *storing = &vm->state->storing[slot];

    assert(!storing->nr);
    if (tier->ops->withdraw) {
        set_range(storing, tier->number, io->place, io->nr_pages);
    }
}

void mm_quarantine_end(MmVM *vm, unsigned slot, MmTier *tier,
                       const MmTierIO *io, bool never)
{
    MmPlaceRange *storing = &vm->state->storing[slot];

    if (io->ret < 0 && !in_quarantine(vm->state, storing)) {
        if (storing->nr && !never) {
            tier->ops->withdraw(tier, io->place, io->nr_pages);
            add(vm, storing);
        } else {
            tier->ops->free(tier, io->place, io->nr_pages);
        }
    }
    clear_range(storing);
}

static bool is_of(const MmPlaceRange *range, const MmTier *tier)
{
    return range->nr && range->tier == tier->number;
}

bool mm_quarantine_find(const MmVM *vm, const MmTier *tier, uint64_t nth,
                        MmTierIO *io)
{
    unsigned i;

    for (i = 0; i < MM_QUARANTINE; i++) {
        const MmPlaceRange *range =
            &vm->state->quarantine[(nth + i) % MM_QUARANTINE];

        if (is_of(range, tier)) {
            io->place = range->place;
            io->nr_pages = MIN(io->nr_pages, range->nr);
            return true;
        }
    }
    return false;
}

bool mm_quarantine_give_up(MmVM *vm, const MmTier *tier)
{
    MmState *state = vm->state;
    unsigned i;

    for (i = 0; i < MM_QUARANTINE; i++) {
        MmPlaceRange *range = &state->quarantine[
            (state->quarantine_next + i) % MM_QUARANTINE];

        if (is_of(range, tier) && !is_tried(state, range)) {
            readmit(vm, range);
            return true;
        }
    }
    return false;
}

/* All or nothing: what a page has by now, or a tier that is not there, stays */
static bool claim(MmVM *vm, const MmPlaceRange *range)
{
    MmTier *tier = range->tier < MM_MAX_TIERS ? vm->by_number[range->tier]
                                              : NULL;
    unsigned nr = range->nr <= MM_TIER_IO_PAGES ? range->nr : 0;
    unsigned i = 0;

    if (!nr || !tier || !tier->ops->withdraw) {
        return false;
    }
    while (i < nr && tier->ops->claim(tier, range->place + i)) {
        i++;
    }
    if (i < nr) {
        if (i) {
            tier->ops->free(tier, range->place, i);
        }
        return false;
    }
    tier->ops->withdraw(tier, range->place, nr);
    return true;
}

void mm_quarantine_resume(MmVM *vm)
{
    MmState *state = vm->state;
    unsigned i;

    state->quarantine_next %= MM_QUARANTINE;
    for (i = 0; i < MM_QUARANTINE; i++) {
        if (!claim(vm, &state->quarantine[i])) {
            clear_range(&state->quarantine[i]);
        }
    }
    for (i = 0; i < MM_STORING; i++) {
        /* what was only tried is in the other list */
        if (claim(vm, &state->storing[i])) {
            add(vm, &state->storing[i]);
        }
        clear_range(&state->storing[i]);
    }
}
