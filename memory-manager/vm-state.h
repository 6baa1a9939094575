/*
 * qemu-memory-manager: states of a VM and the ways between them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MEMORY_MANAGER_VM_STATE_H
#define MEMORY_MANAGER_VM_STATE_H

#include "memory-manager/qapi/qapi-types-memory-manager.h"

/** mm_vm_edge_is_legal: may a VM go from one state to the other? Pure. */
bool mm_vm_edge_is_legal(ManagedVMState from, ManagedVMState to);

#endif
