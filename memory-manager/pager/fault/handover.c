/*
 * Managed memory pager: content that stays where it is while its guest moves
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What is swapped out to storage that two hosts see need not be read to get
 * from one to the other: it is enough to say where it is, and what its
 * checksum has to be.
 *
 * PIN, where the guest comes from: first the place is pinned, then the page's
 * entry is looked at once more.  If it is the same, whoever frees the place
 * does so from then on, and it stays as it is.  That there are pins is noted
 * where the next pager sees it, before any is told of.
 *
 * ADOPT, where it arrives: NEVER -> FILLING -> SWAPPED, the checksum before
 * the latter.  A page has no place before it has all, so that it is NEVER if we
 * die, and is adopted anew.
 */
#include "qemu/osdep.h"
#include "../region.h"
#include "../test-hooks.h"
#include "fault-internal.h"

/* The request's places, or NULL if there cannot be so many. */
static MmPlaces *places_of(MmFault *f, const MmRegion *region,
                           const MmRingSlot *request)
{
    unsigned nr = request->range.nr_pages;

    if (nr > MM_RING_PLACES_MAX || mm_region_is_huge(region) ||
        request->buffer + MM_RING_PLACES_PAGES(nr) > MM_RING_BUFFER_PAGES) {
        return NULL;
    }
    return (MmPlaces *)f->vm->ring->buffer[request->buffer];
}

static void pin_page(MmFault *f, const MmPageMap *map, uint64_t page,
                     MmPlace *answer)
{
    uint64_t entry = mm_map_get(map, page);
    MmTier *tier = mm_vm_tier(f->vm, mm_entry_tier(entry));
    uint32_t checksum = map->checksums[page];
    MmPlace found = {};

    if (mm_entry_state(entry) == MM_PAGE_SWAPPED && tier &&
        tier->number == f->vm->state->shared.tier && tier->ops->pin &&
        tier->ops->pin(tier, mm_entry_place(entry)) &&
        mm_map_get(map, page) == entry) {
        found = (MmPlace) {
            .place = mm_entry_place(entry),
            .checksum = checksum,
            .version = mm_entry_version(entry),
            .tier = tier->number,
            .known = 1,
        };
    }
    *answer = found;
}

void mm_pin(MmFault *f, MmRegion *region, const MmRingSlot *request)
{
    MmPlaces *places = places_of(f, region, request);
    uint64_t page = request->range.first_page;
    unsigned i, nr = request->range.nr_pages;

    if (!places || !f->vm->state->shared.present) {
        return;
    }
    qatomic_set(&f->vm->state->pinned, 1);
    mm_region_reconcile(f->vm, region, page, nr);
    places->seed = region->map.checksum_seed;
    for (i = 0; i < nr; i++) {
        pin_page(f, &region->map, page + i, &places->page[i]);
    }
}

/* By a pager that has not come to the end of the request. */
static bool is_adopted(const MmPageMap *map, uint64_t page, const MmPlace *at)
{
    uint64_t entry = mm_map_get(map, page);

    return mm_entry_state(entry) == MM_PAGE_SWAPPED &&
           mm_entry_tier(entry) == MM_TIER_FIRST + at->tier &&
           mm_entry_place(entry) == at->place &&
           mm_entry_version(entry) == at->version &&
           map->checksums[page] == at->checksum;
}

static bool adopt_page(MmFault *f, MmPageMap *map, uint64_t page,
                       const MmPlace *at)
{
    uint64_t never = mm_map_get(map, page), filling, swapped;
    MmTier *tier = mm_vm_tier(f->vm, MM_TIER_FIRST + at->tier);

    if (is_adopted(map, page, at)) {
        return true;
    }
    if (mm_entry_state(never) != MM_PAGE_NEVER || !tier || !tier->lent ||
        !qatomic_load_acquire(&tier->proven) ||
        at->place > MM_PLACE_MAX || !tier->ops->claim(tier, at->place)) {
        return false;
    }
    filling = mm_entry_with_state(never, MM_PAGE_FILLING);
    if (!mm_map_cas(map, page, never, filling)) {
        tier->ops->free(tier, at->place, 1);
        return false;
    }
    map->checksums[page] = at->checksum;
    mm_failpoint(MM_FP_FILLING);
    swapped = mm_entry_with_state(mm_entry_with_version(filling, at->version),
                                  MM_PAGE_SWAPPED);
    swapped = mm_entry_at(swapped, MM_TIER_FIRST + tier->number, at->place);
    mm_map_move(map, page, filling,
                mm_entry_with_age(swapped, qatomic_read(&f->vm->epoch)));
    return true;
}

/* What is to be the seed, before there is anything that it concerns */
static bool set_seed(MmFault *f, MmRegion *region, uint64_t seed)
{
    if (seed != region->map.checksum_seed) {
        mm_region_reconcile(f->vm, region, 0, region->nr_pages);
    }
    return mm_map_set_seed(&region->map, seed);
}

void mm_adopt(MmFault *f, MmRegion *region, const MmRingSlot *request,
              uint32_t *done)
{
    MmPlaces *places = places_of(f, region, request);
    uint64_t page = request->range.first_page;
    unsigned i, nr = request->range.nr_pages, adopted = 0;

    if (!places || !set_seed(f, region, qatomic_read(&places->seed))) {
        return;
    }
    mm_region_reconcile(f->vm, region, page, nr);
    for (i = 0; i < nr; i++) {
        /* QEMU may change it at any time */
        MmPlace at = places->page[i];

        if (!at.known) {
            continue;
        }
        if (adopt_page(f, &region->map, page + i, &at)) {
            adopted++;
        } else {
            places->page[i].known = 0;
        }
    }
    MM_STAT_ADD(f->vm, pages_adopted, adopted);
    *done = 1;
}
