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
#include "qemu/host-utils.h"
#include "../fault/fault.h"
#include "../test-hooks.h"
#include "quarantine.h"
#include "reclaim-internal.h"

/* A store that takes longer is taken for a tier that hangs. */
#define STORE_HANGS_NS 1000000000ULL
/* How long a tier that has failed is passed over. */
#define REST_NS 1000000000ULL
/* Writes work again if none has failed for so long. */
#define QUIET_NS 300000000ULL

static uint64_t clock_ns(void)
{
    return g_get_monotonic_time() * 1000;
}

bool mm_store_is_fill(MmPiece *p)
{
    uint64_t *word = (uint64_t *)p->buf;

    if (memcmp(word, word + 1, MM_PAGE_SIZE - sizeof(*word))) {
        return false;
    }
    p->stored = mm_entry_at(p->base, MM_TIER_FILL, (uint32_t)*word);
    return true;
}

uint32_t mm_store_checksum(const MmPageMap *map, const MmPiece *p)
{
    return mm_entry_tier(p->stored) == MM_TIER_FILL
           ? *(uint64_t *)p->buf >> 32
           : mm_page_checksum(map, p->page, p->base, p->buf);
}

static bool is_last(const MmReclaim *r, unsigned tier)
{
    return r->vm->tiers[tier] == mm_vm_last_tier(r->vm);
}

const char *mm_store_error(int err)
{
    return !err ? "" : err == ETIMEDOUT ? "it does not answer" : strerror(err);
}

static void failed(MmReclaim *r, unsigned t, int err)
{
    MmTierHealth *health = &r->health[t];

    health->rest_until_ns = is_last(r, t) ? 0 : clock_ns() + REST_NS;
    health->write_error = err;
    health->failed_ns = clock_ns();
    health->works = false;
    if (health->failing) {
        return;
    }
    health->failing = true;
    health->trials = 0;
    mm_vm_io_failing(r->vm, MM_IO_WRITE(t), true);
    mm_vm_event(r->vm, MM_EVENT_IO_ERROR, UINT32_MAX, err,
                "tier '%s' cannot be written: %s; pages %s",
                r->vm->tiers[t]->name,
                mm_store_error(err),
                is_last(r, t) ? "stay where they are" : "go to the next tier");
}

/* One page that has found room is no end of it, an answer after all is. */
static void look(MmReclaim *r, unsigned t)
{
    MmTierHealth *health = &r->health[t];

    if (!health->failing || !health->works ||
        (health->write_error != ETIMEDOUT &&
         clock_ns() - health->failed_ns < QUIET_NS)) {
        return;
    }
    health->write_error = 0;
    health->failing = false;
    if (mm_vm_io_failing(r->vm, MM_IO_WRITE(t), false)) {
        mm_vm_event(r->vm, MM_EVENT_IO_RECOVERED, UINT32_MAX, 0,
                    "tier '%s' can be written again", r->vm->tiers[t]->name);
    }
}

static void worked(MmReclaim *r, unsigned t)
{
    r->health[t].works = true;
    look(r, t);
}

bool mm_store_look(MmReclaim *r)
{
    bool later = false;
    unsigned t;

    for (t = 0; t < r->vm->nr_tiers; t++) {
        look(r, t);
        later |= r->health[t].failing && r->health[t].works;
    }
    return later;
}

static void transfer_done(MmTierIO *io)
{
    MmTransfer *t = container_of(io, MmTransfer, io);

    t->done(io->opaque, t);
}

void mm_reclaim_transfer(MmReclaim *r, MmTierQueue *queue, MmTransfer *t,
                         void (*done)(MmReclaim *r, MmTransfer *t))
{
    t->done = done;
    t->io.opaque = r;
    if (!mm_queue_submit(queue, &t->io)) {
        qatomic_inc(&r->vm->state->stats.io_put_off);
    }
}

void mm_reclaim_reap_tier(MmReclaim *r, unsigned t)
{
    mm_queue_reap(r->queues[t], transfer_done);
}

int mm_reclaim_wait_ms(const MmReclaim *r, int most)
{
    return mm_queues_wait_ms(r->queues, r->vm->nr_tiers, most);
}

void mm_reclaim_reap(MmReclaim *r)
{
    unsigned t;

    for (t = 0; t < r->vm->nr_tiers; t++) {
        mm_reclaim_reap_tier(r, t);
    }
}

static uint8_t *run_buf(const MmBatch *b)
{
    return b->transfer.io.buf;
}

static void add_to_run(MmBatch *b, MmPiece *piece)
{
    size_t len = b->run_nr * MM_PAGE_SIZE;

    if (!b->run_nr) {
        b->transfer.io.buf = piece->buf;
    } else if (piece->buf != run_buf(b) + len) {
        if (run_buf(b) != b->gather) {
            memcpy(b->gather, run_buf(b), len);
            b->transfer.io.buf = b->gather;
        }
        memcpy(run_buf(b) + len, piece->buf, MM_PAGE_SIZE);
    }
    b->run[b->run_nr++] = piece;
}

/* What has no place yet, as much as goes with one transfer. */
static void collect_run(MmBatch *b, unsigned max)
{
    b->run_nr = 0;
    for (; b->next < b->nr && b->run_nr < max; b->next++) {
        if (!b->p[b->next].stored) {
            add_to_run(b, &b->p[b->next]);
        }
    }
}

/*
 * If all are full, rather a tier that drains, or is spared, than a guest that
 * stands still.
 */
static void next_tier(MmReclaim *r, MmBatch *b)
{
    bool has_to = !b->moving || mm_tier_draining(r->vm->tiers[r->move.from]);

    b->tier++;
    b->next = 0;
    if (b->tier == r->vm->nr_tiers && !b->last_resort && has_to) {
        b->last_resort = true;
        b->tier = 0;
    }
}

/* A tier has not taken a run. */
static void refused(MmReclaim *r, MmBatch *b, int err)
{
    const MmTierOps *ops = r->vm->tiers[b->tier]->ops;

    /* what is moved only stays where it is */
    if (err != ENOSPC || (!b->moving && (is_last(r, b->tier) ||
                                         !ops->spills))) {
        failed(r, b->tier, err);
    }
    next_tier(r, b);
}

static void hang(MmReclaim *r, MmBatch *b, bool hangs)
{
    if (b->hangs != hangs) {
        b->hangs = hangs;
        r->hanging += hangs ? 1 : -1;
        r->health[b->tier].hanging += hangs ? 1 : -1;
    }
}

/* The pieces of the run have their places. */
static void take_places(MmReclaim *r, MmBatch *b)
{
    const MmTier *tier = r->vm->tiers[b->tier];
    const MmTierIO *io = &b->transfer.io;
    unsigned i;

    for (i = 0; i < io->nr_pages; i++) {
        b->run[i]->stored = mm_entry_at(b->run[i]->base,
                                        MM_TIER_FIRST + tier->number,
                                        io->place + i);
    }
    if (io->nr_pages < b->run_nr) {
        b->next = b->run[io->nr_pages] - b->p;
    }
    MM_STAT_ADD(r->vm, pages_written, io->nr_pages);
    MM_STAT_ADD(r->vm, tier_written[tier->number],
                io->nr_pages * MM_PAGE_SIZE);
}

static bool no_space(int err)
{
    return err == ENOSPC || err == EDQUOT;
}

/*
 * Will a store that has failed never be carried out?  One that was refused, but
 * not if others fail: it may be in parts, on the way.
 */
static bool was_refused(const MmReclaim *r, const MmBatch *b)
{
    const MmTierHealth *health = &r->health[b->tier];

    return no_space(-b->transfer.io.ret) &&
           (!health->failing || no_space(health->write_error));
}

static void run_stored(MmReclaim *r, MmTransfer *transfer)
{
    MmBatch *b = container_of(transfer, MmBatch, transfer);
    MmTierIO *io = &transfer->io;

    hang(r, b, false);
    b->storing = false;
    mm_quarantine_end(r->vm, b->slot, r->vm->tiers[b->tier], io,
                      was_refused(r, b));
    if (io->ret < 0) {
        MM_STAT_ADD(r->vm, write_errors, 1);
        refused(r, b, -io->ret);
        return;
    }
    worked(r, b->tier);
    if (b->trial) {
        b->next = b->run[0] - b->p;     /* and now for good */
    } else {
        take_places(r, b);
    }
}

/*
 * As alloc().  One that fails is tried with places that are not used, but for
 * the first, second, fourth, eighth ... time.
 */
static int find_places(MmReclaim *r, MmBatch *b)
{
    MmTierHealth *health = &r->health[b->tier];
    MmTierQueue *queue = r->queues[b->tier];
    MmTierIO *io = &b->transfer.io;
    int ret;

    io->nr_pages = b->run_nr;
    b->trial = health->failing && !health->works &&
               !no_space(health->write_error) &&
               !is_power_of_2(++health->trials) &&
               mm_quarantine_find(r->vm, queue->tier, health->trials, io);
    if (b->trial) {
        return 0;
    }
    do {
        io->nr_pages = b->run_nr;
        ret = queue->ops->alloc(queue, io);
    } while (ret == -ENOSPC && mm_quarantine_give_up(r->vm, queue->tier));
    return ret;
}

/* Offer a run to the tier whose turn it is. */
static void store_run(MmReclaim *r, MmBatch *b)
{
    MmTierQueue *queue = r->queues[b->tier];
    MmTierIO *io = &b->transfer.io;
    int ret;

    io->store = true;
    io->moving = b->moving;
    ret = find_places(r, b);
    if (ret == -E2BIG) {
        return;
    }
    if (ret < 0) {
        refused(r, b, -ret);
        return;
    }
    b->storing = true;
    mm_quarantine_begin(r->vm, b->slot, queue->tier, io);
    mm_reclaim_transfer(r, queue, &b->transfer, run_stored);
    mm_queue_flush(queue);
    if (queue->tier->ops->immediate) {
        mm_reclaim_reap_tier(r, b->tier);
    }
}

/* Is it the turn of a tier like that?  Nothing moves to one that drains. */
static bool is_willing(const MmBatch *b, const MmTier *tier)
{
    MmDrain drain = qatomic_read(&tier->drain);
    bool spared = qatomic_read(&tier->spared);

    if (tier->lent) {
        return false;
    }
    if (!b->last_resort) {
        return drain == MM_DRAIN_NO && !spared;
    }
    return drain == MM_DRAIN_NO ? spared
                                : drain == MM_DRAIN_GOING && !b->moving;
}

/* What waits for a tier that hangs is not joined by others. */
static bool usable(MmReclaim *r, const MmBatch *b)
{
    unsigned t = b->tier;

    return is_willing(b, r->vm->tiers[t]) &&
           mm_tier_ready(r, t) && !r->health[t].hanging &&
           r->health[t].rest_until_ns <= clock_ns();
}

void mm_store_begin(MmBatch *b, unsigned first)
{
    b->tier = first;
    b->last_resort = false;
    b->next = 0;
    b->storing = false;
    b->hangs = false;
}

/* One that the I/O limits have put off has not begun. */
static bool takes_long(const MmBatch *b)
{
    uint64_t began_ns = b->transfer.io.began_ns;

    return began_ns && clock_ns() > began_ns + STORE_HANGS_NS;
}

bool mm_store_step(MmReclaim *r, MmBatch *b)
{
    while (!b->storing && b->tier < r->vm->nr_tiers) {
        b->run_nr = 0;
        if (usable(r, b)) {
            collect_run(b, r->vm->tiers[b->tier]->ops->max_pages);
        }
        if (b->run_nr) {
            store_run(r, b);
        } else {
            next_tier(r, b);
        }
    }
    if (b->storing && !b->hangs && takes_long(b)) {
        hang(r, b, true);
        failed(r, b->tier, ETIMEDOUT);
        if (b->import) {
            mm_import_hangs(r, b);
        }
    }
    return !b->storing;
}
