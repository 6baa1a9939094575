/*
 * Managed memory pager: choosing pages to evict
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A clock hand goes round the resident pages.  A page whose age is not 0 gets
 * younger by one and stays; any other becomes a candidate: QEMU's zap thread
 * drops it from the page tables, which keeps its content.  If the guest wants
 * it, the next access faults, the fault thread maps it again and raises its
 * age: that is the access sampling and the second chance in one.  What is
 * still a candidate when it comes out at the fifo's head is evicted.
 *
 * A page is made a candidate before it is zapped.  Whoever maps it afterwards
 * changes the state first (M2), so a page that is a candidate after the zap
 * has been acknowledged is mapped nowhere.
 */
#include "qemu/osdep.h"
#include "managed-memory/msg.h"
#include "../region.h"
#include "../test-hooks.h"
#include "reclaim-internal.h"

/* After so long without an answer, faults may draw on the reserve. */
#define ZAP_TIMEOUT_MS 1000
/* Pages looked at before the hand's region is fetched anew. */
#define LOOK_PAGES 4096

typedef struct Zap {
    MmMsgZap hdr;
    MmRange ranges[MM_ZAP_PAGES];
    unsigned nr_pages;
} Zap;
QEMU_BUILD_BUG_ON(MM_ZAP_PAGES > MM_ZAP_MAX_RANGES);

static void zap_add(Zap *zap, uint32_t region, uint64_t page)
{
    MmRange *next = &zap->ranges[zap->hdr.nr_ranges];

    zap->nr_pages++;
    if (zap->hdr.nr_ranges && next[-1].region == region &&
        next[-1].first_page + next[-1].nr_pages == page) {
        next[-1].nr_pages++;
        return;
    }
    zap->hdr.nr_ranges++;
    *next = (MmRange) {
        .region = region, .first_page = page, .nr_pages = 1,
    };
}

/* QEMU cannot zap them: they stay, unless somebody has touched them. */
static void zap_failed(MmReclaim *r, const Zap *zap)
{
    unsigned i, k;

    for (i = 0; i < zap->hdr.nr_ranges; i++) {
        const MmRange *range = &zap->ranges[i];
        MmRegion *region = mm_vm_region_get(r->vm, range->region);

        /* perhaps another one by now, and smaller */
        for (k = 0; region && k < range->nr_pages &&
             range->first_page + k < region->nr_pages; k++) {
            uint64_t page = range->first_page + k;
            uint64_t entry = mm_map_get(&region->map, page);
            uint64_t ours = mm_entry_with_state(entry, MM_PAGE_WRITEBACK);

            if (mm_entry_state(entry) == MM_PAGE_CANDIDATE &&
                mm_map_cas(&region->map, page, entry, ours)) {
                mm_map_cas(&region->map, page, ours,
                           mm_entry_with_state(ours, MM_PAGE_RESIDENT));
            }
        }
        if (region) {
            mm_region_put(r->vm, region);
        }
    }
}

/*
 * Ask QEMU, and wait: until the answer nothing is known about the pages.
 * Returns 1 if they are zapped, 0 if QEMU cannot, or -errno if it is gone.
 */
static int zap_send(MmReclaim *r, const Zap *zap)
{
    g_autofree MmMsg *reply = g_new(MmMsg, 1);
    uint64_t seq = ++r->zap_seq;
    int ret;

    ret = mm_msg_send(r->vm->zap_fd, MM_MSG_ZAP, seq, &zap->hdr,
                      sizeof(zap->hdr) +
                      zap->hdr.nr_ranges * sizeof(zap->ranges[0]), NULL, 0);
    if (ret < 0) {
        return ret;
    }
    for (;;) {
        ret = mm_msg_recv(r->vm->zap_fd, reply, ZAP_TIMEOUT_MS);
        mm_msg_clear(reply);
        if (ret == -ETIMEDOUT) {
            qatomic_set(&r->vm->limit.held, false);
            mm_reclaim_set_stuck(r, true);
        } else if (ret <= 0) {
            return ret ?: -ECONNRESET;
        } else if (reply->hdr.seq == seq) {
            break;
        }
    }
    if (reply->hdr.type == MM_MSG_ZAP_DONE) {
        MM_STAT_ADD(r->vm, pages_zapped, zap->nr_pages);
        return 1;
    }
    zap_failed(r, zap);
    return 0;
}

static void fifo_push(MmReclaim *r, const Zap *zap)
{
    unsigned i;
    uint64_t page;

    for (i = 0; i < zap->hdr.nr_ranges; i++) {
        const MmRange *range = &zap->ranges[i];

        for (page = 0; page < range->nr_pages; page++) {
            unsigned tail = (r->fifo_head + r->fifo_nr++) % MM_FIFO_PAGES;

            r->fifo[tail].region = range->region;
            r->fifo[tail].page = range->first_page + page;
        }
    }
}

/* Let the hand pass one page; true if it has become a candidate. */
static bool pass_page(MmReclaim *r, MmRegion *region, uint64_t page,
                      bool force)
{
    uint64_t entry = mm_map_get(&region->map, page);
    unsigned age = mm_entry_age(entry);

    if (mm_entry_state(entry) != MM_PAGE_RESIDENT) {
        return false;
    }
    if (mm_region_dma_held(region, page)) {
        r->held++;
        return false;
    }
    if (age && !force) {
        /* lost against a fault: the page is in use anyway */
        mm_map_cas(&region->map, page, entry,
                   mm_entry_with_age(entry, age - 1));
        return false;
    }
    return mm_map_cas(&region->map, page, entry,
                      mm_entry_with_state(entry, MM_PAGE_CANDIDATE));
}

/* Move the hand on within one region; false at its end. */
static bool pass_region(MmReclaim *r, MmRegion *region, Zap *zap,
                        unsigned want, bool force, uint64_t *looked)
{
    uint64_t end = MIN(r->hand_page + LOOK_PAGES, region->nr_pages);

    for (; r->hand_page < end && zap->nr_pages < want; r->hand_page++) {
        (*looked)++;
        if (!mm_region_reconciled(region, r->hand_page)) {
            r->hand_page |= MM_CHUNK_PAGES - 1;
            continue;
        }
        if (pass_page(r, region, r->hand_page, force)) {
            zap_add(zap, region->id, r->hand_page);
        }
    }
    return r->hand_page < region->nr_pages;
}

int mm_scan_candidates(MmReclaim *r, unsigned want, bool force)
{
    /* every page may have to be passed once for each year of its age */
    uint64_t turn = qatomic_read(&r->vm->total_size) / MM_PAGE_SIZE;
    uint64_t looked = 0;
    unsigned empty = 0;
    Zap zap = {};
    int ret;

    want = MIN(MIN(want, MM_ZAP_PAGES), MM_FIFO_PAGES - r->fifo_nr);
    while (zap.nr_pages < want && looked <= turn && empty < MM_MAX_REGIONS) {
        MmRegion *region = mm_vm_region_get(r->vm, r->hand_region);
        bool more = false;

        if (region) {
            more = pass_region(r, region, &zap, want, force, &looked);
            mm_region_put(r->vm, region);
        } else {
            empty++;
        }
        if (!more) {
            r->hand_page = 0;
            r->hand_region = (r->hand_region + 1) % MM_MAX_REGIONS;
        }
    }
    if (!zap.nr_pages) {
        return 0;
    }
    mm_failpoint(MM_FP_CANDIDATE);
    ret = zap_send(r, &zap);
    if (ret <= 0) {
        return ret;
    }
    mm_failpoint(MM_FP_ZAPPED);
    fifo_push(r, &zap);
    return zap.nr_pages;
}
