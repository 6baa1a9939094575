/*
 * Managed memory pager: the one VM that this process serves
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Three threads share MmVM:
 *
 *  control  the main thread: talks to QEMU and to the manager, never touches
 *           pages, may wait for the other two
 *  fault    serves faults, discards and swap-in, owns the region table; waits
 *           for nobody, takes no lock across I/O
 *  reclaim  zaps, writes back and punches; waits for QEMU's zap thread and for
 *           the tiers, and finds out which of a former pager may be used
 *
 * Data flows one way: fault -> page map -> tier, reclaim -> page map -> tier.
 * The fault and reclaim threads meet in the page map only, and wake each other
 * by eventfd.
 *
 * Lock order: nothing is taken while regions_lock, events_lock, places_lock,
 * sample_lock or a tier's slot lock is held.
 */
#ifndef MANAGED_MEMORY_VM_H
#define MANAGED_MEMORY_VM_H

#include "fault/dense.h"
#include "fault/node.h"
#include "fault/stream.h"
#include "fault/wake.h"
#include "limit.h"
#include "page-map.h"
#include "tier/tier.h"

/*
 * Threads and locks are glib's, not libqemuutil's: those bring along the RCU
 * thread, which starts before main() and would keep the manager's rights.
 */

/* The attach scan goes by chunks of this many pages. */
#define MM_CHUNK_PAGES 512

typedef struct MmFault MmFault;
typedef struct MmReclaim MmReclaim;

/* One managed RAMBlock. */
typedef struct MmRegion {
    /* fixed once the region is in the table */
    uint32_t id;
    uint64_t size;              /* bytes */
    uint64_t nr_pages;
    unsigned unit_pages;        /* that come and go together: 1, or huge */
    uint64_t limit;             /* its share of the VM's, or MM_LIMIT_NONE */
    uint64_t hva;               /* where QEMU maps it */
    char idstr[MM_IDSTR_LEN];
    int ram_fd;
    int map_fd;
    int dma_fd;
    void *map_mem;
    uint64_t map_size;
    uint8_t *alias;             /* of ram_fd, not accessible; NULL: none */
    int probe_uffd;             /* the VM's */
    uint32_t *dma;              /* per MM_DMA_CHUNK; hostile */
    uint64_t dma_size;
    MmPageMap map;

    /* fault thread */
    MmStreams streams;          /* of faults */
    MmDense dense;
    bool turning;               /* to other data, at the last fault */
    MmWakeSet wake_set;
    uint64_t scan_next;         /* attach scan: first chunk not looked at */

    /* atomic */
    unsigned long *reconciled;  /* per chunk, set by the fault thread */
    int refs;
} MmRegion;

/* Something the control thread has to tell QEMU. */
typedef struct MmPendingEvent {
    bool pending;
    bool again;                 /* QEMU does not read; others know it */
    uint64_t seq;               /* the lowest is sent first */
    MmMsgEvent event;
} MmPendingEvent;

typedef struct MmVM {
    /* fixed after start */
    MmIdentity id;
    char name[MM_NAME_LEN];
    uint32_t qemu_pid;
    uint32_t proto_version;
    uint64_t hello_seq;         /* of the HELLO to answer */
    uint64_t lost_ns;           /* when QEMU lost the former pager, or 0 */
    uint64_t sample_interval_ns; /* 0: none are taken */
    int connection;
    int control;                /* to the manager that started us */
    int listen;                 /* where a new manager connects */
    int lock_fd;
    int uffd_dev;               /* or -1 */
    int probe_uffd;             /* of huge-presence.h, or -1 */
    int proc_fd;                /* a mount of /proc/self/fd alone */
    MmNodes *nodes;             /* NULL: one NUMA node */
    int state_fd;
    int ring_fd;
    int kick_fd;                /* eventfd: discards posted */
    int zap_fd;                 /* our end of the zap channel */
    int control_wake_fd;        /* eventfd for the control thread */
    MmState *state;
    MmRing *ring;               /* hostile */
    MmTier *tiers[MM_MAX_TIERS];    /* in the order of filling */
    MmTier *by_number[MM_MAX_TIERS];
    unsigned nr_tiers;
    MmMsgHold dropped[MM_MAX_TIERS]; /* QEMU still has them, of former tiers */
    unsigned nr_dropped;
    MmFault *fault;
    MmReclaim *reclaim;

    /* control thread */
    bool limit_lifted;          /* by a detach in progress */
    MmRegion *pending[MM_MAX_REGIONS]; /* added, QEMU has not mapped them */

    /* set once by the control thread, before there is a region */
    int uffd;
    uint8_t *key;               /* MM_KEY_LEN bytes, or NULL */

    /* written by the fault thread under regions_lock; others read under it */
    GMutex regions_lock;
    MmRegion *regions[MM_MAX_REGIONS];

    /* protected by events_lock */
    GMutex events_lock;
    uint64_t events_seq;
    MmPendingEvent events[MM_EVENT__MAX];

    /* protected by places_lock; set once by the fault thread */
    GMutex places_lock;
    GCond places_cond;
    bool places_known;          /* all that are in use have been claimed */

    /* protected by sample_lock */
    GMutex sample_lock;
    MmMsgSample sampled;        /* the last sample, but for its age */
    uint64_t sampled_ns;        /* when that ended */

    /* atomic */
    uint64_t total_resident;    /* pages, those being filled included */
    uint64_t total_size;        /* bytes of all regions */
    unsigned epoch;             /* evictions, in quarters of what is resident */
    MmLimit limit;
    bool serving;
    bool scan_done;             /* every region is reconciled */
    bool reclaim_rests;         /* everything comes in, nothing goes out */
    bool reclaim_resting;       /* and no page is on its way out any more */
    unsigned io_failing;        /* MM_IO_... */
    bool zap_lost;              /* QEMU's zap thread is gone */
    uint64_t not_had;           /* page size that the kernel lacks, or 0 */
} MmVM;

/** mm_region_is_huge: do its pages come and go in huge pages? */
static inline bool mm_region_is_huge(const MmRegion *region)
{
    return region->unit_pages > 1;
}

/** mm_region_unit: first of the pages that come and go with @page. */
static inline uint64_t mm_region_unit(const MmRegion *region, uint64_t page)
{
    return QEMU_ALIGN_DOWN(page, region->unit_pages);
}

/** mm_vm_region_get: region by id with a reference, or NULL; any thread. */
MmRegion *mm_vm_region_get(MmVM *vm, uint32_t id);

/** mm_vm_region_nth: @nth region of the table with a reference, or NULL. */
MmRegion *mm_vm_region_nth(MmVM *vm, unsigned nth);

/** mm_vm_overlaps: does [@hva, @hva + @size) touch a region?  Any thread. */
bool mm_vm_overlaps(MmVM *vm, uint64_t hva, uint64_t size);

/** mm_region_put: drop a reference; the last one frees. */
void mm_region_put(MmVM *vm, MmRegion *region);

/**
 * mm_vm_publish_region: put a region into the table, or take it out (NULL)
 *
 * Fault thread only.
 */
void mm_vm_publish_region(MmVM *vm, uint32_t id, MmRegion *region);

/** mm_vm_resize: regions of @bytes have come, or gone; control thread. */
void mm_vm_resize(MmVM *vm, int64_t bytes);

/** mm_vm_add_tier: filled when those added before are full; before threads. */
void mm_vm_add_tier(MmVM *vm, MmTier *tier);

/**
 * mm_vm_set_key: have all tiers encrypt what is not in memory
 *
 * @key: MM_KEY_LEN bytes, copied
 *
 * Once, before there is a region, and before anything but identities has been
 * read.  Control thread.  Fails if the host cannot encrypt.
 */
bool mm_vm_set_key(MmVM *vm, const uint8_t *key, Error **errp);

/** mm_vm_tier: the tier that an entry names, or NULL; any thread. */
MmTier *mm_vm_tier(MmVM *vm, unsigned entry_tier);

/**
 * mm_vm_last_tier: the last one that takes content, or NULL; any thread
 *
 * All that is pushed out may end up there.
 */
MmTier *mm_vm_last_tier(MmVM *vm);

/** mm_region_reconciled: may more than faults use the entry of @page? */
bool mm_region_reconciled(const MmRegion *region, uint64_t page);

/** mm_vm_places_known: all places that are in use are claimed; fault thread. */
void mm_vm_places_known(MmVM *vm);

/**
 * mm_vm_wait_places: until then places can be neither counted nor allocated
 *
 * The fault thread claims them before anything else, and waits for nothing.
 */
void mm_vm_wait_places(MmVM *vm);

/** mm_vm_start_queues: start the threads of all that have some, if any. */
void mm_vm_start_queues(MmVM *vm, MmTierQueue **queues);

/** mm_vm_event: have the control thread send an event; any thread. */
void mm_vm_event(MmVM *vm, MmEventKind kind, uint32_t region, uint64_t arg,
                 const char *fmt, ...) G_GNUC_PRINTF(5, 6);

/** What may fail at a tier, see mm_vm_io_failing(). */
enum {
    MM_IO_READ = 1 << 0,
#define MM_IO_WRITE(tier) (1u << (1 + (tier)))
#define MM_IO_START(tier) (1u << (1 + MM_MAX_TIERS + (tier)))
    MM_IO_MOVE = 1 << (1 + 2 * MM_MAX_TIERS),
};

/**
 * mm_vm_io_failing: note that @what fails, or does not any more
 *
 * Returns whether all works now, for MM_EVENT_IO_RECOVERED.  Any thread.
 */
bool mm_vm_io_failing(MmVM *vm, unsigned what, bool failing);

/** mm_vm_page_lost: count a page whose content is gone, and say so. */
void mm_vm_page_lost(MmVM *vm, const MmRegion *region, uint64_t page);

/**
 * mm_vm_take_event: next event to send, the oldest; control thread
 *
 * @again: whether it has been put back before
 */
bool mm_vm_take_event(MmVM *vm, MmMsgEvent *event, bool *again);

/**
 * mm_vm_put_back_event: QEMU has not taken an event; control thread
 *
 * It comes first again, unless there is a newer one of its kind.
 */
void mm_vm_put_back_event(MmVM *vm, const MmMsgEvent *event);

/** mm_wake: add one to an eventfd; any thread. */
void mm_wake(int eventfd);

/** mm_unwake: reset an eventfd; false if it was not set. */
bool mm_unwake(int eventfd);

/*
 * Counters in MmState have one writing thread each, but for pages_lost and
 * io_put_off.
 */
#define MM_STAT_ADD(vm, counter, n)                                     \
    qatomic_set(&(vm)->state->stats.counter,                            \
                (vm)->state->stats.counter + (n))

#endif
