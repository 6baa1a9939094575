/*
 * qemu-memory-manager: tiers that are a block device per VM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MEMORY_MANAGER_TIER_DEVICE_H
#define MEMORY_MANAGER_TIER_DEVICE_H

#include "record.h"

/* In a tier's path: the name of the VM. */
#define MM_DEVICE_NAME "%n"

/**
 * mm_device_path: path of a VM's device
 *
 * @path: of the tier, with MM_DEVICE_NAME for the VM's name
 *
 * Returns NULL if there is no such path, since the VM's name cannot be part of
 * one; g_free() it.
 */
char *mm_device_path(const char *path, const char *vm_name, Error **errp);

/**
 * mm_device_find: note which device a VM gets
 *
 * @tier: of the VM's record; conf.device is set
 *
 * Fails if it is no block device.
 */
bool mm_device_find(MmRecordTier *tier, const char *vm_name, Error **errp);

/**
 * mm_device_open: open a VM's device for its pager
 *
 * @claim: fail if others have it, be it the VM itself
 * @fds: one for transfers; if nobody has claimed it, another one that keeps
 *       others away for as long as it is open anywhere
 *
 * Returns how many descriptors there are, 0 on failure.
 */
unsigned mm_device_open(const MmRecordTier *tier, const char *vm_name,
                        bool claim, int fds[2], Error **errp);

#endif
