/*
 * Torture tests: devices that access guest memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TORTURE_DMA_H
#define TORTURE_DMA_H

#include "fake-qemu.h"

/**
 * dma_begin, dma_end: map pages for DMA, as address_space_map() does
 *
 * In between no page of the touched chunks is evicted.  Any thread; mappings
 * nest and overlap.
 */
void dma_begin(FakeRegion *region, uint64_t first_page, unsigned nr_pages);
void dma_end(FakeRegion *region, uint64_t first_page, unsigned nr_pages);

/** dma_hold_all: add @delta to every counter of a region. */
void dma_hold_all(FakeRegion *region, int delta);

#endif
