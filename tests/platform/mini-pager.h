/*
 * Mini pager: the smallest pager that follows the eviction rules
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Two kernel facts (eviction-loses-nothing, dma-needs-counters) are about
 * what happens between a pager and the threads that use the memory, so they
 * need something that serves faults and evicts.  This is the design's
 * protocol in its shortest form: one process, one byte array as the store.
 *
 * Each page has a state.  Whoever moves a page into an owned state by
 * compare-and-swap is the only one to act on it, and ends with: store the
 * next state, then UFFDIO_WAKE.  In this order a fault
 * that was ignored because the page was owned is always raised again.
 *
 *   NEVER ----> FILLING ----> RESIDENT <----> MAPPING
 *              (owned)          |  ^         (owned)
 *                 ^             v  |            ^
 *                 |           ZAPPED -----------+
 *                 |             |
 *   SWAPPED ------+             v
 *      ^--- PUNCHING <------ EVICTING
 *            (owned)          (owned)
 *
 * Theory: the evictor marks a page ZAPPED, takes it out of the page table,
 * and may only go on to EVICTING when no fault has claimed it meanwhile.
 * While it is EVICTING nobody maps it, so its content stands still: it is
 * copied with pread (which never maps and never fills a hole), published by
 * PUNCHING, punched, and handed back as SWAPPED.
 *
 * I1: UFFDIO_CONTINUE happens only in MAPPING, UFFDIO_COPY only in FILLING.
 * I2: a page is zapped only between RESIDENT->ZAPPED and the step after it,
 *     and one page is never in the hands of two evictors.
 * I3: a page is owned until its punch has returned; a running punch undoes a
 *     fill (see punch-undoes-concurrent-copy).
 * I4: the MISSING and MINOR flags of a fault are hints; the state decides.
 *     A thread can pick up its flag, lose the CPU, and queue the fault after
 *     the page has changed.
 */

#ifndef TESTS_PLATFORM_MINI_PAGER_H
#define TESTS_PLATFORM_MINI_PAGER_H

#include "platform.h"

#define MINI_PAGER_FAULT_THREADS 2

typedef enum PageState {
    PAGE_NEVER,
    PAGE_FILLING,
    PAGE_RESIDENT,
    PAGE_MAPPING,
    PAGE_ZAPPED,
    PAGE_EVICTING,
    PAGE_PUNCHING,
    PAGE_SWAPPED,
} PageState;

typedef struct MiniPager {
    /* Fixed by mini_pager_start() */
    size_t pages;
    int memfd;
    int uffd;
    uint8_t *ram;
    uint8_t *store;                 /* page N is owned by N's state */
    uint8_t *zero_page;
    pthread_t fault_threads[MINI_PAGER_FAULT_THREADS];

    /* Set before mini_pager_start() */
    bool map_without_owning;        /* mutation: break I1 for CONTINUE */
    bool ignore_dma_counts;         /* mutation: evict pages under DMA */

    /* Atomic */
    atomic_int *state;              /* PageState of each page */
    atomic_uint *dma_count;         /* users of each page by DMA */
    atomic_bool stop;
    atomic_ulong evicted, touched_again, held_by_dma;
    atomic_ulong filled, mapped, stale_flags;
} MiniPager;

/** mini_pager_start: make the memory, register it, serve its faults */
void mini_pager_start(MiniPager *p, size_t pages);

/** mini_pager_stop: stop serving; touching the memory then blocks */
void mini_pager_stop(MiniPager *p);

/**
 * mini_pager_evict: try to evict @page
 *
 * Gives up when the page is not resident, is touched again in time, or has a
 * DMA count.  May be called by one thread only (I2).
 */
void mini_pager_evict(MiniPager *p, size_t page);

/** mini_pager_dma_begin: the page is about to be used by a device */
void mini_pager_dma_begin(MiniPager *p, size_t page);

/** mini_pager_dma_end: the device is done with the page */
void mini_pager_dma_end(MiniPager *p, size_t page);

#endif
