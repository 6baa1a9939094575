/*
 * Managed memory pager: a region's memfds and its attach scan
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MANAGED_MEMORY_REGION_H
#define MANAGED_MEMORY_REGION_H

#include "vm.h"

/**
 * mm_region_new: make the memfds of a new region; control thread
 *
 * @msg: checked for sense here; hostile
 */
MmRegion *mm_region_new(MmVM *vm, const MmMsgRegion *msg, Error **errp);

/**
 * mm_region_resume: take up a region that a former pager has served
 *
 * @msg: as QEMU remembers it; hostile
 * @fds: MM_REGION_FD__MAX descriptors from QEMU, the caller's; hostile
 *
 * Before the process is jailed.
 */
MmRegion *mm_region_resume(MmVM *vm, const MmMsgRegion *msg, const int *fds,
                           Error **errp);

/** mm_region_free: unmap and close; frees the slots of its pages. */
void mm_region_free(MmVM *vm, MmRegion *region);

/**
 * mm_region_claim_places: all places that the map of a former pager names
 *
 * Of each region, before anything is reconciled: from then on places may be
 * allocated.  Some belong to pages that turn out to be present; they are freed
 * when that is known.  Fault thread, or before there is one.
 */
void mm_region_claim_places(MmVM *vm, MmRegion *region);

/**
 * mm_region_reconcile_chunk: make the map of one chunk agree with the memfd
 *
 * Fault thread.  Does nothing if the chunk is reconciled already.
 */
void mm_region_reconcile_chunk(MmVM *vm, MmRegion *region, uint64_t chunk);

/** mm_region_reconcile: the same for the chunks of @nr pages from @page on. */
void mm_region_reconcile(MmVM *vm, MmRegion *region, uint64_t page,
                         uint64_t nr);

/** mm_region_punch: free pages of the memfd; 0 or -errno; any thread. */
int mm_region_punch(const MmRegion *region, uint64_t page, uint64_t nr);

/** mm_region_present: first present page in the range, or @page + @nr. */
uint64_t mm_region_present(const MmRegion *region, uint64_t page, uint64_t nr);

/** mm_region_dma_held: is the page mapped for DMA?  After smp_mb(). */
bool mm_region_dma_held(const MmRegion *region, uint64_t page);

/** mm_region_info: numbers for the manager; any thread. */
void mm_region_info(const MmRegion *region, MmMsgRegionInfo *info);

/** mm_reopen: another description of @fd with @flags; fd or -errno. */
int mm_reopen(MmVM *vm, int fd, int flags);

/**
 * mm_check_memfd: is @fd a sealed memfd of @size bytes?
 *
 * @private: also made by this user, and closed to others
 * @what: for the error
 */
bool mm_check_memfd(int fd, uint64_t size, bool private, const char *what,
                    Error **errp);

#endif
