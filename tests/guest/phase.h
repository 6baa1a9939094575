/*
 * Phases: work done by several threads while progress is reported
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef GUEST_PHASE_H
#define GUEST_PHASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Worker Worker;

/*
 * @name: for the report
 * @work: run by every worker thread; returns when its share is done or when
 *     worker_tick() says so
 * @pages: pages that all workers together will finish, 0 if unknown
 * @seconds: how long to work if @pages is unknown, 0 for until the host
 *     sends "stop"
 * @range: pages that are divided between the workers; 0: those of the arena
 */
typedef struct Phase {
    const char *name;
    void (*work)(Worker *worker);
    size_t pages;
    unsigned seconds;
    size_t range;
} Phase;

/*
 * @index: number of this worker, from 0
 * @first_page, @page_count: the part of the range that it owns
 * @quota: its part of Phase.pages
 * @random: state for worker_random()
 */
struct Worker {
    unsigned index;
    size_t first_page;
    size_t page_count;
    size_t quota;
    uint64_t random;
};

/**
 * phase_setup: number of worker threads and seed for all later phases
 */
void phase_setup(unsigned threads, uint64_t seed);

/**
 * phase_run: run a phase to its end
 *
 * Main thread only.  Reports start, progress twice per second, and end.
 *
 * Returns false, with the reason reported, if the host stopped it before all
 * of Phase.pages were done.
 */
bool phase_run(const Phase *phase);

/**
 * phase_threads: number of workers in a phase
 */
unsigned phase_threads(void);

/**
 * phase_max_gap_us: longest time between two operations of one thread
 *
 * @phase: set to the name of the phase it happened in, "none" before any
 */
uint64_t phase_max_gap_us(const char **phase);

/**
 * worker_tick: one operation is finished
 *
 * @worker: the caller's own
 * @done: pages that the operation covered
 * @checked: how many of them were compared and found right
 *
 * Returns false if the worker has to stop.
 */
bool worker_tick(Worker *worker, unsigned done, unsigned checked);

/**
 * worker_random: next number of the worker's own random sequence
 */
uint64_t worker_random(Worker *worker);

/**
 * now_ns: monotonic time in nanoseconds
 */
uint64_t now_ns(void);

#endif
