/*
 * An O_DIRECT read that is in flight into a page is lost when the page is
 * zapped, copied and punched meanwhile; it is not lost when the reader counts
 * the page before it uses it and the evictor looks at the count after the
 * zap, both with a full fence in between.
 *
 * Design rule 5: QEMU counts what it maps for DMA in counters shared with the
 * pager.  The kernel pins the page for the transfer, but a pinned page can be
 * punched all the same: the device then writes into memory that is no longer
 * part of the guest.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "mini-pager.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include <liburing.h>

#define PAGES       64
#define DEPTH       8
#define ROUNDS      1500
#define TIME_MS     3000
#define TIME_MAX_MS 15000
#define FILE_PAGES  64

typedef struct Evictor {
    MiniPager *pager;
    pthread_t thread;
    atomic_bool stop;
} Evictor;

static void *evictor_thread(void *opaque)
{
    Evictor *e = opaque;
    unsigned int seed = 3;

    while (!atomic_load(&e->stop)) {
        mini_pager_evict(e->pager, rand_r(&seed) % PAGES);
    }
    return NULL;
}

/* Each page of the file is filled with its own byte, never zero. */
static uint8_t file_byte(size_t file_page)
{
    return 1 + file_page % 255;
}

static int make_disk_file(void)
{
    int fd = scratch_file(O_DIRECT);

    for (size_t i = 0; i < FILE_PAGES; i++) {
        uint8_t *buf = page_alloc(1, file_byte(i));
        ssize_t n = pwrite(fd, buf, PAGE_BYTES, i * PAGE_BYTES);

        FACT_CHECK(n == (ssize_t)PAGE_BYTES, "pwrite: %s", strerror(errno));
        free(buf);
    }
    SYS(fsync(fd));
    return fd;
}

static void submit_read(struct io_uring *ring, int disk, MiniPager *p,
                        size_t page, size_t file_page)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

    memset(p->ram + page * PAGE_BYTES, 0, PAGE_BYTES);
    mini_pager_dma_begin(p, page);
    io_uring_prep_read(sqe, disk, p->ram + page * PAGE_BYTES, PAGE_BYTES,
                       file_page * PAGE_BYTES);
    FACT_CHECK(io_uring_submit(ring) == 1, "io_uring_submit failed");
}

static void reap_read(struct io_uring *ring)
{
    struct io_uring_cqe *cqe;
    int err = io_uring_wait_cqe(ring, &cqe);

    FACT_CHECK(!err, "io_uring_wait_cqe: %s", strerror(-err));
    FACT_CHECK(cqe->res == (int)PAGE_BYTES, "a disk read returned %d",
               cqe->res);
    io_uring_cqe_seen(ring, cqe);
}

static bool page_has(const uint8_t *page, uint8_t byte)
{
    for (size_t i = 0; i < PAGE_BYTES; i += 512) {
        if (load_byte(page + i) != byte) {
            return false;
        }
    }
    return true;
}

/* DEPTH reads in flight at a time; returns how many lost their data. */
static size_t read_round(struct io_uring *ring, int disk, MiniPager *p,
                         size_t round)
{
    size_t first = round * DEPTH % PAGES, lost = 0;

    for (size_t i = 0; i < DEPTH; i++) {
        submit_read(ring, disk, p, first + i, (round + i) % FILE_PAGES);
    }
    for (size_t i = 0; i < DEPTH; i++) {
        reap_read(ring);
    }
    for (size_t i = 0; i < DEPTH; i++) {
        mini_pager_dma_end(p, first + i);
    }
    for (size_t i = 0; i < DEPTH; i++) {
        lost += !page_has(p->ram + (first + i) * PAGE_BYTES,
                          file_byte((round + i) % FILE_PAGES));
    }
    return lost;
}

/* Enough said?  Without counters: not before a loss was seen. */
static bool enough(const MiniPager *p, size_t round, size_t lost, int64_t ms)
{
    if (p->ignore_dma_counts && !lost) {
        return ms > TIME_MAX_MS;
    }
    return round == ROUNDS || ms > TIME_MS;
}

static size_t lost_reads(MiniPager *p, int disk)
{
    Evictor evictor = { .pager = p };
    struct io_uring ring;
    size_t lost = 0, round = 0;
    int64_t start = now_ns();
    int err = io_uring_queue_init(DEPTH, &ring, 0);

    if (err) {
        fact_skip("no io_uring: %s", strerror(-err));
    }
    mini_pager_start(p, PAGES);
    FACT_CHECK(!pthread_create(&evictor.thread, NULL, evictor_thread,
                               &evictor), "cannot create a thread");
    while (!enough(p, round, lost, (now_ns() - start) / 1000000)) {
        lost += read_round(&ring, disk, p, round++);
    }
    atomic_store(&evictor.stop, true);
    pthread_join(evictor.thread, NULL);
    mini_pager_stop(p);
    io_uring_queue_exit(&ring);
    fact_info("%s counters: %zu of %zu reads lost, %lu evictions, %lu put "
              "off by a count", p->ignore_dma_counts ? "without" : "with",
              lost, round * DEPTH, p->evicted, p->held_by_dma);
    return lost;
}

int main(void)
{
    static MiniPager without = { .ignore_dma_counts = true };
    static MiniPager with;
    int disk = make_disk_file();

    FACT_CHECK(lost_reads(&without, disk) > 0,
               "no read was lost without counters: either they are not "
               "needed, or this test does not see losses");
    FACT_CHECK(lost_reads(&with, disk) == 0,
               "reads were lost in spite of the counters");
    FACT_CHECK(with.held_by_dma > 0 && with.evicted > 0,
               "the counters were never asked");
    return FACT_HOLDS;
}
