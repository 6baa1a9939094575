/*
 * Managed memory pager: choosing pages to evict
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Two clock hands go round the resident pages.  One ages: it makes a page's
 * age less by one, for one page per page that is taken, and for more while few
 * pages are cold; if none is, it makes all colder by what makes some so.  The
 * other takes what is cold (age 0): such a page becomes a
 * candidate, and QEMU's zap thread drops it from the page tables, which keeps
 * its content.  If the guest wants it, the next access faults, the fault thread
 * maps it again and raises its age: that is the access sampling and the second
 * chance in one.  What is still a candidate when it comes out at the fifo's
 * head is evicted.
 *
 * Pages that come back from a tier are cold, unless they were evicted only a
 * short while ago (fault/serve.c).  So a scan of more than fits evicts what it
 * has brought in itself, and leaves the rest alone.  The hand that takes jumps
 * now and then: running ahead of a scan it would evict just what comes next.
 *
 * A page is made a candidate before it is zapped.  Whoever maps it afterwards
 * changes the state first (M2), so a page that is a candidate after the zap
 * has been acknowledged is mapped nowhere.
 */
#include "qemu/osdep.h"
#include "../region.h"
#include "../test-hooks.h"
#include "reclaim-internal.h"

/* Pages looked at before the hand's region is fetched anew. */
#define LOOK_PAGES 4096
/* Ages more if less than this share of the pages is cold; by so many. */
#define COLD_SHARE 16
#define AGE_PAGES 512
/* What is taken of the age of all when the guest turns to other data. */
#define TURN_AGES 12
/* What the share is told by: half of it is forgotten after so many pages. */
#define SEEN_PAGES 16384
/* One scan out of so many begins somewhere else. */
#define JUMP 4

static void fifo_push_range(MmReclaim *r, const MmRange *range, unsigned unit)
{
    uint64_t page;

    for (page = 0; page < range->nr_pages && mm_fifo_room(&r->fifo);
         page += unit) {
        mm_fifo_push(&r->fifo, (MmCandidate) {
            .region = range->region, .nr_pages = unit,
            .page = range->first_page + page,
        });
    }
}

static void fifo_push(MmReclaim *r, const MmZap *zap)
{
    unsigned i;

    for (i = 0; i < zap->hdr.nr_ranges; i++) {
        const MmRange *range = &zap->ranges[i];
        MmRegion *region = mm_vm_region_get(r->vm, range->region);

        /* perhaps another one by now: its pages are no candidates then */
        if (region) {
            fifo_push_range(r, range, region->unit_pages);
            mm_region_put(r->vm, region);
        }
    }
}

/* What a hand does to a page; true if that page counts. */
typedef bool MmPass(MmReclaim *r, MmRegion *region, uint64_t page,
                    void *opaque);

static bool pass_ageing(MmReclaim *r, MmRegion *region, uint64_t page,
                        void *opaque)
{
    const unsigned *by = opaque;
    uint64_t entry = mm_map_get(&region->map, page);
    unsigned age = mm_entry_age(entry);

    if (mm_entry_state(entry) != MM_PAGE_RESIDENT) {
        return false;
    }
    if (age) {
        /* lost against a fault: the page is in use anyway */
        mm_map_cas(&region->map, page, entry,
                   mm_entry_with_age(entry, age - MIN(age, *by)));
    }
    return true;
}

#define NONE_SEEN (MM_AGE_MAX + 1)

typedef struct Gather {
    MmZap *zap;
    bool force;
    bool huge;                  /* nothing else is of use */
    unsigned coldest;           /* age that was seen, or NONE_SEEN */
} Gather;

static bool pass_gathering(MmReclaim *r, MmRegion *region, uint64_t page,
                           void *opaque)
{
    Gather *gather = opaque;
    uint64_t entry = mm_map_get(&region->map, page);

    if (mm_entry_state(entry) != MM_PAGE_RESIDENT ||
        (gather->huge && !mm_region_is_huge(region))) {
        return false;
    }
    r->seen += region->unit_pages;
    if (mm_region_dma_held(region, page)) {
        r->held += region->unit_pages;
        return false;
    }
    gather->coldest = MIN(gather->coldest, mm_entry_age(entry));
    if ((mm_entry_age(entry) && !gather->force) ||
        !mm_map_cas(&region->map, page, entry,
                    mm_entry_with_state(entry, MM_PAGE_CANDIDATE))) {
        return false;
    }
    r->found += region->unit_pages;
    mm_zap_add(gather->zap, region, page);
    return true;
}

/* @left: pages to look at.  Returns whether there is more of the region. */
static bool move_in_region(MmReclaim *r, MmHand *hand, MmRegion *region,
                           unsigned *want, uint64_t *left,
                           MmPass *pass, void *opaque)
{
    uint64_t end = MIN(hand->page + MIN(LOOK_PAGES, *left), region->nr_pages);
    unsigned unit = region->unit_pages;

    hand->page = mm_region_unit(region, hand->page);
    for (; hand->page < end && *want; hand->page += unit) {
        *left -= MIN(*left, unit);
        if (!mm_region_reconciled(region, hand->page)) {
            hand->page = QEMU_ALIGN_UP(hand->page + 1, MM_CHUNK_PAGES) - unit;
            continue;
        }
        if (pass(r, region, hand->page, opaque)) {
            *want -= MIN(*want, unit);
        }
    }
    return hand->page < region->nr_pages;
}

/* Until @want pages have counted, or the hand has gone all the way round. */
static void move_hand(MmReclaim *r, MmHand *hand, unsigned want, MmPass *pass,
                      void *opaque)
{
    uint64_t left = qatomic_read(&r->vm->total_size) / MM_PAGE_SIZE;
    unsigned empty = 0;

    while (want && left && empty < MM_MAX_REGIONS) {
        MmRegion *region = mm_vm_region_get(r->vm, hand->region);
        bool more = false;

        if (region) {
            more = move_in_region(r, hand, region, &want, &left, pass, opaque);
            mm_region_put(r->vm, region);
        } else {
            empty++;
        }
        if (!more) {
            hand->page = 0;
            hand->region = (hand->region + 1) % MM_MAX_REGIONS;
        }
    }
}

/* xorshift64: good enough, and needs no system call. */
uint64_t mm_random(MmReclaim *r, uint64_t bound)
{
    r->random ^= r->random << 13;
    r->random ^= r->random >> 7;
    r->random ^= r->random << 17;
    return r->random % bound;
}

static void jump(MmReclaim *r)
{
    uint64_t all = qatomic_read(&r->vm->total_size) / MM_PAGE_SIZE;
    uint64_t page = mm_random(r, MAX(all, 1));
    uint32_t id;

    for (id = 0; id < MM_MAX_REGIONS; id++) {
        MmRegion *region = mm_vm_region_get(r->vm, id);
        uint64_t nr_pages = region ? region->nr_pages : 0;

        if (region) {
            mm_region_put(r->vm, region);
        }
        if (page < nr_pages) {
            r->gathers = (MmHand) { .region = id, .page = page };
            return;
        }
        page -= nr_pages;
    }
}

static void age(MmReclaim *r)
{
    unsigned by = 1, by_turn = TURN_AGES;

    if (qatomic_xchg(&r->turned, false)) {
        move_hand(r, &r->ages, UINT_MAX, pass_ageing, &by_turn);
    }
    if (r->found < r->seen / COLD_SHARE) {
        r->to_age += AGE_PAGES;
    }
    if (r->seen > SEEN_PAGES) {
        r->seen /= 2;
        r->found /= 2;
    }
    if (r->to_age) {
        move_hand(r, &r->ages, r->to_age, pass_ageing, &by);
        r->to_age = 0;
    }
}

int mm_scan_candidates(MmReclaim *r, unsigned want, bool force)
{
    MmZap zap = {};
    Gather gather = { .zap = &zap, .force = force, .coldest = NONE_SEEN,
                      .huge = mm_reclaim_wants_huge(r) };
    int ret;

    want = MIN(MIN(want, MM_ZAP_PAGES), mm_fifo_room(&r->fifo));
    age(r);
    if (mm_random(r, JUMP) == 0) {
        jump(r);
    }
    move_hand(r, &r->gathers, want, pass_gathering, &gather);
    r->to_age = zap.nr_pages;
    if (!zap.nr_pages) {
        /* nothing is cold: by one turn what comes next is */
        if (gather.coldest == NONE_SEEN || !gather.coldest) {
            gather.coldest = 1;
        }
        move_hand(r, &r->ages, UINT_MAX, pass_ageing, &gather.coldest);
        return 0;
    }
    mm_failpoint(MM_FP_CANDIDATE);
    ret = mm_zap_send(r, &zap);
    if (ret <= 0) {
        return ret;
    }
    mm_failpoint(MM_FP_ZAPPED);
    fifo_push(r, &zap);
    return zap.nr_pages;
}
