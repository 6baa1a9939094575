/*
 * Torture tests: threads that use the guest's memory, and their watchdog
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "ring.h"
#include "load.h"
#include "rng.h"
#include "torture.h"

#define SWEEPERS 4
#define SWEEP_RUN 64            /* pages that one sweeper checks in a row */
/* What threads get to notice by themselves that a run has failed. */
#define GRACE_US 300000

struct Load {
    FakeQemu *fq;
    uint64_t seed;
    unsigned stuck_ms;
    unsigned think_us;
    Worker *workers[LOAD_MAX_WORKERS];
    unsigned nr_workers;
    uint64_t started;           /* workers so far, for their seeds */
    uint64_t accesses;          /* of workers that have ended */
    bool stop;                  /* atomic */
};

Load *load_new(FakeQemu *fq, uint64_t seed, unsigned stuck_ms)
{
    Load *load = g_new0(Load, 1);

    load->fq = fq;
    load->seed = seed;
    load->stuck_ms = stuck_ms;
    return load;
}

void load_free(Load *load)
{
    g_assert(!load->nr_workers);
    g_free(load);
}

static void *worker_thread_fn(void *opaque)
{
    Worker *w = opaque;

    w->fn(w);
    worker_end(w);
    qatomic_set(&w->finished, true);
    return NULL;
}

static void start_worker(Load *load, const Worker *model, unsigned index)
{
    Worker *w = g_memdup2(model, sizeof(*model));

    g_assert(load->nr_workers < LOAD_MAX_WORKERS);
    w->load = load;
    w->fq = load->fq;
    w->index = index;
    w->rng = rng_mix(load->seed + ++load->started);
    w->position = rng_next(&w->rng);
    load->workers[load->nr_workers++] = w;
    qemu_thread_create(&w->thread, w->name, worker_thread_fn, w,
                       QEMU_THREAD_JOINABLE);
}

void load_start_fn(Load *load, const char *name, WorkerFn *fn, unsigned nr)
{
    const Worker model = { .name = name, .fn = fn };
    unsigned i;

    for (i = 0; i < nr; i++) {
        start_worker(load, &model, i);
    }
}

void load_run_fn(Load *load, const char *name, WorkerFn *fn, void *opaque)
{
    const Worker model = { .name = name, .fn = fn, .opaque = opaque };

    start_worker(load, &model, 0);
    load_join(load);
}

void load_start(Load *load, const LoadConfig *config)
{
    g_assert(config->words <= WORD_LANES);
    load->think_us = config->think_us;
    load_start_fn(load, "writer", writer_worker, config->writers);
    load_start_fn(load, "reader", reader_worker, config->readers);
    load_start_fn(load, "kernel", kernel_worker, config->kernel);
    load_start_fn(load, "dma", dma_worker, config->dma);
    load_start_fn(load, "discard", discard_worker, config->discards);
    load_start_fn(load, "words", words_worker, config->words);
    load_start_fn(load, "hotplug", hotplug_worker, config->hotplug);
}

static void tell_stuck(Load *load, Worker *w, int64_t busy_ms)
{
    uint32_t id = qatomic_read(&w->busy_region);
    uint64_t page = qatomic_read(&w->busy_page);
    FakeRegion *region = load->fq->regions[id];
    g_autofree char *place =
        region && region->shadow ? shadow_describe(region->shadow, page)
                                 : g_strdup("no more known");

    verdict_fail(load->fq->verdict, "%s %u is stuck since %" PRId64 " ms at "
                 "region %u page %" PRIu64 ": %s", w->name, w->index, busy_ms,
                 id, page, place);
}

static void check_stuck(Load *load, Worker *w)
{
    int64_t since = qatomic_read(&w->busy_since_us);
    int64_t busy_ms = (torture_now_us() - since) / 1000;

    if (since && busy_ms > load->stuck_ms) {
        tell_stuck(load, w, busy_ms);
    }
}

static bool check_workers(Load *load)
{
    unsigned i;

    for (i = 0; i < load->nr_workers; i++) {
        check_stuck(load, load->workers[i]);
    }
    return !verdict_failed(load->fq->verdict);
}

bool load_watch(Load *load, unsigned ms)
{
    int64_t end = torture_now_us() + ms * 1000LL;

    while (check_workers(load)) {
        int64_t left = end - torture_now_us();

        if (left <= 0) {
            return true;
        }
        g_usleep(MIN(left, 5000));
    }
    return false;
}

static bool all_finished(Load *load)
{
    unsigned i;

    for (i = 0; i < load->nr_workers; i++) {
        if (!qatomic_read(&load->workers[i]->finished)) {
            return false;
        }
    }
    return true;
}

/* Workers that wait for something that will not come are let go. */
static void wait_finished(Load *load)
{
    int64_t failed_since = 0;

    while (!all_finished(load)) {
        if (check_workers(load)) {
            g_usleep(500);
            continue;
        }
        if (!failed_since) {
            failed_since = torture_now_us();
        } else if (torture_now_us() - failed_since > GRACE_US) {
            fake_qemu_release_faults(load->fq);
            ring_wake_all(load->fq);
        }
        g_usleep(20000);
    }
}

static void collect_workers(Load *load)
{
    unsigned i;

    for (i = 0; i < load->nr_workers; i++) {
        Worker *w = load->workers[i];

        qemu_thread_join(&w->thread);
        load->accesses += w->accesses;
        g_free(w);
    }
    load->nr_workers = 0;
}

void load_join(Load *load)
{
    wait_finished(load);
    collect_workers(load);
}

void load_abandon(Load *load)
{
    verdict_mute(load->fq->verdict, true);
    qatomic_set(&load->stop, true);
    while (!all_finished(load)) {
        fake_qemu_release_faults(load->fq);
        ring_wake_all(load->fq);
        g_usleep(5000);
    }
    collect_workers(load);
    qatomic_set(&load->stop, false);
    verdict_mute(load->fq->verdict, false);
}

void load_stop(Load *load)
{
    qatomic_set(&load->stop, true);
    load_join(load);
    qatomic_set(&load->stop, false);
}

uint64_t load_accesses(Load *load)
{
    uint64_t sum = load->accesses;
    unsigned i;

    for (i = 0; i < load->nr_workers; i++) {
        sum += qatomic_read(&load->workers[i]->accesses);
    }
    return sum;
}

bool worker_stopping(Worker *w)
{
    if (w->load->think_us && rng_chance(&w->rng, 10)) {
        g_usleep(rng_below(&w->rng, w->load->think_us));
    }
    return qatomic_read(&w->load->stop) || verdict_failed(w->fq->verdict);
}

void worker_begin(Worker *w, uint32_t region, uint64_t page)
{
    qatomic_set(&w->busy_region, region);
    qatomic_set(&w->busy_page, page);
    qatomic_set(&w->busy_since_us, torture_now_us());
}

void worker_end(Worker *w)
{
    qatomic_set(&w->busy_since_us, 0);
    qatomic_set(&w->accesses, w->accesses + 1);
}

static void sweep_run(Worker *w, FakeRegion *region, uint64_t first)
{
    uint64_t nr_pages = region->size / STAMP_PAGE_SIZE;
    uint64_t page;

    for (page = first; page < MIN(first + SWEEP_RUN, nr_pages); page++) {
        if (verdict_failed(w->fq->verdict)) {
            return;
        }
        worker_begin(w, region->id, page);
        if (region->shadow) {
            shadow_check(region->shadow, page, "sweep");
        } else if (region->words) {
            words_check(w, region, page);
        }
        worker_end(w);
    }
}

static void sweep_worker(Worker *w)
{
    uint64_t first;
    int i;

    for (i = 0; i < MM_MAX_REGIONS; i++) {
        FakeRegion *region = w->fq->regions[i];

        if (!region || (!region->shadow && !region->words)) {
            continue;
        }
        for (first = w->index * SWEEP_RUN;
             first < region->size / STAMP_PAGE_SIZE;
             first += SWEEPERS * SWEEP_RUN) {
            sweep_run(w, region, first);
        }
    }
}

bool load_sweep(Load *load)
{
    g_assert(!load->nr_workers);
    load_start_fn(load, "sweep", sweep_worker, SWEEPERS);
    load_join(load);
    return !verdict_failed(load->fq->verdict);
}
