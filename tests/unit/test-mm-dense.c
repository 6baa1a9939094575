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

typedef struct Guest {
    MmDense dense;
    bool in[PAGES];
    uint32_t fifo[RESIDENT];
    unsigned head, nr;
    uint64_t faults, dense_faults;
} Guest;

static Guest *guest_new(void)
{
    Guest *g = g_new0(Guest, 1);

    mm_dense_init(&g->dense, PAGES);
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
    if (g->nr == RESIDENT) {
        g->in[g->fifo[g->head]] = false;
    } else {
        g->nr++;
    }
    g->in[page] = true;
    g->fifo[g->head] = page;
    g->head = (g->head + 1) % RESIDENT;
}

static void touch(Guest *g, uint32_t page)
{
    uint32_t first = QEMU_ALIGN_DOWN(page, MM_DENSE_PAGES), i;

    if (g->in[page]) {
        return;
    }
    g->faults++;
    bring_in(g, page);
    mm_dense_fault(&g->dense, page, PAGES);
    if (mm_dense_read(&g->dense, page)) {
        g->dense_faults++;
        for (i = first; i < MIN(first + MM_DENSE_PAGES, PAGES); i++) {
            bring_in(g, i);
        }
    }
}

static void touch_any(Guest *g, uint32_t first, uint32_t nr, unsigned times)
{
    while (times--) {
        touch(g, first + g_random_int_range(0, nr));
    }
}

/* Faults that come evenly are no reason to read more than was asked for. */
static void test_even(void)
{
    Guest *g = guest_new();

    touch_any(g, 0, PAGES, ACCESSES);
    g_assert_cmpuint(g->faults, >, ACCESSES / 3);
    /* once per block in the beginning */
    g_assert_cmpuint(g->dense_faults * 100, <,
                     g->faults + 100 * PAGES / MM_DENSE_PAGES);
    guest_free(g);
}

/* A guest that turns to a fifth of its memory has it in with few faults. */
static void test_turn(void)
{
    Guest *g = guest_new();
    unsigned i, in = 0;

    touch_any(g, 0, RESIDENT, ACCESSES);
    g->faults = 0;
    touch_any(g, 70000, 20000, ACCESSES);
    for (i = 70000; i < 90000; i++) {
        in += g->in[i];
    }
    g_assert_cmpuint(in, >, 19900);
    g_assert_cmpuint(g->faults, <, 20000 / 5);
    guest_free(g);
}

/* Each block by itself, up to the last one, which is not whole. */
static void test_edges(void)
{
    const uint64_t nr_pages = 3 * MM_DENSE_PAGES + 1;
    MmDense d;
    unsigned i;

    mm_dense_init(&d, nr_pages);
    for (i = 1; i <= MM_DENSE_FAULTS; i++) {
        mm_dense_fault(&d, nr_pages - 1, 1 << 20);
        mm_dense_fault(&d, nr_pages - 2, 1 << 20);
        g_assert_false(mm_dense_read(&d, 0));
        g_assert_cmpint(mm_dense_read(&d, nr_pages - 1), ==,
                        i == MM_DENSE_FAULTS);
        g_assert_cmpint(mm_dense_read(&d, nr_pages - 2), ==,
                        i == MM_DENSE_FAULTS);
    }
    /* with nothing in use, each fault is a turn of its own */
    for (i = 0; i < 1000; i++) {
        mm_dense_fault(&d, 0, 0);
        g_assert_false(mm_dense_read(&d, 0));
    }
    mm_dense_destroy(&d);
}

/* A block that was read has its rest. */
static void test_rest(void)
{
    const uint64_t nr_blocks = 10;
    uint64_t i, last = 0, rest = MM_DENSE_REST * nr_blocks;
    MmDense d;

    mm_dense_init(&d, nr_blocks * MM_DENSE_PAGES);
    for (i = 1; i < 10 * rest; i++) {
        mm_dense_fault(&d, 7, nr_blocks * MM_DENSE_PAGES);
        if (mm_dense_read(&d, 7)) {
            g_assert_true(!last || i - last >= rest - nr_blocks);
            g_assert_cmpuint(i - last, <, 2 * rest);
            last = i;
        }
    }
    g_assert_cmpuint(last, >, 8 * rest);
    mm_dense_destroy(&d);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/managed-memory/dense/even", test_even);
    g_test_add_func("/managed-memory/dense/turn", test_turn);
    g_test_add_func("/managed-memory/dense/edges", test_edges);
    g_test_add_func("/managed-memory/dense/rest", test_rest);
    return g_test_run();
}
