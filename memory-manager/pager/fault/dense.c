/*
 * Managed memory pager: where faults are dense
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "dense.h"

#define TURN_NS 1000000000ULL
/* Times as many as by chance, and some more, are no chance. */
#define CONCENTRATED 3
#define CONCENTRATED_MIN 16
/* Turns for which faults count as concentrated after they were. */
#define REMEMBERED 2
/* One return for so many reads is too many, if there are some. */
#define VAIN_SHARE 4
#define VAIN_MIN 8
/* Turns after which reads that were not in vain have paid. */
#define PAID 16
/* A turn with fewer faults than this share of the blocks is quiet. */
#define QUIET_SHARE 16
/* One with fewer than so many, and than this share, is silent. */
#define SILENT_FAULTS 32
#define SILENT_SHARE 64
/* Share of the blocks that is tried with, if the last reads were in vain. */
#define TRIAL_SHARE 8

void mm_dense_init(MmDense *d, uint64_t nr_pages)
{
    *d = (MmDense) {
        .block = g_new0(MmDenseBlock,
                        DIV_ROUND_UP(nr_pages, MM_DENSE_PAGES)),
        .turn = 1,
        .rest = MM_DENSE_REST,
    };
}

void mm_dense_destroy(MmDense *d)
{
    g_free(d->block);
}

static void judge(MmDense *d, bool quiet)
{
    if (d->vain >= VAIN_MIN && d->vain * VAIN_SHARE > d->reads) {
        d->off = d->rest;
        d->rest = MIN(2 * d->rest, MM_DENSE_REST_MAX);
    } else if (d->reads && (quiet || ++d->judging == PAID)) {
        d->rest = MM_DENSE_REST;
    } else {
        return;
    }
    d->reads = 0;
    d->vain = 0;
    d->judging = 0;
}

/* The next one; while nothing happens, many go by. */
static void next_turn(MmDense *d, uint64_t now_ns)
{
    uint64_t idle_ns = now_ns - MIN(now_ns, d->turn_ends_ns);
    unsigned turns = 1 + MIN(idle_ns / TURN_NS, MM_DENSE_REST_MAX);

    judge(d, turns > 1 || d->faults < d->nr_blocks / QUIET_SHARE);
    if (turns > 1 || d->faults < MIN(d->nr_blocks / SILENT_SHARE,
                                     SILENT_FAULTS)) {
        /* it has what it needs */
        d->paid = d->turn;
    }
    d->turn += turns;
    d->turn += d->turn == 0;
    if ((uint16_t)(d->turn - d->paid) > MM_DENSE_REST) {
        d->paid = d->turn - MM_DENSE_REST;
    }
    d->turn_ends_ns = now_ns + TURN_NS;
    d->faults = 1;
    d->met = 0;
    d->concentrated -= MIN(d->concentrated, turns);
    d->off -= MIN(d->off, turns);
}

/*
 * Of f faults on any of b blocks about f * f / (2 * b) meet one that an earlier
 * one has met, as long as f is less than b (the birthday problem).
 */
static void look_for_concentration(MmDense *d)
{
    double chance = (double)d->faults * d->faults / (2 * d->nr_blocks);

    if (d->faults - d->met > CONCENTRATED * chance + CONCENTRATED_MIN) {
        d->concentrated = REMEMBERED;
    }
}

/* Tried again after reads in vain, until it is known whether they pay now? */
static bool tried_enough(const MmDense *d)
{
    return d->rest > MM_DENSE_REST &&
           d->reads > d->nr_blocks / TRIAL_SHARE;
}

bool mm_dense_turning(const MmDense *d)
{
    return d->concentrated && !d->off;
}

static bool was_read(const MmDense *d, const MmDenseBlock *block)
{
    uint16_t ago = d->turn - block->read;

    /* those that have paid may well be wanted again */
    return block->read && ago < MM_DENSE_REST &&
           ago < (uint16_t)(d->turn - d->paid);
}

void mm_dense_fault(MmDense *d, uint64_t page, uint64_t in_use,
                    uint64_t now_ns)
{
    MmDenseBlock *block = &d->block[page / MM_DENSE_PAGES];

    d->nr_blocks = DIV_ROUND_UP(MAX(in_use, 1), MM_DENSE_PAGES);
    if (++d->faults > d->nr_blocks / 2 || now_ns >= d->turn_ends_ns) {
        next_turn(d, now_ns);
    }
    if (block->turn != d->turn) {
        block->turn = d->turn;
        block->faults = 0;
        d->met++;
    }
    block->faults = MIN(block->faults + 1, UINT8_MAX);
    look_for_concentration(d);
    d->vain += mm_dense_turning(d) && was_read(d, block) &&
               block->faults == MM_DENSE_FAULTS;
}

bool mm_dense_wants(const MmDense *d, uint64_t page)
{
    const MmDenseBlock *block = &d->block[page / MM_DENSE_PAGES];

    return mm_dense_turning(d) && block->turn == d->turn &&
           block->faults >= MM_DENSE_FAULTS && !was_read(d, block) &&
           !tried_enough(d);
}

void mm_dense_read(MmDense *d, uint64_t page)
{
    d->block[page / MM_DENSE_PAGES].read = d->turn;
    d->reads++;
}
