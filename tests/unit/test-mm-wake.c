/*
 * Unit tests: guests that wake up
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "memory-manager/pager/fault/wake.h"

#define S_NS 1000000000ULL
#define BLOCKS 1000
#define PAGES (BLOCKS * MM_WAKE_BLOCK_PAGES - 5)

static bool faults(MmWake *w, unsigned nr, uint64_t now_ns)
{
    bool wakes = false;

    while (nr--) {
        g_assert_false(wakes);
        wakes = mm_wake_fault(w, now_ns);
    }
    return wakes;
}

/* The whole way round. */
static void test_states(void)
{
    MmWake w = {};

    /* awake, whatever it faults on */
    g_assert_cmpint(mm_wake_look(&w, 0, 0, 1), ==, MM_WAKE_NOTHING);
    g_assert_cmpint(mm_wake_look(&w, 4000, 0, 1), ==, MM_WAKE_NOTHING);
    g_assert_cmpint(mm_wake_look(&w, 1000, 2999, 1), ==, MM_WAKE_NOTHING);
    g_assert_cmpint(mm_wake_look(&w, 2000, 9000, 1), ==, MM_WAKE_NOTHING);
    g_assert_false(faults(&w, 1000, 1));
    g_assert_false(mm_wake_records(&w));
    g_assert_cmpint(w.state, ==, MM_WAKE_AWAKE);

    g_assert_cmpint(mm_wake_look(&w, 1000, 3000, 2), ==, MM_WAKE_NOTHING);
    g_assert_cmpint(w.state, ==, MM_WAKE_ASLEEP);
    /* a timer that ticks wakes nobody up */
    g_assert_false(faults(&w, 63, 3));
    g_assert_true(mm_wake_records(&w));
    g_assert_cmpint(mm_wake_look(&w, 1063, 2937, 3 + S_NS), ==,
                    MM_WAKE_NOTHING);
    g_assert_cmpint(mm_wake_look(&w, 1063, 2937, 4 + S_NS), ==,
                    MM_WAKE_FORGET);
    g_assert_cmpint(w.state, ==, MM_WAKE_ASLEEP);

    g_assert_true(faults(&w, 64, 2 * S_NS));
    g_assert_cmpuint(w.times, ==, 1);
    g_assert_false(faults(&w, 1000, 3 * S_NS));
    g_assert_cmpint(mm_wake_look(&w, 3000, 1000, 12 * S_NS), ==,
                    MM_WAKE_NOTHING);
    g_assert_true(mm_wake_records(&w));
    g_assert_cmpint(mm_wake_look(&w, 3000, 1000, 12 * S_NS + 1), ==,
                    MM_WAKE_RECORD);
    g_assert_cmpint(w.state, ==, MM_WAKE_AWAKE);
    g_assert_false(mm_wake_records(&w));
}

/* One that works with a part of its memory is awake, however small that is. */
static void test_small_part(void)
{
    MmWake w = {};
    unsigned i;

    mm_wake_look(&w, 10000, 0, 1);
    for (i = 0; i < 1000; i++) {
        g_assert_false(faults(&w, 20, 1 + i * S_NS / 10));
        g_assert_cmpint(mm_wake_look(&w, 10000 - i, 1000000, i * S_NS / 10),
                        ==, MM_WAKE_NOTHING);
    }
    g_assert_cmpint(w.state, ==, MM_WAKE_AWAKE);
    mm_wake_look(&w, 4999, 1005000, 100 * S_NS);
    g_assert_cmpint(w.state, ==, MM_WAKE_ASLEEP);
    /* the same again as it is when it has woken up */
    g_assert_true(faults(&w, 256, 101 * S_NS));
    mm_wake_look(&w, 9000, 1000000, 112 * S_NS);
    mm_wake_look(&w, 9000, 1000000, 112 * S_NS);
    g_assert_cmpint(w.state, ==, MM_WAKE_AWAKE);
}

/* A new pager does not know: with three quarters out it takes it to sleep. */
static void test_new_pager(void)
{
    MmWake w = {};

    mm_wake_look(&w, 1000, 10000, 1);
    g_assert_cmpint(w.state, ==, MM_WAKE_ASLEEP);
    w = (MmWake) {};
    mm_wake_look(&w, 5000, 10000, 1);
    g_assert_cmpint(w.state, ==, MM_WAKE_AWAKE);
}

/* A large one is not woken up by what its kernel does now and then. */
static void test_large(void)
{
    MmWake w = {};

    mm_wake_look(&w, 100000, 0, 1);
    mm_wake_look(&w, 1000, 256 * 512 - 1000, 1);
    g_assert_false(faults(&w, 254, 2));
    g_assert_false(faults(&w, 1, 3));
    g_assert_true(faults(&w, 1, 4));

    w = (MmWake) {};
    mm_wake_look(&w, 1000, 0, 1);
    mm_wake_look(&w, 0, UINT64_MAX / 4, 1);
    g_assert_true(faults(&w, 256, 2));
}

/* What was brought in otherwise need not wake up. */
static void test_brought_in(void)
{
    MmWake w = {};

    mm_wake_look(&w, 1000, 10, 1);
    mm_wake_look(&w, 10, 1000, 1);
    mm_wake_look(&w, 400, 800, 2);
    g_assert_cmpint(w.state, ==, MM_WAKE_ASLEEP);
    mm_wake_look(&w, 401, 800, 2);
    g_assert_cmpint(w.state, ==, MM_WAKE_AWAKE);
}

static unsigned count(const MmWakeSet *set, unsigned times, unsigned *of_block)
{
    unsigned nr = 0;
    uint64_t block;

    for (block = mm_wake_set_next(set, 0, times); block < set->nr_blocks;
         block = mm_wake_set_next(set, block + 1, times)) {
        g_assert_true(test_bit(block, set->recorded));
        of_block[block]++;
        nr++;
    }
    return nr;
}

/* Of what is recorded each block is left out once in a while. */
static void test_left_out(void)
{
    unsigned of_block[BLOCKS] = {}, i;
    MmWakeSet set;

    mm_wake_set_init(&set, PAGES);
    g_assert_cmpuint(set.nr_blocks, ==, BLOCKS);
    for (i = 0; i < BLOCKS; i += 3) {
        mm_wake_set_note(&set, i * MM_WAKE_BLOCK_PAGES + i % 31);
    }
    mm_wake_set_note(&set, PAGES - 1);
    g_assert_cmpuint(count(&set, 0, of_block), ==, 0);
    mm_wake_set_record(&set);
    g_assert_cmpuint(mm_wake_set_pages(&set), ==,
                     334 * MM_WAKE_BLOCK_PAGES);
    for (i = 0; i < MM_WAKE_PART; i++) {
        unsigned nr = count(&set, i, of_block);

        g_assert_cmpuint(nr, >, 334 - 334 / MM_WAKE_PART - 3);
        g_assert_cmpuint(nr, <, 334 - 334 / MM_WAKE_PART + 3);
    }
    for (i = 0; i < BLOCKS; i++) {
        g_assert_cmpuint(of_block[i], ==, i % 3 ? 0 : MM_WAKE_PART - 1);
    }
    mm_wake_set_destroy(&set);
}

/* One wake-up: what is replayed is noted, and so is what it faults on. */
static void wake_up(MmWakeSet *set, unsigned times, unsigned first,
                    unsigned nr)
{
    unsigned long *in = bitmap_new(BLOCKS);
    uint64_t block;
    unsigned i;

    for (block = mm_wake_set_next(set, 0, times); block < BLOCKS;
         block = mm_wake_set_next(set, block + 1, times)) {
        set_bit(block, in);
        mm_wake_set_note(set, block * MM_WAKE_BLOCK_PAGES);
    }
    for (i = first; i < first + nr; i++) {
        if (!test_bit(i, in)) {
            mm_wake_set_note(set, i * MM_WAKE_BLOCK_PAGES);
        }
    }
    mm_wake_set_record(set);
    g_free(in);
}

/* The record follows a guest that wants something else by and by. */
static void test_follows(void)
{
    unsigned times, of_block[BLOCKS] = {};
    MmWakeSet set;

    mm_wake_set_init(&set, PAGES);
    wake_up(&set, 0, 100, 200);
    g_assert_cmpuint(mm_wake_set_pages(&set), ==, 200 * MM_WAKE_BLOCK_PAGES);
    wake_up(&set, 1, 200, 300);
    g_assert_cmpuint(mm_wake_set_pages(&set), >=, 380 * MM_WAKE_BLOCK_PAGES);
    for (times = 2; times < 2 + MM_WAKE_PART; times++) {
        wake_up(&set, times, 200, 300);
    }
    g_assert_cmpuint(mm_wake_set_pages(&set), ==, 300 * MM_WAKE_BLOCK_PAGES);
    count(&set, times, of_block);
    g_assert_cmpuint(of_block[199], ==, 0);
    mm_wake_set_destroy(&set);
}

/* What a replay has not come to stays. */
static void test_keep(void)
{
    MmWakeSet set;

    mm_wake_set_init(&set, PAGES);
    wake_up(&set, 0, 100, 200);
    mm_wake_set_note(&set, 150 * MM_WAKE_BLOCK_PAGES);
    mm_wake_set_keep(&set, 250);
    mm_wake_set_record(&set);
    g_assert_cmpuint(mm_wake_set_pages(&set), ==, 51 * MM_WAKE_BLOCK_PAGES);
    mm_wake_set_keep(&set, set.nr_blocks);
    mm_wake_set_record(&set);
    g_assert_cmpuint(mm_wake_set_pages(&set), ==, 0);
    mm_wake_set_destroy(&set);
}

/* Who stirs and sleeps on leaves no trace in the record. */
static void test_stirs(void)
{
    MmWakeSet set;

    mm_wake_set_init(&set, PAGES);
    wake_up(&set, 0, 100, 200);
    mm_wake_set_note(&set, 0);
    mm_wake_set_forget(&set);
    g_assert_cmpuint(mm_wake_set_pages(&set), ==, 200 * MM_WAKE_BLOCK_PAGES);
    wake_up(&set, 1, 100, 200);
    g_assert_cmpuint(mm_wake_set_pages(&set), ==, 200 * MM_WAKE_BLOCK_PAGES);
    mm_wake_set_destroy(&set);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/managed-memory/wake/states", test_states);
    g_test_add_func("/managed-memory/wake/small-part", test_small_part);
    g_test_add_func("/managed-memory/wake/new-pager", test_new_pager);
    g_test_add_func("/managed-memory/wake/large", test_large);
    g_test_add_func("/managed-memory/wake/brought-in", test_brought_in);
    g_test_add_func("/managed-memory/wake/left-out", test_left_out);
    g_test_add_func("/managed-memory/wake/follows", test_follows);
    g_test_add_func("/managed-memory/wake/keep", test_keep);
    g_test_add_func("/managed-memory/wake/stirs", test_stirs);
    return g_test_run();
}
