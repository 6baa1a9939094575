/*
 * Managed memory pager: having pages zapped
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Only QEMU can drop pages from its page tables.  A thread of its own does so,
 * and nothing else, so that it answers whatever its vCPUs wait for.
 */
#include "qemu/osdep.h"
#include <poll.h>
#include "managed-memory/msg.h"
#include "../region.h"
#include "reclaim-internal.h"

/* After so long without an answer, faults may draw on the reserve. */
#define ZAP_TIMEOUT_MS 1000
/* When the kernel has no memory for a message. */
#define SEND_REST_MS 10

QEMU_BUILD_BUG_ON(MM_ZAP_PAGES > MM_ZAP_MAX_RANGES);

void mm_zap_add(MmZap *zap, const MmRegion *region, uint64_t page)
{
    MmRange *next = &zap->ranges[zap->hdr.nr_ranges];

    zap->nr_pages += region->unit_pages;
    if (zap->hdr.nr_ranges && next[-1].region == region->id &&
        next[-1].first_page + next[-1].nr_pages == page) {
        next[-1].nr_pages += region->unit_pages;
        return;
    }
    zap->hdr.nr_ranges++;
    *next = (MmRange) {
        .region = region->id, .first_page = page,
        .nr_pages = region->unit_pages,
    };
}

bool mm_zap_give_up(MmRegion *region, uint64_t page, uint64_t entry)
{
    uint64_t ours = mm_entry_at(mm_entry_with_state(entry, MM_PAGE_WRITEBACK),
                                MM_TIER_NONE, 0);

    return mm_map_cas(&region->map, page, entry, ours) &&
           mm_map_cas(&region->map, page, ours,
                      mm_entry_with_state(ours, MM_PAGE_RESIDENT));
}

/* QEMU cannot zap them: they stay, unless somebody has touched them. */
static void zap_failed(MmReclaim *r, const MmZap *zap)
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

            if (mm_entry_state(entry) == MM_PAGE_CANDIDATE) {
                mm_zap_give_up(region, page, entry);
            }
        }
        if (region) {
            mm_region_put(r->vm, region);
        }
    }
}

static int send_zap(MmReclaim *r, const MmZap *zap, uint64_t seq)
{
    size_t len = sizeof(zap->hdr) +
                 zap->hdr.nr_ranges * sizeof(zap->ranges[0]);
    int ret;

    while ((ret = mm_msg_send(r->vm->zap_fd, MM_MSG_ZAP, seq, &zap->hdr, len,
                              NULL, 0)) == -ENOMEM || ret == -ENOBUFS) {
        poll(NULL, 0, SEND_REST_MS);
    }
    return ret;
}

int mm_zap_send(MmReclaim *r, const MmZap *zap)
{
    g_autofree MmMsg *reply = g_new(MmMsg, 1);
    uint64_t seq = ++r->zap_seq;
    int ret = send_zap(r, zap, seq);

    if (ret < 0) {
        return ret;
    }
    for (;;) {
        ret = mm_msg_recv(r->vm->zap_fd, reply, ZAP_TIMEOUT_MS);
        mm_msg_clear(reply);
        if (ret == -ETIMEDOUT) {
            /* a QEMU that is stopped wants no memory, either */
            if (mm_reclaim_pressed(r)) {
                qatomic_set(&r->vm->limit.held, false);
                mm_reclaim_set_stuck(r, true);
            }
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
