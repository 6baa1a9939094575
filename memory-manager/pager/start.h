/*
 * Managed memory pager: from START to the first fault
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MANAGED_MEMORY_START_H
#define MANAGED_MEMORY_START_H

#include "vm.h"

/**
 * mm_start: learn from the manager what to do, take up the VM
 *
 * @control: socket to the manager
 * @errp: set on failure; QEMU has been told then, as far as possible
 *
 * Single-threaded, before the process is jailed.
 */
MmVM *mm_start(int control, Error **errp);

/** mm_start_reply: tell QEMU that it is served; its namespaces are its own. */
bool mm_start_reply(MmVM *vm, Error **errp);

#endif
