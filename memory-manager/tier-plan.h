/*
 * qemu-memory-manager: which tiers a VM is to get
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Plans are records; vm-tiers.c puts them into effect.  Main thread only.
 */
#ifndef MEMORY_MANAGER_TIER_PLAN_H
#define MEMORY_MANAGER_TIER_PLAN_H

#include "vm.h"

/** mm_tier_plan_new: a new VM, whose name is set, gets the manager's tiers. */
bool mm_tier_plan_new(MmRecord *rec, const MmOptions *opts, Error **errp);

/**
 * mm_tier_plan: a VM is to have these tiers, then those that have to go
 *
 * @names: of tiers of the manager or of the VM
 * @rec: its tiers are set
 * @leaving: bit per number: which are to be drained
 */
bool mm_tier_plan(MmVM *vm, const strList *names, MmRecord *rec,
                  uint32_t *leaving, Error **errp);

/**
 * mm_tier_plan_lent: it is to have one more
 *
 * @tier: but for its number, which is returned in @number
 * @rec: with the tiers that the VM has
 */
bool mm_tier_plan_lent(MmVM *vm, const MmRecordTier *tier, MmRecord *rec,
                       uint64_t *number, Error **errp);

#endif
