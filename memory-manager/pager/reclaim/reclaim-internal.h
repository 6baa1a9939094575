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

#include "fifo.h"
#include "import.h"
#include "reclaim.h"

/* Pages zapped with one message. */
#define MM_ZAP_PAGES 512
/* Batches on their way out at once; one more if some are held up by a tier. */
#define MM_NR_BATCHES 8

/* A place on the clock of all pages. */
typedef struct MmHand {
    uint32_t region;            /* id */
    uint64_t page;
} MmHand;

/* One transfer of this thread's; io.opaque is its MmReclaim. */
typedef struct MmTransfer MmTransfer;
struct MmTransfer {
    MmTierIO io;
    void (*done)(MmReclaim *r, MmTransfer *t);
};

/* A page's content on its way to a tier. */
typedef struct MmPiece {
    uint64_t page;
    uint64_t entry;             /* the one in the map */
    uint64_t base;              /* entry whose version the content has */
    uint64_t stored;            /* base with the place, 0: none yet */
    uint8_t *buf;               /* in the arena */
} MmPiece;

/* Pages of one region on their way out, or from tier to tier. */
typedef struct MmBatch {
    /* fixed */
    uint8_t *buf;               /* MM_TIER_IO_PAGES pages of the arena */
    uint8_t *gather;            /* as many */
    bool moving;                /* from a tier, not from memory */
    unsigned slot;              /* of its stores: reclaim/quarantine.h */

    /* reclaim/huge-out.c */
    bool of_unit;               /* a part of the huge page on its way out */

    /* reclaim/import.c */
    MmImport *import;           /* that it is for, or NULL */

    /* whose batch it is sets them */
    bool busy;
    MmRegion *region;           /* with a reference */
    unsigned nr;
    MmPiece p[MM_TIER_IO_PAGES];

    /* mm_store_step() */
    unsigned tier;              /* index of the one that is tried */
    unsigned next;              /* piece that it is offered next */
    bool last_resort;           /* tiers that drain are tried, too */
    bool storing;               /* a transfer is under way */
    bool trial;                 /* only to find out whether the tier works */
    bool hangs;                 /* and has been for too long */
    MmTransfer transfer;
    unsigned run_nr;            /* pieces in it */
    MmPiece *run[MM_TIER_IO_PAGES];
} MmBatch;

/* A huge page on its way out: reclaim/huge-out.c */
typedef struct MmHugeOut {
    MmRegion *region;           /* with a reference; NULL: none */
    uint64_t page;              /* its first one */
    uint64_t entry;             /* of that, WRITEBACK */
    unsigned next;              /* page that has not begun to be stored */
    unsigned parts;             /* batches under way */
    bool failed;                /* it stays in memory */
    uint64_t stored[MM_HUGE_PAGES]; /* as in MmPiece */
    uint32_t checksums[MM_HUGE_PAGES];
} MmHugeOut;

typedef struct MmTierHealth {
    bool ready;                 /* proven and settled; remains so */
    int late;                   /* why it is not, as told; 0: not told */
    bool asked;                 /* its identity is being read */
    bool answered;
    int error;                  /* of the last try to read it, or 0 */
    uint64_t retry_at_ns;
    MmTransfer proof;
    bool failing;               /* and an event has said so */
    unsigned hanging;           /* stores that take too long */
    int write_error;            /* of the last store that failed, or 0 */
    uint64_t trials;            /* stores begun since, while none has worked */
    uint64_t failed_ns;         /* when that was */
    bool works;                 /* a store has worked since then */
    uint64_t rest_until_ns;     /* not tried before */
} MmTierHealth;

typedef enum MmMoveStage {
    MM_MOVE_IDLE,
    MM_MOVE_LOADING,
    MM_MOVE_STORING,
} MmMoveStage;

/* Content on its way from tier to tier. */
typedef struct MmMove {
    bool sweeping;
    unsigned from;              /* indices of tiers */
    unsigned to;                /* the same: within the tier */
    uint32_t region;            /* the hand */
    uint64_t page;
    uint64_t moved;             /* pages in this sweep */
    uint64_t unreadable;        /* and those that could not be read */
    uint64_t told_unreadable;   /* an event has said so */
    uint64_t rest_until_ns;     /* no sweep before */
    bool wanted;                /* the last look has found something to do */
    bool resized;               /* atomic: a tier was since then */

    MmMoveStage stage;          /* of the batch */
    unsigned loading;           /* transfers under way */
    MmTransfer loads[MM_TIER_IO_PAGES];
    MmBatch batch;
} MmMove;

/* Pages to be zapped with one message. */
typedef struct MmZap {
    MmMsgZap hdr;
    MmRange ranges[MM_ZAP_PAGES];
    unsigned nr_pages;
} MmZap;

/* Pages of one sample. */
#define MM_SAMPLE_PAGES 400

typedef struct MmSamplePage {
    uint32_t region;            /* id */
    bool touched;               /* known at once */
    bool ours;                  /* CANDIDATE, MM_PLACE_SAMPLED: entry */
    uint64_t page;
    uint64_t entry;             /* as it was left */
} MmSamplePage;

typedef struct MmSample {
    unsigned nr;                /* 0: none is under way */
    uint64_t size;              /* bytes that the VM had */
    uint64_t began_ns;
    uint64_t next_ns;           /* when one ends, or begins */
    MmSamplePage p[MM_SAMPLE_PAGES];
} MmSample;

struct MmReclaim {
    MmVM *vm;
    GThread *thread;
    int wake_fd;
    int io_fd;                  /* eventfd: transfers have completed */
    MmTierQueue *queues[MM_MAX_TIERS];
    MmTierHealth health[MM_MAX_TIERS];
    uint8_t *identities;        /* a page for each tier, in the arena */
    uint64_t began_ns;          /* when the thread has */
    uint64_t zap_seq;
    bool active;                /* between the watermarks: on the way down */
    bool refused;               /* by all tiers, content of a batch */
    bool told_stuck;            /* an event has said that nothing can go */
    uint64_t unstuck_ns;        /* since when something could, or 0 */
    uint64_t held;              /* pages found mapped for DMA in this round */

    MmHand gathers;             /* the hand that takes cold pages */
    MmHand ages;                /* the one that makes pages cold */
    uint64_t to_age;            /* pages that the latter is behind */
    uint64_t seen;              /* by the former, lately: resident pages */
    uint64_t found;             /* and, of these, cold ones */
    uint64_t random;            /* never 0 */
    uint64_t in_epoch;          /* pages evicted in vm->epoch */

    MmBatch batches[MM_NR_BATCHES + 1];
    MmHugeOut unit;
    MmImport imports[MM_RING_STORES]; /* see there whose they are */
    uint64_t ticket;            /* of the last batch */
    unsigned hanging;           /* batches */
    MmMove move;
    MmSample sample;

    MmFifo fifo;                /* zapped pages */
    uint64_t fifo_grown;        /* pages that it may have above MM_FIFO_MIN */

    /* atomic */
    bool sleeping;
    bool urged;                 /* set by the fault thread */
    bool turned;                /* the same */
    uint64_t evict_want;        /* pages; set by the control thread */
    uint64_t evict_done;
    bool evicting;              /* set by control, reset by reclaim */
};

/** mm_zap_add: what comes and goes with @page; up to MM_ZAP_PAGES times. */
void mm_zap_add(MmZap *zap, const MmRegion *region, uint64_t page);

/**
 * mm_zap_send: ask QEMU, and wait: until then nothing is known about the pages
 *
 * @zap: pages that are CANDIDATE
 *
 * Returns 1 if they are zapped, 0 if QEMU cannot (then they are RESIDENT
 * again), or -errno if it is gone.
 */
int mm_zap_send(MmReclaim *r, const MmZap *zap);

/**
 * mm_zap_give_up: a candidate is one no more, and stays
 *
 * @entry: of a page in CANDIDATE
 *
 * Returns false if it is touched just now.
 */
bool mm_zap_give_up(MmRegion *region, uint64_t page, uint64_t entry);

/**
 * mm_sample_step: end a sample that is due, begin the next one
 *
 * Returns 0, or -errno if QEMU's zap thread is gone.
 */
int mm_sample_step(MmReclaim *r);

/** mm_reclaim_wants_huge: is it only huge pages that are asked for? */
bool mm_reclaim_wants_huge(const MmReclaim *r);

/** mm_reclaim_pressed: must pages go, not only on the operator's word? */
bool mm_reclaim_pressed(MmReclaim *r);

/** mm_sample_abort: let go of the pages of a sample that is under way. */
void mm_sample_abort(MmReclaim *r);

/** mm_sample_wait_ms: until it has to be called again, -1: for ever */
int mm_sample_wait_ms(const MmReclaim *r);

/** mm_random: a number from 0 to @bound - 1. */
uint64_t mm_random(MmReclaim *r, uint64_t bound);

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

/** mm_tier_ready: may the tier with index @t be used?  Not yet, perhaps. */
bool mm_tier_ready(MmReclaim *r, unsigned t);

/** mm_tiers_ready: may all be used?  If that takes long, an event says so. */
bool mm_tiers_ready(MmReclaim *r);

/** mm_tiers_wait: until all may be used, or an event has said why not. */
void mm_tiers_wait(MmReclaim *r);

/** mm_reclaim_transfer: submit a transfer; @done is called by a reap. */
void mm_reclaim_transfer(MmReclaim *r, MmTierQueue *queue, MmTransfer *t,
                         void (*done)(MmReclaim *r, MmTransfer *t));

/**
 * mm_reclaim_wait_ms: how long to wait for the tiers at most
 *
 * @most: ms, or -1: for ever
 *
 * Returns @most, or less if there is a transfer that I/O limits have put off.
 */
int mm_reclaim_wait_ms(const MmReclaim *r, int most);

/** mm_reclaim_reap_tier: end what tier @t has completed. */
void mm_reclaim_reap_tier(MmReclaim *r, unsigned t);

/** mm_reclaim_reap: the same for all tiers. */
void mm_reclaim_reap(MmReclaim *r);

/**
 * mm_store_begin: find places for a batch's content
 *
 * @b: its pieces' stored is set where there is a place; those that have one
 *     already keep it
 * @first: index of the first tier to try
 *
 * Goes on with mm_store_step(), until that returns true.
 */
void mm_store_begin(MmBatch *b, unsigned first);

/** mm_store_step: go on; true when everything has been tried. */
bool mm_store_step(MmReclaim *r, MmBatch *b);

/** mm_store_look: say which tiers work again; true if to look again soon. */
bool mm_store_look(MmReclaim *r);

/** mm_store_is_fill: is a page one value throughout?  It is its place, then. */
bool mm_store_is_fill(MmPiece *p);

/** mm_store_checksum: what the page map keeps beside the place. */
uint32_t mm_store_checksum(const MmPageMap *map, const MmPiece *p);

/** mm_store_error: what a tier's errno means, "" for 0. */
const char *mm_store_error(int err);

/**
 * mm_move_step: go on moving content between tiers, as they ask for it
 *
 * Returns whether there may be more to do at once.
 */
bool mm_move_step(MmReclaim *r);

/** mm_move_wanted: is a tier to be emptied that is not yet? */
bool mm_move_wanted(const MmReclaim *r);

/** mm_move_forget: a page has left memory anew: what is being moved is old. */
void mm_move_forget(MmReclaim *r, const MmRegion *region, uint64_t page);

/** mm_move_busy: is content on its way? */
bool mm_move_busy(const MmReclaim *r);

/**
 * mm_writeback: begin to evict a batch from the head of the fifo
 *
 * If that cannot be, waits for one that is under way.  Returns how many pages
 * have left memory meanwhile, of whatever batch.
 */
unsigned mm_writeback(MmReclaim *r);

/**
 * mm_huge_out_begin: evict a huge page next; there is none under way
 *
 * @region: with a reference, which is taken over
 * @page: its first one, a candidate as far as is known
 */
void mm_huge_out_begin(MmReclaim *r, MmRegion *region, uint64_t page);

/** mm_huge_out_wants: is there more of it to be stored? */
bool mm_huge_out_wants(const MmReclaim *r);

/** mm_huge_out_part: fill an empty batch with what comes next of it. */
void mm_huge_out_part(MmReclaim *r, MmBatch *b);

/** mm_huge_out_stored: a part has come to its end; returns pages evicted. */
unsigned mm_huge_out_stored(MmReclaim *r, MmBatch *b);

/** mm_import_wants: does content of QEMU's wait, and is a batch idle? */
bool mm_import_wants(MmReclaim *r);

/**
 * mm_import_take: fill an idle batch with the next such content
 *
 * Returns false if there is none any more, or it is not to be stored now.
 */
bool mm_import_take(MmReclaim *r, MmBatch *b);

/** mm_import_hangs: a tier does not answer the store of such a batch. */
void mm_import_hangs(MmReclaim *r, MmBatch *b);

/** mm_import_stored: a batch of it has come to its end. */
void mm_import_stored(MmReclaim *r, MmBatch *b);

/** mm_writeback_idle: is there a batch for something new? */
bool mm_writeback_idle(MmReclaim *r);

/** mm_writeback_count: pages have left memory. */
void mm_writeback_count(MmReclaim *r, unsigned evicted);

/** mm_writeback_free: the place that an entry names is not wanted. */
void mm_writeback_free(MmReclaim *r, uint64_t entry);

/** mm_writeback_reap: end the batches that are stored; as mm_writeback(). */
unsigned mm_writeback_reap(MmReclaim *r);

/** mm_writeback_leaving: pages under way that nothing holds up. */
unsigned mm_writeback_leaving(const MmReclaim *r);

/** mm_writeback_busy: is any page under way? */
bool mm_writeback_busy(const MmReclaim *r);

#endif
