/*
 * Managed memory pager: huge pages on their way in
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The kernel fills and maps a huge page as a whole, so all of its pages are in
 * memory or none is; outside memory each has a place of its own, as any page.
 * The entry of the first page stands for them all:
 *
 *  H1 Whoever owns the first page's entry (FILLING, DROPPING, DISCARDING) owns
 *     the others', and nobody else changes them.
 *  H2 On the way to an owner's state the first page goes first, out of it last.
 *     What it says is true of all, but for pages that are NEVER where it is
 *     SWAPPED: a discard has not come to its end.
 *  H3 While it is SWAPPED, the reclaim thread may move the content of any of
 *     them to another place.
 *
 * The content is gathered in a buffer, from as many reads as it takes, and
 * placed with one UFFDIO_COPY.
 */
#include "qemu/osdep.h"
#include <sys/mman.h>
#include "../region.h"
#include "../test-hooks.h"
#include "fault-internal.h"

/* After a huge page could not be placed, unless something is evicted. */
#define NO_PAGE_NS 100000000ULL

QEMU_BUILD_BUG_ON(MM_HUGE_PAGES != MM_CHUNK_PAGES);
QEMU_BUILD_BUG_ON(MM_HUGE_PAGE_SIZE != MM_DMA_CHUNK);

static void *map_buffer(int prot)
{
    void *buf = mmap(NULL, MM_HUGE_PAGE_SIZE, prot,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (buf == MAP_FAILED) {
        return NULL;
    }
    if (prot & PROT_WRITE) {
        /* best effort: without the right to lock, pressure may slow us down */
        mlock(buf, MM_HUGE_PAGE_SIZE);
    }
    return buf;
}

static uint64_t with_state(const MmRegion *region, uint64_t page,
                           MmPageState state)
{
    uint64_t entry = mm_map_get(&region->map, page);

    return mm_entry_at(mm_entry_with_state(entry, state), MM_TIER_NONE, 0);
}

static void free_place(MmFault *f, uint64_t entry)
{
    MmTier *tier = mm_vm_tier(f->vm, mm_entry_tier(entry));

    if (tier && !mm_mutated(MM_MUT_FREE_EARLY)) {
        tier->ops->free(tier, mm_entry_place(entry), 1);
    }
}

static void unfill_all(MmRegion *region, uint64_t page, const uint64_t *entries)
{
    unsigned i;

    for (i = MM_HUGE_PAGES; i--; ) {
        mm_unfill(region, page + i, entries[i]);
    }
}

/* Take all pages from the first one on; the mover may be faster with some. */
static void take_all(MmRegion *region, uint64_t page, uint64_t *filling)
{
    uint64_t entry;
    unsigned i;

    for (i = 0; i < MM_HUGE_PAGES; i++) {
        do {
            entry = mm_map_get(&region->map, page + i);
            filling[i] = mm_entry_with_state(entry, MM_PAGE_FILLING);
        } while (!mm_map_cas(&region->map, page + i, entry, filling[i]));
    }
}

/* May all of its pages be read?  If not, what does it wait for? */
static MmWaitReason readable(MmFault *f, MmRegion *region, uint64_t page)
{
    unsigned i;

    for (i = 0; i < MM_HUGE_PAGES; i++) {
        uint64_t entry = mm_map_get(&region->map, page + i);
        MmTier *tier = mm_vm_tier(f->vm, mm_entry_tier(entry));

        if (mm_entry_state(entry) == MM_PAGE_LOST) {
            /* a map that has been damaged: see mm_region_claim_places() */
            mm_huge_in_give_up(f, region, page);
            return MM_WAIT_LOST;
        }
        if (tier && !qatomic_load_acquire(&tier->proven)) {
            return mm_load_wait_reason(f, region, page + i);
        }
    }
    return MM_WAIT_NONE;
}

MmWaitReason mm_huge_in_never(MmFault *f, MmRegion *region, uint64_t page)
{
    uint64_t entries[MM_HUGE_PAGES];
    MmWaitReason reason = readable(f, region, page);
    MmPlaced placed;

    if (reason != MM_WAIT_NONE) {
        return reason;
    }
    if (!f->unit_zeroes) {
        f->unit_zeroes = map_buffer(PROT_READ);
    }
    if (!f->unit_zeroes) {
        return MM_WAIT_BUSY;
    }
    if (!mm_fault_room(f, MM_HUGE_PAGES)) {
        return MM_WAIT_LIMIT;
    }
    take_all(region, page, entries);
    mm_failpoint(MM_FP_FILLING);
    mm_nodes_prefer(f->vm->nodes, f->node);
    placed = mm_place_pages(f, region, page, entries, f->unit_zeroes,
                            MM_HUGE_PAGES);
    if (!placed.nr) {
        unfill_all(region, page, entries);
        return placed.reason;
    }
    MM_STAT_ADD(f->vm, pages_populated, MM_HUGE_PAGES);
    MM_STAT_ADD(f->vm, fault_missing, 1);
    return MM_WAIT_NONE;
}

/* ---- reading ---- */

/* What a tier that hangs has taken the others do not lack, up to a point. */
static MmHugeIn *unused(MmFault *f)
{
    MmHugeIn *found = NULL;
    unsigned i, used = 0;

    for (i = 0; i < MM_NR_UNITS_MAX; i++) {
        MmHugeIn *u = &f->units[i];

        if (u->region) {
            used += !mm_load_huge_hangs(f, u);
        } else if (!found) {
            found = u;
        }
    }
    if (!found || used >= MM_NR_UNITS) {
        return NULL;
    }
    found->buf = found->buf ?: map_buffer(PROT_READ | PROT_WRITE);
    return found->buf ? found : NULL;
}

bool mm_huge_in_all_hang(const MmFault *f)
{
    unsigned i;

    for (i = 0; i < MM_NR_UNITS_MAX; i++) {
        if (!f->units[i].region || !mm_load_huge_hangs(f, &f->units[i])) {
            return false;
        }
    }
    return true;
}

/* Was there no huge page to place it in, and is nothing known to be better? */
static bool no_page(const MmFault *f)
{
    return f->no_page_ns && f->now_ns - f->no_page_ns < NO_PAGE_NS &&
           qatomic_read(&f->vm->state->stats.pages_evicted) ==
           f->no_page_evicted;
}

/* Pages from the next one on that one read can bring. */
static unsigned run_length(MmFault *f, const MmHugeIn *u)
{
    uint64_t first = u->entries[u->next];
    MmTier *tier = mm_vm_tier(f->vm, mm_entry_tier(first));
    unsigned most = MIN(MIN(MM_LOAD_PAGES, tier->ops->max_pages),
                        MM_HUGE_PAGES - u->next);
    unsigned nr = 1;

    while (nr < most &&
           mm_entry_tier(u->entries[u->next + nr]) == mm_entry_tier(first) &&
           mm_entry_place(u->entries[u->next + nr]) ==
           mm_entry_place(first) + nr) {
        nr++;
    }
    return nr;
}

/* Some loads are left to others, as long as we are not without any. */
static void begin_reads(MmFault *f, MmHugeIn *u)
{
    while (u->next < MM_HUGE_PAGES && !u->err && !u->cancelled) {
        uint64_t entry = u->entries[u->next];
        uint8_t *buf = u->buf + u->next * MM_PAGE_SIZE;
        unsigned nr = 1;

        if (mm_entry_tier(entry) == MM_TIER_NONE) {
            memset(buf, 0, MM_PAGE_SIZE);
        } else if (mm_entry_tier(entry) == MM_TIER_FILL) {
            mm_serve_fill(u->region, u->page + u->next, entry, buf);
        } else {
            nr = run_length(f, u);
            if ((u->reading && f->nr_free_loads <= MM_LOADS_KEPT) ||
                !mm_load_huge(f, u, u->next, nr)) {
                return;
            }
            u->reading++;
        }
        u->next += nr;
    }
}

void mm_huge_in_loaded(MmFault *f, MmLoad *load, unsigned i, int err)
{
    MmHugeIn *u = load->unit;
    unsigned first = load->page - u->page;

    u->reading--;
    if (!err) {
        memcpy(u->buf + first * MM_PAGE_SIZE, load->io.buf,
               load->io.nr_pages * MM_PAGE_SIZE);
        u->read += load->io.nr_pages;
    } else if (!u->err) {
        u->err = err;
        u->failed = first + i;
    }
}

static void place(MmFault *f, MmHugeIn *u)
{
    MmPlaced placed;

    mm_nodes_prefer(f->vm->nodes, u->node);
    placed = mm_place_pages(f, u->region, u->page, u->entries, u->buf,
                            MM_HUGE_PAGES);
    if (placed.nr) {
        f->no_page_ns = 0;
        MM_STAT_ADD(f->vm, pages_read, u->read);
        return;
    }
    if (placed.reason == MM_WAIT_LIMIT) {
        /* not to be read again for nothing */
        f->no_page_ns = f->now_ns;
        f->no_page_evicted =
            qatomic_read(&f->vm->state->stats.pages_evicted);
    }
    unfill_all(u->region, u->page, u->entries);
    mm_waiters_set_reason(&f->waiters,
                          u->region->hva + u->page * MM_PAGE_SIZE,
                          placed.reason);
}

/* Nothing of it is under way any more. */
static void end(MmFault *f, MmHugeIn *u)
{
    MmRegion *region = u->region;
    unsigned i;

    if (u->cancelled) {
        /* NEVER or LOST since then: whoever waited has been woken */
        for (i = 0; i < MM_HUGE_PAGES; i++) {
            free_place(f, u->entries[i]);
        }
    } else if (u->err) {
        unfill_all(region, u->page, u->entries);
        mm_load_failed(f, region, u->page + u->failed, u->page,
                       mm_vm_tier(f->vm, mm_entry_tier(u->entries[u->failed])),
                       u->err);
    } else {
        place(f, u);
    }
    u->region = NULL;
    mm_region_put(f->vm, region);
    /* somebody may wait for an unused one */
    qatomic_set(&f->retry, true);
}

static void step(MmFault *f, MmHugeIn *u)
{
    unsigned before;

    do {
        before = u->next;
        begin_reads(f, u);
        mm_load_flush(f);
        mm_load_reap_immediate(f);
    } while (u->next != before && u->next < MM_HUGE_PAGES);
    if (!u->reading &&
        (u->next == MM_HUGE_PAGES || u->err || u->cancelled)) {
        end(f, u);
    }
}

void mm_huge_in_step(MmFault *f)
{
    unsigned i;

    for (i = 0; i < MM_NR_UNITS_MAX; i++) {
        if (f->units[i].region) {
            step(f, &f->units[i]);
        }
    }
}

MmWaitReason mm_huge_in_swapped(MmFault *f, MmRegion *region, uint64_t page)
{
    MmHugeIn *u = unused(f);
    MmWaitReason reason = readable(f, region, page);

    if (reason != MM_WAIT_NONE) {
        return reason;
    }
    if (!u) {
        return MM_WAIT_BUSY;
    }
    if (no_page(f) || !mm_fault_room(f, MM_HUGE_PAGES)) {
        return MM_WAIT_LIMIT;
    }
    qatomic_inc(&region->refs);
    *u = (MmHugeIn) {
        .region = region, .page = page, .buf = u->buf, .node = f->node,
        .since_ns = f->now_ns,
    };
    take_all(region, page, u->entries);
    mm_failpoint(MM_FP_FILLING);
    MM_STAT_ADD(f->vm, fault_swapin, 1);
    step(f, u);
    switch (mm_entry_state(mm_map_get(&region->map, page))) {
    case MM_PAGE_SWAPPED:
        return no_page(f) ? MM_WAIT_LIMIT
                          : mm_load_wait_reason(f, region, page);
    case MM_PAGE_FILLING:
        return MM_WAIT_LOAD;
    default:
        return MM_WAIT_NONE;
    }
}

uint64_t mm_huge_in_count(const MmFault *f, uint64_t before_ns)
{
    uint64_t pages = 0;
    unsigned i;

    for (i = 0; i < MM_NR_UNITS_MAX; i++) {
        const MmHugeIn *u = &f->units[i];

        if (u->region && !u->cancelled && u->since_ns <= before_ns) {
            pages += MM_HUGE_PAGES;
        }
    }
    return pages;
}

/* ---- content that is not wanted any more, or gone ---- */

static void cancel(MmHugeIn *u, MmPageState state)
{
    unsigned i;

    u->cancelled = true;
    for (i = MM_HUGE_PAGES; i--; ) {
        mm_map_move(&u->region->map, u->page + i, u->entries[i],
                    with_state(u->region, u->page + i, state));
    }
}

void mm_huge_in_cancel(MmFault *f, MmRegion *region, uint64_t page, uint64_t nr,
                    MmPageState state)
{
    unsigned i;

    for (i = 0; i < MM_NR_UNITS_MAX; i++) {
        MmHugeIn *u = &f->units[i];

        if (u->region == region && !u->cancelled && u->page < page + nr &&
            page < u->page + MM_HUGE_PAGES) {
            cancel(u, state);
        }
    }
}

/* A page that is not in memory, out of whatever state. */
static void drop_page(MmFault *f, MmRegion *region, uint64_t page,
                      MmPageState state)
{
    uint64_t entry;

    do {
        entry = mm_map_get(&region->map, page);
        if (mm_entry_state(entry) == state) {
            return;
        }
        if (mm_entry_state(entry) == MM_PAGE_NEVER) {
            /* it has no way to be lost but from here */
            mm_map_move(&region->map, page, entry,
                        mm_entry_with_state(entry, MM_PAGE_FILLING));
            entry = mm_entry_with_state(entry, MM_PAGE_FILLING);
        }
        /* fails if it is moved to another place just now */
    } while (!mm_map_cas(&region->map, page, entry,
                         with_state(region, page, state)));
    free_place(f, entry);
}

static void drop_all(MmFault *f, MmRegion *region, uint64_t page,
                     MmPageState state)
{
    unsigned i;

    for (i = MM_HUGE_PAGES; i--; ) {
        drop_page(f, region, page + i, state);
    }
}

/* The first page is DISCARDING: so are the others. */
static void discard_present(MmRegion *region, uint64_t page)
{
    unsigned i;

    for (i = 1; i < MM_HUGE_PAGES; i++) {
        uint64_t entry = mm_map_get(&region->map, page + i);

        mm_map_move(&region->map, page + i, entry,
                    mm_entry_with_state(entry, MM_PAGE_DISCARDING));
    }
}

int mm_huge_in_discard(MmFault *f, MmRegion *region, uint64_t page)
{
    for (;;) {
        uint64_t entry = mm_map_get(&region->map, page);

        switch (mm_entry_state(entry)) {
        case MM_PAGE_NEVER:
            return 0;
        case MM_PAGE_SWAPPED:
            drop_all(f, region, page, MM_PAGE_NEVER);
            return 0;
        case MM_PAGE_LOST:
            drop_all(f, region, page, MM_PAGE_NEVER);
            return 1;
        case MM_PAGE_FILLING:
            mm_huge_in_cancel(f, region, page, 1, MM_PAGE_NEVER);
            return 0;
        case MM_PAGE_RESIDENT:
        case MM_PAGE_CANDIDATE:
        case MM_PAGE_WRITEBACK:
            if (mm_map_cas(&region->map, page, entry,
                           mm_entry_with_state(entry, MM_PAGE_DISCARDING))) {
                discard_present(region, page);
                return 1;
            }
            break;
        case MM_PAGE_DROPPING:
            return -1;
        default:
            g_assert_not_reached();
        }
    }
}

void mm_huge_in_lose(MmFault *f, MmRegion *region, uint64_t page)
{
    unsigned i;

    for (i = 1; i < region->unit_pages; i++) {
        uint64_t entry = mm_map_get(&region->map, page + i);
        uint64_t mapping = mm_entry_with_state(entry, MM_PAGE_MAPPING);

        mm_map_move(&region->map, page + i, entry, mapping);
        mm_map_move(&region->map, page + i, mapping,
                    mm_entry_with_state(mapping, MM_PAGE_LOST));
    }
}

void mm_huge_in_give_up(MmFault *f, MmRegion *region, uint64_t page)
{
    drop_all(f, region, page, MM_PAGE_LOST);
    mm_vm_page_lost(f->vm, region, page);
}
