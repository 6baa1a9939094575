/*
 * Managed memory: for programs with a block layer, but without guest memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/block_int.h"
#include "block/managed-memory.h"

int coroutine_fn managed_memory_co_preadv(BdrvChild *child, int64_t offset,
                                          int64_t bytes, QEMUIOVector *qiov,
                                          size_t qiov_offset,
                                          BdrvRequestFlags flags)
{
    return bdrv_co_preadv_part(child, offset, bytes, qiov, qiov_offset, flags);
}
