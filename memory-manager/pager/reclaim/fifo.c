/*
 * Managed memory pager: candidates that wait for their second chance to pass
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/host-utils.h"
#include "managed-memory/proto.h"
#include "fifo.h"

QEMU_BUILD_BUG_ON(sizeof(MmCandidate) != 8);
QEMU_BUILD_BUG_ON(MM_MAX_REGIONS > 1 << 8);

void mm_fifo_init(MmFifo *fifo)
{
    *fifo = (MmFifo) {
        .ring = g_new(MmCandidate, MM_FIFO_MIN), .size = MM_FIFO_MIN,
    };
}

static unsigned slot(const MmFifo *fifo, unsigned nth)
{
    return (fifo->head + nth) & (fifo->size - 1);
}

void mm_fifo_fit(MmFifo *fifo, uint64_t pages)
{
    unsigned size = pow2ceil(MIN(MAX(pages, MM_FIFO_MIN), MM_FIFO_MAX));
    MmCandidate *ring;
    unsigned i;

    if (size <= fifo->size) {
        return;
    }
    ring = g_new(MmCandidate, size);
    for (i = 0; i < fifo->nr; i++) {
        ring[i] = fifo->ring[slot(fifo, i)];
    }
    g_free(fifo->ring);
    fifo->ring = ring;
    fifo->size = size;
    fifo->head = 0;
}

unsigned mm_fifo_room(const MmFifo *fifo)
{
    return fifo->size - fifo->nr;
}

void mm_fifo_push(MmFifo *fifo, MmCandidate candidate)
{
    assert(mm_fifo_room(fifo));
    fifo->ring[slot(fifo, fifo->nr++)] = candidate;
    fifo->pages += candidate.nr_pages;
}

const MmCandidate *mm_fifo_first(const MmFifo *fifo)
{
    return fifo->nr ? &fifo->ring[fifo->head] : NULL;
}

MmCandidate mm_fifo_pop(MmFifo *fifo)
{
    MmCandidate candidate = fifo->ring[fifo->head];

    assert(fifo->nr);
    fifo->head = slot(fifo, 1);
    fifo->nr--;
    fifo->pages -= candidate.nr_pages;
    return candidate;
}
