/*
 * qemu-memory-manager: I/O limits as people give them; pagers enforce them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MEMORY_MANAGER_IO_THROTTLE_H
#define MEMORY_MANAGER_IO_THROTTLE_H

#include "managed-memory/proto.h"
#include "memory-manager/qapi/qapi-types-memory-manager.h"
#include "qemu/option.h"

/** mm_io_throttle_from_opts: what a tier's parameters say; false on error. */
bool mm_io_throttle_from_opts(MmMsgIOLimits *io, QemuOpts *o, Error **errp);

/** mm_io_throttle_to_opts: the reverse, for what came by QMP. */
void mm_io_throttle_to_opts(const ManagedIOThrottle *throttling, QemuOpts *o);

/** mm_io_throttle_any: is there any limit? */
bool mm_io_throttle_any(const MmMsgIOLimits *io);

/** mm_io_throttle_describe: for queries; NULL if there is no limit. */
ManagedIOThrottle *mm_io_throttle_describe(const MmMsgIOLimits *io);

#endif
