/*
 * Managed memory pager: moving content from tier to tier
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A tier that runs short of room says which of its places are to be left: the
 * oldest ones, whose content goes to the next tier, or the sparsest ones, whose
 * content it takes again.  One sweep over the page maps finds the pages, in the
 * order of their addresses, so that neighbours are neighbours in the next tier.
 *
 * For a batch of pages, each SWAPPED at place a:
 *
 *   load     from a, and check: the fault thread may have freed a meanwhile.
 *   store    to place b.  The version stays, and so does the checksum.
 *   publish  SWAPPED(a) -> SWAPPED(b), unless the fault thread was first; then
 *            b is free, else a.
 *
 * At any moment the entry names a place that holds the content, so that nothing
 * has to be undone if the pager dies.  Only this thread allocates places, thus
 * an entry that is what it was names content that has not been replaced.
 */
#include "qemu/osdep.h"
#include "../region.h"
#include "../test-hooks.h"
#include "reclaim-internal.h"

/* Entries looked at in one step. */
#define LOOK_PAGES 16384
/* After a sweep that has moved nothing: it would find the same again. */
#define REST_NS 1000000000ULL
/* Between two looks at whether there is anything to do. */
#define LOOK_NS 20000000ULL

static uint64_t clock_ns(void)
{
    return g_get_monotonic_time() * 1000;
}

/* Does a tier want to get rid of anything? */
static bool begin_sweep(MmReclaim *r)
{
    MmMove *move = &r->move;
    unsigned t;

    if (move->rest_until_ns > clock_ns()) {
        return false;
    }
    for (t = 0; t < r->vm->nr_tiers; t++) {
        MmTier *tier = r->vm->tiers[t];
        bool is_last = t + 1 == r->vm->nr_tiers;
        bool may = tier->ops->age && mm_tier_ready(r, t) &&
                   (is_last || !r->health[t + 1].failing);
        MmAgeing ageing = may ? tier->ops->age(tier, is_last)
                              : MM_AGEING_NONE;

        if (ageing != MM_AGEING_NONE) {
            *move = (MmMove) {
                .sweeping = true,
                .from = t,
                .to = ageing == MM_AGEING_WITHIN ? t : t + 1,
            };
            return true;
        }
    }
    move->rest_until_ns = clock_ns() + LOOK_NS;
    return false;
}

static void end_sweep(MmReclaim *r)
{
    r->move.sweeping = false;
    r->move.rest_until_ns = r->move.moved ? 0 : clock_ns() + REST_NS;
}

static bool is_leaving(const MmReclaim *r, uint64_t entry)
{
    MmTier *tier = r->vm->tiers[r->move.from];

    return mm_entry_state(entry) == MM_PAGE_SWAPPED &&
           mm_entry_tier(entry) == MM_TIER_FIRST + r->move.from &&
           tier->ops->leaving(tier, mm_entry_place(entry));
}

/* Pages from the sweep's hand on; their content is not there yet. */
static unsigned collect(MmReclaim *r, MmRegion *region, MmPiece *p)
{
    MmMove *move = &r->move;
    uint64_t end = MIN(move->page + LOOK_PAGES, region->nr_pages);
    unsigned nr = 0;

    for (; move->page < end && nr < MM_TIER_IO_PAGES; move->page++) {
        uint64_t entry = mm_map_get(&region->map, move->page);

        if (is_leaving(r, entry)) {
            p[nr++] = (MmPiece) {
                .page = move->page, .entry = entry, .base = entry,
            };
        }
    }
    return nr;
}

static bool load_piece(MmReclaim *r, MmPageMap *map, MmPiece *p, uint8_t *buf)
{
    MmTierIO io = {
        .nr_pages = 1, .place = mm_entry_place(p->entry), .buf = buf,
    };

    p->buf = buf;
    return mm_transfer(r, r->queues[r->move.from], &io) == 0 &&
           mm_page_checksum(map, p->page, p->entry, buf) ==
           map->checksums[p->page];
}

/* What cannot be read stays where it is: whoever needs it will say so. */
static unsigned load_pieces(MmReclaim *r, MmPageMap *map, MmPiece *p,
                            unsigned nr)
{
    unsigned i, loaded = 0;

    for (i = 0; i < nr; i++) {
        if (load_piece(r, map, &p[i], r->arena + loaded * MM_PAGE_SIZE)) {
            p[loaded++] = p[i];
        }
    }
    return loaded;
}

static void publish(MmReclaim *r, MmPageMap *map, const MmPiece *p)
{
    bool ours = mm_map_cas(map, p->page, p->entry, p->stored);
    uint64_t left = ours ? p->entry : p->stored;
    MmTier *tier = mm_vm_tier(r->vm, mm_entry_tier(left));

    tier->ops->free(tier, mm_entry_place(left), 1);
    r->move.moved += ours;
    MM_STAT_ADD(r->vm, pages_moved, ours);
}

/* Returns false if no tier takes anything. */
static bool move_pieces(MmReclaim *r, MmPageMap *map, MmPiece *p, unsigned nr)
{
    bool any = !nr;
    unsigned i;

    r->moving = true;
    mm_store(r, map, p, nr, r->move.to);
    r->moving = false;
    mm_failpoint(MM_FP_MOVING);
    for (i = 0; i < nr; i++) {
        if (p[i].stored) {
            publish(r, map, &p[i]);
            any = true;
        }
    }
    mm_failpoint(MM_FP_MOVED);
    return any;
}

static bool sweep_region(MmReclaim *r, MmRegion *region)
{
    MmPiece p[MM_TIER_IO_PAGES];
    unsigned nr = collect(r, region, p);

    nr = load_pieces(r, &region->map, p, nr);
    return move_pieces(r, &region->map, p, nr);
}

bool mm_move_step(MmReclaim *r)
{
    MmMove *move = &r->move;
    MmRegion *region;
    bool more = false;

    if (!qatomic_load_acquire(&r->vm->scan_done) ||
        qatomic_read(&r->vm->reclaim_rests) ||
        (!move->sweeping && !begin_sweep(r))) {
        return false;
    }
    region = mm_vm_region_get(r->vm, move->region);
    if (region) {
        if (!sweep_region(r, region)) {
            move->region = MM_MAX_REGIONS;
        }
        more = move->page < region->nr_pages;
        mm_region_put(r->vm, region);
    }
    if (!more) {
        move->page = 0;
        move->region++;
    }
    if (move->region >= MM_MAX_REGIONS) {
        end_sweep(r);
    }
    return true;
}
