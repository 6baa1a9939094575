/*
 * Unit tests: several batches on their way out at the same time
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The reclaim thread's part, called step by step, over a queue that completes
 * a store when the test says so: which batch's content a page ends up with, and
 * what becomes of the others while a tier does not answer.
 */
#include "qemu/osdep.h"
#include "reclaim-rig.h"

/* More than what a tier is given for an answer. */
#define LONG_NS 2000000000ULL

/* As the fault thread does it, and then the guest. */
static void touch(uint64_t page, uint64_t content)
{
    uint64_t entry = mm_map_get(&rig.region->map, page);
    uint64_t mapping = mm_entry_at(mm_entry_with_state(entry, MM_PAGE_MAPPING),
                                   MM_TIER_NONE, 0);

    mm_map_move(&rig.region->map, page, entry, mapping);
    vm_rig_move(rig.region, page, MM_PAGE_RESIDENT);
    g_assert_cmpint(pwrite(rig.region->ram_fd, &content, sizeof(content),
                           page * MM_PAGE_SIZE), ==, sizeof(content));
}

static void test_any_order(void)
{
    unsigned i;

    reclaim_rig_candidates(0, MM_NR_BATCHES * BATCH);
    for (i = 0; i < MM_NR_BATCHES; i++) {
        g_assert_cmpuint(mm_writeback(rig.r), ==, 0);
        g_assert_cmpuint(rig.queue.nr_held, ==, i + 1);
        g_assert_cmpuint(mm_writeback_leaving(rig.r), ==, (i + 1) * BATCH);
    }
    g_assert_true(mm_writeback_busy(rig.r));
    reclaim_rig_complete(2, 0);
    g_assert_cmpuint(mm_writeback_reap(rig.r), ==, BATCH);
    reclaim_rig_all_swapped(2 * BATCH, BATCH);
    g_assert_cmpint(vm_rig_state(rig.region, 0), ==, MM_PAGE_WRITEBACK);
    reclaim_rig_complete(2, 0);
    reclaim_rig_complete(0, 0);
    g_assert_cmpuint(mm_writeback(rig.r), ==, 2 * BATCH);
    for (i = 3; i < MM_NR_BATCHES; i++) {
        reclaim_rig_complete(0, 0);
        g_assert_cmpuint(mm_writeback(rig.r), ==, BATCH);
    }
    g_assert_false(mm_writeback_busy(rig.r));
    reclaim_rig_all_swapped(0, MM_NR_BATCHES * BATCH);
    g_assert_false(rig.r->refused);
}

static void test_touched(void)
{
    reclaim_rig_candidates(0, 2);
    mm_writeback(rig.r);
    touch(1, 77);
    reclaim_rig_complete(0, 0);
    g_assert_cmpuint(mm_writeback_reap(rig.r), ==, 1);
    reclaim_rig_swapped(0, 1);
    g_assert_cmpint(vm_rig_state(rig.region, 1), ==, MM_PAGE_RESIDENT);
    g_assert_cmpuint(vm_rig_used(rig.vm), ==, 1);
}

/*
 * Taken back, and claimed again with other content, while the old content is
 * still being stored: whichever store ends first, the page is the newer one's.
 */
static void claimed_again(unsigned first)
{
    uint64_t ours = first == 0 ? 0 : 1;

    reclaim_rig_candidates(5, 1);
    mm_writeback(rig.r);
    touch(5, 77);
    reclaim_rig_candidates(5, 1);
    mm_writeback(rig.r);
    g_assert_cmpuint(rig.queue.nr_held, ==, 2);
    reclaim_rig_complete(first, 0);
    g_assert_cmpuint(mm_writeback_reap(rig.r), ==, ours);
    reclaim_rig_complete(0, 0);
    g_assert_cmpuint(mm_writeback_reap(rig.r), ==, !ours);
    reclaim_rig_swapped(5, 77);
    g_assert_cmpuint(vm_rig_used(rig.vm), ==, 1);
}

static void test_old_ends_first(void)
{
    claimed_again(0);
}

static void test_new_ends_first(void)
{
    claimed_again(1);
}

static void test_all_one_value(void)
{
    uint64_t word = 0x1122334455667788, content[MM_PAGE_SIZE / sizeof(word)];
    uint64_t entry;
    unsigned i;

    reclaim_rig_candidates(5, 1);
    mm_writeback(rig.r);
    touch(5, 0);
    for (i = 0; i < ARRAY_SIZE(content); i++) {
        content[i] = word;
    }
    g_assert_cmpint(pwrite(rig.region->ram_fd, content, sizeof(content),
                           5 * MM_PAGE_SIZE), ==, sizeof(content));
    reclaim_rig_candidates(5, 1);
    g_assert_cmpuint(mm_writeback(rig.r), ==, 1);
    reclaim_rig_complete(0, 0);
    g_assert_cmpuint(mm_writeback_reap(rig.r), ==, 0);
    entry = mm_map_get(&rig.region->map, 5);
    g_assert_cmpuint(mm_entry_tier(entry), ==, MM_TIER_FILL);
    g_assert_cmphex((uint64_t)rig.region->map.checksums[5] << 32 |
                    (uint32_t)mm_entry_place(entry), ==, word);
    g_assert_cmpuint(vm_rig_used(rig.vm), ==, 0);
}

static void test_error(void)
{
    reclaim_rig_candidates(0, 2 * BATCH);
    mm_writeback(rig.r);
    mm_writeback(rig.r);
    reclaim_rig_complete(0, EIO);
    g_assert_cmpuint(mm_writeback_reap(rig.r), ==, 0);
    g_assert_true(rig.r->refused);
    g_assert_cmpint(vm_rig_state(rig.region, 0), ==, MM_PAGE_RESIDENT);
    reclaim_rig_complete(0, 0);
    g_assert_cmpuint(mm_writeback_reap(rig.r), ==, BATCH);
    reclaim_rig_all_swapped(BATCH, BATCH);
}

/* A tier that does not answer gets nothing more, and holds up nobody else. */
static void test_hangs(void)
{
    unsigned i;

    reclaim_rig_candidates(0, (MM_NR_BATCHES + 1) * BATCH);
    for (i = 0; i < MM_NR_BATCHES; i++) {
        mm_writeback(rig.r);
    }
    for (i = 0; i < MM_NR_BATCHES; i++) {
        rig.r->batches[i].transfer.io.began_ns -= LONG_NS;
    }
    g_assert_cmpuint(mm_writeback_reap(rig.r), ==, 0);
    g_assert_cmpuint(rig.r->hanging, ==, MM_NR_BATCHES);
    g_assert_cmpuint(mm_writeback_leaving(rig.r), ==, 0);
    g_assert_true(rig.r->health[0].failing);
    g_assert_cmpuint(mm_writeback(rig.r), ==, 0);
    g_assert_cmpuint(rig.queue.nr_held, ==, MM_NR_BATCHES);
    g_assert_true(rig.r->refused);
    g_assert_cmpint(vm_rig_state(rig.region, MM_NR_BATCHES * BATCH), ==,
                    MM_PAGE_RESIDENT);
    for (i = 0; i < MM_NR_BATCHES; i++) {
        reclaim_rig_complete(0, 0);
    }
    g_assert_cmpuint(mm_writeback_reap(rig.r), ==, MM_NR_BATCHES * BATCH);
    g_assert_cmpuint(rig.r->hanging, ==, 0);
    g_assert_false(rig.r->health[0].failing);
    reclaim_rig_all_swapped(0, MM_NR_BATCHES * BATCH);
}

/* What leaves memory is not what a move has found in a tier before. */
static void test_move_forgets(void)
{
    MmBatch *moved = &rig.r->move.batch;

    moved->busy = true;
    moved->region = rig.region;
    moved->nr = 2;
    moved->p[0] = (MmPiece) { .page = 4, .entry = 44 };
    moved->p[1] = (MmPiece) { .page = 5, .entry = 55 };
    reclaim_rig_candidates(5, 1);
    mm_writeback(rig.r);
    reclaim_rig_complete(0, 0);
    g_assert_cmpuint(mm_writeback_reap(rig.r), ==, 1);
    g_assert_cmpuint(moved->p[0].entry, ==, 44);
    g_assert_cmpuint(moved->p[1].entry, ==, 0);
    moved->busy = false;
}

static const ReclaimTest tests[] = {
    { "any-order", test_any_order },
    { "touched", test_touched },
    { "old-ends-first", test_old_ends_first },
    { "new-ends-first", test_new_ends_first },
    { "all-one-value", test_all_one_value },
    { "error", test_error },
    { "hangs", test_hangs },
    { "move-forgets", test_move_forgets },
};

int main(int argc, char **argv)
{
    return reclaim_rig_main(argc, argv, "writeback", tests,
                            ARRAY_SIZE(tests));
}
