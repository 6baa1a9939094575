/*
 * Managed memory pager: reading swapped pages back
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A load reads pages that follow each other both in the region and in the
 * tier; its pages are FILLING meanwhile, so that nobody else touches them.
 * What comes back is placed only if its checksum is right.  A page that cannot
 * be read is never filled with anything else: it becomes SWAPPED again, its
 * waiters wait, an event says so, and the read is tried again until the device
 * is back or the page is given up.
 */
#include "qemu/osdep.h"
#include "../region.h"
#include "../test-hooks.h"
#include "../uffd.h"
#include "fault-internal.h"

/* How long to wait before a page that could not be read is tried again. */
#define RETRY_NS 100000000ULL
/* Reads work again if none has failed for so long, retries included. */
#define QUIET_NS (3 * RETRY_NS)
/* A read that takes longer is taken for a tier that hangs. */
#define HANGS_NS 1000000000ULL

void mm_load_init(MmFault *f)
{
    int i;

    QLIST_INIT(&f->free_loads);
    QLIST_INIT(&f->busy_loads);
    for (i = 0; i < MM_NR_LOADS; i++) {
        f->loads[i].io.buf = f->arena + i * MM_LOAD_PAGES * MM_PAGE_SIZE;
        QLIST_INSERT_HEAD(&f->free_loads, &f->loads[i], next);
        f->nr_free_loads++;
    }
}

/* The entry of a page that goes on where the load's last one ends, or 0. */
static uint64_t adjoining(const MmRegion *region, uint64_t page,
                          uint64_t first, unsigned nr)
{
    uint64_t entry;

    if (page >= region->nr_pages || !mm_region_reconciled(region, page)) {
        return 0;
    }
    entry = mm_map_get(&region->map, page);
    return mm_entry_state(entry) == MM_PAGE_SWAPPED &&
           mm_entry_tier(entry) == mm_entry_tier(first) &&
           mm_entry_place(entry) == mm_entry_place(first) + nr ? entry : 0;
}

/*
 * Take pages from @page on, of which the first one's entry is @first; returns
 * how many.  The reclaim thread may move any of them to another place.
 */
static unsigned take_run(MmRegion *region, uint64_t page, uint64_t first,
                         unsigned want, uint64_t *filling)
{
    unsigned nr;

    for (nr = 0; nr < want; nr++) {
        uint64_t entry = adjoining(region, page + nr, first, nr);

        filling[nr] = mm_entry_with_state(entry, MM_PAGE_FILLING);
        if (!entry ||
            !mm_map_cas(&region->map, page + nr, entry, filling[nr])) {
            break;
        }
    }
    return nr;
}

/* Whose entries are in the load. */
static void submit(MmFault *f, MmLoad *load, MmRegion *region, uint64_t page,
                   unsigned nr)
{
    MmTier *tier = mm_vm_tier(f->vm, mm_entry_tier(load->entries[0]));

    QLIST_REMOVE(load, next);
    f->nr_free_loads--;
    QLIST_INSERT_HEAD(&f->busy_loads, load, next);
    qatomic_inc(&region->refs);
    load->region = region;
    load->page = page;
    load->cancelled = 0;
    load->node = f->node;
    load->since_ns = f->now_ns;
    load->io.store = false;
    load->io.nr_pages = nr;
    load->io.place = mm_entry_place(load->entries[0]);
    load->io.opaque = f;
    if (mm_mutated(MM_MUT_FREE_EARLY) && !load->fetching) {
        tier->ops->free(tier, load->io.place, nr);
    }
    if (!mm_queue_submit(f->queues[tier->index], &load->io)) {
        qatomic_inc(&f->vm->state->stats.io_put_off);
    }
}

bool mm_load_possible(const MmFault *f, uint64_t entry)
{
    const MmTier *tier = mm_vm_tier(f->vm, mm_entry_tier(entry));

    return tier && qatomic_load_acquire(&tier->proven);
}

unsigned mm_load_start(MmFault *f, MmRegion *region, uint64_t page,
                       unsigned want)
{
    MmLoad *load = QLIST_FIRST(&f->free_loads);
    uint64_t first;
    MmTier *tier;
    unsigned nr;

    if (!load || page >= region->nr_pages) {
        return 0;
    }
    do {
        first = mm_map_get(&region->map, page);
        if (!mm_load_possible(f, first) ||
            mm_entry_state(first) != MM_PAGE_SWAPPED ||
            !mm_region_reconciled(region, page)) {
            return 0;
        }
        tier = mm_vm_tier(f->vm, mm_entry_tier(first));
        nr = take_run(region, page, first,
                      MIN(MIN(want, MM_LOAD_PAGES), tier->ops->max_pages),
                      load->entries);
    } while (!nr);
    mm_failpoint(MM_FP_FILLING);
    submit(f, load, region, page, nr);
    return nr;
}

bool mm_load_huge(MmFault *f, MmHugeIn *unit, unsigned i, unsigned nr)
{
    MmLoad *load = QLIST_FIRST(&f->free_loads);

    if (!load) {
        return false;
    }
    memcpy(load->entries, &unit->entries[i], nr * sizeof(load->entries[0]));
    load->unit = unit;
    submit(f, load, unit->region, unit->page + i, nr);
    return true;
}

unsigned mm_load_peek(const MmFault *f, const MmRegion *region, uint64_t page,
                      unsigned want, uint64_t *entries)
{
    uint64_t first = mm_map_get(&region->map, page);
    unsigned nr = 0;

    if (!mm_load_possible(f, first)) {
        return 0;
    }
    want = MIN(MIN(want, MM_LOAD_PAGES),
               mm_vm_tier(f->vm, mm_entry_tier(first))->ops->max_pages);
    while (nr < want &&
           (entries[nr] = adjoining(region, page + nr, first, nr))) {
        nr++;
    }
    return nr;
}

void mm_load_fetch(MmFault *f, MmFetch *fetch, uint64_t page,
                   const uint64_t *entries, unsigned nr)
{
    MmLoad *load = QLIST_FIRST(&f->free_loads);

    memcpy(load->entries, entries, nr * sizeof(load->entries[0]));
    load->fetching = true;
    load->fetch = fetch;
    submit(f, load, fetch->region, page, nr);
}

MmWaitReason mm_load_wait_reason(MmFault *f, MmRegion *region, uint64_t page)
{
    uint64_t entry = mm_map_get(&region->map, page);
    MmTier *tier = mm_vm_tier(f->vm, mm_entry_tier(entry));

    /* tried and failed just now, if the tier is one that answers at once */
    if (f->now_ns < f->retry_at_ns &&
        mm_waiters_failed(&f->waiters, region->hva + page * MM_PAGE_SIZE)) {
        return MM_WAIT_ERROR;
    }
    if (!tier || qatomic_load_acquire(&tier->proven) ||
        f->now_ns - f->began_ns <= HANGS_NS) {
        return MM_WAIT_BUSY;
    }
    f->retry_at_ns = f->now_ns + RETRY_NS;
    return MM_WAIT_ERROR;
}

void mm_load_cancel(MmFault *f, MmRegion *region, uint64_t page, uint64_t nr,
                    MmPageState state)
{
    MmLoad *load;
    unsigned i;

    mm_huge_in_cancel(f, region, page, nr, state);
    mm_import_cancel(f, region, page, nr, state);
    QLIST_FOREACH(load, &f->busy_loads, next) {
        for (i = 0; load->region == region && !load->unit && !load->fetching &&
                    i < load->io.nr_pages; i++) {
            if (load->page + i - page < nr && !(load->cancelled & (1u << i))) {
                load->cancelled |= 1u << i;
                mm_map_move(&region->map, load->page + i, load->entries[i],
                            mm_entry_at(mm_entry_with_state(load->entries[i],
                                                            state),
                                        MM_TIER_NONE, 0));
            }
        }
    }
}

static bool content_right(MmFault *f, MmLoad *load, unsigned i)
{
    MmPageMap *map = &load->region->map;
    uint32_t sum;

    if (mm_mutated(MM_MUT_NO_CHECKSUM)) {
        return true;
    }
    sum = mm_page_checksum(map, load->page + i, load->entries[i],
                           load->io.buf + i * MM_PAGE_SIZE);
    if (sum == map->checksums[load->page + i]) {
        return true;
    }
    MM_STAT_ADD(f->vm, checksum_errors, 1);
    return false;
}

/* Returns whether that is news. */
static bool read_fails(MmFault *f)
{
    bool news = !f->read_failing;

    f->read_failing = true;
    f->read_worked = false;
    f->read_failed_ns = f->now_ns;
    mm_vm_io_failing(f->vm, MM_IO_READ, true);
    return news;
}

void mm_load_failed(MmFault *f, MmRegion *region, uint64_t page, uint64_t waits,
                    const MmTier *tier, int err)
{
    f->swap_in_failed = true;
    if (!mm_waiters_set_reason(&f->waiters, region->hva + waits * MM_PAGE_SIZE,
                               MM_WAIT_ERROR)) {
        mm_replay_failed(f, true);
        return;     /* read ahead: nobody has asked for it */
    }
    f->retry_at_ns = f->now_ns + RETRY_NS;
    if (read_fails(f)) {
        mm_vm_event(f->vm, MM_EVENT_IO_ERROR, region->id, err,
                    "tier '%s' cannot read: %s; a vCPU waits for the page at "
                    "offset 0x%" PRIx64 " of %s", tier->name,
                    err == EBADMSG ? "wrong checksum" : strerror(err),
                    page * MM_PAGE_SIZE, region->idstr);
    }
}

static void read_failed(MmFault *f, MmLoad *load, unsigned i, int err)
{
    uint64_t page = load->page + i;

    mm_unfill(load->region, page, load->entries[i]);
    mm_load_failed(f, load->region, page, page,
                   mm_vm_tier(f->vm, mm_entry_tier(load->entries[i])), err);
}

/* Place pages [i, i + nr) of a load; what is not placed becomes SWAPPED. */
static void place_run(MmFault *f, MmLoad *load, unsigned i, unsigned nr)
{
    MmPlaced placed = mm_place_pages(f, load->region, load->page + i,
                                     &load->entries[i],
                                     load->io.buf + i * MM_PAGE_SIZE, nr);

    MM_STAT_ADD(f->vm, pages_read, placed.nr);
    mm_not_placed(f, load->region, load->page + i, &load->entries[i], nr,
                  &placed);
}

static void drop_cancelled(MmFault *f, MmLoad *load, unsigned i)
{
    MmTier *tier = mm_vm_tier(f->vm, mm_entry_tier(load->entries[i]));

    /* NEVER or LOST since then: whoever waited has been woken */
    if (!mm_mutated(MM_MUT_FREE_EARLY)) {
        tier->ops->free(tier, mm_entry_place(load->entries[i]), 1);
    }
}

/* All of it goes into the unit, or none. */
static bool end_of_unit(MmFault *f, MmLoad *load)
{
    MmTierIO *io = &load->io;
    int err = io->ret < 0 ? -io->ret : 0;
    unsigned i = 0;

    while (!err && !load->unit->cancelled && i < io->nr_pages) {
        if (content_right(f, load, i)) {
            i++;
        } else {
            err = EBADMSG;
        }
    }
    mm_huge_in_loaded(f, load, i, err);
    load->unit = NULL;
    return !err;
}

static bool end_of_pages(MmFault *f, MmLoad *load)
{
    MmTierIO *io = &load->io;
    unsigned i, run = 0;
    bool all = true;

    mm_nodes_prefer(f->vm->nodes, load->node);
    for (i = 0; i < io->nr_pages; i++) {
        bool cancelled = load->cancelled & (1u << i);
        int err = cancelled ? 0 : io->ret < 0 ? -io->ret
                  : content_right(f, load, i) ? 0 : EBADMSG;

        if (!cancelled && !err) {
            run++;
            continue;
        }
        place_run(f, load, i - run, run);
        run = 0;
        if (cancelled) {
            drop_cancelled(f, load, i);
        } else {
            all = false;
            read_failed(f, load, i, err);
        }
    }
    place_run(f, load, io->nr_pages - run, run);
    return all;
}

/* Returns whether it could be read. */
static bool end_of_fetch(MmFault *f, MmLoad *load)
{
    mm_fetch_loaded(f, load);
    load->fetching = false;
    load->fetch = NULL;
    return load->io.ret >= 0;
}

static void load_done(MmTierIO *io)
{
    MmLoad *load = container_of(io, MmLoad, io);
    MmFault *f = io->opaque;
    bool all;

    if (io->ret < 0) {
        MM_STAT_ADD(f->vm, read_errors, 1);
    }
    all = load->fetching ? end_of_fetch(f, load)
          : load->unit ? end_of_unit(f, load) : end_of_pages(f, load);
    f->read_worked |= all;
    if (all) {
        mm_replay_failed(f, false);
    }
    mm_region_put(f->vm, load->region);
    QLIST_REMOVE(load, next);
    QLIST_INSERT_HEAD(&f->free_loads, load, next);
    f->nr_free_loads++;
    /* somebody may wait for a free load */
    qatomic_set(&f->retry, true);
}

static bool hangs(const MmFault *f, const MmLoad *load)
{
    uint64_t began_ns = load->io.began_ns;

    return began_ns && f->now_ns > began_ns + HANGS_NS;
}

bool mm_load_huge_hangs(const MmFault *f, const MmHugeIn *unit)
{
    MmLoad *load;

    QLIST_FOREACH(load, &f->busy_loads, next) {
        if (load->unit == unit && hangs(f, load)) {
            return true;
        }
    }
    return false;
}

bool mm_load_hangs(const MmFault *f, const MmRegion *region, uint64_t page)
{
    MmLoad *load;

    QLIST_FOREACH(load, &f->busy_loads, next) {
        if (load->region == region && !load->fetching &&
            (load->unit ? load->unit->page == page
                        : page - load->page < load->io.nr_pages) &&
            hangs(f, load)) {
            return true;
        }
    }
    return false;
}

static void look_for_hung(MmFault *f)
{
    MmLoad *load;

    QLIST_FOREACH(load, &f->busy_loads, next) {
        if (!load->fetching && hangs(f, load) && read_fails(f)) {
            mm_vm_event(f->vm, MM_EVENT_IO_ERROR, load->region->id, ETIMEDOUT,
                        "tier '%s' does not answer a read; a vCPU waits for "
                        "the page at offset 0x%" PRIx64 " of %s",
                        load->io.queue->tier->name,
                        load->page * MM_PAGE_SIZE, load->region->idstr);
        }
    }
}

void mm_load_look(MmFault *f)
{
    look_for_hung(f);
    if (f->read_failing && f->read_worked &&
        f->now_ns - f->read_failed_ns > QUIET_NS) {
        f->read_failing = false;
        if (mm_vm_io_failing(f->vm, MM_IO_READ, false)) {
            mm_vm_event(f->vm, MM_EVENT_IO_RECOVERED, UINT32_MAX, 0,
                        "what was swapped out can be read again");
        }
    }
}

unsigned mm_load_reap_immediate(MmFault *f)
{
    unsigned i, nr = 0;

    for (i = 0; i < f->vm->nr_tiers; i++) {
        if (f->vm->tiers[i]->ops->immediate) {
            nr += mm_queue_reap(f->queues[i], load_done);
        }
    }
    return nr;
}

unsigned mm_load_reap(MmFault *f)
{
    unsigned i, nr = 0;

    for (i = 0; i < f->vm->nr_tiers; i++) {
        nr += mm_queue_reap(f->queues[i], load_done);
    }
    return nr;
}

bool mm_load_put_off(const MmFault *f)
{
    unsigned i;

    for (i = 0; i < f->vm->nr_tiers; i++) {
        if (!QSIMPLEQ_EMPTY(&f->queues[i]->put_off)) {
            return true;
        }
    }
    return false;
}

bool mm_load_limited(const MmFault *f)
{
    unsigned i;

    for (i = 0; i < f->vm->nr_tiers; i++) {
        if (qatomic_read(&f->vm->tiers[i]->throttle.enabled)) {
            return true;
        }
    }
    return false;
}

void mm_load_flush(MmFault *f)
{
    unsigned i;

    for (i = 0; i < f->vm->nr_tiers; i++) {
        mm_queue_flush(f->queues[i]);
    }
}
