/*
 * Managed memory: for programs that have devices but no guest memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "sysemu/managed-memory.h"

bool managed_memory_allows_device(Object *dev, Error **errp)
{
    return true;
}
