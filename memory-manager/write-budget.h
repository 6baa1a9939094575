/*
 * qemu-memory-manager: what all VMs together write to a tier per day
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Main thread only.
 */
#ifndef MEMORY_MANAGER_WRITE_BUDGET_H
#define MEMORY_MANAGER_WRITE_BUDGET_H

#include "managed-memory/proto.h"
#include "memory-manager/qapi/qapi-types-memory-manager.h"
#include "tier-conf.h"
#include "write-account.h"

typedef struct MmManager MmManager;
typedef struct MmVM MmVM;

/* Of one VM. */
typedef struct MmVMWrites {
    bool known;                 /* what was written before is accounted for */
    uint64_t bytes[MM_MAX_TIERS];   /* by number: accounted for */
    uint32_t spared;            /* bit per number: the pager knows it */
    bool asked;                 /* the pager has not answered yet */
} MmVMWrites;

/**
 * mm_write_budget_init: from now on, with what an earlier manager has left
 *
 * When its VMs are adopted.
 */
void mm_write_budget_init(MmManager *mgr);

/**
 * mm_write_budget_new_pager: @vm has another one, which knows of nothing
 *
 * @first: and it is the VM's first
 */
void mm_write_budget_new_pager(MmVM *vm, bool first);

/** mm_write_budget_begin: there is another tier, with a whole day's. */
void mm_write_budget_begin(MmTierConf *tier);

/** mm_write_budget_set: @per_day bytes for a tier, 0: no budget. */
void mm_write_budget_set(MmTierConf *tier, uint64_t per_day);

/** mm_write_budget_describe: for queries; NULL if there is no budget. */
ManagedTierWriteBudget *mm_write_budget_describe(const MmWriteAccount *account);

#endif
