/*
 * Unit tests: a pager's VM without threads, jail or QEMU
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What mm_start() would make, so that the code of the pager's threads can be
 * called step by step.  There is no guest: memory is what lies in the memfds.
 */
#ifndef VM_RIG_H
#define VM_RIG_H

#include "memory-manager/pager/vm.h"

/**
 * vm_rig_new: a VM with one tier
 *
 * @dir: where the tier's file is
 * @tier_size: most bytes in it, 0: no limit
 *
 * Lives as long as the process.
 */
MmVM *vm_rig_new(const char *dir, uint64_t tier_size);

/** vm_rig_new_shared: as vm_rig_new(), and other hosts see the file. */
MmVM *vm_rig_new_shared(const char *dir);

/** vm_rig_new_lent: and before its own tier, 0, @source's is lent to it, 1. */
MmVM *vm_rig_new_lent(const char *dir, const MmVM *source);

/** vm_rig_add: a new region in the table, all of it never populated. */
MmRegion *vm_rig_add(MmVM *vm, uint32_t id, uint64_t nr_pages);

/** vm_rig_remove: out of the table, and freed. */
void vm_rig_remove(MmVM *vm, MmRegion *region);

/**
 * vm_rig_populate: make [@page, @page + @nr) RESIDENT
 *
 * The content of each page begins with its index + 1.
 */
void vm_rig_populate(MmRegion *region, uint64_t page, uint64_t nr);

/** vm_rig_move: along the edges to @state, the other fields unchanged. */
void vm_rig_move(MmRegion *region, uint64_t page, MmPageState state);

/**
 * vm_rig_swap_out: evict a RESIDENT page, as reclaim would
 *
 * @stop: SWAPPED, or a state on the way there
 */
void vm_rig_swap_out(MmVM *vm, MmRegion *region, uint64_t page,
                     MmPageState stop);

/** vm_rig_state: of a page. */
MmPageState vm_rig_state(const MmRegion *region, uint64_t page);

/** vm_rig_present: does the memfd have the page? */
bool vm_rig_present(const MmRegion *region, uint64_t page);

/** vm_rig_used: places of the tier in use. */
uint64_t vm_rig_used(MmVM *vm);

/** vm_rig_check: the counters agree with a look at every page. */
void vm_rig_check(MmVM *vm);

#endif
