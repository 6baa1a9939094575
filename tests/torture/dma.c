/*
 * Torture tests: devices that access guest memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A batch of transfers between a file and guest memory is in flight at a
 * time, with O_DIRECT: the kernel pins the pages, and writes into what it has
 * pinned wherever the page's content may be by then.  A local disk is done
 * within microseconds, so half of the batches register their memory as fixed
 * buffers, which pins it, and only some time later do the transfers.
 *
 * Some reads into the guest go through the ring's buffer, as QEMU's go: the
 * pager puts pages that are out of memory there in place of what they had, or,
 * as for a guest that arrives, where they are; the kernel copies the others.
 * Before some writes, what is out of memory is fetched, as for a guest that
 * leaves.
 *
 * A batch faults while it holds its chunks, as QEMU does.  Were everything
 * held, faults would be served from the pager's reserve, as test-pressure.c
 * wants it; here the devices keep to a region smaller than the limit.
 */
#include "qemu/osdep.h"
#include <liburing.h>
#include "qemu/memalign.h"
#include "dma.h"
#include "load.h"
#include "ring.h"
#include "rng.h"

#define BATCH 8                 /* transfers */
#define RUN_PAGES 8             /* most pages of a transfer */
#define RUN_BYTES (RUN_PAGES * STAMP_PAGE_SIZE)
#define HOLD_US 15000           /* most time from pinning to transfer */

typedef struct Transfer {
    Shadow *s;
    FakeRegion *region;
    uint64_t first;             /* page */
    unsigned nr;
    bool to_guest;
    bool through_ring;
    MmRingKind kind;            /* then: OVERWRITE, STORE; or FETCH before */
    unsigned buffer;            /* of the ring's pages, RUN_PAGES of them */
    uint32_t versions[RUN_PAGES];
    uint8_t *buf;               /* what is on the device */
    off_t offset;               /* on the device */
} Transfer;

typedef struct Device {
    Worker *w;
    struct io_uring ring;
    int fd;
    Transfer batch[BATCH];
    unsigned nr;
    bool fixed;                 /* this batch uses fixed buffers */
} Device;

static void count_chunks(FakeRegion *region, uint64_t first, unsigned nr,
                         int delta)
{
    const unsigned chunk_pages = MM_DMA_CHUNK / STAMP_PAGE_SIZE;
    uint64_t chunk;

    for (chunk = first / chunk_pages;
         chunk <= (first + nr - 1) / chunk_pages; chunk++) {
        qatomic_add(&region->dma[chunk], delta);
    }
}

void dma_begin(FakeRegion *region, uint64_t first_page, unsigned nr_pages)
{
    count_chunks(region, first_page, nr_pages, 1);
    /* the count is seen before the memory is used */
    smp_mb();
}

void dma_end(FakeRegion *region, uint64_t first_page, unsigned nr_pages)
{
    /* the memory has been used before the count is seen */
    smp_mb();
    count_chunks(region, first_page, nr_pages, -1);
}

void dma_hold_all(FakeRegion *region, int delta)
{
    count_chunks(region, 0, region->size / STAMP_PAGE_SIZE, delta);
    /* as in dma_begin() */
    smp_mb();
}

static uint8_t *guest_address(const Transfer *t)
{
    return t->s->mem + t->first * STAMP_PAGE_SIZE;
}

/* Gets pages for a transfer; false if other workers have them. */
static bool choose(Device *d, Transfer *t)
{
    Worker *w = d->w;
    unsigned i;

    t->s = worker_pick_for_device(w, &t->first);
    t->region = worker_region(w, t->s);
    t->nr = shadow_trylock_run(t->s, t->first,
                               1 + rng_below(&w->rng, RUN_PAGES));
    t->to_guest = rng_chance(&w->rng, 70);
    t->through_ring = rng_chance(&w->rng, 50);
    t->kind = !t->to_guest ? MM_RING_FETCH
              : rng_chance(&w->rng, 50) ? MM_RING_STORE : MM_RING_OVERWRITE;
    for (i = 0; i < t->nr; i++) {
        if (!shadow_writable(t->s, t->first + i)) {
            shadow_unlock_run(t->s, t->first, t->nr);
            return false;
        }
    }
    if (t->nr && rng_chance(&w->rng, 30)) {
        /* or else the old content would go unseen */
        worker_begin(w, t->s->region, t->first);
        shadow_check(t->s, t->first, "before DMA");
        worker_end(w);
    }
    return t->nr > 0;
}

/* Puts the pages' next versions on the device. */
static void fill_device(Device *d, Transfer *t)
{
    ssize_t bytes = t->nr * STAMP_PAGE_SIZE;
    unsigned i;

    for (i = 0; i < t->nr; i++) {
        t->versions[i] = shadow_prepare(t->s, t->first + i,
                                        t->buf + i * STAMP_PAGE_SIZE);
    }
    g_assert(pwrite(d->fd, t->buf, bytes, t->offset) == bytes);
}

static void choose_batch(Device *d)
{
    unsigned want = 1 + rng_below(&d->w->rng, BATCH);

    d->nr = 0;
    while (want--) {
        Transfer *t = &d->batch[d->nr];

        if (choose(d, t)) {
            if (t->to_guest) {
                fill_device(d, t);
            }
            d->nr++;
        }
    }
    d->fixed = rng_chance(&d->w->rng, 50);
}

static void pin(Device *d)
{
    struct iovec iov[BATCH];
    unsigned i;
    int ret;

    for (i = 0; i < d->nr; i++) {
        iov[i].iov_base = guest_address(&d->batch[i]);
        iov[i].iov_len = d->batch[i].nr * STAMP_PAGE_SIZE;
    }
    ret = io_uring_register_buffers(&d->ring, iov, d->nr);
    if (ret) {
        verdict_fail(d->w->fq->verdict, "cannot pin guest memory: %s",
                     strerror(-ret));
        d->fixed = false;
        return;
    }
    g_usleep(rng_below(&d->w->rng, HOLD_US));
}

static uint8_t *ring_buffer(const Device *d, const Transfer *t)
{
    return d->w->fq->ring->buffer[t->buffer];
}

static void submit(Device *d, unsigned i)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&d->ring);
    Transfer *t = &d->batch[i];
    void *addr = guest_address(t);
    unsigned bytes = t->nr * STAMP_PAGE_SIZE;

    if (t->through_ring && t->to_guest) {
        io_uring_prep_read(sqe, d->fd, ring_buffer(d, t), bytes, t->offset);
    } else if (t->to_guest && d->fixed) {
        io_uring_prep_read_fixed(sqe, d->fd, addr, bytes, t->offset, i);
    } else if (t->to_guest) {
        io_uring_prep_read(sqe, d->fd, addr, bytes, t->offset);
    } else if (d->fixed) {
        io_uring_prep_write_fixed(sqe, d->fd, addr, bytes, t->offset, i);
    } else {
        io_uring_prep_write(sqe, d->fd, addr, bytes, t->offset);
    }
    io_uring_sqe_set_data(sqe, t);
}

static void reap(Device *d)
{
    struct io_uring_cqe *cqe;
    Transfer *t;
    int ret = -EINTR;

    while (ret == -EINTR) {
        ret = io_uring_wait_cqe(&d->ring, &cqe);
    }
    g_assert(ret == 0);
    t = io_uring_cqe_get_data(cqe);
    if (cqe->res != t->nr * STAMP_PAGE_SIZE) {
        verdict_fail(t->s->verdict, "DMA of region %u page %" PRIu64 "+%u: "
                     "result %d", t->s->region, t->first, t->nr, cqe->res);
    }
    io_uring_cqe_seen(&d->ring, cqe);
}

static void transfer_batch(Device *d)
{
    unsigned i;
    int ret;

    if (d->fixed) {
        pin(d);
    }
    for (i = 0; i < d->nr; i++) {
        submit(d, i);
    }
    ret = io_uring_submit_and_wait(&d->ring, d->nr);
    g_assert(ret == d->nr || ret == -EINTR);
    for (i = 0; i < d->nr; i++) {
        reap(d);
    }
    if (d->fixed) {
        io_uring_unregister_buffers(&d->ring);
    }
}

/* Returns a bit for each page with which it has been done. */
static uint32_t through_ring(Device *d, Transfer *t)
{
    const MmRingSlot request = {
        .kind = t->kind, .buffer = t->buffer, .pages = UINT32_MAX,
        .range = {
            .region = t->region->id, .first_page = t->first, .nr_pages = t->nr,
        },
    };
    int patience_ms = rng_chance(&d->w->rng, 30) ? rng_below(&d->w->rng, 4)
                                                 : -1;
    int slot = ring_post(d->w->fq, &request);
    RingEnd end = {};

    if (slot >= 0) {
        end = ring_wait(d->w->fq, slot, patience_ms);
    }
    return end.done;
}

/* What is not in memory is had without bringing it in. */
static void fetch(Device *d, Transfer *t)
{
    uint32_t done = through_ring(d, t);
    unsigned i;

    for (i = 0; i < t->nr; i++) {
        if (done & (1u << i)) {
            shadow_check_buf(t->s, t->first + i,
                             ring_buffer(d, t) + i * STAMP_PAGE_SIZE,
                             "fetched");
        }
    }
}

/* What has been read gets from the ring's buffer to where it belongs. */
static void put(Device *d, Transfer *t)
{
    uint32_t done = through_ring(d, t);
    unsigned i;

    for (i = 0; i < t->nr; i++) {
        if (!(done & (1u << i))) {
            memcpy(guest_address(t) + i * STAMP_PAGE_SIZE,
                   ring_buffer(d, t) + i * STAMP_PAGE_SIZE, STAMP_PAGE_SIZE);
        }
    }
}

/* After the transfer: both sides must have the same, expected content. */
static void finish(Device *d, Transfer *t)
{
    ssize_t bytes = t->nr * STAMP_PAGE_SIZE;
    unsigned i;

    if (!t->to_guest) {
        g_assert(pread(d->fd, t->buf, bytes, t->offset) == bytes);
    }
    for (i = 0; i < t->nr; i++) {
        if (t->to_guest) {
            shadow_commit(t->s, t->first + i, t->versions[i]);
            worker_begin(d->w, t->s->region, t->first + i);
            shadow_check(t->s, t->first + i,
                         t->through_ring ? "after DMA through the ring"
                         : d->fixed ? "after pinned DMA" : "after DMA");
        } else {
            shadow_check_buf(t->s, t->first + i, t->buf + i * STAMP_PAGE_SIZE,
                             "DMA from guest");
        }
    }
    shadow_unlock_run(t->s, t->first, t->nr);
}

static void run_batch(Device *d)
{
    unsigned i;

    choose_batch(d);
    if (!d->nr) {
        return;
    }
    worker_begin(d->w, d->batch[0].s->region, d->batch[0].first);
    for (i = 0; i < d->nr; i++) {
        if (d->batch[i].through_ring && !d->batch[i].to_guest) {
            fetch(d, &d->batch[i]);
        }
    }
    for (i = 0; i < d->nr; i++) {
        dma_begin(d->batch[i].region, d->batch[i].first, d->batch[i].nr);
    }
    transfer_batch(d);
    for (i = 0; i < d->nr; i++) {
        if (d->batch[i].through_ring && d->batch[i].to_guest) {
            put(d, &d->batch[i]);
        }
    }
    for (i = 0; i < d->nr; i++) {
        dma_end(d->batch[i].region, d->batch[i].first, d->batch[i].nr);
    }
    for (i = 0; i < d->nr; i++) {
        finish(d, &d->batch[i]);
    }
    worker_end(d->w);
}

void dma_worker(Worker *w)
{
    Device d = { .w = w, .fd = scratch_open(O_DIRECT) };
    uint8_t *bufs = qemu_memalign(STAMP_PAGE_SIZE, BATCH * RUN_BYTES);
    unsigned i;

    g_assert((w->index + 1) * BATCH * RUN_PAGES <= MM_RING_BUFFER_PAGES);
    g_assert(io_uring_queue_init(BATCH, &d.ring, 0) == 0);
    for (i = 0; i < BATCH; i++) {
        d.batch[i].buf = bufs + i * RUN_BYTES;
        d.batch[i].offset = i * RUN_BYTES;
        d.batch[i].buffer = (w->index * BATCH + i) * RUN_PAGES;
    }
    while (!worker_stopping(w)) {
        run_batch(&d);
    }
    io_uring_queue_exit(&d.ring);
    qemu_vfree(bufs);
    close(d.fd);
}
