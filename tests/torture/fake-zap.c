/*
 * Torture tests: QEMU's side of one VM, the zap thread
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Unmaps the pages that the pager names.  The pager is trusted by QEMU, but a
 * range outside the VM's regions is a bug that must not go unseen.
 */
#include "qemu/osdep.h"
#include <sys/mman.h>
#include <sys/socket.h>
#include "qemu/lockable.h"
#include "fake-qemu.h"

static bool in_region(const FakeRegion *region, const MmRange *range)
{
    uint64_t nr_pages = region->size / STAMP_PAGE_SIZE;

    return range->nr_pages && range->first_page < nr_pages &&
           range->nr_pages <= nr_pages - range->first_page;
}

/* NULL: the region has been removed while the pager was at it. */
static FakeRegion *find_region(FakeQemu *fq, const MmRange *range)
{
    FakeRegion *region = NULL;

    QEMU_LOCK_GUARD(&fq->lock);
    if (range->region < MM_MAX_REGIONS) {
        region = fq->regions[range->region];
    }
    if ((region && in_region(region, range)) || fq->removed->len) {
        return region;
    }
    verdict_fail(fq->verdict, "zap of pages %" PRIu64 "+%u of region %u",
                 range->first_page, range->nr_pages, range->region);
    return NULL;
}

static void zap_range(FakeQemu *fq, const MmRange *range)
{
    FakeRegion *region = find_region(fq, range);

    if (region && in_region(region, range)) {
        if (madvise(region->mem + range->first_page * STAMP_PAGE_SIZE,
                    range->nr_pages * (size_t)STAMP_PAGE_SIZE,
                    MADV_DONTNEED)) {
            verdict_fail(fq->verdict, "zap: %s", strerror(errno));
        }
        qatomic_add(&fq->pages_zapped, range->nr_pages);
    }
}

static void serve_zap(FakeQemu *fq, const MmMsg *msg)
{
    const MmMsgZap *zap = (const void *)msg->payload;
    int i;

    while (qatomic_read(&fq->zap_paused)) {
        g_usleep(1000);
    }
    if (msg->hdr.type != MM_MSG_ZAP) {
        verdict_fail(fq->verdict, "%s on the zap channel",
                     mm_msg_type_name(msg->hdr.type));
        return;
    }
    WITH_QEMU_LOCK_GUARD(&fq->zap_lock) {
        for (i = 0; i < zap->nr_ranges; i++) {
            zap_range(fq, &zap->ranges[i]);
        }
    }
    mm_msg_send(fq->fds[MM_HELLO_FD_ZAP], MM_MSG_ZAP_DONE, msg->hdr.seq,
                NULL, 0, NULL, 0);
}

/* Ends with the channel, that is with the pager. */
static void *zap_thread_fn(void *opaque)
{
    FakeQemu *fq = opaque;
    MmMsg msg;

    while (mm_msg_recv(fq->fds[MM_HELLO_FD_ZAP], &msg, -1) > 0) {
        serve_zap(fq, &msg);
        mm_msg_clear(&msg);
    }
    mm_msg_clear(&msg);
    return NULL;
}

void fake_zap_start(FakeQemu *fq)
{
    fq->have_zap_thread = true;
    qemu_thread_create(&fq->zap_thread, "zap", zap_thread_fn, fq,
                       QEMU_THREAD_JOINABLE);
}

void fake_zap_join(FakeQemu *fq)
{
    if (fq->have_zap_thread) {
        shutdown(fq->fds[MM_HELLO_FD_ZAP], SHUT_RDWR);
        qemu_thread_join(&fq->zap_thread);
        fq->have_zap_thread = false;
    }
}
