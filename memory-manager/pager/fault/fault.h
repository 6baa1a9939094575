/*
 * Managed memory pager: the fault thread, as the other threads see it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MANAGED_MEMORY_FAULT_H
#define MANAGED_MEMORY_FAULT_H

#include "../vm.h"

typedef void MmFaultWork(MmVM *vm, void *opaque);

/**
 * mm_fault_new: buffers, queues and descriptors of the fault thread
 *
 * Before the process is jailed.  One per process, lives as long as it.
 */
MmFault *mm_fault_new(MmVM *vm, Error **errp);

/**
 * mm_fault_start: start the thread; control thread
 *
 * It wakes what waits in every region, executes what it finds posted in the
 * ring, and then serves.
 */
void mm_fault_start(MmVM *vm);

/** mm_fault_watch_uffd: vm->uffd is known now; control thread. */
void mm_fault_watch_uffd(MmVM *vm);

/** mm_fault_call: run @fn in the fault thread and wait; control thread. */
void mm_fault_call(MmVM *vm, MmFaultWork *fn, void *opaque);

/**
 * mm_fault_retry: what faults were waiting for may have changed; any thread
 *
 * Cheap if nobody waits.
 */
void mm_fault_retry(MmVM *vm);

/** mm_fault_imported: an import is STORED, or hangs; reclaim thread */
void mm_fault_imported(MmVM *vm);

/** mm_fault_add_region: publish a region; work for mm_fault_call(). */
void mm_fault_add_region(MmVM *vm, void *region);

/**
 * mm_fault_remove_region: forget a region; work for mm_fault_call()
 *
 * The table's reference becomes the caller's: the last one frees a slot per
 * swapped page, which is not for the fault thread.
 */
void mm_fault_remove_region(MmVM *vm, void *region);

/**
 * mm_fault_swap_in: bring everything in; mm_fault_swapped_in() when done
 *
 * @detach: bool *, nobody is to serve faults afterwards: huge pages that were
 *          never populated are to be there, too; work for mm_fault_call()
 */
void mm_fault_swap_in(MmVM *vm, void *detach);

/**
 * mm_fault_replay: begin to read what the guest wanted when it woke up
 *
 * @count: uint64_t *, out: pages that are recorded; work for mm_fault_call()
 */
void mm_fault_replay(MmVM *vm, void *count);

/**
 * mm_fault_give_up: poison the pages that faults wait for in vain
 *
 * @count: uint64_t *, out: pages given up; work for mm_fault_call()
 */
void mm_fault_give_up(MmVM *vm, void *count);

/* What a swap-in has left outside memory. */
typedef struct MmFaultAbsent {
    uint64_t elsewhere;         /* pages that were to come, and have not */
    uint64_t lost;              /* pages */
    bool failed;                /* reads of the last swap-in have failed */
    bool no_room;               /* the limit has ended it */
} MmFaultAbsent;

/**
 * mm_fault_count_absent: count what is not resident
 *
 * @absent: MmFaultAbsent *, out; work for mm_fault_call().  Exact while the
 * reclaim thread rests.
 */
void mm_fault_count_absent(MmVM *vm, void *absent);

/**
 * mm_fault_let_go: nothing of the ring any more, or again
 *
 * @on: bool *, in; work for mm_fault_call().  Before QEMU is told that it may
 * have its memory.
 */
void mm_fault_let_go(MmVM *vm, void *on);

/** mm_fault_swapped_in: has the last mm_fault_swap_in() ended?  Any thread. */
bool mm_fault_swapped_in(MmVM *vm);

/**
 * mm_fault_waiting: who waits?  Any thread.
 *
 * @threads: out: distinct threads
 * @oldest_ns: out: age of the oldest fault, 0 if none
 */
void mm_fault_waiting(MmVM *vm, uint32_t *threads, uint64_t *oldest_ns);

#endif
