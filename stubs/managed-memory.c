/*
 * Managed memory: for programs that have no guest memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "sysemu/managed-memory.h"

bool managed_memory_allows_device(Object *dev, Error **errp)
{
    return true;
}

void managed_memory_check_confined(void)
{
}
