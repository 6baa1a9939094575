/*
 * Managed memory: what the block layer calls
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BLOCK_MANAGED_MEMORY_H
#define BLOCK_MANAGED_MEMORY_H

#include "block/block-common.h"

/**
 * managed_memory_co_preadv: hook of blk_co_do_preadv_part()
 *
 * As bdrv_co_preadv_part(), which it calls.  Pages of guest memory that are
 * swapped out and that the read overwrites as a whole are not swapped in first.
 *
 * Returns what bdrv_co_preadv_part() does, or -EFAULT if what has been read
 * cannot be put into memory.  In a coroutine, in any AioContext.
 */
int coroutine_fn managed_memory_co_preadv(BdrvChild *child, int64_t offset,
                                          int64_t bytes, QEMUIOVector *qiov,
                                          size_t qiov_offset,
                                          BdrvRequestFlags flags);

#endif
