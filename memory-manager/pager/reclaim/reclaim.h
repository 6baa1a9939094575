/*
 * Managed memory pager: the reclaim thread, as the other threads see it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MANAGED_MEMORY_RECLAIM_H
#define MANAGED_MEMORY_RECLAIM_H

#include "import.h"

/**
 * mm_reclaim_new: buffers, queues and descriptors of the reclaim thread
 *
 * Before the process is jailed.  One per process, lives as long as it.
 */
MmReclaim *mm_reclaim_new(MmVM *vm, Error **errp);

/** mm_reclaim_start: start the thread; control thread. */
void mm_reclaim_start(MmVM *vm);

/** mm_reclaim_wake: look at the watermarks; any thread, cheap if awake. */
void mm_reclaim_wake(MmVM *vm);

/** mm_reclaim_imports: MM_RING_STORES of them; fault thread */
MmImport *mm_reclaim_imports(MmVM *vm);

/** mm_reclaim_resized: a tier may have more in it than it should; any thread */
void mm_reclaim_resized(MmVM *vm);

/**
 * mm_reclaim_urge: evict some pages though the limit does not ask for it
 *
 * The kernel had no memory for a page: a cgroup below our limit, or a full
 * host.  Fault thread.
 */
void mm_reclaim_urge(MmVM *vm);

/** mm_reclaim_turned: the guest has turned to other data.  Fault thread. */
void mm_reclaim_turned(MmVM *vm);

/** mm_reclaim_evict: begin to evict @pages; control thread. */
void mm_reclaim_evict(MmVM *vm, uint64_t pages);

/**
 * mm_reclaim_evicted: has the last mm_reclaim_evict() ended?
 *
 * @pages: out: pages evicted for it; control thread
 */
bool mm_reclaim_evicted(MmVM *vm, uint64_t *pages);

#endif
