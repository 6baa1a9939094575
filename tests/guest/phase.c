/*
 * Phases: work done by several threads while progress is reported
 *
 * The main thread does not touch the arena during a phase.  It wakes up twice
 * per second by the clock, so that a worker that hangs in a page fault is
 * visible on the host as an "idle-ms" that grows while the lines keep
 * coming, and a guest that hangs altogether as lines that stop.
 *
 * The longest gap between two operations of one thread is what a program in
 * the guest notices of a stall.  It includes the time for which the thread was
 * not scheduled.
 *
 * Threads: each Progress belongs to one worker, which alone writes it;
 * the main thread reads it.  All fields are atomic and carry no order, since a
 * progress line may be a little behind.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "arena.h"
#include "console.h"
#include "phase.h"

enum {
    THREADS_MAX = 32,
    HEARTBEAT_MS = 500,
};

#define NS_PER_MS 1000000
#define NS_PER_S  1000000000

typedef struct Progress {
    _Atomic uint64_t pages;
    _Atomic uint64_t checked;
    _Atomic uint64_t last_ns;
    _Atomic uint64_t max_gap_ns;
    _Atomic bool finished;
} Progress;

typedef struct PhaseTotals {
    uint64_t pages;
    uint64_t checked;
    uint64_t max_gap_ns;
    uint64_t last_ns;
} PhaseTotals;

static unsigned threads = 1;
static uint64_t seed;
static Worker workers[THREADS_MAX];
static Progress progress[THREADS_MAX];

/* Of the phase that runs; written before its threads start, but for stop */
static const Phase *current;
static uint64_t phases_started;
static uint64_t start_ns;
static uint64_t deadline_ns;
static uint64_t bad_before;
static int finished_fd = -1;
static _Atomic bool stop_requested;

static uint64_t max_gap_ns;
static const char *max_gap_phase = "none";

uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

void phase_setup(unsigned thread_count, uint64_t run_seed)
{
    threads = thread_count < 1 ? 1 :
              thread_count > THREADS_MAX ? THREADS_MAX : thread_count;
    seed = run_seed;
}

unsigned phase_threads(void)
{
    return threads;
}

uint64_t phase_max_gap_us(const char **phase)
{
    *phase = max_gap_phase;
    return max_gap_ns / 1000;
}

bool worker_tick(Worker *worker, unsigned done, unsigned checked)
{
    Progress *mine = &progress[worker->index];
    uint64_t now = now_ns();
    uint64_t gap = now - atomic_load_explicit(&mine->last_ns,
                                              memory_order_relaxed);

    if (gap > atomic_load_explicit(&mine->max_gap_ns, memory_order_relaxed)) {
        atomic_store_explicit(&mine->max_gap_ns, gap, memory_order_relaxed);
    }
    atomic_store_explicit(&mine->last_ns, now, memory_order_relaxed);
    atomic_fetch_add_explicit(&mine->pages, done, memory_order_relaxed);
    atomic_fetch_add_explicit(&mine->checked, checked, memory_order_relaxed);
    return now < deadline_ns &&
           !atomic_load_explicit(&stop_requested, memory_order_relaxed);
}

/* Marsaglia's xorshift: fast, and a state of 0 is all that it cannot bear */
uint64_t worker_random(Worker *worker)
{
    uint64_t x = worker->random;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    worker->random = x;
    return x;
}

static void *worker_main(void *opaque)
{
    Worker *worker = opaque;
    uint64_t one = 1;

    current->work(worker);
    atomic_store(&progress[worker->index].finished, true);
    if (write(finished_fd, &one, sizeof(one)) != sizeof(one)) {
        abort();
    }
    return NULL;
}

static PhaseTotals phase_totals(void)
{
    PhaseTotals totals = { .last_ns = start_ns };

    for (unsigned i = 0; i < threads; i++) {
        uint64_t gap = atomic_load(&progress[i].max_gap_ns);
        uint64_t last = atomic_load(&progress[i].last_ns);

        totals.pages += atomic_load(&progress[i].pages);
        totals.checked += atomic_load(&progress[i].checked);
        totals.max_gap_ns = gap > totals.max_gap_ns ? gap : totals.max_gap_ns;
        totals.last_ns = last > totals.last_ns ? last : totals.last_ns;
    }
    return totals;
}

/* Progress in percent; a phase without an end stays at 0 */
static unsigned phase_percent(const PhaseTotals *totals, uint64_t now)
{
    uint64_t part = now - start_ns;
    uint64_t whole = (uint64_t)current->seconds * NS_PER_S;

    if (current->pages) {
        part = totals->pages;
        whole = current->pages;
    }
    if (!whole) {
        return 0;
    }
    return part >= whole ? 100 : part * 100 / whole;
}

static void phase_report_progress(void)
{
    uint64_t now = now_ns();
    PhaseTotals totals = phase_totals();

    report("progress phase=%s pct=%u pages=%" PRIu64 " ok=%" PRIu64
           " bad=%" PRIu64 " ms=%" PRIu64 " idle-ms=%" PRIu64
           " gap-us=%" PRIu64,
           current->name, phase_percent(&totals, now), totals.pages,
           totals.checked, arena_bad_pages() - bad_before,
           (now - start_ns) / NS_PER_MS,
           now > totals.last_ns ? (now - totals.last_ns) / NS_PER_MS : 0,
           totals.max_gap_ns / 1000);
}

/* Returns false if the phase ended before its work was done */
static bool phase_report_end(void)
{
    PhaseTotals totals = phase_totals();
    bool complete = totals.pages >= current->pages;

    if (totals.max_gap_ns > max_gap_ns) {
        max_gap_ns = totals.max_gap_ns;
        max_gap_phase = current->name;
    }
    report("done phase=%s pages=%" PRIu64 " ok=%" PRIu64 " bad=%" PRIu64
           " ms=%" PRIu64 " gap-us=%" PRIu64,
           current->name, totals.pages, totals.checked,
           arena_bad_pages() - bad_before,
           (now_ns() - start_ns) / NS_PER_MS, totals.max_gap_ns / 1000);
    if (!complete) {
        report("stopped phase=%s before its end", current->name);
    }
    return complete;
}

/* Give each worker an equal part of the range and of the pages to do */
static void phase_divide(void)
{
    size_t pages = current->range ? current->range : arena_pages();

    for (unsigned i = 0; i < threads; i++) {
        Worker *worker = &workers[i];

        worker->index = i;
        worker->first_page = pages * i / threads;
        worker->page_count = pages * (i + 1) / threads - worker->first_page;
        worker->quota = current->pages * (i + 1) / threads -
                        current->pages * i / threads;
        worker->random = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15) +
                         phases_started * THREADS_MAX + i;
        worker->random += !worker->random;
        worker_random(worker);
        atomic_store(&progress[i].pages, 0);
        atomic_store(&progress[i].checked, 0);
        atomic_store(&progress[i].last_ns, start_ns);
        atomic_store(&progress[i].max_gap_ns, 0);
        atomic_store(&progress[i].finished, false);
    }
}

static bool phase_is_finished(void)
{
    for (unsigned i = 0; i < threads; i++) {
        if (!atomic_load(&progress[i].finished)) {
            return false;
        }
    }
    return true;
}

/* The only command that is understood while workers run */
static void phase_read_command(void)
{
    char line[64];

    if (!console_read_line(line, sizeof(line))) {
        return;
    }
    if (strcmp(line, "stop") == 0) {
        atomic_store(&stop_requested, true);
    } else {
        report("busy phase=%s: only \"stop\" is understood now",
               current->name);
    }
}

static void phase_wait(void)
{
    struct pollfd events[] = {
        { .fd = finished_fd, .events = POLLIN },
        { .fd = console_fd(), .events = POLLIN },
    };
    uint64_t next_ns = start_ns + (uint64_t)HEARTBEAT_MS * NS_PER_MS;
    uint64_t ignored;

    while (!phase_is_finished()) {
        uint64_t now = now_ns();

        if (now >= next_ns) {
            phase_report_progress();
            next_ns = now + (uint64_t)HEARTBEAT_MS * NS_PER_MS;
        }
        poll(events, 2, (next_ns - now) / NS_PER_MS + 1);
        if (events[0].revents & POLLIN &&
            read(finished_fd, &ignored, sizeof(ignored)) < 0) {
            abort();
        }
        if (events[1].revents & POLLIN) {
            phase_read_command();
        }
    }
}

bool phase_run(const Phase *phase)
{
    pthread_t ids[THREADS_MAX];
    bool endless = phase->pages || !phase->seconds;

    if (finished_fd < 0) {
        finished_fd = eventfd(0, EFD_CLOEXEC);
    }
    current = phase;
    phases_started++;
    start_ns = now_ns();
    deadline_ns = endless ? UINT64_MAX :
                  start_ns + (uint64_t)phase->seconds * NS_PER_S;
    bad_before = arena_bad_pages();
    atomic_store(&stop_requested, false);
    phase_divide();
    report("start phase=%s threads=%u arena-pages=%zu", phase->name, threads,
           arena_pages());
    for (unsigned i = 0; i < threads; i++) {
        if (pthread_create(&ids[i], NULL, worker_main, &workers[i])) {
            abort();
        }
    }
    phase_wait();
    for (unsigned i = 0; i < threads; i++) {
        pthread_join(ids[i], NULL);
    }
    return phase_report_end();
}
