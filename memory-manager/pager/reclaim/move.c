/*
 * Managed memory pager: moving content from tier to tier
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A tier that runs short of room says which of its places are to be left: the
 * oldest ones, whose content goes to the next tier, or the sparsest ones, whose
 * content it takes again.  One sweep over the page maps finds the pages, in the
 * order of their addresses, so that neighbours are neighbours in the next tier.
 * A tier that is drained is left by everything.
 *
 * For a batch of pages, each SWAPPED at place a:
 *
 *   load     from a, and check: the fault thread may have freed a meanwhile.
 *   store    to place b.  The version stays, and so does the checksum.
 *   publish  SWAPPED(a) -> SWAPPED(b), unless the fault thread was first; then
 *            b is free, else a.
 *
 * At any moment the entry names a place that holds the content, so that nothing
 * has to be undone if the pager dies.  Only this thread allocates places, and
 * what it evicts anew it strikes from the batch: thus an entry that is what it
 * was names content that has not been replaced.
 *
 * Nothing here waits: eviction goes on while a slow tier takes a batch.
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

bool mm_move_wanted(const MmReclaim *r)
{
    unsigned t;

    for (t = 0; t < r->vm->nr_tiers; t++) {
        if (qatomic_read(&r->vm->tiers[t]->drain) == MM_DRAIN_GOING) {
            return true;
        }
    }
    return r->move.wanted || qatomic_read(&r->move.resized);
}

/*
 * Is something left in it?  If not, that is so for good: only this thread
 * allocates places, from now on none in it, and all that a former pager has
 * used were claimed.
 */
static bool has_to_drain(const MmReclaim *r, MmTier *tier)
{
    MmTierUsage usage = {};

    tier->ops->usage(tier, &usage);
    /* what is kept for another host has to be there */
    if (!usage.pages && !qatomic_read(&r->vm->state->pinned)) {
        qatomic_cmpxchg(&tier->drain, MM_DRAIN_GOING, MM_DRAIN_DONE);
    }
    return usage.pages != 0;
}

/*
 * Where content of @t goes first: down, to the tier behind it; what has to
 * leave in any case, to the one that is filled first.  @t itself if there is
 * none.  One that is spared gets nothing that can stay where it is.
 */
static MmTier *next_tier(const MmReclaim *r, unsigned t)
{
    unsigned i = mm_tier_draining(r->vm->tiers[t]) ? 0 : t + 1;

    for (; i < r->vm->nr_tiers; i++) {
        if (!mm_tier_closed(r->vm->tiers[i]) &&
            !qatomic_read(&r->vm->tiers[i]->spared)) {
            return r->vm->tiers[i];
        }
    }
    return r->vm->tiers[t];
}

/* What tier @t wants to get rid of. */
static MmAgeing wants(MmReclaim *r, unsigned t, const MmTier *next)
{
    MmTier *tier = r->vm->tiers[t];
    bool is_last = tier == next;

    if (mm_tier_draining(tier) && !has_to_drain(r, tier)) {
        return MM_AGEING_NONE;      /* done, whether its disk answers or not */
    }
    /* one that fails is tried again: perhaps nobody else does */
    if (!mm_tier_ready(r, t) ||
        (!is_last && r->health[next->index].failing &&
         clock_ns() - r->health[next->index].failed_ns < REST_NS)) {
        return MM_AGEING_NONE;
    }
    if (mm_tier_draining(tier)) {
        return MM_AGEING_DOWN;
    }
    return tier->ops->age ? tier->ops->age(tier, is_last) : MM_AGEING_NONE;
}

/* A drain without end has to say why it has none. */
static void tell_unreadable(MmReclaim *r, uint64_t nr)
{
    MmMove *move = &r->move;

    if (move->told_unreadable == nr) {
        return;
    }
    move->told_unreadable = nr;
    if (nr) {
        mm_vm_io_failing(r->vm, MM_IO_MOVE, true);
        mm_vm_event(r->vm, MM_EVENT_IO_ERROR, UINT32_MAX, EIO,
                    "%" PRIu64 " pages cannot be read from tier '%s', which is "
                    "to be drained; they stay there, and are tried again",
                    nr, r->vm->tiers[move->from]->name);
    } else if (mm_vm_io_failing(r->vm, MM_IO_MOVE, false)) {
        mm_vm_event(r->vm, MM_EVENT_IO_RECOVERED, UINT32_MAX, 0,
                    "all that was to leave a tier could be read");
    }
}

/* Does a tier want to get rid of anything? */
static bool begin_sweep(MmReclaim *r)
{
    MmMove *move = &r->move;
    unsigned t;

    if (move->rest_until_ns > clock_ns()) {
        return false;
    }
    qatomic_set(&move->resized, false);
    move->wanted = true;
    for (t = 0; t < r->vm->nr_tiers; t++) {
        const MmTier *next = next_tier(r, t);
        MmAgeing ageing = wants(r, t, next);

        if (ageing != MM_AGEING_NONE) {
            move->sweeping = true;
            move->from = t;
            move->to = ageing == MM_AGEING_WITHIN ? t : next->index;
            move->region = 0;
            move->page = 0;
            move->moved = 0;
            move->unreadable = 0;
            return true;
        }
    }
    tell_unreadable(r, 0);
    move->wanted = false;
    move->rest_until_ns = clock_ns() + LOOK_NS;
    return false;
}

static void end_sweep(MmReclaim *r)
{
    if (mm_tier_draining(r->vm->tiers[r->move.from])) {
        tell_unreadable(r, r->move.unreadable);
    }
    r->move.sweeping = false;
    r->move.rest_until_ns = r->move.moved ? 0 : clock_ns() + REST_NS;
}

static bool is_leaving(const MmReclaim *r, uint64_t entry)
{
    MmTier *tier = r->vm->tiers[r->move.from];

    return mm_entry_state(entry) == MM_PAGE_SWAPPED &&
           mm_entry_tier(entry) == MM_TIER_FIRST + tier->number &&
           (mm_tier_draining(tier) ||
            (tier->ops->leaving &&
             tier->ops->leaving(tier, mm_entry_place(entry))));
}

/* Pages from the sweep's hand on; their content is not there yet. */
static void collect(MmReclaim *r, MmBatch *b)
{
    MmMove *move = &r->move;
    uint64_t end = MIN(move->page + LOOK_PAGES, b->region->nr_pages);

    b->nr = 0;
    for (; move->page < end && b->nr < MM_TIER_IO_PAGES; move->page++) {
        uint64_t entry = mm_map_get(&b->region->map, move->page);

        if (is_leaving(r, entry)) {
            b->p[b->nr] = (MmPiece) {
                .page = move->page, .entry = entry, .base = entry,
                .buf = b->buf + b->nr * MM_PAGE_SIZE,
            };
            b->nr++;
        }
    }
}

static void loaded(MmReclaim *r, MmTransfer *t)
{
    r->move.loading--;
}

static void load_pieces(MmReclaim *r, MmBatch *b)
{
    MmMove *move = &r->move;
    unsigned i;

    move->stage = MM_MOVE_LOADING;
    move->loading = b->nr;
    for (i = 0; i < b->nr; i++) {
        move->loads[i].io = (MmTierIO) {
            .nr_pages = 1, .place = mm_entry_place(b->p[i].entry),
            .buf = b->p[i].buf,
        };
        mm_reclaim_transfer(r, r->queues[move->from], &move->loads[i], loaded);
    }
    mm_queue_flush(r->queues[move->from]);
}

/* What cannot be read stays where it is: whoever needs it will say so. */
static void check_pieces(MmReclaim *r, MmBatch *b)
{
    MmPageMap *map = &b->region->map;
    unsigned i, right = 0;

    for (i = 0; i < b->nr; i++) {
        MmPiece *p = &b->p[i];

        if (r->move.loads[i].io.ret == 0 &&
            mm_page_checksum(map, p->page, p->entry, p->buf) ==
            map->checksums[p->page]) {
            b->p[right++] = *p;
        } else if (mm_map_get(map, p->page) == p->entry) {
            r->move.unreadable++;
        }
    }
    b->nr = right;
}

static void publish(MmReclaim *r, MmPageMap *map, const MmPiece *p)
{
    bool ours = p->entry && mm_map_cas(map, p->page, p->entry, p->stored);
    uint64_t left = ours ? p->entry : p->stored;
    MmTier *tier = mm_vm_tier(r->vm, mm_entry_tier(left));

    tier->ops->free(tier, mm_entry_place(left), 1);
    r->move.moved += ours;
    MM_STAT_ADD(r->vm, pages_moved, ours);
}

void mm_move_forget(MmReclaim *r, const MmRegion *region, uint64_t page)
{
    MmBatch *b = &r->move.batch;
    unsigned i;

    for (i = 0; b->busy && b->region == region && i < b->nr; i++) {
        if (b->p[i].page == page) {
            b->p[i].entry = 0;
        }
    }
}

bool mm_move_busy(const MmReclaim *r)
{
    return r->move.batch.busy;
}

static void publish_all(MmReclaim *r, MmBatch *b)
{
    bool any = !b->nr;
    unsigned i;

    mm_failpoint(MM_FP_MOVING);
    for (i = 0; i < b->nr; i++) {
        if (b->p[i].stored) {
            publish(r, &b->region->map, &b->p[i]);
            any = true;
        }
    }
    mm_failpoint(MM_FP_MOVED);
    if (!any) {
        /* no tier takes anything */
        r->move.region = MM_MAX_REGIONS;
    }
}

/* Go on with the batch; true when it has come to its end. */
static bool batch_step(MmReclaim *r, MmBatch *b)
{
    MmMove *move = &r->move;

    mm_reclaim_reap(r);
    if (move->stage == MM_MOVE_LOADING) {
        if (move->loading) {
            return false;
        }
        check_pieces(r, b);
        mm_store_begin(b, move->to);
        move->stage = MM_MOVE_STORING;
    }
    if (!mm_store_step(r, b)) {
        return false;
    }
    publish_all(r, b);
    move->stage = MM_MOVE_IDLE;
    b->busy = false;
    mm_region_put(r->vm, b->region);
    return true;
}

/* Let the hand find a batch, if there is a region where it is. */
static void next_batch(MmReclaim *r, MmBatch *b)
{
    MmMove *move = &r->move;
    bool more = false;

    b->region = mm_vm_region_get(r->vm, move->region);
    if (b->region) {
        b->busy = true;
        collect(r, b);
        more = move->page < b->region->nr_pages;
        load_pieces(r, b);
    }
    if (!more) {
        move->page = 0;
        move->region++;
    }
}

bool mm_move_step(MmReclaim *r)
{
    MmMove *move = &r->move;
    MmBatch *b = &move->batch;

    if (!b->busy) {
        if (!qatomic_load_acquire(&r->vm->scan_done) ||
            qatomic_read(&r->vm->reclaim_rests) ||
            (!move->sweeping && !begin_sweep(r))) {
            return false;
        }
        next_batch(r, b);
    }
    if (b->busy && !batch_step(r, b)) {
        return false;
    }
    if (move->region >= MM_MAX_REGIONS) {
        end_sweep(r);
    }
    return true;
}
