/*
 * Phases that work on memory alone
 *
 * Between them they show a memory manager the access patterns that it has to
 * cope with: first touch in order (fill), sequential reads that never fit
 * (sweep), a hot set that does fit with a cold tail (random), and scattered
 * writes (dirty).
 *
 * Threads: see phase.h; each function named *_work runs in every worker.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <stdatomic.h>

#include "arena.h"
#include "memory-phases.h"
#include "phase.h"

enum {
    /* Random accesses: how many of 4 go to which part of the memory */
    HOT_OF_FOUR = 3,
    HOT_PART = 8,
};

static _Atomic size_t touched;
static _Atomic size_t checked;

static void stamp_page(size_t page)
{
    arena_stamp(page);
    atomic_fetch_add_explicit(&touched, 1, memory_order_relaxed);
}

static unsigned check_page(size_t page)
{
    if (!arena_check(page)) {
        return 0;
    }
    atomic_fetch_add_explicit(&checked, 1, memory_order_relaxed);
    return 1;
}

static void fill_work(Worker *worker)
{
    for (size_t i = 0; i < worker->page_count; i++) {
        stamp_page(worker->first_page + i);
        if (!worker_tick(worker, 1, 0)) {
            return;
        }
    }
}

static void verify_work(Worker *worker)
{
    for (size_t i = 0; i < worker->page_count; i++) {
        unsigned good = check_page(worker->first_page + i);

        if (!worker_tick(worker, 1, good)) {
            return;
        }
    }
}

static void sweep_work(Worker *worker)
{
    for (size_t i = 0; ; i++) {
        size_t page = worker->first_page + i % worker->page_count;

        if (!worker_tick(worker, 1, check_page(page))) {
            return;
        }
    }
}

static void random_work(Worker *worker)
{
    bool more = true;

    while (more) {
        uint64_t pick = worker_random(worker);
        size_t range = worker->page_count;
        size_t page;
        unsigned good;

        if (pick % 4 < HOT_OF_FOUR) {
            range /= HOT_PART;
        }
        page = worker->first_page + (pick >> 16) % range;
        good = check_page(page);
        if (pick & 0x8000) {
            stamp_page(page);
        }
        more = worker_tick(worker, 1, good);
    }
}

/*
 * A stride that has no factor in common with the range visits every page of
 * it once before it comes back; a prime that does not divide it is one.
 */
static size_t dirty_stride(size_t range)
{
    static const size_t primes[] = { 7919, 7907 };

    for (int i = 0; i < 2; i++) {
        if (range % primes[i]) {
            return primes[i];
        }
    }
    return 1;
}

static void dirty_work(Worker *worker)
{
    size_t range = worker->page_count;
    size_t stride = dirty_stride(range);
    size_t page = worker_random(worker) % range;

    for (size_t i = 0; i < worker->quota; i++) {
        page = (page + stride) % range;
        stamp_page(worker->first_page + page);
        if (!worker_tick(worker, 1, 0)) {
            return;
        }
    }
}

bool memory_fill(void)
{
    return phase_run(&(Phase) {
        .name = "fill", .work = fill_work, .pages = arena_pages(),
    });
}

bool memory_verify(void)
{
    return phase_run(&(Phase) {
        .name = "verify", .work = verify_work, .pages = arena_pages(),
    });
}

void memory_sweep(unsigned seconds)
{
    phase_run(&(Phase) {
        .name = "sweep", .work = sweep_work, .seconds = seconds,
    });
}

void memory_random(unsigned seconds)
{
    phase_run(&(Phase) {
        .name = "random", .work = random_work, .seconds = seconds,
    });
}

bool memory_dirty(size_t pages)
{
    return phase_run(&(Phase) {
        .name = "dirty", .work = dirty_work, .pages = pages,
    });
}

size_t memory_touched(void)
{
    return atomic_load(&touched);
}

size_t memory_checked(void)
{
    return atomic_load(&checked);
}
