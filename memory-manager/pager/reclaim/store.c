/*
 * Managed memory pager: finding a place for content
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Content goes to the first tier that takes it: zero and same-filled pages to
 * no tier at all, what compresses to the compressed one, the rest on.  A tier
 * that is full or fails passes on to the next one, and says so once; one that
 * fails is left alone for a while, unless it is the last.
 */
#include "qemu/osdep.h"
#include <poll.h>
#include "../fault/fault.h"
#include "../test-hooks.h"
#include "reclaim-internal.h"

/* A store that takes longer is taken for a tier that hangs. */
#define STORE_HANGS_NS 1000000000ULL
/* How often to look at it. */
#define LOOK_MS 100
/* How long a tier that has failed is passed over. */
#define REST_NS 1000000000ULL

static uint64_t clock_ns(void)
{
    return g_get_monotonic_time() * 1000;
}

/* One 64-bit value throughout: it fits into place and checksum. */
static void store_as_fill(MmPageMap *map, MmPiece *p)
{
    uint64_t *word = (uint64_t *)p->buf;

    if (memcmp(word, word + 1, MM_PAGE_SIZE - sizeof(*word))) {
        return;
    }
    map->checksums[p->page] = *word >> 32;
    p->stored = mm_entry_at(p->base, MM_TIER_FILL, (uint32_t)*word);
}

static bool is_last(const MmReclaim *r, unsigned tier)
{
    return tier + 1 == r->vm->nr_tiers;
}

static void failed(MmReclaim *r, unsigned t, int err)
{
    MmTierHealth *health = &r->health[t];

    health->rest_until_ns = is_last(r, t) ? 0 : clock_ns() + REST_NS;
    health->write_error = err;
    if (health->failing) {
        return;
    }
    health->failing = true;
    mm_vm_io_failing(r->vm, MM_IO_WRITE(t), true);
    mm_vm_event(r->vm, MM_EVENT_IO_ERROR, UINT32_MAX, err,
                "tier '%s' cannot be written: %s; pages %s",
                r->vm->tiers[t]->name,
                err == ETIMEDOUT ? "it does not answer" : strerror(err),
                is_last(r, t) ? "stay where they are" : "go to the next tier");
}

static void worked(MmReclaim *r, unsigned t)
{
    r->health[t].write_error = 0;
    if (!r->health[t].failing) {
        return;
    }
    r->health[t].failing = false;
    if (mm_vm_io_failing(r->vm, MM_IO_WRITE(t), false)) {
        mm_vm_event(r->vm, MM_EVENT_IO_RECOVERED, UINT32_MAX, 0,
                    "tier '%s' can be written again", r->vm->tiers[t]->name);
    }
}

void mm_reclaim_io_done(MmTierIO *io)
{
    *(bool *)io->opaque = true;
}

static void transfer_hangs(MmReclaim *r, unsigned t)
{
    failed(r, t, ETIMEDOUT);
    qatomic_set(&r->vm->limit.held, false);
    mm_reclaim_set_stuck(r, true);
}

int mm_transfer(MmReclaim *r, MmTierQueue *queue, MmTierIO *io)
{
    struct pollfd pfd = { .fd = r->io_fd, .events = POLLIN };
    uint64_t since_ns;
    bool done = false;

    io->opaque = &done;
    queue->ops->submit(queue, io);
    queue->ops->reap(queue, mm_reclaim_io_done);
    since_ns = done ? 0 : clock_ns();
    while (!done) {
        if (poll(&pfd, 1, LOOK_MS) == 0 &&
            clock_ns() - since_ns > STORE_HANGS_NS) {
            transfer_hangs(r, queue->tier->number);
        }
        mm_unwake(r->io_fd);
        queue->ops->reap(queue, mm_reclaim_io_done);
        /* another tier may have answered: it is not to wait for this one */
        mm_tiers_ready(r);
    }
    return io->ret;
}

/* Pieces that are stored with one transfer. */
typedef struct Run {
    unsigned nr;
    MmPiece *piece[MM_TIER_IO_PAGES];
    uint8_t *buf;               /* their content, one behind the other */
} Run;

static void add_to_run(MmReclaim *r, Run *run, MmPiece *piece)
{
    if (!run->nr) {
        run->buf = piece->buf;
    } else if (piece->buf != run->buf + run->nr * MM_PAGE_SIZE) {
        if (run->buf != r->gather) {
            memcpy(r->gather, run->buf, run->nr * MM_PAGE_SIZE);
            run->buf = r->gather;
        }
        memcpy(run->buf + run->nr * MM_PAGE_SIZE, piece->buf, MM_PAGE_SIZE);
    }
    run->piece[run->nr++] = piece;
}

/* What has no place yet, from *@next on. */
static void collect_run(MmReclaim *r, Run *run, MmPiece *p, unsigned nr,
                        unsigned *next, unsigned max)
{
    run->nr = 0;
    for (; *next < nr && run->nr < max; (*next)++) {
        if (!p[*next].stored) {
            add_to_run(r, run, &p[*next]);
        }
    }
}

/* Of a page that is only moved it is what it was, and others look at it. */
static void set_checksum(MmPageMap *map, const MmPiece *piece)
{
    uint32_t sum = mm_page_checksum(map, piece->page, piece->base, piece->buf);

    if (map->checksums[piece->page] != sum) {
        map->checksums[piece->page] = sum;
    }
}

/* Store the first pages of a run; returns how many, or -errno. */
static int store_run(MmReclaim *r, MmTierQueue *queue, MmPageMap *map,
                     Run *run)
{
    MmTier *tier = queue->tier;
    MmTierIO io = {
        .store = true, .moving = r->moving,
        .buf = run->buf, .nr_pages = run->nr,
    };
    int ret = queue->ops->alloc(queue, &io);
    unsigned i;

    if (ret < 0) {
        return ret;
    }
    ret = mm_transfer(r, queue, &io);
    if (ret < 0) {
        tier->ops->free(tier, io.place, io.nr_pages);
        MM_STAT_ADD(r->vm, write_errors, 1);
        return ret;
    }
    for (i = 0; i < io.nr_pages; i++) {
        MmPiece *piece = run->piece[i];

        piece->stored = mm_entry_at(piece->base, MM_TIER_FIRST + tier->number,
                                    io.place + i);
        set_checksum(map, piece);
    }
    MM_STAT_ADD(r->vm, pages_written, io.nr_pages);
    return io.nr_pages;
}

static void store_in(MmReclaim *r, unsigned t, MmPageMap *map, MmPiece *p,
                     unsigned nr)
{
    const MmTierOps *ops = r->vm->tiers[t]->ops;
    unsigned next = 0;
    Run run;

    if (!mm_tier_ready(r, t) || r->health[t].rest_until_ns > clock_ns()) {
        return;
    }
    for (;;) {
        int ret;

        collect_run(r, &run, p, nr, &next, ops->max_pages);
        if (!run.nr) {
            return;
        }
        ret = store_run(r, r->queues[t], map, &run);
        if (ret > 0) {
            worked(r, t);
            if (ret < run.nr) {
                next = run.piece[ret] - p;
            }
        } else if (ret != -E2BIG) {
            /* what is moved only stays where it is */
            if (ret != -ENOSPC ||
                (!r->moving && (is_last(r, t) || !ops->spills))) {
                failed(r, t, -ret);
            }
            return;
        }
    }
}

void mm_store_fills(MmPageMap *map, MmPiece *p, unsigned nr)
{
    unsigned i;

    for (i = 0; i < nr; i++) {
        store_as_fill(map, &p[i]);
    }
}

bool mm_store(MmReclaim *r, MmPageMap *map, MmPiece *p, unsigned nr,
              unsigned first)
{
    unsigned i, t;

    for (t = first; t < r->vm->nr_tiers; t++) {
        store_in(r, t, map, p, nr);
    }
    for (i = 0; i < nr; i++) {
        if (!p[i].stored) {
            return false;
        }
    }
    return true;
}
