/*
 * qemu-memory-manager: what a pager has told about its VM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Main thread only.
 */
#ifndef MEMORY_MANAGER_SNAPSHOT_H
#define MEMORY_MANAGER_SNAPSHOT_H

#include "qemu/coroutine.h"
#include "memory-manager/qapi/qapi-types-memory-manager.h"
#include "managed-memory/proto.h"

struct MmManager;
struct MmVM;

typedef struct MmSnapshot {
    /* the last complete one; regions are MmMsgRegionInfo */
    int64_t taken_ms;           /* 0: there is none yet */
    MmMsgQueryReply vm;
    GArray *regions;

    bool stale;                 /* the last refresh has not succeeded (yet) */

    /* the one that is being taken */
    int64_t asked_ms;           /* 0: none */
    MmMsgQueryReply next_vm;
    GArray *next_regions;
} MmSnapshot;

void mm_snapshot_init(MmSnapshot *snap);
void mm_snapshot_clear(MmSnapshot *snap);

/**
 * mm_snapshot_refresh: bring the snapshots of all VMs up to date
 *
 * @match: NULL, or only VMs that mm_vm_matches() finds
 *
 * Waits for at most MM_QUERY_TIMEOUT_MS, whatever the pagers do, and not at
 * all for pagers that have missed that limit before and not answered since.
 * One caller at a time.
 */
void coroutine_fn mm_snapshot_refresh(struct MmManager *mgr,
                                      const char *match);

#define MM_QUERY_TIMEOUT_MS 1000

/** mm_snapshot_stop: end a refresh that waits, and have no other one wait. */
void mm_snapshot_stop(void);

/** mm_snapshot_describe: fill in the part of @out that a pager tells. */
void mm_snapshot_describe(struct MmVM *vm, ManagedVMMemory *out);

#endif
