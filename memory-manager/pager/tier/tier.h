/*
 * Managed memory pager: the contract of a tier
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A tier keeps the content of pages outside guest memory.  It knows places
 * and bytes, nothing about pages, faults or guests.  The `fill' tier (zero and
 * same-filled pages) is no MmTier: its content is the place itself.
 *
 * I/O goes through queues.  A queue belongs to one thread, which submits
 * transfers and reaps them; it never blocks on the medium, so that a tier that
 * hangs holds up only the pages that lie in it.  Places are allocated and
 * freed by any thread.
 *
 * Contract, which tests/unit/test-mm-tier.c runs over every tier:
 *
 *  T1 A place handed out is handed out again only after it has been freed.
 *  T2 What a successful store wrote, every later load of that place reads,
 *     until the place is freed; also in the next pager's process.
 *  T3 A failed or short transfer ends in io->ret < 0, never in silence.
 *     Content is not checked here: checksums are the page map's.
 *  T4 Space that mm_tier_reserve() has promised is there: alloc() within it
 *     does not fail, nor does a store for lack of space.
 *  T5 No write of a former pager lands after settled() has been true.
 */
#ifndef MANAGED_MEMORY_TIER_H
#define MANAGED_MEMORY_TIER_H

#include "qemu/queue.h"
#include "managed-memory/shared.h"

/* Most pages of one transfer. */
#define MM_TIER_IO_PAGES 32

typedef struct MmTier MmTier;
typedef struct MmTierQueue MmTierQueue;
typedef struct MmTierIO MmTierIO;

/* One transfer of pages that lie at consecutive places. */
struct MmTierIO {
    /* set by the caller before submitting */
    bool store;
    unsigned nr_pages;          /* 1..MM_TIER_IO_PAGES */
    uint64_t place;             /* of the first page */
    uint8_t *buf;               /* nr_pages pages in the queue's arena */
    void *opaque;

    /* set when the transfer is reaped: 0 or -errno */
    int ret;

    /* the queue's */
    MmTierQueue *queue;
    QSIMPLEQ_ENTRY(MmTierIO) next;
};

typedef void MmTierDone(MmTierIO *io);

typedef struct MmTierOps {
    const char *type;

    /**
     * reserve: make @bytes of storage certain in all
     *
     * May be called again with more.  Control thread.
     */
    bool (*reserve)(MmTier *tier, uint64_t bytes, Error **errp);

    /**
     * alloc: hand out @nr consecutive places, @nr in 1..MM_TIER_IO_PAGES
     *
     * Any thread.  Returns how many were handed out, from *@place on: at least
     * one unless the tier is full (0).
     */
    unsigned (*alloc)(MmTier *tier, unsigned nr, uint64_t *place);

    /** free: take @nr places back.  Any thread. */
    void (*free)(MmTier *tier, uint64_t place, unsigned nr);

    /**
     * claim: a place is in use, says the page map of a former pager
     *
     * Before any alloc().  Returns false if the place cannot be: out of range
     * or claimed already.
     */
    bool (*claim)(MmTier *tier, uint64_t place);

    /**
     * settled: has every write of a former pager ended?
     *
     * A killed process's transfers go on for a while, even when it is gone.
     * Before they have ended no place may be written: one that was not
     * published is free, and would be overwritten.  Does not wait.  Reclaim
     * thread, until it is true once.
     */
    bool (*settled)(MmTier *tier);

    /** usage: bytes in use and bytes reserved.  Any thread. */
    void (*usage)(MmTier *tier, uint64_t *used, uint64_t *size);

    /**
     * queue_new: a queue for the calling thread's transfers
     *
     * @arena: buffers of all its transfers, page-aligned, locked in memory
     * @arena_size: in bytes
     * @depth: most transfers in flight
     * @wake_fd: eventfd that is written when transfers complete
     */
    MmTierQueue *(*queue_new)(MmTier *tier, void *arena, size_t arena_size,
                              unsigned depth, int wake_fd, Error **errp);
} MmTierOps;

typedef struct MmQueueOps {
    /** submit: start @io; completes by reap(), also when it fails at once. */
    void (*submit)(MmTierQueue *queue, MmTierIO *io);

    /** reap: call @done for every completed transfer, return their number. */
    unsigned (*reap)(MmTierQueue *queue, MmTierDone *done);
} MmQueueOps;

struct MmTier {
    const MmTierOps *ops;
    unsigned number;            /* in entries: MM_TIER_FIRST + number */
    char name[MM_NAME_LEN];
};

struct MmTierQueue {
    const MmQueueOps *ops;
    MmTier *tier;
};

/**
 * mm_tier_file_open: a file tier on an unnamed file
 *
 * @fd: file opened read-write with O_DIRECT, owned by the tier from now on
 * @number: of the tier, 0..MM_MAX_TIERS-1
 * @start: how to name and bound it
 * @id: identity of the VM; written to a new file, checked in a former one
 * @is_new: whether the file is new
 */
MmTier *mm_tier_file_open(int fd, unsigned number,
                          const MmMsgStartTier *start, const MmIdentity *id,
                          bool is_new, Error **errp);

/** mm_tier_file_fd: the file, for isolation and for the tests. */
int mm_tier_file_fd(const MmTier *tier);

/**
 * mm_queue_uring_new: queue on io_uring, restricted to reads and writes of @fd
 *
 * Arguments as queue_new().  Before the process is jailed.  Returns NULL and
 * sets @errp where the kernel has no io_uring for us.
 */
MmTierQueue *mm_queue_uring_new(MmTier *tier, int fd, void *arena,
                                size_t arena_size, unsigned depth,
                                int wake_fd, Error **errp);

/**
 * mm_queue_threads_new: queue on threads with pread() and pwrite()
 *
 * For hosts where io_uring is disabled.  Its threads start at once, since a
 * jailed process cannot start any.
 */
MmTierQueue *mm_queue_threads_new(MmTier *tier, int fd, unsigned depth,
                                  int wake_fd);

#endif
