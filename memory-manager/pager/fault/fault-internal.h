/*
 * Managed memory pager: the fault thread's own state
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * For the files in this folder only.  Everything here belongs to the fault
 * thread, unless a field says otherwise.
 */
#ifndef MANAGED_MEMORY_FAULT_INTERNAL_H
#define MANAGED_MEMORY_FAULT_INTERNAL_H

#include "qemu/bitops.h"
#include "qemu/queue.h"
#include "fault.h"
#include "poll.h"
#include "waiters.h"

/* Never populated pages filled with one call. */
#define MM_POPULATE_PAGES 32

/* Reads in flight, of these for pages that somebody waits for; pages of one. */
#define MM_NR_LOADS 64
#define MM_LOADS_KEPT 16
#define MM_LOAD_PAGES 8

/* Huge pages that are being read at the same time; more, if reads hang. */
#define MM_NR_UNITS 2
#define MM_NR_UNITS_MAX 6

/* A huge page on its way in: fault/huge-in.c */
typedef struct MmHugeIn {
    MmRegion *region;           /* with a reference; NULL: unused */
    uint64_t page;              /* its first one */
    uint64_t entries[MM_HUGE_PAGES]; /* FILLING */
    uint8_t *buf;               /* its content so far */
    unsigned next;              /* page that has not begun to be read */
    unsigned reading;           /* loads under way */
    unsigned read;              /* pages that have come from tiers */
    int err;                    /* of the first page that failed, or 0 */
    unsigned failed;            /* and which page that is */
    bool cancelled;             /* discarded meanwhile, or given up */
    int node;                   /* NUMA node of the thread that waits */
    uint64_t since_ns;
} MmHugeIn;

/* A request for the content of swapped pages: fault/fetch.c */
typedef struct MmFetch {
    MmRegion *region;           /* with a reference; NULL: unused */
    unsigned slot;              /* of the ring */
    MmRingSlot request;         /* copied and checked */
    uint32_t done;              /* bit per page: its content is there */
    unsigned next;              /* page that has not been looked at */
    unsigned reading;           /* loads under way */
    uint64_t progress_ns;       /* when it last got on */
} MmFetch;

/* A read of consecutive pages from consecutive places. */
typedef struct MmLoad {
    MmTierIO io;
    MmHugeIn *unit;             /* that it is for, or NULL */
    bool fetching;              /* for QEMU, not for memory */
    MmFetch *fetch;             /* then: who wants it, or NULL: nobody */
    MmRegion *region;           /* with a reference */
    uint64_t page;
    uint64_t entries[MM_LOAD_PAGES]; /* per page: FILLING; fetching: SWAPPED */
    int node;                   /* NUMA node of the thread that waits */
    uint64_t since_ns;          /* when it was submitted */
    uint32_t cancelled;         /* bit per page: discarded meanwhile */
    QLIST_ENTRY(MmLoad) next;   /* free or in flight */
} MmLoad;

/* Windows that are being read: of streams, and blocks. */
#define MM_RESTS 8

/* What has not begun to be read yet of a window. */
typedef struct MmRest {
    uint32_t region;            /* id */
    unsigned stream;            /* index */
    uint64_t page;
    int64_t stride;
    unsigned steps;             /* 0: nothing to do */
    bool block;                 /* no stream's */
    bool dense;                 /* of these, one that mm_dense_wants() */
} MmRest;

typedef struct MmWork {
    MmFaultWork *fn;
    void *opaque;
    bool done;                  /* protected by work_lock */
    QSIMPLEQ_ENTRY(MmWork) next;
} MmWork;

struct MmFault {
    MmVM *vm;
    GThread *thread;
    int epoll_fd;
    int wake_fd;                /* work, completed reads, waiters to retry */
    MmTierQueue *queues[MM_MAX_TIERS];
    uint8_t *arena;             /* buffers of the loads, locked */
    uint8_t *zeroes;            /* MM_POPULATE_PAGES pages */
    uint8_t *fill_page;
    MmLoad loads[MM_NR_LOADS];
    QLIST_HEAD(, MmLoad) free_loads;
    unsigned nr_free_loads;
    QLIST_HEAD(, MmLoad) busy_loads;
    MmHugeIn units[MM_NR_UNITS_MAX];
    uint64_t no_page_ns;        /* when the kernel had no huge page, or 0 */
    uint64_t no_page_evicted;   /* pages evicted until then */
    uint8_t *unit_zeroes;       /* a huge page of them, or NULL: not needed */
    MmWaiters waiters;          /* has its own lock */
    MmWaiter again[MM_MAX_WAITERS]; /* copy of those to retry */
    unsigned last_region;       /* of the last fault */
    uint32_t tid;               /* the thread whose fault is served, or 0 */
    int node;                   /* where it is */
    uint64_t began_ns;          /* when the thread has */
    uint64_t now_ns;            /* time of the current round */
    uint64_t retry_at_ns;       /* when to retry failed reads, 0: never */
    uint64_t beyond_ns;         /* when a page was filled beyond the reserve */
    bool retrying;              /* those who wait, not a new fault */
    MmPoll poll;
    uint64_t looked_ns;         /* when all was looked at */
    uint64_t woke_all_ns;       /* when all who wait were woken */
    bool read_failing;          /* and an event has said so */
    bool read_worked;           /* since the last one that did not */
    uint64_t read_failed_ns;    /* when that was */

    /* the rest of a first touch's window, filled while the guest goes on */
    struct {
        uint32_t region;        /* id */
        unsigned stream;        /* index */
        uint64_t page;
        unsigned nr;            /* 0: nothing to do */
    } ahead;

    /* of windows of swapped pages, likewise; one after the other gets on */
    MmRest rest[MM_RESTS];
    unsigned next_rest;

    /* what is read since the guest wakes up */
    MmWake wake;
    struct {
        bool on;
        uint32_t region;        /* id */
        uint64_t page;
        unsigned left;          /* pages of the block */
        unsigned failures;      /* reads in a row that nobody waited for */
    } replay;

    /* request of the ring in progress */
    unsigned long parked[BITS_TO_LONGS(MM_RING_SLOTS)]; /* ours, go on below */
    bool left_behind;           /* a former pager may have taken some */
    bool kicked;                /* something may be posted */
    bool lets_go;               /* QEMU may have its memory any moment */
    unsigned ring_next;         /* slot to be looked at first */
    int ring_slot;              /* -1: none; atomic: mm_fault_retry() reads */
    MmRingSlot request;         /* copied; its range: what is left */
    uint32_t done;              /* bit per page: as it is told of in the end */

    MmFetch fetches[MM_RING_FETCHES];
    unsigned next_fetch;        /* whose turn it is to begin reads */
    uint64_t import_rest_ns;    /* no store for QEMU before */

    /* background: attach scan, then swap-in */
    uint32_t scan_region;
    bool scanning;
    uint32_t swap_in_region;
    uint64_t swap_in_page;
    bool swapping_in;           /* atomic: read by the control thread */
    uint64_t swap_in_asked_ns;  /* when the last page was, 0: not yet */
    bool swap_in_failed;        /* a read has */
    bool swap_in_full;          /* the limit is in the way */
    bool swap_in_huge;          /* huge pages without content, too */

    GMutex work_lock;
    GCond work_done;
    QSIMPLEQ_HEAD(, MmWork) work;   /* protected by work_lock */

    bool retry;                 /* atomic: set by any thread */
    bool nobody_waits;          /* atomic: lets others skip the wake-up */
};

/**
 * mm_serve_page: resolve a fault on one page
 *
 * @f: fault thread
 * @region: reconciled around @page
 * @page: index
 *
 * Returns MM_WAIT_NONE if it is served, else what it waits for.
 */
MmWaitReason mm_serve_page(MmFault *f, MmRegion *region, uint64_t page);

/** mm_serve_never: the same for a page in NEVER. */
MmWaitReason mm_serve_never(MmFault *f, MmRegion *region, uint64_t page);

/** mm_serve_swapped: the same for a page in SWAPPED; @entry is the map's. */
MmWaitReason mm_serve_swapped(MmFault *f, MmRegion *region, uint64_t page,
                              uint64_t entry);

/** mm_huge_in_never: the same for a huge page, its first page in NEVER. */
MmWaitReason mm_huge_in_never(MmFault *f, MmRegion *region, uint64_t page);

/** mm_huge_in_swapped: the same for one in SWAPPED. */
MmWaitReason mm_huge_in_swapped(MmFault *f, MmRegion *region, uint64_t page);

/** mm_huge_in_step: go on with huge pages that are being read. */
void mm_huge_in_step(MmFault *f);

/**
 * mm_huge_in_loaded: some pages of a huge page have been read
 *
 * @load: for a unit
 * @i: the first page of it that was not read rightly, if @err is not 0
 */
void mm_huge_in_loaded(MmFault *f, MmLoad *load, unsigned i, int err);

/**
 * mm_huge_in_cancel: nobody wants the huge pages any more that are being read
 *
 * In [@page, @page + @nr).  @state: what they are now, NEVER or LOST
 */
void mm_huge_in_cancel(MmFault *f, MmRegion *region, uint64_t page, uint64_t nr,
                    MmPageState state);

/** mm_huge_in_discard: as discard_page() in discard.c. */
int mm_huge_in_discard(MmFault *f, MmRegion *region, uint64_t page);

/** mm_huge_in_lose: its first page is LOST; so are the others. */
void mm_huge_in_lose(MmFault *f, MmRegion *region, uint64_t page);

/** mm_huge_in_give_up: one that is SWAPPED, as far as it is. */
void mm_huge_in_give_up(MmFault *f, MmRegion *region, uint64_t page);

/** mm_huge_in_all_hang: is there no way to read another one for that reason? */
bool mm_huge_in_all_hang(const MmFault *f);

/** mm_huge_in_count: pages of those that are being read; since @before_ns. */
uint64_t mm_huge_in_count(const MmFault *f, uint64_t before_ns);

/** mm_can_give_up: is the page out of memory, and not to be had? */
bool mm_can_give_up(const MmFault *f, const MmRegion *region, uint64_t page);

/** mm_give_up: such a page, which has been poisoned, is LOST now. */
void mm_give_up(MmFault *f, MmRegion *region, uint64_t page);

/** mm_serve_ahead: one step of filling ahead; true if there is more. */
bool mm_serve_ahead(MmFault *f);

/** mm_swap_in_ahead: one step of reading ahead; true if there is more now. */
bool mm_swap_in_ahead(MmFault *f);

/**
 * mm_swap_in_some: begin to read up to @nr pages that nobody waits for
 *
 * From @page on, those that are swapped out, within the limit.  Returns how
 * many pages have been looked at.
 */
unsigned mm_swap_in_some(MmFault *f, MmRegion *region, uint64_t page,
                         unsigned nr);

/** mm_replay_look: does the guest sleep?  Before faults are served. */
void mm_replay_look(MmFault *f);

/** mm_replay_fault: it has faulted on a page that is swapped out. */
void mm_replay_fault(MmFault *f, MmRegion *region, uint64_t page);

/** mm_replay_forget_region: it is going to be removed. */
void mm_replay_forget_region(MmFault *f, uint32_t id);

/** mm_replay_failed: a read has failed, or worked; some end a replay. */
void mm_replay_failed(MmFault *f, bool failed);

/** mm_swap_in_forget_region: it is going to be removed. */
void mm_swap_in_forget_region(MmFault *f, uint32_t id);

/** mm_replay_step: read some of what is recorded; true if there is more now. */
bool mm_replay_step(MmFault *f);

/** mm_fault_served: account for pages that are there now. */
void mm_fault_served(MmFault *f, MmRegion *region, uint64_t page,
                     uint64_t nr);

/** mm_fault_latency: a fault read at @since_ns is resolved now. */
void mm_fault_latency(void *fault, uint64_t since_ns);

/** mm_fault_room: how many of @want pages the limit lets in now. */
uint64_t mm_fault_room(MmFault *f, uint64_t want);

/** mm_fault_plenty: is there room for @nr pages before reclaim starts? */
bool mm_fault_plenty(const MmFault *f, uint64_t nr);

/** mm_fault_beyond_at: when the next page may be filled beyond the reserve. */
uint64_t mm_fault_beyond_at(const MmFault *f);

/** mm_load_init: buffers and list of loads. */
void mm_load_init(MmFault *f);

/** mm_load_possible: is the tier that has @entry's content known to be ours? */
bool mm_load_possible(const MmFault *f, uint64_t entry);

/**
 * mm_load_start: read up to @want swapped pages from @page on
 *
 * Goes on as far as the pages lie together.  Returns how many are being
 * read, 0 if no load is free or the tier is not proven.
 */
unsigned mm_load_start(MmFault *f, MmRegion *region, uint64_t page,
                       unsigned want);

/**
 * mm_load_huge: read pages of a huge page
 *
 * @i: index in the unit of the first one; it and the following @nr ones lie
 *     together, and have been taken (FILLING)
 *
 * Returns false if no load is free.  Ends in mm_huge_in_loaded().
 */
bool mm_load_huge(MmFault *f, MmHugeIn *unit, unsigned i, unsigned nr);

/**
 * mm_load_fetch: read pages without bringing them in
 *
 * From @page of the region on, @nr of them.
 *
 * @entries: SWAPPED, as mm_load_peek() has found them; a load is free
 *
 * Ends in mm_fetch_loaded().
 */
void mm_load_fetch(MmFault *f, MmFetch *fetch, uint64_t page,
                   const uint64_t *entries, unsigned nr);

/**
 * mm_load_peek: which pages from @page on could be read with one load?
 *
 * @entries: filled in, SWAPPED, up to @want
 *
 * Returns how many.
 */
unsigned mm_load_peek(const MmFault *f, const MmRegion *region, uint64_t page,
                      unsigned want, uint64_t *entries);

/** mm_load_failed: tell of a page that somebody waits for at @waits. */
void mm_load_failed(MmFault *f, MmRegion *region, uint64_t page, uint64_t waits,
                    const MmTier *tier, int err);

/** mm_load_wait_reason: what a page waits for whose load cannot start. */
MmWaitReason mm_load_wait_reason(MmFault *f, MmRegion *region, uint64_t page);

/** mm_load_reap: place what has been read; returns how many loads that was. */
unsigned mm_load_reap(MmFault *f);

/**
 * mm_load_reap_immediate: the same for tiers that nothing tells of
 *
 * Returns how many loads have ended.
 */
unsigned mm_load_reap_immediate(MmFault *f);

/** mm_load_flush: really start what mm_load_start() has. */
void mm_load_flush(MmFault *f);

/** mm_load_put_off: do loads wait for an I/O limit? */
bool mm_load_put_off(const MmFault *f);

/** mm_load_limited: has a tier I/O limits? */
bool mm_load_limited(const MmFault *f);

/** mm_load_look: say so if a read takes too long, or reads work again. */
void mm_load_look(MmFault *f);

/**
 * mm_load_cancel: nobody wants the pages any more that are read in this range
 *
 * @state: what they are now, NEVER or LOST
 */
void mm_load_cancel(MmFault *f, MmRegion *region, uint64_t page, uint64_t nr,
                    MmPageState state);

/** mm_load_huge_hangs: is any of a huge page's reads taking too long? */
bool mm_load_huge_hangs(const MmFault *f, const MmHugeIn *unit);

/** mm_load_hangs: is the page being read, and has been for too long? */
bool mm_load_hangs(const MmFault *f, const MmRegion *region, uint64_t page);

/* What has become of pages that were to be placed */
typedef struct MmPlaced {
    unsigned nr;                /* from the first on RESIDENT, others FILLING */
    MmWaitReason reason;        /* why it stopped early */
    uint32_t others;            /* bit per page: content that is not ours */
} MmPlaced;

/**
 * mm_place_pages: copy content into FILLING pages and make them RESIDENT
 *
 * @entries: the pages' FILLING entries
 * @src: content
 * @nr: pages; of a region without huge pages 32 at most
 */
MmPlaced mm_place_pages(MmFault *f, MmRegion *region, uint64_t page,
                        const uint64_t *entries, const void *src, unsigned nr);

/** mm_not_placed: those of @nr pages that were not go back where they were. */
void mm_not_placed(MmFault *f, MmRegion *region, uint64_t page,
                   const uint64_t *entries, unsigned nr,
                   const MmPlaced *placed);

/**
 * mm_serve_fill: content of a page that is one value throughout
 *
 * @entry: names the value, with the checksum of @page
 */
void mm_serve_fill(const MmRegion *region, uint64_t page, uint64_t entry,
                   void *buf);

/** mm_unfill: a FILLING page goes back to where it came from. */
void mm_unfill(MmRegion *region, uint64_t page, uint64_t entry);

/** mm_background_step: a bit of scan or swap-in; true if there is more. */
bool mm_background_step(MmFault *f);

/** mm_ring_poll: go on with the ring; true if there is more to do. */
bool mm_ring_poll(MmFault *f);

/** mm_ring_resume: go on with what a former pager has left. */
void mm_ring_resume(MmFault *f);

/**
 * mm_discard_slice: discard some of @range, and take that off it
 *
 * Returns false if the reclaim thread has the next page: try again after
 * mm_fault_retry().
 */
bool mm_discard_slice(MmFault *f, MmRegion *region, MmRange *range);

/**
 * mm_overwrite: give pages of @request->range what is in its buffer
 *
 * @done: out: bit per page that has it
 */
void mm_overwrite(MmFault *f, MmRegion *region, const MmRingSlot *request,
                  uint32_t *done);

/** mm_ring_end: tell that the request of slot @index has ended. */
void mm_ring_end(MmFault *f, unsigned index, uint32_t done);

/**
 * mm_fetch_begin: begin to copy content of @request's pages to its buffer
 *
 * Returns false if that cannot be, else mm_ring_end() follows.
 */
bool mm_fetch_begin(MmFault *f, MmRegion *region, const MmRingSlot *request,
                    unsigned slot);

/** mm_fetch_step: go on with all of these; true if there is more now. */
bool mm_fetch_step(MmFault *f);

/** mm_fetch_loaded: a read has ended; @load->fetch: who wanted it, if any. */
void mm_fetch_loaded(MmFault *f, MmLoad *load);

/** mm_fetch_busy: is any under way? */
bool mm_fetch_busy(const MmFault *f);

/** mm_fetch_stop: end those of a region, or all if it is NULL. */
void mm_fetch_stop(MmFault *f, const MmRegion *region);

/**
 * mm_import_begin: begin to store what @request has for pages out of memory
 *
 * Returns false if that cannot be, else mm_ring_end() follows.
 */
bool mm_import_begin(MmFault *f, MmRegion *region, const MmRingSlot *request,
                     unsigned slot);

/** mm_import_step: end what has been stored, or takes too long. */
void mm_import_step(MmFault *f);

/**
 * mm_import_cancel: nobody wants content for pages of this range any more
 *
 * @state: what they are now, NEVER or LOST
 */
void mm_import_cancel(MmFault *f, MmRegion *region, uint64_t page, uint64_t nr,
                      MmPageState state);

/** mm_import_count: pages on their way. */
uint64_t mm_import_count(const MmFault *f);

/** mm_import_busy: is any store under way, wanted or not? */
bool mm_import_busy(const MmFault *f);

/** mm_look: tell in @request's buffer where the content of its pages is. */
void mm_look(MmFault *f, MmRegion *region, const MmRingSlot *request);

/** mm_replay_read: tell in @request's buffer which blocks are recorded. */
void mm_replay_read(MmFault *f, const MmRegion *region,
                    const MmRingSlot *request, uint32_t *done);

/** mm_replay_write: those are recorded that @request's buffer says. */
void mm_replay_write(MmFault *f, MmRegion *region, const MmRingSlot *request,
                     uint32_t *done);

/** mm_pin: tell where pages are in the VM's shared file, and keep it there. */
void mm_pin(MmFault *f, MmRegion *region, const MmRingSlot *request);

/**
 * mm_adopt: have pages be where @request's buffer says
 *
 * @done: 1 if the request makes sense, and the seed is the region's
 */
void mm_adopt(MmFault *f, MmRegion *region, const MmRingSlot *request,
              uint32_t *done);

#endif
