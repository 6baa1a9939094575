/*
 * Unit tests: candidates that wait for their second chance to pass
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "memory-manager/pager/reclaim/fifo.h"

static MmCandidate nth(uint64_t i)
{
    return (MmCandidate) {
        .region = i % 256, .page = i * 1000003, .nr_pages = i % 5 ? 1 : 512,
    };
}

static void assert_nth(MmCandidate c, uint64_t i)
{
    g_assert_cmpuint(c.region, ==, nth(i).region);
    g_assert_cmpuint(c.page, ==, nth(i).page);
    g_assert_cmpuint(c.nr_pages, ==, nth(i).nr_pages);
}

static void test_order(void)
{
    uint64_t in = 0, out = 0, pages = 0;
    MmFifo fifo;

    mm_fifo_init(&fifo);
    g_assert_null(mm_fifo_first(&fifo));
    g_assert_cmpuint(mm_fifo_room(&fifo), ==, MM_FIFO_MIN);
    while (out < 10 * MM_FIFO_MIN) {
        unsigned push = g_test_rand_int_range(0, 1000);
        unsigned pop = g_test_rand_int_range(0, 1000);

        for (; push && mm_fifo_room(&fifo); push--) {
            pages += nth(in).nr_pages;
            mm_fifo_push(&fifo, nth(in++));
        }
        for (; pop && mm_fifo_first(&fifo); pop--) {
            assert_nth(*mm_fifo_first(&fifo), out);
            pages -= nth(out).nr_pages;
            assert_nth(mm_fifo_pop(&fifo), out++);
        }
        g_assert_cmpuint(fifo.nr, ==, in - out);
        g_assert_cmpuint(fifo.pages, ==, pages);
    }
    g_free(fifo.ring);
}

/* While it is in use, wherever its head is */
static void test_grows(void)
{
    uint64_t in = 0, out = 0;
    MmFifo fifo;

    mm_fifo_init(&fifo);
    for (; out < MM_FIFO_MIN / 3; out++) {
        mm_fifo_push(&fifo, nth(in++));
        assert_nth(mm_fifo_pop(&fifo), out);
    }
    while (mm_fifo_room(&fifo)) {
        mm_fifo_push(&fifo, nth(in++));
    }
    mm_fifo_fit(&fifo, 1);
    g_assert_cmpuint(mm_fifo_room(&fifo), ==, 0);
    mm_fifo_fit(&fifo, 3 * MM_FIFO_MIN);
    g_assert_cmpuint(mm_fifo_room(&fifo), ==, 3 * MM_FIFO_MIN);
    while (mm_fifo_room(&fifo)) {
        mm_fifo_push(&fifo, nth(in++));
    }
    for (; out < in; out++) {
        assert_nth(mm_fifo_pop(&fifo), out);
    }
    g_assert_null(mm_fifo_first(&fifo));
    g_assert_cmpuint(fifo.pages, ==, 0);
    mm_fifo_fit(&fifo, UINT64_MAX);
    g_assert_cmpuint(mm_fifo_room(&fifo), ==, MM_FIFO_MAX);
    g_free(fifo.ring);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/mm/fifo/order", test_order);
    g_test_add_func("/mm/fifo/grows", test_grows);
    return g_test_run();
}
