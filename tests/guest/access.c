/*
 * Access patterns: what the benchmarks measure
 *
 *     uniform     any page, all alike
 *     zipf        popularity falls with rank^-0.99; ranks lie scattered
 *     sequential  one page after the other, again and again
 *     stride      every 16th page, again and again, each time one further on
 *     shift       uniform over a quarter, and over another one from half-time
 *
 * Sweeps have a share of the field for each worker.  Of the random patterns any
 * worker picks any page: with shares, the worker that happens to have more of
 * its own in memory would be faster, and so get yet more of it, until most
 * accesses are those of one that has no faults.
 *
 * Threads: see phase.h; functions named *_work run in every worker.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "access.h"
#include "console.h"
#include "field.h"
#include "histogram.h"
#include "phase.h"

enum {
    WORKERS_MAX = 32,
    STRIDE = 16,
    /* A worker looks at the clock of the phase after so many accesses. */
    TICK = 16,
    STEP_MS = 100,
    STEPS_MAX = 3000,
    STEPS_PER_LINE = 20,
    ZIPF_CELLS = 1 << 16,
};

#define NS_PER_MS UINT64_C(1000000)

typedef struct Cursor {
    Worker *worker;
    size_t first;               /* of the pages that it picks from */
    size_t pages;
    size_t at;
} Cursor;

typedef struct Result {
    Histogram latency;          /* ns */
    uint32_t steps[STEPS_MAX];
    uint64_t bad;
} Result;

typedef struct Pattern {
    const char *name;
    size_t (*next)(Cursor *cursor);
    bool shared;                /* any worker may pick any page */
} Pattern;

/* Of the phase that runs; written before its threads start */
static const Pattern *pattern;
static unsigned part_percent;
static uint64_t start_ns, half_ns;

static Result results[WORKERS_MAX];
/* [i]: the rank that i of ZIPF_CELLS draws stay below */
static uint32_t zipf_ranks[ZIPF_CELLS + 1];

static size_t next_uniform(Cursor *c)
{
    return (worker_random(c->worker) >> 8) % c->pages;
}

static size_t next_sequential(Cursor *c)
{
    c->at = (c->at + 1) % c->pages;
    return c->at;
}

static size_t next_stride(Cursor *c)
{
    c->at += STRIDE;
    if (c->at >= c->pages) {
        c->at = (c->at + 1) % STRIDE;
    }
    return c->at;
}

static size_t next_zipf(Cursor *c)
{
    uint64_t draw = worker_random(c->worker) >> 8;
    size_t cell = draw % ZIPF_CELLS;
    size_t width = zipf_ranks[cell + 1] - zipf_ranks[cell];
    size_t rank = zipf_ranks[cell] + (width ? (draw >> 16) % width : 0);

    /* a prime that the field is no multiple of: a permutation */
    return rank * 7919 % c->pages;
}

static size_t next_shift(Cursor *c)
{
    size_t window = c->pages / 4;
    size_t first = now_ns() < half_ns ? 0 : c->pages / 2;

    return first + (worker_random(c->worker) >> 8) % window;
}

static const Pattern patterns[] = {
    { "uniform", next_uniform, true },
    { "zipf", next_zipf, true },
    { "sequential", next_sequential, false },
    { "stride", next_stride, false },
    { "shift", next_shift, true },
};

/* The inverse of the distribution function, at even distances */
static void zipf_prepare(size_t pages)
{
    double sum = 0, below = 0;
    size_t rank = 0;

    for (size_t i = 1; i <= pages; i++) {
        sum += pow(i, -0.99);
    }
    for (size_t cell = 0; cell <= ZIPF_CELLS; cell++) {
        while (rank < pages - 1 && below / sum * ZIPF_CELLS < cell) {
            below += pow(++rank, -0.99);
        }
        zipf_ranks[cell] = rank;
    }
    zipf_ranks[0] = 0;
}

static void count_step(Result *result, uint64_t now, unsigned accesses)
{
    uint64_t step = (now - start_ns) / (STEP_MS * NS_PER_MS);

    if (step < STEPS_MAX) {
        result->steps[step] += accesses;
    }
}

static void access_page(Worker *worker, Result *result, size_t page)
{
    bool write = worker_random(worker) & 0x100;
    uint64_t before = now_ns();
    bool good = field_access(page, write);

    histogram_add(&result->latency, now_ns() - before);
    if (!good) {
        result->bad++;
        field_report_bad(page);
    }
}

static size_t lock_next(Cursor *c)
{
    size_t page;

    do {
        page = c->first + pattern->next(c);
    } while (!field_try_lock(page));
    return page;
}

static Cursor cursor_of(Worker *worker)
{
    size_t pages = pattern->shared ? field_pages() : worker->page_count;

    return (Cursor) {
        .worker = worker,
        .first = pattern->shared ? 0 : worker->first_page,
        .pages = pages * part_percent / 100,
    };
}

static void access_work(Worker *worker)
{
    Result *result = &results[worker->index];
    Cursor cursor = cursor_of(worker);
    uint64_t bad;

    do {
        bad = result->bad;
        for (int i = 0; i < TICK; i++) {
            size_t page = lock_next(&cursor);

            access_page(worker, result, page);
            field_unlock(page);
        }
        count_step(result, now_ns(), TICK);
    } while (worker_tick(worker, TICK, TICK - (result->bad - bad)));
}

static void prepare_work(Worker *worker)
{
    for (size_t i = 0; i < worker->page_count; i++) {
        field_write_content(worker->first_page + i);
        if (!worker_tick(worker, 1, 0)) {
            return;
        }
    }
}

static void verify_work(Worker *worker)
{
    for (size_t i = 0; i < worker->page_count; i++) {
        if (!worker_tick(worker, 1,
                         field_verify(worker->first_page + i))) {
            return;
        }
    }
}

static void report_latency(void)
{
    static Histogram all;

    memset(&all, 0, sizeof(all));
    for (unsigned i = 0; i < phase_threads(); i++) {
        histogram_merge(&all, &results[i].latency);
    }
    report("latency n=%" PRIu64 " p50-ns=%" PRIu64 " p75-ns=%" PRIu64
           " p90-ns=%" PRIu64 " p99-ns=%" PRIu64 " p999-ns=%" PRIu64
           " max-ns=%" PRIu64, all.total, histogram_percentile(&all, 500),
           histogram_percentile(&all, 750), histogram_percentile(&all, 900),
           histogram_percentile(&all, 990), histogram_percentile(&all, 999),
           all.max);
}

static void report_timeline(unsigned seconds)
{
    unsigned steps = seconds * 1000 / STEP_MS;
    char line[STEPS_PER_LINE * 12];

    for (unsigned first = 0; first < steps; first += STEPS_PER_LINE) {
        int used = 0;

        for (unsigned s = first; s < first + STEPS_PER_LINE && s < steps;
             s++) {
            uint64_t sum = 0;

            for (unsigned i = 0; i < phase_threads(); i++) {
                sum += results[i].steps[s];
            }
            used += snprintf(line + used, sizeof(line) - used, "%s%" PRIu64,
                             used ? "," : "", sum);
        }
        report("timeline step-ms=%d first=%u counts=%s", STEP_MS, first,
               line);
    }
}

static const Pattern *find_pattern(const char *name)
{
    for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++) {
        if (strcmp(patterns[i].name, name) == 0) {
            return &patterns[i];
        }
    }
    return NULL;
}

bool access_prepare(size_t pages, unsigned noise)
{
    return field_create(pages, noise) && phase_run(&(Phase) {
        .name = "prepare", .work = prepare_work, .pages = pages,
        .range = pages,
    });
}

bool access_verify(void)
{
    return phase_run(&(Phase) {
        .name = "compare", .work = verify_work, .pages = field_pages(),
        .range = field_pages(),
    });
}

bool access_run(const char *name, unsigned seconds, unsigned part)
{
    size_t share = field_pages() / phase_threads() * part / 100;

    pattern = find_pattern(name);
    if (!pattern || !seconds || seconds * 1000 / STEP_MS > STEPS_MAX ||
        !part || part > 100 || share < 4 * STRIDE) {
        report("cannot access: choose a pattern, 1 to %d seconds, and 1 to "
               "100 percent of a field", STEPS_MAX * STEP_MS / 1000);
        return false;
    }
    if (pattern->next == next_zipf) {
        zipf_prepare(field_pages() * part / 100);
    }
    memset(results, 0, sizeof(results));
    part_percent = part;
    start_ns = now_ns();
    half_ns = start_ns + seconds * 500 * NS_PER_MS;
    phase_run(&(Phase) {
        .name = name, .work = access_work, .seconds = seconds,
        .range = field_pages(),
    });
    report_latency();
    report_timeline(seconds);
    return true;
}
