/*
 * Managed memory pager: tier queue on threads
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * For hosts that disable io_uring.  As many threads as transfers may be in
 * flight, started right before the process is jailed; each takes one transfer
 * at a time, so a transfer that hangs occupies one thread and nothing else.
 */
#include "qemu/osdep.h"
#include "../page-map.h"
#include "../test-hooks.h"
#include "tier.h"

#define MAX_THREADS 16

typedef QSIMPLEQ_HEAD(, MmTierIO) IOList;

typedef struct MmQueueThreads {
    MmTierQueue base;
    int fd;
    int wake_fd;
    unsigned nr_threads;

    GMutex lock;
    GCond work;
    /* protected by lock */
    IOList todo;
    IOList completed;
} MmQueueThreads;

static int transfer(MmQueueThreads *q, MmTierIO *io)
{
    size_t len = io->nr_pages * MM_PAGE_SIZE;
    /* slot 0 lies behind the file's identity page */
    off_t offset = (io->place + 1) * MM_PAGE_SIZE;
    size_t done = 0;
    int ret;

    ret = mm_failpoint(io->store ? MM_FP_TIER_STORE : MM_FP_TIER_LOAD);
    while (ret == 0 && done < len) {
        ssize_t n = io->store
            ? pwrite(q->fd, io->buf + done, len - done, offset + done)
            : pread(q->fd, io->buf + done, len - done, offset + done);

        if (n > 0) {
            done += n;
        } else if (n == 0) {
            ret = -EIO;
        } else if (errno != EINTR) {
            ret = -errno;
        }
    }
    return ret;
}

static void *worker(void *opaque)
{
    MmQueueThreads *q = opaque;
    uint64_t one = 1;

    g_mutex_lock(&q->lock);
    for (;;) {
        MmTierIO *io = QSIMPLEQ_FIRST(&q->todo);

        if (!io) {
            g_cond_wait(&q->work, &q->lock);
            continue;
        }
        QSIMPLEQ_REMOVE_HEAD(&q->todo, next);
        g_mutex_unlock(&q->lock);
        io->ret = transfer(q, io);
        g_mutex_lock(&q->lock);
        QSIMPLEQ_INSERT_TAIL(&q->completed, io, next);
        if (write(q->wake_fd, &one, sizeof(one)) < 0) {
            /* the counter is full: the wake-up is pending already */
            assert(errno == EAGAIN);
        }
    }
    return NULL;
}

static void threads_submit(MmTierQueue *queue, MmTierIO *io)
{
    MmQueueThreads *q = container_of(queue, MmQueueThreads, base);

    g_mutex_lock(&q->lock);
    QSIMPLEQ_INSERT_TAIL(&q->todo, io, next);
    g_cond_signal(&q->work);
    g_mutex_unlock(&q->lock);
}

static unsigned threads_reap(MmTierQueue *queue, MmTierDone *done)
{
    MmQueueThreads *q = container_of(queue, MmQueueThreads, base);
    IOList completed = QSIMPLEQ_HEAD_INITIALIZER(completed);
    MmTierIO *io;
    unsigned nr = 0;

    g_mutex_lock(&q->lock);
    QSIMPLEQ_CONCAT(&completed, &q->completed);
    g_mutex_unlock(&q->lock);
    while ((io = QSIMPLEQ_FIRST(&completed))) {
        QSIMPLEQ_REMOVE_HEAD(&completed, next);
        done(io);
        nr++;
    }
    return nr;
}

static void threads_start(MmTierQueue *queue)
{
    MmQueueThreads *q = container_of(queue, MmQueueThreads, base);
    unsigned i;

    for (i = 0; i < q->nr_threads; i++) {
        g_thread_unref(g_thread_new("tier-io", worker, q));
    }
}

static const MmQueueOps threads_ops = {
    .start = threads_start,
    .alloc = mm_tier_file_alloc,
    .submit = threads_submit,
    .reap = threads_reap,
};

MmTierQueue *mm_queue_threads_new(MmTier *tier, int fd, unsigned depth,
                                  int wake_fd)
{
    MmQueueThreads *q = g_new0(MmQueueThreads, 1);

    mm_queue_init(&q->base, &threads_ops, tier);
    q->fd = fd;
    q->wake_fd = wake_fd;
    g_mutex_init(&q->lock);
    g_cond_init(&q->work);
    QSIMPLEQ_INIT(&q->todo);
    QSIMPLEQ_INIT(&q->completed);
    q->nr_threads = MIN(depth, MAX_THREADS);
    return &q->base;
}
