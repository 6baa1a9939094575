/*
 * Managed memory pager: the contract of a tier
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A tier keeps the content of pages outside guest memory.  It knows places
 * and bytes, nothing about pages, faults or guests.  The `fill' tier (zero and
 * same-filled pages) is no MmTier: its content is the place itself.  What a
 * place means (a slot, an offset and a length) is the tier's affair.
 *
 * I/O goes through queues.  A queue belongs to one thread, which finds places,
 * submits transfers and reaps them; it never blocks on the medium, so that a
 * tier that hangs holds up only the pages that lie in it.  Places are freed by
 * any thread.
 *
 * Contract, which tests/unit/test-mm-tier.c runs over every tier:
 *
 *  T1 A place handed out is handed out again only after it has been freed.
 *  T2 What a successful store wrote, every later load of that place reads,
 *     until the place is freed; also in the next pager's process.
 *  T3 A failed or short transfer ends in io->ret < 0, never in silence; but
 *     the medium may still carry a failed store out, at any time.
 *     Content is not checked here: checksums are the page map's.
 *  T4 Space that reserve() has promised is there: alloc() within it
 *     does not fail, nor does a store for lack of space.
 *  T5 No write of a former pager lands after settled() has been true.
 *  T6 Of a tier that is not proven nothing is loaded but its identity, and
 *     nothing is written to it: it does not grow, either.
 *  T7 Its transfers, of all queues together, keep to its I/O limits.
 *  T8 If the VM has a key, what lies outside memory is encrypted, but for the
 *     identity.  Buffers are plain again when a transfer is reaped, whether it
 *     was successful or not.
 *  T9 A place that is pinned is not handed out, though it be freed, until it is
 *     unpinned.
 */
#ifndef MANAGED_MEMORY_TIER_H
#define MANAGED_MEMORY_TIER_H

#include "qemu/atomic.h"
#include "qemu/queue.h"
#include "managed-memory/shared.h"
#include "cipher.h"
#include "throttle.h"

/* Most pages of one transfer. */
#define MM_TIER_IO_PAGES 32

/* In front of the first place; only to be loaded. */
#define MM_PLACE_IDENTITY UINT64_MAX

typedef struct MmTier MmTier;
typedef struct MmTierQueue MmTierQueue;
typedef struct MmTierIO MmTierIO;

/* One transfer of pages that lie at consecutive places. */
struct MmTierIO {
    /* set by the caller before submitting; of a store, alloc() sets two */
    bool store;
    bool moving;                /* of a store: from another place, not memory */
    unsigned nr_pages;          /* 1..max_pages of the tier */
    uint64_t place;             /* of the first page */
    uint8_t *buf;               /* nr_pages pages in the queue's arena */
    void *opaque;

    /* set when the transfer is reaped: 0 or -errno */
    int ret;

    /* the queue's */
    MmTierQueue *queue;
    uint64_t began_ns;          /* monotonic; 0: I/O limits have put it off */
    bool encrypted;             /* what is in buf, or will be */
    unsigned tries;
    QSIMPLEQ_ENTRY(MmTierIO) next;
};

typedef void MmTierDone(MmTierIO *io);

typedef struct MmTierUsage {
    uint64_t pages;             /* that have a place */
    uint64_t used;              /* bytes that these take */
    uint64_t size;              /* bytes of storage that the tier has now */
} MmTierUsage;

/* What a tier that is short of room wants done about it. */
typedef enum MmAgeing {
    MM_AGEING_NONE,
    MM_AGEING_DOWN,             /* to the next tier, what leaving() names */
    MM_AGEING_WITHIN,           /* to other places, what leaving() names */
} MmAgeing;

typedef struct MmTierOps {
    const char *type;

    /* Most pages of one transfer, 1..MM_TIER_IO_PAGES. */
    unsigned max_pages;

    /* Full as a rule: no event when its content goes to the next tier. */
    bool spills;

    /* Transfers are complete when submit() returns; nothing is woken. */
    bool immediate;

    /* What is in it is not in memory: encrypted, if the VM has a key. */
    bool outside;

    /* What QEMU holds of it. */
    MmHoldKind hold;

    /**
     * reserve: make @bytes of storage certain in all
     *
     * May be called again with more.  Control thread.
     */
    bool (*reserve)(MmTier *tier, uint64_t bytes, Error **errp);

    /**
     * is_own: is it this VM's?
     *
     * @page: what was loaded from MM_PLACE_IDENTITY
     *
     * NULL for a tier that is proven when it is opened.
     */
    bool (*is_own)(MmTier *tier, const void *page);

    /** set_vm_size: the VM has @bytes of memory now, or NULL.  Any thread. */
    void (*set_vm_size)(MmTier *tier, uint64_t bytes);

    /**
     * resize: bound it anew
     *
     * @size: most bytes, 0: see @share
     * @share: percent of the VM's memory, 0: no limit
     * @vm_size: bytes of memory that the VM has
     *
     * Fails if there may be more in it already than it can get rid of by
     * itself.  Control thread.
     */
    bool (*resize)(MmTier *tier, uint64_t size, unsigned share,
                   uint64_t vm_size, Error **errp);

    /** free: take @nr consecutive places back.  Any thread. */
    void (*free)(MmTier *tier, uint64_t place, unsigned nr);

    /**
     * withdraw: @nr places in use are not to be handed out, nor counted
     *
     * NULL, as the next one: a tier whose stores are over when they have ended.
     */
    void (*withdraw)(MmTier *tier, uint64_t place, unsigned nr);

    /** readmit: what was withdrawn is free. */
    void (*readmit)(MmTier *tier, uint64_t place, unsigned nr);

    /**
     * claim: a place is in use, says the page map of a former pager
     *
     * Before any alloc(), or in a tier that was lent.  Returns false if the
     * place cannot be: out of range or claimed already.
     */
    bool (*claim)(MmTier *tier, uint64_t place);

    /**
     * pin: keep what is at @place, even if it is freed
     *
     * Returns false if nothing is.  Any thread.  NULL, as the next two: a tier
     * that nobody else can read.
     */
    bool (*pin)(MmTier *tier, uint64_t place);

    /** pin_all: keep all that a former pager may have pinned; before claim() */
    void (*pin_all)(MmTier *tier);

    /** unpin: what was kept is free.  Any thread. */
    void (*unpin)(MmTier *tier);

    /**
     * settled: has every write of a former pager ended?
     *
     * A killed process's transfers go on for a while, even when it is gone.
     * Before they have ended no place may be written: one that was not
     * published is free, and would be overwritten.  Does not wait.  Reclaim
     * thread, until it is true once.
     */
    bool (*settled)(MmTier *tier);

    /**
     * age: choose content to leave, if room is short
     *
     * @is_last: there is no next tier
     *
     * Chooses more each time that it is asked.  Reclaim thread.  NULL for a
     * tier whose content stays.
     */
    MmAgeing (*age)(MmTier *tier, bool is_last);

    /** leaving: was @place chosen by age()?  Reclaim thread. */
    bool (*leaving)(MmTier *tier, uint64_t place);

    /** usage: how much is in it.  Any thread. */
    void (*usage)(MmTier *tier, MmTierUsage *usage);

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
    /**
     * start: make the queue's threads, if it has any; NULL: it has none
     *
     * When the process has given up its rights, which threads have each for
     * themselves, and can still make threads.
     */
    void (*start)(MmTierQueue *queue);

    /**
     * alloc: find consecutive places for @io's content
     *
     * @io: a store whose buf is filled and whose nr_pages, up to max_pages,
     *      says what is wanted; its place and nr_pages are set
     *
     * It is submitted next in this queue, or its places are freed.  Returns 0,
     * -ENOSPC if the tier is full, or -E2BIG if it has no use for content like
     * that, whether there is room or not.
     */
    int (*alloc)(MmTierQueue *queue, MmTierIO *io);

    /**
     * submit: start @io, at the latest with the next mm_queue_flush()
     *
     * Completes by reap(), also when it fails at once.  Only for
     * mm_queue_submit().
     */
    void (*submit)(MmTierQueue *queue, MmTierIO *io);

    /** flush: see mm_queue_flush(); NULL: what is submitted starts at once */
    void (*flush)(MmTierQueue *queue);

    /** reap: for mm_queue_reap() only */
    unsigned (*reap)(MmTierQueue *queue, MmTierDone *done);
} MmQueueOps;

/*
 * A tier that takes nothing more, and is emptied.  The control thread says
 * whether; the reclaim thread, which alone allocates places, when it is done.
 */
typedef enum MmDrain {
    MM_DRAIN_NO,
    MM_DRAIN_GOING,
    MM_DRAIN_DONE,              /* nothing is in it, nor will be */
} MmDrain;

struct MmTier {
    const MmTierOps *ops;
    unsigned number;            /* in entries: MM_TIER_FIRST + number */
    unsigned index;             /* in MmVM.tiers[], the order of filling */
    int fd;                     /* of all that lies in it, owned */
    int hold_fd;                /* for QEMU to keep; -1: an O_PATH of fd */
    char name[MM_NAME_LEN];
    bool lent;                  /* another host's: it takes nothing */

    MmThrottle throttle;        /* of the transfers of all queues */

    /* atomic */
    const uint8_t *key;         /* MM_KEY_LEN bytes, or NULL; see T8 */
    bool proven;                /* to be the VM's; remains so; reclaim thread */
    unsigned drain;             /* MmDrain */
    bool spared;                /* gets only what no other takes */
};

/** mm_tier_draining: is it emptied?  Any thread. */
static inline bool mm_tier_draining(const MmTier *tier)
{
    return qatomic_read(&tier->drain) != MM_DRAIN_NO;
}

/** mm_tier_closed: does it take nothing more?  Any thread. */
static inline bool mm_tier_closed(const MmTier *tier)
{
    return tier->lent || mm_tier_draining(tier);
}

struct MmTierQueue {
    const MmQueueOps *ops;
    MmTier *tier;
    QSIMPLEQ_HEAD(, MmTierIO) put_off;  /* by the tier's I/O limits */
    MmTierDone *done;           /* while it is reaped */
    MmCipher *cipher;           /* made when the first transfer needs it */
};

/** mm_queue_init: the common part of a new queue. */
void mm_queue_init(MmTierQueue *queue, const MmQueueOps *ops, MmTier *tier);

/**
 * mm_queue_submit: start @io as soon as the tier's I/O limits allow
 *
 * At the earliest with the next mm_queue_flush().  Returns false if it was put
 * off: then mm_queue_reap() starts it, when it is time.  In both cases it is
 * complete when that says so.
 */
bool mm_queue_submit(MmTierQueue *queue, MmTierIO *io);

/**
 * mm_queue_flush: start what has been submitted
 *
 * Transfers that start together cost less: one system call, and for a virtual
 * disk one exit.
 */
void mm_queue_flush(MmTierQueue *queue);

/**
 * mm_queue_reap: call @done for every completed transfer
 *
 * Returns their number.  @done may submit others.
 */
unsigned mm_queue_reap(MmTierQueue *queue, MmTierDone *done);

/** mm_queue_wait_ns: until what was put off may start; 0: nothing was. */
uint64_t mm_queue_wait_ns(MmTierQueue *queue);

/**
 * mm_queues_wait_ms: how long to wait until some queue is to be reaped
 *
 * @most: ms, or -1: until something is complete
 *
 * Returns @most, or less if something that was put off may start earlier.
 */
int mm_queues_wait_ms(MmTierQueue *const *queues, unsigned nr, int most);

/**
 * mm_tier_file_open: a tier on a file or a block device
 *
 * @fd: opened read-write with O_DIRECT, owned by the tier from now on
 * @start: what it is, and how to number, name and bound it
 * @id: identity of the VM; a shared file has another one, see @start
 * @is_new: whether it is new to the VM
 */
MmTier *mm_tier_file_open(int fd, const MmMsgStartTier *start,
                          const MmIdentity *id, bool is_new, Error **errp);

/** mm_tier_file_alloc: MmQueueOps.alloc for any queue on a file. */
int mm_tier_file_alloc(MmTierQueue *queue, MmTierIO *io);

/**
 * mm_tier_compressed_fd_size: bytes of the memfd for a compressed tier
 *
 * Sealed, so it has to do for whatever size the tier may get.
 */
uint64_t mm_tier_compressed_fd_size(void);

/**
 * mm_tier_compressed_open: a compressed tier in a sealed memfd
 *
 * @fd: of mm_tier_compressed_fd_size() bytes, owned by the tier from now on;
 *      others as for mm_tier_file_open()
 */
MmTier *mm_tier_compressed_open(int fd,
                                const MmMsgStartTier *start,
                                const MmIdentity *id, bool is_new,
                                Error **errp);

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
 * For hosts where io_uring is disabled.
 */
MmTierQueue *mm_queue_threads_new(MmTier *tier, int fd, unsigned depth,
                                  int wake_fd);

#endif
