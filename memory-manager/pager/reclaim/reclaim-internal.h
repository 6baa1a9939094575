/*
 * Managed memory pager: the reclaim thread's own state
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * For the files in this folder only.  Everything here belongs to the reclaim
 * thread, unless a field says otherwise.
 */
#ifndef MANAGED_MEMORY_RECLAIM_INTERNAL_H
#define MANAGED_MEMORY_RECLAIM_INTERNAL_H

#include "reclaim.h"

/* Candidates that wait for their second chance to pass, at most. */
#define MM_FIFO_PAGES 8192
/* Pages zapped with one message. */
#define MM_ZAP_PAGES 512

typedef struct MmCandidate {
    uint32_t region;            /* id */
    uint64_t page;
} MmCandidate;

/* A page's content on its way to a tier. */
typedef struct MmPiece {
    uint64_t page;
    uint64_t entry;             /* the one in the map */
    uint64_t base;              /* entry whose version the content has */
    uint64_t stored;            /* base with the place, 0: none yet */
    uint8_t *buf;               /* in the arena */
} MmPiece;

typedef struct MmTierHealth {
    bool ready;                 /* proven and settled; remains so */
    int late;                   /* why it is not, as told; 0: not told */
    bool asked;                 /* its identity is being read */
    bool answered;
    int error;                  /* of the last try to read it, or 0 */
    uint64_t retry_at_ns;
    MmTierIO proof;
    bool failing;               /* and an event has said so */
    int write_error;            /* of the last store, or 0 */
    uint64_t rest_until_ns;     /* not tried before */
} MmTierHealth;

/* Content on its way from tier to tier. */
typedef struct MmMove {
    bool sweeping;
    unsigned from;              /* numbers of tiers */
    unsigned to;                /* the same: within the tier */
    uint32_t region;            /* the hand */
    uint64_t page;
    uint64_t moved;             /* pages in this sweep */
    uint64_t rest_until_ns;     /* no sweep before */
} MmMove;

struct MmReclaim {
    MmVM *vm;
    GThread *thread;
    int wake_fd;
    int io_fd;                  /* eventfd: transfers have completed */
    MmTierQueue *queues[MM_MAX_TIERS];
    MmTierHealth health[MM_MAX_TIERS];
    uint8_t *arena;             /* MM_TIER_IO_PAGES pages, locked */
    uint8_t *gather;            /* as many */
    uint8_t *identities;        /* a page for each tier */
    uint64_t began_ns;          /* when the thread has */
    uint64_t zap_seq;
    bool active;                /* between the watermarks: on the way down */
    bool refused;               /* by all tiers, content of the last batch */
    bool told_stuck;            /* an event has said that nothing can go */
    uint64_t unstuck_ns;        /* since when something could, or 0 */
    uint64_t held;              /* pages found mapped for DMA in this round */

    /* clock hand */
    uint32_t hand_region;
    uint64_t hand_page;

    MmMove move;
    bool moving;                /* what is stored comes from a tier */

    /* zapped pages, oldest first */
    MmCandidate fifo[MM_FIFO_PAGES];
    unsigned fifo_head;
    unsigned fifo_nr;

    /* atomic */
    bool sleeping;
    bool urged;                 /* set by the fault thread */
    uint64_t evict_want;        /* pages; set by the control thread */
    uint64_t evict_done;
    bool evicting;              /* set by control, reset by reclaim */
};

/**
 * mm_scan_candidates: zap pages that look cold and put them into the fifo
 *
 * @want: at most so many, up to MM_ZAP_PAGES
 * @force: pages with an age as well
 *
 * Returns how many, 0 after a whole turn of the hand without one, or -errno
 * if QEMU's zap thread is gone.
 */
int mm_scan_candidates(MmReclaim *r, unsigned want, bool force);

/**
 * mm_reclaim_set_stuck: nothing can be evicted now, or it can again
 *
 * If it cannot, waiting faults may draw on the reserve, and an event says so;
 * that it can, an event says when it has been so for a while.
 */
void mm_reclaim_set_stuck(MmReclaim *r, bool stuck);

/** mm_tier_ready: may tier @t be used?  It may not be yet, after a takeover. */
bool mm_tier_ready(MmReclaim *r, unsigned t);

/** mm_tiers_ready: may all be used?  If that takes long, an event says so. */
bool mm_tiers_ready(MmReclaim *r);

/** mm_tiers_wait: until all may be used, or an event has said why not. */
void mm_tiers_wait(MmReclaim *r);

/** mm_reclaim_io_done: sets the bool that the transfer's opaque points to. */
void mm_reclaim_io_done(MmTierIO *io);

/**
 * mm_store: find a place for content
 *
 * @map: of the region
 * @p: pieces; stored is set where there is a place, and the page's checksum
 * @nr: up to MM_TIER_IO_PAGES
 * @first: number of the first tier to try
 *
 * Returns whether all have one.  Waits for the tiers.
 */
bool mm_store(MmReclaim *r, MmPageMap *map, MmPiece *p, unsigned nr,
              unsigned first);

/**
 * mm_store_fills: the same for pages that are one value throughout
 *
 * Their value is their place.
 */
void mm_store_fills(MmPageMap *map, MmPiece *p, unsigned nr);

/** mm_transfer: do @io, and wait for it; returns 0 or -errno. */
int mm_transfer(MmReclaim *r, MmTierQueue *queue, MmTierIO *io);

/**
 * mm_move_step: go on moving content between tiers, as they ask for it
 *
 * Returns whether there may be more to do at once.
 */
bool mm_move_step(MmReclaim *r);

/**
 * mm_writeback: evict a batch from the head of the fifo
 *
 * Returns how many pages left memory.
 */
unsigned mm_writeback(MmReclaim *r);

#endif
