/*
 * Torture tests: what the workers do
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Whoever is about to overwrite a page checks it first, so that a page that
 * has gone wrong is found at the next access, whatever that is.
 */
#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "ring.h"
#include "dma.h"
#include "load.h"
#include "rng.h"
#include "torture.h"

#define MAX_DISCARD_RUN 300
#define HOTPLUG_SIZE (1 * MiB)
#define HOTPLUG_LIMIT (512 * KiB)

static unsigned unit_pages(const FakeQemu *fq)
{
    return fq->page_size / STAMP_PAGE_SIZE;
}

/* Choosing pages */

static uint64_t stamped_pages(FakeQemu *fq)
{
    uint64_t sum = 0;
    int i;

    for (i = 0; i < MM_MAX_REGIONS; i++) {
        if (fq->regions[i] && fq->regions[i]->shadow) {
            sum += fq->regions[i]->shadow->nr_pages;
        }
    }
    g_assert(sum);
    return sum;
}

static Shadow *shadow_at(FakeQemu *fq, uint64_t nth, uint64_t *page)
{
    int i;

    for (i = 0; i < MM_MAX_REGIONS; i++) {
        Shadow *s = fq->regions[i] ? fq->regions[i]->shadow : NULL;

        if (s && nth < s->nr_pages) {
            *page = nth;
            return s;
        }
        nth -= s ? s->nr_pages : 0;
    }
    g_assert_not_reached();
}

/* Few pages get most of the accesses; which ones, differs by worker. */
static uint64_t skewed(Worker *w, uint64_t n)
{
    double u = rng_below(&w->rng, 1 << 30) / (double)(1 << 30);
    uint64_t rank = n * u * u * u * u;

    return (rank * 7919 + w->index * 104729) % n;
}

Shadow *worker_pick(Worker *w, uint64_t *page)
{
    uint64_t n = stamped_pages(w->fq);
    uint64_t nth;

    switch (w->index % 3) {
    case 0:
        nth = rng_below(&w->rng, n);
        break;
    case 1:
        nth = skewed(w, n);
        break;
    default:
        /* a stream that starts anew now and then */
        if (rng_below(&w->rng, 1000) == 0) {
            w->position = rng_next(&w->rng);
        }
        nth = w->position++ % n;
        break;
    }
    return shadow_at(w->fq, nth, page);
}

Shadow *worker_pick_for_device(Worker *w, uint64_t *page)
{
    Shadow *smallest = NULL;
    int i;

    for (i = 0; i < MM_MAX_REGIONS; i++) {
        Shadow *s = w->fq->regions[i] ? w->fq->regions[i]->shadow : NULL;

        if (s && (!smallest || s->nr_pages < smallest->nr_pages)) {
            smallest = s;
        }
    }
    g_assert(smallest);
    *page = rng_below(&w->rng, smallest->nr_pages);
    return smallest;
}

FakeRegion *worker_region(Worker *w, const Shadow *s)
{
    return w->fq->regions[s->region];
}

/* The CPU's accesses */

void writer_worker(Worker *w)
{
    while (!worker_stopping(w)) {
        uint64_t page;
        Shadow *s = worker_pick(w, &page);

        if (!shadow_trylock(s, page)) {
            continue;
        }
        worker_begin(w, s->region, page);
        if (shadow_writable(s, page) && shadow_check(s, page, "writer")) {
            shadow_write(s, page);
        }
        worker_end(w);
        shadow_unlock(s, page);
    }
}

void reader_worker(Worker *w)
{
    while (!worker_stopping(w)) {
        uint64_t page;
        Shadow *s = worker_pick(w, &page);

        if (!shadow_trylock(s, page)) {
            continue;
        }
        worker_begin(w, s->region, page);
        shadow_check(s, page, "reader");
        worker_end(w);
        shadow_unlock(s, page);
    }
}

/* The kernel's accesses */

int scratch_open(int flags)
{
    int fd = open(torture_dir(), O_TMPFILE | O_RDWR | O_CLOEXEC | flags, 0600);

    if (fd < 0) {
        g_error("no scratch file in %s (MM_TORTURE_DIR): %s", torture_dir(),
                strerror(errno));
    }
    return fd;
}

/* The kernel reads the page: what it writes must be the page's content. */
static void kernel_reads(Worker *w, Shadow *s, uint64_t page, int fd)
{
    uint8_t buf[STAMP_PAGE_SIZE];

    if (pwrite(fd, s->mem + page * STAMP_PAGE_SIZE, STAMP_PAGE_SIZE, 0) !=
        STAMP_PAGE_SIZE) {
        verdict_fail(s->verdict, "pwrite from region %u page %" PRIu64 ": %s",
                     s->region, page, strerror(errno));
        return;
    }
    g_assert(pread(fd, buf, sizeof(buf), 0) == sizeof(buf));
    shadow_check_buf(s, page, buf, "kernel");
}

/* The kernel writes the page. */
static void kernel_writes(Worker *w, Shadow *s, uint64_t page, int fd)
{
    uint8_t buf[STAMP_PAGE_SIZE];
    uint32_t version = shadow_prepare(s, page, buf);

    g_assert(pwrite(fd, buf, sizeof(buf), 0) == sizeof(buf));
    if (pread(fd, s->mem + page * STAMP_PAGE_SIZE, STAMP_PAGE_SIZE, 0) !=
        STAMP_PAGE_SIZE) {
        verdict_fail(s->verdict, "pread into region %u page %" PRIu64 ": %s",
                     s->region, page, strerror(errno));
        return;
    }
    shadow_commit(s, page, version);
    shadow_check(s, page, "after pread");
}

void kernel_worker(Worker *w)
{
    int fd = scratch_open(0);

    while (!worker_stopping(w)) {
        uint64_t page;
        Shadow *s = worker_pick(w, &page);

        if (!shadow_trylock(s, page)) {
            continue;
        }
        worker_begin(w, s->region, page);
        if (rng_chance(&w->rng, 50)) {
            kernel_reads(w, s, page, fd);
        } else if (shadow_writable(s, page) &&
                   shadow_check(s, page, "kernel")) {
            kernel_writes(w, s, page, fd);
        }
        worker_end(w);
        shadow_unlock(s, page);
    }
    close(fd);
}

/* Discards */

/* How many pages are ours to discard, in whole units. */
static unsigned lock_for_discard(Worker *w, Shadow *s, uint64_t first)
{
    unsigned unit = unit_pages(w->fq);
    unsigned max = rng_chance(&w->rng, 90) ? 1 + rng_below(&w->rng, 16)
                                           : MAX_DISCARD_RUN;
    unsigned i, nr = shadow_trylock_run(s, first, ROUND_UP(max, unit));

    for (i = 0; i < nr && shadow_writable(s, first + i); i++) {
        ;
    }
    i = QEMU_ALIGN_DOWN(i, unit);
    if (i < nr) {
        shadow_unlock_run(s, first + i, nr - i);
    }
    return i;
}

static unsigned begin_discard(Worker *w, Shadow *s, uint64_t first)
{
    unsigned i, nr = lock_for_discard(w, s, first);

    for (i = 0; i < nr; i++) {
        shadow_discard_begin(s, first + i);
        shadow_unlock(s, first + i);
    }
    return nr;
}

static void end_discard(Worker *w, Shadow *s, uint64_t first, unsigned nr,
                        ShadowDiscard how)
{
    unsigned i;

    for (i = 0; i < nr; i++) {
        while (!shadow_trylock(s, first + i)) {
            g_usleep(20);
        }
        shadow_discard_end(s, first + i, how);
        if (i % 16 == 0) {
            worker_begin(w, s->region, first + i);
            shadow_check(s, first + i, "after discard");
            if (rng_chance(&w->rng, 50)) {
                shadow_write(s, first + i);
            }
        }
        shadow_unlock(s, first + i);
    }
}

/* Some are mapped for DMA meanwhile, as those of free page reporting are. */
static ShadowDiscard do_discard(Worker *w, Shadow *s, uint64_t first,
                                unsigned nr)
{
    int patience_ms = rng_chance(&w->rng, 30) ? rng_below(&w->rng, 4) : -1;
    bool mapped = rng_chance(&w->rng, 30);
    FakeRegion *region = worker_region(w, s);
    const MmRingSlot request = {
        .kind = MM_RING_DISCARD,
        .range = { .region = s->region, .first_page = first, .nr_pages = nr },
    };
    ShadowDiscard how = SHADOW_NOT_DISCARDED;
    int slot;

    if (mapped) {
        dma_begin(region, first, nr);
    }
    slot = ring_post(w->fq, &request);
    if (slot >= 0) {
        how = ring_wait(w->fq, slot, patience_ms).discard;
    }
    if (mapped) {
        dma_end(region, first, nr);
    }
    return how;
}

void discard_worker(Worker *w)
{
    while (!worker_stopping(w)) {
        uint64_t first;
        Shadow *s = worker_pick(w, &first);
        unsigned nr;

        first = QEMU_ALIGN_DOWN(first, unit_pages(w->fq));
        nr = begin_discard(w, s, first);
        if (!nr) {
            continue;
        }
        worker_begin(w, s->region, first);
        end_discard(w, s, first, nr, do_discard(w, s, first, nr));
        worker_end(w);
        g_usleep(rng_below(&w->rng, 4000));
    }
}

/* Regions that come and go */

static void use_region(Worker *w, FakeRegion *region)
{
    uint64_t page;

    for (page = 0; page < region->size / STAMP_PAGE_SIZE; page++) {
        worker_begin(w, region->id, page);
        memset(region->mem + page * STAMP_PAGE_SIZE, page + 1,
               STAMP_PAGE_SIZE);
        worker_end(w);
    }
}

void hotplug_worker(Worker *w)
{
    while (!worker_stopping(w)) {
        Error *err = NULL;
        uint64_t size = MAX(HOTPLUG_SIZE, w->fq->page_size);
        FakeRegion *region = fake_qemu_add_region(w->fq, size, HOTPLUG_LIMIT,
                                                  &err);

        if (region) {
            use_region(w, region);
            fake_qemu_remove_region(w->fq, region, &err);
        }
        if (err) {
            verdict_fail(w->fq->verdict, "hot-plug: %s",
                         error_get_pretty(err));
            error_free(err);
        }
        g_usleep(rng_below(&w->rng, 20000));
    }
}

/* Several CPUs in one page at the same time, without any lock */

/* volatile: each access has to reach the page */
static volatile uint64_t *word_at(FakeRegion *region, uint64_t page,
                                  unsigned lane)
{
    /* lanes have cache lines of their own, spread over the page */
    return (uint64_t *)(region->mem + page * STAMP_PAGE_SIZE +
                        lane * (STAMP_PAGE_SIZE / WORD_LANES));
}

static bool word_check(FakeQemu *fq, FakeRegion *region, uint64_t page,
                       unsigned lane)
{
    uint64_t want = region->words[page * WORD_LANES + lane];
    uint64_t seen = *word_at(region, page, lane);

    if (seen != want) {
        verdict_fail(fq->verdict, "region %u page %" PRIu64 " word %u: "
                     "expected %" PRIu64 ", found 0x%" PRIx64, region->id,
                     page, lane, want, seen);
    }
    return seen == want;
}

bool words_check(Worker *w, FakeRegion *region, uint64_t page)
{
    unsigned lane;

    for (lane = 0; lane < WORD_LANES; lane++) {
        if (!word_check(w->fq, region, page, lane)) {
            return false;
        }
    }
    return true;
}

static FakeRegion *words_region(FakeQemu *fq)
{
    int i;

    for (i = 0; i < MM_MAX_REGIONS; i++) {
        if (fq->regions[i] && fq->regions[i]->words) {
            return fq->regions[i];
        }
    }
    return NULL;
}

void words_worker(Worker *w)
{
    FakeRegion *region = words_region(w->fq);
    uint64_t n = region ? region->size / STAMP_PAGE_SIZE : 0;

    while (region && !worker_stopping(w)) {
        uint64_t page = rng_below(&w->rng, n);

        worker_begin(w, region->id, page);
        if (word_check(w->fq, region, page, w->index)) {
            *word_at(region, page, w->index) =
                ++region->words[page * WORD_LANES + w->index];
        }
        worker_end(w);
        if (rng_chance(&w->rng, 2)) {
            /* leave some of the CPU to those who wait for pages */
            g_usleep(200);
        }
    }
}
