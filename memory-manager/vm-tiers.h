/*
 * qemu-memory-manager: the tiers of one VM, while it runs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Main thread only.
 */
#ifndef MEMORY_MANAGER_VM_TIERS_H
#define MEMORY_MANAGER_VM_TIERS_H

#include "vm.h"

/** mm_vm_tiers_new, mm_vm_tiers_free: what a change needs to know. */
void mm_vm_tiers_new(MmVM *vm);
void mm_vm_tiers_free(MmVM *vm);

/** mm_vm_tiers_held: QEMU holds what belongs to the tiers of the record. */
void mm_vm_tiers_held(MmVM *vm);

/** mm_vm_tiers_may_change: can such a change begin? */
bool mm_vm_tiers_may_change(MmVM *vm, Error **errp);

/**
 * mm_vm_tiers_change: give a VM these tiers, and drain its others
 *
 * @names: in the order in which they are to be filled; tiers of the manager or
 *         of the VM
 *
 * Begins an operation, which ends when the others are empty and gone.
 */
bool mm_vm_tiers_change(MmVM *vm, const strList *names, Error **errp);

/**
 * mm_vm_tiers_lend: give a VM another host's file to read
 *
 * @tier: but for its number, which is returned in @number
 *
 * The VM has it when its next pager serves; if that cannot open it, it never
 * has.  It is emptied when its file has become ours.
 */
bool mm_vm_tiers_lend(MmVM *vm, const MmRecordTier *tier, uint64_t *number,
                      Error **errp);

/** mm_vm_tiers_step: go on with a change; the VM is served, or time is up. */
void mm_vm_tiers_step(MmVM *vm);

#endif
