/*
 * Mini pager: the smallest pager that follows the eviction rules
 *
 * The protocol and its invariants are in mini-pager.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "mini-pager.h"

#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>

/* A state change that everybody sees at once, or not at all. */
static bool page_move(MiniPager *p, size_t page, PageState from, PageState to)
{
    int expected = from;

    return atomic_compare_exchange_strong(&p->state[page], &expected, to);
}

/* Give up ownership: the new state first, then the WAKE. */
static void page_release(MiniPager *p, size_t page, PageState state)
{
    atomic_store(&p->state[page], state);
    uffd_wake(p->uffd, p->ram + page * PAGE_BYTES, 1);
}

static void page_fill(MiniPager *p, size_t page, PageState from)
{
    const void *src = p->zero_page;
    int err;

    if (from == PAGE_SWAPPED) {
        src = p->store + page * PAGE_BYTES;
    }
    err = uffd_copy(p->uffd, p->ram + page * PAGE_BYTES, src, 1,
                    UFFDIO_COPY_MODE_DONTWAKE, NULL);
    FACT_CHECK(!err, "UFFDIO_COPY into an owned hole: %s", strerror(-err));
    atomic_fetch_add(&p->filled, 1);
    page_release(p, page, PAGE_RESIDENT);
}

static void page_map(MiniPager *p, size_t page)
{
    int err = uffd_continue(p->uffd, p->ram + page * PAGE_BYTES, 1,
                            UFFDIO_CONTINUE_MODE_DONTWAKE, NULL);

    FACT_CHECK(!err || err == -EEXIST,
               "UFFDIO_CONTINUE on an owned, resident page: %s",
               strerror(-err));
    atomic_fetch_add(&p->mapped, 1);
    page_release(p, page, PAGE_RESIDENT);
}

/* The mutation: look at the state, then map, with nothing in between. */
static void page_map_without_owning(MiniPager *p, size_t page)
{
    sched_yield();
    uffd_continue(p->uffd, p->ram + page * PAGE_BYTES, 1, 0, NULL);
    page_move(p, page, PAGE_ZAPPED, PAGE_RESIDENT);
    uffd_wake(p->uffd, p->ram + page * PAGE_BYTES, 1);
}

static void serve_fault(MiniPager *p, const struct uffd_msg *msg)
{
    size_t page = (msg_page(msg) - p->ram) / PAGE_BYTES;
    PageState state = atomic_load(&p->state[page]);
    bool present = state == PAGE_RESIDENT || state == PAGE_ZAPPED;
    bool hole = state == PAGE_NEVER || state == PAGE_SWAPPED;

    if (msg_is_minor(msg) ? hole : present) {
        atomic_fetch_add(&p->stale_flags, 1);
    }
    if (hole) {
        if (page_move(p, page, state, PAGE_FILLING)) {
            page_fill(p, page, state);
            return;
        }
    } else if (present && p->map_without_owning) {
        page_map_without_owning(p, page);
        return;
    } else if (present) {
        if (page_move(p, page, state, PAGE_MAPPING)) {
            page_map(p, page);
            return;
        }
    } else {
        /* Owned: its owner's WAKE comes after this fault was queued. */
        return;
    }
    /* The state moved under us: let the thread fault again. */
    uffd_wake(p->uffd, p->ram + page * PAGE_BYTES, 1);
}

static void *fault_thread(void *opaque)
{
    MiniPager *p = opaque;
    struct uffd_msg msg;

    while (!atomic_load(&p->stop)) {
        if (uffd_next(p->uffd, &msg, 20)) {
            serve_fault(p, &msg);
        }
    }
    return NULL;
}

void mini_pager_start(MiniPager *p, size_t pages)
{
    p->pages = pages;
    p->memfd = memfd_new(pages * PAGE_BYTES);
    p->ram = map_shared(p->memfd, pages * PAGE_BYTES);
    p->store = page_alloc(pages, 0);
    p->zero_page = page_alloc(1, 0);
    p->state = calloc(pages, sizeof(*p->state));
    p->dma_count = calloc(pages, sizeof(*p->dma_count));
    FACT_CHECK(p->state && p->dma_count, "out of memory");
    p->uffd = uffd_open_missing_minor();
    uffd_register(p->uffd, p->ram, pages * PAGE_BYTES,
                  UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR);
    for (int i = 0; i < MINI_PAGER_FAULT_THREADS; i++) {
        FACT_CHECK(!pthread_create(&p->fault_threads[i], NULL, fault_thread,
                                   p), "cannot create a thread");
    }
}

void mini_pager_stop(MiniPager *p)
{
    atomic_store(&p->stop, true);
    for (int i = 0; i < MINI_PAGER_FAULT_THREADS; i++) {
        pthread_join(p->fault_threads[i], NULL);
    }
}

/* The zap has been done; may the page go? */
static bool page_isolate(MiniPager *p, size_t page)
{
    /* Pairs with the fence in mini_pager_dma_begin(). */
    atomic_thread_fence(memory_order_seq_cst);
    if (!p->ignore_dma_counts && atomic_load(&p->dma_count[page])) {
        atomic_fetch_add(&p->held_by_dma, 1);
        page_move(p, page, PAGE_ZAPPED, PAGE_RESIDENT);
        return false;
    }
    if (!page_move(p, page, PAGE_ZAPPED, PAGE_EVICTING)) {
        atomic_fetch_add(&p->touched_again, 1);
        return false;
    }
    return true;
}

void mini_pager_evict(MiniPager *p, size_t page)
{
    uint8_t *addr = p->ram + page * PAGE_BYTES;

    if (!page_move(p, page, PAGE_RESIDENT, PAGE_ZAPPED)) {
        return;
    }
    SYS(madvise(addr, PAGE_BYTES, MADV_DONTNEED));
    sched_yield();
    if (!page_isolate(p, page)) {
        return;
    }
    read_page(p->memfd, page, p->store + page * PAGE_BYTES);
    sched_yield();
    atomic_store(&p->state[page], PAGE_PUNCHING);
    sched_yield();
    punch(p->memfd, page, 1);
    page_release(p, page, PAGE_SWAPPED);
    atomic_fetch_add(&p->evicted, 1);
}

void mini_pager_dma_begin(MiniPager *p, size_t page)
{
    atomic_fetch_add(&p->dma_count[page], 1);
    atomic_thread_fence(memory_order_seq_cst);
}

void mini_pager_dma_end(MiniPager *p, size_t page)
{
    atomic_fetch_sub(&p->dma_count[page], 1);
}
