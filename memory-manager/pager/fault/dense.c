/*
 * Managed memory pager: where faults are dense
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "dense.h"

void mm_dense_init(MmDense *d, uint64_t nr_pages)
{
    *d = (MmDense) {
        .block = g_new0(MmDenseBlock,
                        DIV_ROUND_UP(nr_pages, MM_DENSE_PAGES)),
        /* what was never read was so long ago */
        .turn = MM_DENSE_REST,
    };
}

void mm_dense_destroy(MmDense *d)
{
    g_free(d->block);
}

void mm_dense_fault(MmDense *d, uint64_t page, uint64_t in_use)
{
    MmDenseBlock *block = &d->block[page / MM_DENSE_PAGES];

    if (++d->faults > in_use / MM_DENSE_PAGES) {
        d->faults = 0;
        d->turn++;
    }
    if (block->turn != d->turn) {
        block->turn = d->turn;
        block->faults = 0;
    }
    block->faults = MIN(block->faults + 1, MM_DENSE_FAULTS);
}

bool mm_dense_read(MmDense *d, uint64_t page)
{
    MmDenseBlock *block = &d->block[page / MM_DENSE_PAGES];

    if (block->turn != d->turn || block->faults < MM_DENSE_FAULTS ||
        (uint16_t)(d->turn - block->read) < MM_DENSE_REST) {
        return false;
    }
    block->read = d->turn;
    return true;
}
