/*
 * Unit tests: where faults are dense
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A model of a guest: pages are in or out, a page that is accessed and out is
 * a fault, and what comes in pushes out the page that came in first.
 */
#include "qemu/osdep.h"
#include "memory-manager/pager/fault/dense.h"

#define PAGES 100000
#define RESIDENT 50000
#define ACCESSES 2000000
#define FAULT_NS 100000

typedef struct Guest {
    MmDense dense;
    bool in[PAGES];
    uint32_t fifo[PAGES];
    unsigned resident, head, nr;
    uint64_t faults, dense_faults, now_ns;
    int acts_on;                /* of four decisions */
} Guest;

static Guest *guest_new(unsigned resident)
{
    Guest *g = g_new0(Guest, 1);

    mm_dense_init(&g->dense, PAGES);
    g->resident = resident;
    g->acts_on = 4;
    return g;
}

static void guest_free(Guest *g)
{
    mm_dense_destroy(&g->dense);
    g_free(g);
}

static void bring_in(Guest *g, uint32_t page)
{
    if (g->in[page]) {
        return;
    }
    if (g->nr == g->resident) {
        g->in[g->fifo[g->head]] = false;
    } else {
        g->nr++;
    }
    g->in[page] = true;
    g->fifo[g->head] = page;
    g->head = (g->head + 1) % g->resident;
}

static void touch(Guest *g, uint32_t page)
{
    uint32_t first = QEMU_ALIGN_DOWN(page, MM_DENSE_PAGES), i;

    if (g->in[page]) {
        return;
    }
    g->faults++;
    g->now_ns += FAULT_NS;
    bring_in(g, page);
    mm_dense_fault(&g->dense, page, PAGES, g->now_ns);
    if (mm_dense_wants(&g->dense, page) &&
        g_test_rand_int_range(0, 4) < g->acts_on) {
        mm_dense_read(&g->dense, page);
        g->dense_faults++;
        for (i = first; i < MIN(first + MM_DENSE_PAGES, PAGES); i++) {
            bring_in(g, i);
        }
    }
}

static void touch_any(Guest *g, uint32_t first, uint32_t nr, unsigned times)
{
    while (times--) {
        touch(g, first + g_test_rand_int_range(0, nr));
    }
}

/* Faults that come evenly are no reason to read more than was asked for. */
static void test_even(void)
{
    Guest *g = guest_new(RESIDENT);

    touch_any(g, 0, PAGES, ACCESSES);
    g_assert_cmpuint(g->faults, >, ACCESSES / 3);
    g_assert_cmpuint(g->dense_faults, <, 10);
    guest_free(g);
}

/* Nor if something is never used. */
static void test_even_in_half(void)
{
    Guest *g = guest_new(RESIDENT / 2);

    touch_any(g, 0, PAGES / 2, ACCESSES);
    g_assert_cmpuint(g->faults, >, ACCESSES / 3);
    g_assert_cmpuint(g->dense_faults, <, 10);
    guest_free(g);
}

/* What is concentrated and does not fit is found to be in vain. */
static void test_vain(void)
{
    const unsigned used = PAGES / 5;
    Guest *g = guest_new(used / 2);

    touch_any(g, 0, used, ACCESSES);
    g_assert_cmpuint(g->faults, >, ACCESSES / 3);
    g_assert_cmpuint(g->dense_faults, >, 0);
    /* some hundred turns: some blocks in each time that it is tried */
    g_assert_cmpuint(g->dense_faults, <, g->faults / 100);
    guest_free(g);
}

static unsigned count_in(const Guest *g, unsigned first, unsigned nr)
{
    unsigned i, in = 0;

    for (i = first; i < first + nr; i++) {
        in += g->in[i];
    }
    return in;
}

/* A guest turns to a fifth of its memory; returns with how many faults. */
static uint64_t turn(int acts_on)
{
    Guest *g = guest_new(RESIDENT);
    uint64_t faults;

    g->acts_on = acts_on;
    touch_any(g, 0, RESIDENT, ACCESSES);
    g->faults = 0;
    touch_any(g, 70000, 20000, ACCESSES);
    g_assert_cmpuint(count_in(g, 70000, 20000), >, 19900);
    faults = g->faults;
    guest_free(g);
    return faults;
}

static void test_turn(void)
{
    g_assert_cmpuint(turn(4), <, 20000 / 4);
}

/* Not all can be read for which there was reason: that is not in vain. */
static void test_some(void)
{
    g_assert_cmpuint(turn(1), <, 20000 / 2);
}

/* So it is each time that it turns from one to the other and back. */
static void test_turns(void)
{
    Guest *g = guest_new(RESIDENT / 2);
    unsigned i;

    for (i = 0; i < 20; i++) {
        unsigned first = i % 2 ? 10000 : 70000;

        /* in between it works with what it has */
        g->now_ns += 3 * 1000000000ULL;
        g->faults = 0;
        touch_any(g, first, 20000, ACCESSES / 10);
        g_assert_cmpuint(count_in(g, first, 20000), >, 19900);
        g_assert_cmpuint(g->faults, <, 20000 / 4);
    }
    guest_free(g);
}

/* A fault, and what comes of it. */
static bool fault(MmDense *d, uint64_t page, uint64_t in_use, uint64_t now_ns)
{
    mm_dense_fault(d, page, in_use, now_ns);
    if (mm_dense_wants(d, page)) {
        mm_dense_read(d, page);
        return true;
    }
    return false;
}

/* Each block by itself, up to the last one, which is not whole. */
static void test_edges(void)
{
    const uint64_t nr_pages = 999 * MM_DENSE_PAGES + 1;
    MmDense d;
    unsigned i;
    int dense = 0;

    mm_dense_init(&d, nr_pages);
    for (i = 1; i <= 40; i++) {
        dense += fault(&d, nr_pages - 1, nr_pages, 1);
        g_assert_cmpint(dense, ==, mm_dense_turning(&d));
    }
    g_assert_cmpint(dense, ==, 1);
    g_assert_false(fault(&d, nr_pages - 2, nr_pages, 1));
    g_assert_true(fault(&d, nr_pages - 2, nr_pages, 1));
    g_assert_false(fault(&d, 0, nr_pages, 1));
    g_assert_true(fault(&d, MM_DENSE_PAGES - 1, nr_pages, 1));
    /* with nothing in use, each fault is a turn of its own */
    for (i = 0; i < 1000; i++) {
        g_assert_false(fault(&d, 0, 0, 1));
    }
    mm_dense_destroy(&d);
}

/* A block that was read has its rest, by faults or by time. */
static void test_rest(void)
{
    const uint64_t nr_pages = 2000 * MM_DENSE_PAGES;
    const uint64_t sparse_ns = 20000000, dense_ns = 1000;
    uint64_t now_ns, last_ns = 0;
    unsigned i, nr = 0;
    MmDense d;

    mm_dense_init(&d, nr_pages);
    for (now_ns = 0, i = 0; i < 100000; i++) {
        now_ns += sparse_ns;
        if (fault(&d, 7, nr_pages, now_ns)) {
            g_assert_true(!last_ns || now_ns - last_ns >=
                          (MM_DENSE_REST - 1) * 1000000000ULL);
            last_ns = now_ns;
            nr++;
        }
    }
    g_assert_cmpuint(nr, >, 1);
    nr = 0;
    for (i = 0; i < 100000; i++) {
        now_ns += dense_ns;
        if (fault(&d, 7, nr_pages, now_ns)) {
            nr++;
        }
    }
    g_assert_cmpuint(nr, <, 100000 / 1000 / MM_DENSE_REST + 10);
    mm_dense_destroy(&d);
}

/* Turns are counted in few bits: what was never read is not taken for read. */
static void test_wrap(void)
{
    const uint64_t nr_pages = 200 * MM_DENSE_PAGES;
    const unsigned in_turn = 4;     /* enough for it not to be silent */
    uint64_t now_ns = 0;
    unsigned i, page, nr = 0;
    MmDense d;

    mm_dense_init(&d, nr_pages);
    for (i = 0; i < (UINT16_MAX + 5) * in_turn; i++) {
        now_ns += 1000000000ULL / in_turn;
        mm_dense_fault(&d, i % in_turn * MM_DENSE_PAGES, nr_pages, now_ns);
    }
    for (page = 0; page < nr_pages; page += MM_DENSE_PAGES) {
        for (i = 0; i < 4 && !fault(&d, page + i, nr_pages, now_ns); i++) {
            continue;
        }
        nr += i < 4;
    }
    g_assert_cmpuint(nr, >, 100);
    mm_dense_destroy(&d);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/managed-memory/dense/even", test_even);
    g_test_add_func("/managed-memory/dense/even-in-half", test_even_in_half);
    g_test_add_func("/managed-memory/dense/vain", test_vain);
    g_test_add_func("/managed-memory/dense/turn", test_turn);
    g_test_add_func("/managed-memory/dense/some", test_some);
    g_test_add_func("/managed-memory/dense/turns", test_turns);
    g_test_add_func("/managed-memory/dense/wrap", test_wrap);
    g_test_add_func("/managed-memory/dense/edges", test_edges);
    g_test_add_func("/managed-memory/dense/rest", test_rest);
    return g_test_run();
}
