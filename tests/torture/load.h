/*
 * Torture tests: threads that use the guest's memory, and their watchdog
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Workers stand for vCPUs and devices.  Each says what it is about to touch,
 * so that the main thread can tell a worker that hangs from a slow one, and
 * name the page.  The main thread itself never touches guest memory and never
 * waits for a discard: with a dead pager it would wait for ever.
 */
#ifndef TORTURE_LOAD_H
#define TORTURE_LOAD_H

#include "fake-qemu.h"

/* How many workers of each kind; the sum is at most LOAD_MAX_WORKERS. */
typedef struct LoadConfig {
    unsigned writers;           /* check a page, write its next version */
    unsigned readers;           /* check a page */
    unsigned kernel;            /* the same by pread() and pwrite() */
    unsigned dma;               /* the same by O_DIRECT and io_uring */
    unsigned discards;          /* discard and check */
    unsigned words;             /* count words up, several in one page */
    unsigned hotplug;           /* add a region, use it, remove it; 0 or 1 */
    unsigned think_us;          /* most pause between two accesses */
} LoadConfig;

/* Everything at once. */
#define LOAD_MIXED \
    ((LoadConfig) { .writers = 3, .readers = 2, .kernel = 1, .dma = 1, \
                    .discards = 1, .words = 2 })

#define LOAD_MAX_WORKERS 128

typedef struct Load Load;
typedef struct Worker Worker;
typedef void WorkerFn(Worker *w);

struct Worker {
    /* fixed while the worker runs */
    Load *load;
    FakeQemu *fq;
    const char *name;
    unsigned index;             /* among the workers of its kind */
    WorkerFn *fn;
    void *opaque;               /* of load_run_fn() */
    QemuThread thread;

    /* the worker's */
    uint64_t rng;
    uint64_t position;          /* of sequential access */

    /* atomic */
    int64_t busy_since_us;      /* 0: not touching anything */
    uint64_t busy_page;
    uint32_t busy_region;
    uint64_t accesses;
    bool finished;
};

/**
 * load_new: no workers yet
 *
 * @stuck_ms: a worker that needs longer for one access is taken for stuck,
 *     and the run has failed
 */
Load *load_new(FakeQemu *fq, uint64_t seed, unsigned stuck_ms);
void load_free(Load *load);

/** load_start: start workers, in addition to those that run. */
void load_start(Load *load, const LoadConfig *config);

/** load_start_fn: start @nr workers of another kind. */
void load_start_fn(Load *load, const char *name, WorkerFn *fn, unsigned nr);

/** load_watch: watch for @ms; returns false at once when the run fails. */
bool load_watch(Load *load, unsigned ms);

/** load_stop: end all workers; faults are released if the run has failed. */
void load_stop(Load *load);

/** load_abandon: end workers that are held for ever; that is no failure. */
void load_abandon(Load *load);

/** load_run_fn: start one worker, and wait until all have ended. */
void load_run_fn(Load *load, const char *name, WorkerFn *fn, void *opaque);

/** load_join: wait for workers that end by themselves. */
void load_join(Load *load);

/** load_sweep: check every page, with no other workers running. */
bool load_sweep(Load *load);

/** load_accesses: how many there were, over all workers so far. */
uint64_t load_accesses(Load *load);

/* For worker functions. */

/** worker_stopping: time to return; the run may also have failed. */
bool worker_stopping(Worker *w);

/** worker_begin, worker_end: around an access to guest memory. */
void worker_begin(Worker *w, uint32_t region, uint64_t page);
void worker_end(Worker *w);

/** worker_pick: choose a stamped region and page, by the worker's pattern. */
Shadow *worker_pick(Worker *w, uint64_t *page);

/**
 * worker_pick_for_device: choose a page for DMA
 *
 * Only in the smallest of the stamped regions, which has to be smaller than
 * the limit: what devices hold is then never all that could be evicted.
 */
Shadow *worker_pick_for_device(Worker *w, uint64_t *page);

/** worker_region: the region that a shadow belongs to. */
FakeRegion *worker_region(Worker *w, const Shadow *s);

/* The worker functions of LoadConfig: workers.c, dma.c */
void writer_worker(Worker *w);
void reader_worker(Worker *w);
void kernel_worker(Worker *w);
void discard_worker(Worker *w);
void words_worker(Worker *w);
void hotplug_worker(Worker *w);
void dma_worker(Worker *w);

/** words_check: check all words of a region's page. */
bool words_check(Worker *w, FakeRegion *region, uint64_t page);

/** scratch_open: an unnamed file for a worker's I/O; @flags as open(). */
int scratch_open(int flags);

#endif
