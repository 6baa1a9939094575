/*
 * Unit tests: places that may still be written to
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "memory-manager/pager/reclaim/quarantine.h"
#include "reclaim-rig.h"

static uint64_t in_quarantine(const MmVM *vm)
{
    uint64_t nr = 0;
    unsigned i;

    for (i = 0; i < MM_QUARANTINE; i++) {
        nr += vm->state->quarantine[i].nr;
    }
    return nr;
}

/* One batch, whose store ends as the caller says; its first place. */
static uint64_t store_batch(int err)
{
    uint64_t place;

    reclaim_rig_candidates(0, BATCH);
    mm_writeback(rig.r);
    place = QSIMPLEQ_FIRST(&rig.queue.held)->place;
    reclaim_rig_complete(0, err);
    mm_writeback_reap(rig.r);
    return place;
}

/* Places that are somebody else's. */
static GArray *others;

static void fill_up(uint64_t pages)
{
    MmTierIO io;

    others = g_array_new(false, false, sizeof(io));
    while (pages) {
        io = (MmTierIO) { .nr_pages = MIN(pages, BATCH) };
        g_assert_cmpint(mm_tier_file_alloc(&rig.queue.base, &io), ==, 0);
        g_array_append_val(others, io);
        pages -= io.nr_pages;
    }
}

static void empty(void)
{
    unsigned i;

    for (i = 0; i < others->len; i++) {
        MmTierIO *io = &g_array_index(others, MmTierIO, i);

        rig.vm->tiers[0]->ops->free(rig.vm->tiers[0], io->place, io->nr_pages);
    }
    g_array_free(others, true);
}

static void assert_in_use(MmVM *vm, uint64_t place, bool in_use)
{
    MmTier *tier = vm->tiers[0];
    bool was_free = tier->ops->claim(tier, place);

    g_assert_true(was_free != in_use);
    if (was_free) {
        tier->ops->free(tier, place, 1);
    }
}

/* Whatever the medium still does with it, nobody else's page is there. */
static void test_failed_is_kept(void)
{
    uint64_t before = in_quarantine(rig.vm);
    uint64_t place = store_batch(ENOSPC);

    /* what was refused never happens */
    g_assert_cmpuint(in_quarantine(rig.vm), ==, before);
    assert_in_use(rig.vm, place, false);

    place = store_batch(EIO);
    g_assert_cmpuint(in_quarantine(rig.vm), ==, before + BATCH);
    assert_in_use(rig.vm, place, true);
    assert_in_use(rig.vm, place + BATCH - 1, true);

    /* unless others fail: a part of it may be on its way */
    place = store_batch(ENOSPC);
    g_assert_cmpuint(in_quarantine(rig.vm), ==, before + 2 * BATCH);
    assert_in_use(rig.vm, place, true);
}

/* What is reserved is there all the same. */
static void test_full(void)
{
    MmTier *tier = rig.vm->tiers[0];
    MmTierUsage usage;

    store_batch(EIO);
    tier->ops->usage(tier, &usage);
    g_assert_true(tier->ops->resize(tier, usage.size, 0, 0, NULL));
    fill_up(usage.size / MM_PAGE_SIZE - in_quarantine(rig.vm));
    rig.r->health[0].failing = false;
    reclaim_rig_candidates(0, BATCH);
    mm_writeback(rig.r);
    g_assert_cmpuint(rig.queue.nr_held, ==, 1);
    reclaim_rig_complete(0, 0);
    g_assert_cmpuint(mm_writeback_reap(rig.r), ==, BATCH);
    reclaim_rig_all_swapped(0, BATCH);
    empty();
    g_assert_true(tier->ops->resize(tier, 0, 0, 0, NULL));
}

/* An outage, however long it is, takes few places. */
static void test_outage(void)
{
    uint64_t before = in_quarantine(rig.vm);
    unsigned i;

    for (i = 0; i < 1000; i++) {
        store_batch(EIO);
        g_assert_true(rig.r->health[0].failing);
    }
    g_assert_cmpuint(in_quarantine(rig.vm), >, before);
    g_assert_cmpuint(in_quarantine(rig.vm), <=, before + 11 * BATCH);
    /* over: what has gone to a place in quarantine is stored once more */
    reclaim_rig_candidates(0, BATCH);
    mm_writeback(rig.r);
    reclaim_rig_complete(0, 0);
    g_assert_cmpuint(mm_writeback_reap(rig.r), ==, 0);
    g_assert_cmpuint(rig.queue.nr_held, ==, 1);
    reclaim_rig_complete(0, 0);
    g_assert_cmpuint(mm_writeback_reap(rig.r), ==, BATCH);
    reclaim_rig_all_swapped(0, BATCH);
}

/* A disk that always fails now and then does not lose all of its places. */
static void test_oldest_is_free(void)
{
    uint64_t first = store_batch(EIO);
    unsigned i;

    for (i = 0; i < MM_QUARANTINE; i++) {
        assert_in_use(rig.vm, first, true);
        rig.r->health[0].failing = false;
        store_batch(EIO);
    }
    g_assert_cmpuint(in_quarantine(rig.vm), ==, MM_QUARANTINE * BATCH);
    assert_in_use(rig.vm, first, false);
}

/* With what the pager of the rig has left, which is not claimed yet. */
static MmVM *next_pager(void)
{
    MmVM *next = vm_rig_new(g_get_tmp_dir(), 0);
    MmTierIO io = { .nr_pages = 1 };

    /* the tier is as large as it was */
    g_assert_cmpint(mm_tier_file_alloc(next->reclaim->queues[0], &io), ==, 0);
    next->tiers[0]->ops->free(next->tiers[0], io.place, 1);
    memcpy(next->state, rig.vm->state, sizeof(*next->state));
    return next;
}

/* It does not use them either, nor what was under way. */
static void test_next_pager(void)
{
    static MmVM *next;
    uint64_t failed = store_batch(EIO), under_way;

    reclaim_rig_candidates(0, 2);
    rig.r->health[0].failing = false;
    mm_writeback(rig.r);
    under_way = QSIMPLEQ_FIRST(&rig.queue.held)->place;
    next = next_pager();
    mm_quarantine_resume(next);
    assert_in_use(next, failed, true);
    assert_in_use(next, under_way, true);
    assert_in_use(next, under_way + 1, true);
    assert_in_use(next, under_way + 2, false);
    g_assert_cmpuint(vm_rig_used(next), ==, 0);
    while (mm_quarantine_give_up(next, next->tiers[0])) {
        continue;
    }
    g_assert_cmpuint(in_quarantine(next), ==, 0);
    assert_in_use(next, failed, false);
    assert_in_use(next, under_way, false);
    reclaim_rig_complete(0, 0);
    g_assert_cmpuint(mm_writeback_reap(rig.r), ==, 2);
}

/* What a page has is never taken from it, whatever the lists say. */
static void test_wrong_lists(void)
{
    static MmVM *next;
    uint64_t place = store_batch(EIO) + 100;
    MmState *state;
    MmTier *tier;

    next = next_pager();
    state = next->state;
    tier = next->tiers[0];
    g_assert_true(tier->ops->claim(tier, place));
    state->storing[0] = (MmPlaceRange) { .nr = 2, .place = place - 1 };
    state->storing[1] = (MmPlaceRange) { .nr = 1, .place = place + 1 };
    state->storing[2] = (MmPlaceRange) { .nr = UINT32_MAX };
    state->storing[3] = (MmPlaceRange) { .nr = 2, .place = UINT64_MAX - 1 };
    state->storing[4] = (MmPlaceRange) { .tier = MM_MAX_TIERS, .nr = 1 };
    state->quarantine[0] = (MmPlaceRange) { .tier = UINT32_MAX, .nr = 1 };
    state->quarantine_next = UINT32_MAX;
    mm_quarantine_resume(next);
    assert_in_use(next, place - 1, false);
    assert_in_use(next, place, true);
    assert_in_use(next, place + 1, true);
    g_assert_cmpuint(vm_rig_used(next), ==, 1);
    tier->ops->free(tier, place, 1);
}

static const ReclaimTest tests[] = {
    { "failed-is-kept", test_failed_is_kept },
    { "full", test_full },
    { "outage", test_outage },
    { "oldest-is-free", test_oldest_is_free },
    { "next-pager", test_next_pager },
    { "wrong-lists", test_wrong_lists },
};

int main(int argc, char **argv)
{
    return reclaim_rig_main(argc, argv, "quarantine", tests,
                            ARRAY_SIZE(tests));
}
