/*
 * Managed memory pager: faults that could not be resolved at once
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * One entry per thread and page.  A thread waits for one page, but its number
 * is not unique: threads of the kernel that fault for QEMU (vhost, KVM's
 * asynchronous faults) may live in another PID namespace.  The table is what is
 * tried again, and what queries show.  When it overflows, the
 * waiters beyond it are not forgotten by the kernel: waking the whole range
 * makes them fault again.
 *
 * The fault thread changes the table; any thread may count.
 */
#ifndef MANAGED_MEMORY_WAITERS_H
#define MANAGED_MEMORY_WAITERS_H

#define MM_MAX_WAITERS 1024

typedef enum MmWaitReason {
    MM_WAIT_NONE,               /* served: does not wait */
    MM_WAIT_LOAD,               /* its page is being read */
    MM_WAIT_LIMIT,              /* for reclaim */
    MM_WAIT_BUSY,               /* for a free load */
    MM_WAIT_DROP,               /* its page is being punched */
    MM_WAIT_ERROR,              /* its page could not be read */
    MM_WAIT_LOST,               /* its page is lost */
} MmWaitReason;

typedef struct MmWaiter {
    uint64_t addr;              /* of the page, in QEMU */
    uint64_t since_ns;
    uint32_t tid;
    MmWaitReason reason;
    bool failed;                /* its page could not be read at least once */
} MmWaiter;

typedef struct MmWaiters {
    GMutex lock;
    /* written by the fault thread under the lock */
    MmWaiter waiter[MM_MAX_WAITERS];
    unsigned nr;
    bool overflow;
} MmWaiters;

/** mm_waiters_init: nobody waits. */
void mm_waiters_init(MmWaiters *w);

/**
 * mm_waiters_add: thread @tid waits for the page at @addr
 *
 * A thread that has been waiting for this page keeps its time.
 */
void mm_waiters_add(MmWaiters *w, uint64_t addr, uint32_t tid,
                    uint64_t since_ns, MmWaitReason reason);

/**
 * mm_waiters_remove: the pages in [@addr, @addr + @len) are there
 *
 * Calls @fn with the time since which each removed one has waited.
 */
void mm_waiters_remove(MmWaiters *w, uint64_t addr, uint64_t len,
                       void (*fn)(void *opaque, uint64_t since_ns),
                       void *opaque);

/** mm_waiters_failed: does somebody wait at @addr for what was not read? */
bool mm_waiters_failed(const MmWaiters *w, uint64_t addr);

/** mm_waiters_set_reason: for all who wait for the page at @addr. */
bool mm_waiters_set_reason(MmWaiters *w, uint64_t addr, MmWaitReason reason);

/** mm_waiters_count: distinct threads, and the oldest's time (or 0). */
void mm_waiters_count(MmWaiters *w, uint32_t *threads, uint64_t *oldest_ns);

#endif
