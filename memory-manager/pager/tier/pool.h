/*
 * Managed memory pager: space of a compressed tier
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Any thread, unless a function says otherwise.
 */
#ifndef MANAGED_MEMORY_POOL_H
#define MANAGED_MEMORY_POOL_H

#include "qemu/units.h"
#include "tier.h"

#define MM_POOL_SEGMENT_SIZE (128 * KiB)

typedef struct MmPool MmPool;

/**
 * mm_pool_new: the space of a memfd
 *
 * @fd: stays the caller's
 * @offset: where the first segment begins
 * @nr_segments: that there can be
 * @most: that may occupy memory
 * @is_new: whether there is nothing in it yet
 */
MmPool *mm_pool_new(int fd, off_t offset, uint32_t nr_segments, uint32_t most,
                    bool is_new);

/** mm_pool_set_most: how many segments may occupy memory. */
void mm_pool_set_most(MmPool *pool, uint64_t most);

/**
 * mm_pool_alloc: room for @size bytes; reclaim thread
 *
 * @moving: it is for content of the pool itself, which makes room in turn
 *
 * Returns false if it is full.
 */
bool mm_pool_alloc(MmPool *pool, size_t size, bool moving, uint64_t *place);

/** mm_pool_free: what was at @place is not needed any more. */
void mm_pool_free(MmPool *pool, uint64_t place);

/** mm_pool_claim: MmTierOps.claim */
bool mm_pool_claim(MmPool *pool, uint64_t place, size_t max_size);

/** mm_pool_age, mm_pool_leaving: MmTierOps.age and leaving */
MmAgeing mm_pool_age(MmPool *pool, bool is_last);
bool mm_pool_leaving(MmPool *pool, uint64_t place);

/** mm_pool_usage: MmTierOps.usage */
void mm_pool_usage(MmPool *pool, MmTierUsage *usage);

/** mm_pool_offset, mm_pool_size: of a place in the file, in bytes */
off_t mm_pool_offset(const MmPool *pool, uint64_t place);
size_t mm_pool_size(uint64_t place);

#endif
