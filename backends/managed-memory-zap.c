/*
 * Managed memory: the zap channel
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The pager evicts a page without write-protecting it: QEMU drops the page
 * table entries (zaps), after which only the pager can map the page again.
 * A thread of its own does so on the pager's demand, since the main thread and
 * the vCPUs may all be waiting for pages that only an eviction makes room
 * for.  It takes the region lock only.
 *
 * An answer to a zap is a promise that nobody has the pages mapped.  When a
 * zap fails the pager gets an error instead, and must not evict.
 */
#include "qemu/osdep.h"
#include <sys/socket.h>
#include "qemu/lockable.h"
#include "qemu/thread.h"
#include "backends/managed-memory-internal.h"
#include "trace.h"

static struct {
    QemuMutex lock;
    QemuCond cond;
    int current;                /* owned by the thread, shut down by others */
    int next;                   /* channel to use after it, or -1 */
    bool stop;
} zap;

static int handle_zap(int channel, const MmMsg *msg)
{
    const MmMsgZap *req = (const void *)msg->payload;
    int ret;

    if (msg->hdr.type != MM_MSG_ZAP) {
        return mm_msg_send_error(channel, msg->hdr.seq, EINVAL,
                                 "only ZAP is understood on this channel");
    }
    ret = managed_regions_zap(req->ranges, req->nr_ranges);
    trace_managed_memory_zap(req->nr_ranges, ret);
    if (ret < 0) {
        return mm_msg_send_error(channel, msg->hdr.seq, -ret,
                                 "cannot drop page table entries");
    }
    return mm_msg_send(channel, MM_MSG_ZAP_DONE, msg->hdr.seq, NULL, 0,
                       NULL, 0);
}

static void serve_channel(int channel, MmMsg *msg)
{
    int ret;

    do {
        ret = mm_msg_recv(channel, msg, -1);
        if (ret > 0) {
            ret = handle_zap(channel, msg) < 0 ? 0 : 1;
        }
        mm_msg_clear(msg);
    } while (ret > 0);
}

static int next_channel(void)
{
    QEMU_LOCK_GUARD(&zap.lock);

    while (zap.next < 0 && !zap.stop) {
        qemu_cond_wait(&zap.cond, &zap.lock);
    }
    if (zap.stop) {
        return -1;
    }
    zap.current = zap.next;
    zap.next = -1;
    return zap.current;
}

static void close_channel(void)
{
    QEMU_LOCK_GUARD(&zap.lock);

    close(zap.current);
    zap.current = -1;
}

static void *zap_thread(void *opaque)
{
    MmMsg *msg = g_new0(MmMsg, 1);
    int channel;

    while ((channel = next_channel()) >= 0) {
        serve_channel(channel, msg);
        close_channel();
    }
    g_free(msg);
    return NULL;
}

void managed_zap_start(int fd)
{
    QemuThread thread;

    qemu_mutex_init(&zap.lock);
    qemu_cond_init(&zap.cond);
    zap.current = -1;
    zap.next = fd;
    zap.stop = false;
    qemu_thread_create(&thread, "mm-zap", zap_thread, NULL,
                       QEMU_THREAD_DETACHED);
}

void managed_zap_set_channel(int fd)
{
    QEMU_LOCK_GUARD(&zap.lock);

    if (zap.current >= 0) {
        shutdown(zap.current, SHUT_RDWR);
    }
    if (zap.next >= 0) {
        close(zap.next);
    }
    zap.next = fd;
    qemu_cond_signal(&zap.cond);
}

void managed_zap_stop(void)
{
    QEMU_LOCK_GUARD(&zap.lock);

    zap.stop = true;
    if (zap.current >= 0) {
        shutdown(zap.current, SHUT_RDWR);
    }
    if (zap.next >= 0) {
        /* the thread has not come to it, and will not any more */
        close(zap.next);
        zap.next = -1;
    }
    qemu_cond_signal(&zap.cond);
}
