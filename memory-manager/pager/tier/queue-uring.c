/*
 * Managed memory pager: tier queue on io_uring
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The ring is made before the process is jailed, with the file and the buffer
 * arena registered, and restricted to reads and writes of that file in that
 * arena: io_uring operations do not pass the seccomp filter one by one, so the
 * ring itself must be unable to do anything else.
 *
 * One thread uses a queue.  Transfers that fail to start complete like any
 * other, by reap().
 *
 * A read that cannot start without waiting (for the file's lock, say) would be
 * handed to a thread of the kernel, which is part of this process: if the disk
 * does not answer, the process could not even be killed, and its successor
 * would wait for that.  So reads must not wait, but for the last resort.  (What
 * a write needs besides the disk is not to be had that way.)
 */
#include "qemu/osdep.h"
#include <liburing.h>
#include <sys/syscall.h>
#include "qapi/error.h"
#include "../page-map.h"
#include "../test-hooks.h"
#include "tier.h"

/* How often a read is tried without waiting. */
#define MAX_TRIES 100

typedef struct MmQueueUring {
    MmTierQueue base;
    struct io_uring ring;
    uint8_t *arena;
    size_t arena_size;
    int wake_fd;
    bool can_nowait;            /* as far as is known */

    /* transfers that failed before they reached the kernel */
    QSIMPLEQ_HEAD(, MmTierIO) failed;
} MmQueueUring;

static void wake(MmQueueUring *q)
{
    uint64_t one = 1;

    if (write(q->wake_fd, &one, sizeof(one)) < 0) {
        /* the counter is full: the wake-up is pending already */
        assert(errno == EAGAIN);
    }
}

static void fail(MmQueueUring *q, MmTierIO *io, int ret)
{
    io->ret = ret;
    QSIMPLEQ_INSERT_TAIL(&q->failed, io, next);
    wake(q);
}

/* Hand over what is queued; what the kernel has no memory for stays queued. */
static void push(MmQueueUring *q)
{
    int ret;

    do {
        ret = io_uring_submit(&q->ring);
    } while (ret == -EINTR || (ret > 0 && io_uring_sq_ready(&q->ring)));
    if (ret == -EAGAIN || ret == -EBUSY || ret == -ENOMEM) {
        wake(q);    /* the next reap tries again; faults go first */
        return;
    }
    /* the ring is ours alone and sized for the depth: nothing else is left */
    assert(ret > 0);
}

static struct io_uring_sqe *get_sqe(MmQueueUring *q)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&q->ring);

    if (!sqe) {
        push(q);
        sqe = io_uring_get_sqe(&q->ring);
    }
    return sqe;
}

static void start(MmQueueUring *q, MmTierIO *io)
{
    struct io_uring_sqe *sqe = get_sqe(q);
    unsigned len = io->nr_pages * MM_PAGE_SIZE;
    /* slot 0 lies behind the file's identity page */
    uint64_t offset = (io->place + 1) * MM_PAGE_SIZE;

    if (!sqe) {
        fail(q, io, -EBUSY);
        return;
    }
    if (io->store) {
        io_uring_prep_write_fixed(sqe, 0, io->buf, len, offset, 0);
    } else {
        io_uring_prep_read_fixed(sqe, 0, io->buf, len, offset, 0);
        if (q->can_nowait && io->tries < MAX_TRIES) {
            sqe->rw_flags = RWF_NOWAIT;
        }
    }
    sqe->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data(sqe, io);
    io->tries++;
}

static void uring_submit(MmTierQueue *queue, MmTierIO *io)
{
    MmQueueUring *q = container_of(queue, MmQueueUring, base);
    unsigned len = io->nr_pages * MM_PAGE_SIZE;
    int ret = mm_failpoint(io->store ? MM_FP_TIER_STORE : MM_FP_TIER_LOAD);

    assert(io->buf >= q->arena && io->buf + len <= q->arena + q->arena_size);
    io->tries = 0;
    if (ret) {
        fail(q, io, ret);
    } else {
        start(q, io);
    }
}

static void uring_flush(MmTierQueue *queue)
{
    MmQueueUring *q = container_of(queue, MmQueueUring, base);

    if (io_uring_sq_ready(&q->ring)) {
        push(q);
    }
}

/* It was not to wait, and could not do without. */
static bool is_to_try_again(MmQueueUring *q, MmTierIO *io, int res)
{
    if (io->store || io->tries > MAX_TRIES) {
        return false;
    }
    if (res == -EOPNOTSUPP) {
        /* nor can this file's other reads */
        q->can_nowait = false;
    }
    if (res == -EOPNOTSUPP ||
        (res >= 0 && res < io->nr_pages * MM_PAGE_SIZE)) {
        /* the kernel goes on with a short read only if it may wait */
        io->tries = MAX_TRIES;
        return true;
    }
    return res == -EAGAIN;
}

static unsigned uring_reap(MmTierQueue *queue, MmTierDone *done)
{
    MmQueueUring *q = container_of(queue, MmQueueUring, base);
    struct io_uring_cqe *cqe;
    MmTierIO *io;
    unsigned nr = 0;

    uring_flush(queue);
    while ((io = QSIMPLEQ_FIRST(&q->failed))) {
        QSIMPLEQ_REMOVE_HEAD(&q->failed, next);
        done(io);
        nr++;
    }
    while (io_uring_peek_cqe(&q->ring, &cqe) == 0) {
        int res = cqe->res;

        io = io_uring_cqe_get_data(cqe);
        io_uring_cqe_seen(&q->ring, cqe);
        if (is_to_try_again(q, io, res)) {
            start(q, io);
            continue;
        }
        if (res < 0) {
            io->ret = res;
        } else {
            /*
             * Short on a file of known size and whole pages: a fault of the
             * medium.  The caller's retry is the remedy.
             */
            io->ret = res == io->nr_pages * MM_PAGE_SIZE ? 0 : -EIO;
        }
        done(io);
        nr++;
    }
    uring_flush(queue);
    return nr;
}

static const MmQueueOps uring_ops = {
    .alloc = mm_tier_file_alloc,
    .submit = uring_submit,
    .flush = uring_flush,
    .reap = uring_reap,
};

/*
 * liburing 2.3 declares functions for these two calls, but its shared library
 * does not export them.
 */
static int uring_register(struct io_uring *ring, unsigned opcode,
                          const void *arg, unsigned nr)
{
    int ret = syscall(__NR_io_uring_register, ring->ring_fd, opcode, arg, nr);

    return ret < 0 ? -errno : 0;
}

static int restrict_ring(struct io_uring *ring)
{
    struct io_uring_restriction res[] = {
        { .opcode = IORING_RESTRICTION_SQE_OP,
          .sqe_op = IORING_OP_READ_FIXED },
        { .opcode = IORING_RESTRICTION_SQE_OP,
          .sqe_op = IORING_OP_WRITE_FIXED },
        { .opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED,
          .sqe_flags = IOSQE_FIXED_FILE },
    };

    return uring_register(ring, IORING_REGISTER_RESTRICTIONS, res,
                          ARRAY_SIZE(res));
}

static int setup_ring(MmQueueUring *q, int fd, unsigned depth)
{
    struct iovec iov = { .iov_base = q->arena, .iov_len = q->arena_size };
    int ret;

    ret = io_uring_register_files(&q->ring, &fd, 1);
    if (ret == 0) {
        ret = io_uring_register_buffers(&q->ring, &iov, 1);
    }
    if (ret == 0) {
        ret = io_uring_register_eventfd(&q->ring, q->wake_fd);
    }
    if (ret == 0) {
        ret = restrict_ring(&q->ring);
    }
    if (ret == 0) {
        ret = uring_register(&q->ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
    }
    return ret;
}

MmTierQueue *mm_queue_uring_new(MmTier *tier, int fd, void *arena,
                                size_t arena_size, unsigned depth,
                                int wake_fd, Error **errp)
{
    MmQueueUring *q = g_new0(MmQueueUring, 1);
    int ret;

    mm_queue_init(&q->base, &uring_ops, tier);
    q->arena = arena;
    q->arena_size = arena_size;
    q->wake_fd = wake_fd;
    q->can_nowait = true;
    QSIMPLEQ_INIT(&q->failed);
    ret = io_uring_queue_init(depth, &q->ring, IORING_SETUP_R_DISABLED);
    if (ret == 0) {
        ret = setup_ring(q, fd, depth);
        if (ret < 0) {
            io_uring_queue_exit(&q->ring);
        }
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "io_uring is not available");
        g_free(q);
        return NULL;
    }
    return &q->base;
}
