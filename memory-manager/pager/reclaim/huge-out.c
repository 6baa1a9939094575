/*
 * Managed memory pager: huge pages on their way out
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * In the order of writeback.c, but for a huge page as a whole (fault/huge-in.c
 * has the rules):
 *
 *   claim    its first page, CANDIDATE -> WRITEBACK.  Nobody can write to any
 *            of it, as long as that lasts.
 *   DMA      as there; a chunk that is counted is a huge page.
 *   store    in parts, each a batch like any other.
 *   publish  the first page, WRITEBACK -> DROPPING, which fails if any of it
 *            has been touched; then the others, which are ours now.
 *   punch    all at once.
 *   SWAPPED  the first page last.
 *
 * One goes after the other; its parts go at the same time.
 */
#include "qemu/osdep.h"
#include "../fault/fault.h"
#include "../region.h"
#include "../test-hooks.h"
#include "reclaim-internal.h"

static MmPageMap *map_of(const MmHugeOut *u)
{
    return &u->region->map;
}

static void forget(MmReclaim *r)
{
    MmRegion *region = r->unit.region;

    r->unit.region = NULL;
    mm_region_put(r->vm, region);
    mm_fault_retry(r->vm);
}

/* It stays in memory, if it has not been taken back already. */
static void stay(MmReclaim *r)
{
    MmHugeOut *u = &r->unit;
    uint64_t resident = mm_entry_at(u->entry, MM_TIER_NONE, 0);
    unsigned i;

    for (i = 0; i < MM_HUGE_PAGES; i++) {
        mm_writeback_free(r, u->stored[i]);
    }
    mm_map_cas(map_of(u), u->page, u->entry,
               mm_entry_with_state(resident, MM_PAGE_RESIDENT));
    forget(r);
}

static bool is_held(MmReclaim *r, const MmHugeOut *u)
{
    /* the zap is done: pairs with QEMU's fence after counting */
    smp_mb();
    if (!mm_region_dma_held(u->region, u->page)) {
        return false;
    }
    MM_STAT_ADD(r->vm, evict_abort_dma, MM_HUGE_PAGES);
    r->held += MM_HUGE_PAGES;
    return true;
}

void mm_huge_out_begin(MmReclaim *r, MmRegion *region, uint64_t page)
{
    MmHugeOut *u = &r->unit;
    uint64_t entry = mm_map_get(&region->map, page);
    uint64_t claimed = mm_entry_with_state(entry, MM_PAGE_WRITEBACK);

    assert(!u->region);
    claimed = mm_entry_at(claimed, MM_TIER_NONE, r->ticket);
    if (mm_entry_state(entry) != MM_PAGE_CANDIDATE ||
        mm_entry_place(entry) == MM_PLACE_SAMPLED ||
        !mm_map_cas(&region->map, page, entry, claimed)) {
        mm_region_put(r->vm, region);
        return;
    }
    *u = (MmHugeOut) { .region = region, .page = page, .entry = claimed };
    if (is_held(r, u)) {
        stay(r);
    }
}

bool mm_huge_out_wants(const MmReclaim *r)
{
    return r->unit.region && !r->unit.failed && r->unit.next < MM_HUGE_PAGES;
}

static uint64_t base_of(const MmHugeOut *u, unsigned i)
{
    uint64_t entry = i ? mm_map_get(map_of(u), u->page + i) : u->entry;

    return mm_entry_next_version(mm_entry_at(entry, MM_TIER_NONE, 0));
}

/* The hardware has lost it, and with it all of the huge page. */
static void lose(MmReclaim *r)
{
    MmHugeOut *u = &r->unit;
    uint64_t entry = mm_entry_at(u->entry, MM_TIER_NONE, 0);
    uint64_t owned = mm_entry_with_state(entry, MM_PAGE_DROPPING);
    unsigned i;

    u->failed = true;
    if (!mm_map_cas(map_of(u), u->page, u->entry, owned)) {
        return;
    }
    for (i = 1; i < MM_HUGE_PAGES; i++) {
        uint64_t resident = mm_map_get(map_of(u), u->page + i);
        uint64_t mapping = mm_entry_with_state(resident, MM_PAGE_MAPPING);

        mm_map_move(map_of(u), u->page + i, resident, mapping);
        mm_map_move(map_of(u), u->page + i, mapping,
                    mm_entry_with_state(mapping, MM_PAGE_LOST));
    }
    mm_map_move(map_of(u), u->page, owned,
                mm_entry_with_state(owned, MM_PAGE_LOST));
    mm_vm_page_lost(r->vm, u->region, u->page);
}

/* The next part; 0 or -errno: the kernel stops short of what it has lost. */
static int read_part(const MmHugeOut *u, uint8_t *buf)
{
    size_t len = MM_TIER_IO_PAGES * MM_PAGE_SIZE, got;
    off_t offset = (u->page + u->next) * MM_PAGE_SIZE;
    ssize_t ret;

    for (got = 0; got < len; got += ret) {
        ret = TEMP_FAILURE_RETRY(pread(u->region->ram_fd, buf + got, len - got,
                                       offset + got));
        if (ret <= 0) {
            return ret < 0 ? -errno : -EAGAIN;
        }
    }
    return 0;
}

/* Copy what comes next of it. */
static bool copy_part(MmReclaim *r, uint8_t *buf)
{
    MmHugeOut *u = &r->unit;
    int ret;

    if (mm_map_get(map_of(u), u->page) != u->entry) {
        u->failed = true;       /* touched: no use to go on */
        return false;
    }
    ret = read_part(u, buf);
    if (ret == -EIO || ret == -EHWPOISON) {
        lose(r);
    }
    u->failed |= ret < 0;
    return !u->failed;
}

void mm_huge_out_part(MmReclaim *r, MmBatch *b)
{
    MmHugeOut *u = &r->unit;
    unsigned i;

    qatomic_inc(&u->region->refs);
    b->region = u->region;
    b->nr = 0;
    u->parts++;
    if (!copy_part(r, b->buf)) {
        return;
    }
    for (i = 0; i < MM_TIER_IO_PAGES; i++) {
        b->p[i] = (MmPiece) {
            .page = u->page + u->next, .base = base_of(u, u->next),
            .buf = b->buf + i * MM_PAGE_SIZE,
        };
        mm_store_is_fill(&b->p[i]);
        u->next++;
    }
    b->nr = MM_TIER_IO_PAGES;
    mm_failpoint(MM_FP_WRITEBACK);
}

/* A hole reads as zeroes as well, but no page that we hold may be one. */
static bool is_hole(const MmHugeOut *u)
{
    unsigned i;

    for (i = 0; i < MM_HUGE_PAGES; i++) {
        if (mm_entry_tier(u->stored[i]) != MM_TIER_FILL ||
            mm_entry_place(u->stored[i]) || u->checksums[i]) {
            return false;
        }
    }
    return mm_region_present(u->region, u->page, 1) != u->page;
}

/* Its place, beside what it was; the checksum goes first. */
static uint64_t dropping(MmReclaim *r, MmHugeOut *u, unsigned i)
{
    map_of(u)->checksums[u->page + i] = u->checksums[i];
    mm_move_forget(r, u->region, u->page + i);
    return mm_entry_with_age(mm_entry_with_state(u->stored[i],
                                                 MM_PAGE_DROPPING),
                             r->vm->epoch);
}

static bool publish(MmReclaim *r, MmHugeOut *u)
{
    MmPageMap *map = map_of(u);
    unsigned i;

    if (mm_map_get(map, u->page) != u->entry ||
        !mm_map_cas(map, u->page, u->entry, dropping(r, u, 0))) {
        return false;
    }
    for (i = 1; i < MM_HUGE_PAGES; i++) {
        uint64_t entry = mm_map_get(map, u->page + i);
        uint64_t candidate = mm_entry_with_state(entry, MM_PAGE_CANDIDATE);
        uint64_t claimed = mm_entry_with_state(entry, MM_PAGE_WRITEBACK);

        mm_map_move(map, u->page + i, entry, candidate);
        mm_map_move(map, u->page + i, candidate, claimed);
        mm_map_move(map, u->page + i, claimed, dropping(r, u, i));
    }
    mm_failpoint(MM_FP_DROPPING);
    return true;
}

/* What the kernel has not punched is as it was, and stays. */
static void restore(MmReclaim *r, MmHugeOut *u)
{
    unsigned i;

    for (i = MM_HUGE_PAGES; i--; ) {
        uint64_t entry = mm_map_get(map_of(u), u->page + i);
        uint64_t resident = mm_entry_at(entry, MM_TIER_NONE, 0);

        resident = mm_entry_with_age(resident, 0);
        mm_map_move(map_of(u), u->page + i, entry,
                    mm_entry_with_state(resident, MM_PAGE_RESIDENT));
        mm_writeback_free(r, entry);
    }
}

static unsigned punch(MmReclaim *r, MmHugeOut *u)
{
    unsigned i;

    /* a failure shows when the hole is verified */
    mm_region_punch(u->region, u->page, MM_HUGE_PAGES);
    mm_failpoint(MM_FP_PUNCHED);
    if (mm_region_present(u->region, u->page, 1) == u->page) {
        restore(r, u);
        return 0;
    }
    for (i = MM_HUGE_PAGES; i--; ) {
        uint64_t entry = mm_map_get(map_of(u), u->page + i);

        mm_map_move(map_of(u), u->page + i, entry,
                    mm_entry_with_state(entry, MM_PAGE_SWAPPED));
        MM_STAT_ADD(r->vm, pages_evicted_zero,
                    mm_entry_tier(entry) == MM_TIER_FILL);
    }
    mm_failpoint(MM_FP_SWAPPED);
    mm_writeback_count(r, MM_HUGE_PAGES);
    return MM_HUGE_PAGES;
}

static unsigned end(MmReclaim *r)
{
    MmHugeOut *u = &r->unit;
    unsigned evicted;

    if (!u->failed && is_hole(u)) {
        lose(r);
    }
    if (!u->failed && !publish(r, u)) {
        MM_STAT_ADD(r->vm, evict_abort_touched, MM_HUGE_PAGES);
        u->failed = true;
    }
    if (u->failed) {
        stay(r);
        return 0;
    }
    evicted = punch(r, u);
    forget(r);
    return evicted;
}

unsigned mm_huge_out_stored(MmReclaim *r, MmBatch *b)
{
    MmHugeOut *u = &r->unit;
    unsigned i;

    for (i = 0; i < b->nr; i++) {
        MmPiece *p = &b->p[i];

        if (p->stored) {
            u->stored[p->page - u->page] = p->stored;
            u->checksums[p->page - u->page] = mm_store_checksum(map_of(u), p);
        } else {
            r->refused = true;
            u->failed = true;
        }
    }
    u->parts--;
    return u->parts || mm_huge_out_wants(r) ? 0 : end(r);
}
