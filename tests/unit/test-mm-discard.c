/*
 * Unit tests: the discard ring
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The fault thread's part, called step by step: which slots are executed, what
 * becomes of a page in every state, and when the acknowledgement comes.
 */
#include "qemu/osdep.h"
#include <poll.h>
#include "qemu/bitops.h"
#include "memory-manager/pager/fault/fault-internal.h"
#include "memory-manager/pager/region.h"
#include "vm-rig.h"

#define NR_PAGES 4096
#define SLICE 1024

static MmVM *vm;
static MmRegion *region;

static MmRingSlot *slot(unsigned i)
{
    return &vm->ring->slots[i];
}

/* What QEMU does; the kick has come through already. */
static void post(unsigned i, uint32_t id, uint64_t first, uint32_t nr,
                 MmRingState state)
{
    slot(i)->range = (MmRange) {
        .region = id, .first_page = first, .nr_pages = nr,
    };
    qatomic_set(&slot(i)->state, state);
    vm->fault->kicked = true;
}

/* What the fault thread does in its rounds, until there is nothing to do. */
static unsigned poll_all(void)
{
    unsigned rounds = 0;

    while (mm_ring_poll(vm->fault)) {
        g_assert_cmpuint(++rounds, <, 10000);
    }
    return rounds;
}

/* In turn, whatever is posted again in the meantime. */
static void test_in_turn(void)
{
    post(0, 0, 0, 1, MM_RING_POSTED);
    post(7, 0, 1, 1, MM_RING_POSTED);
    vm->fault->ring_next = 0;
    g_assert_true(mm_ring_poll(vm->fault));
    g_assert_cmpuint(slot(0)->state, ==, MM_RING_DONE);
    post(0, 0, 0, 1, MM_RING_POSTED);
    g_assert_true(mm_ring_poll(vm->fault));
    g_assert_cmpuint(slot(7)->state, ==, MM_RING_DONE);
    g_assert_cmpuint(slot(0)->state, ==, MM_RING_POSTED);
    poll_all();
    g_assert_cmpuint(slot(0)->state, ==, MM_RING_DONE);
}

static void assert_discarded(uint64_t first, uint64_t nr)
{
    uint64_t page;

    for (page = first; page < first + nr; page++) {
        g_assert_cmphex(mm_map_get(&region->map, page) &
                        ~(uint64_t)0x3fff00, ==, MM_PAGE_NEVER);
        g_assert_false(vm_rig_present(region, page));
    }
    vm_rig_check(vm);
}

static void set_up(void)
{
    memset(vm->ring->slots, 0, sizeof(vm->ring->slots));
    region = vm_rig_add(vm, 0, NR_PAGES);
}

static void tear_down(void)
{
    g_assert_cmpint(vm->fault->ring_slot, ==, -1);
    vm_rig_remove(vm, region);
    g_assert_cmpuint(vm_rig_used(vm), ==, 0);
    g_assert_cmpuint(vm->total_resident, ==, 0);
}

static void test_nothing_posted(void)
{
    int i;

    for (i = 0; i < MM_RING_SLOTS; i++) {
        /* what is no state is none of ours either */
        post(i, 0, 0, 1, i % 2 ? MM_RING_DONE : i % 4 ? 77 : MM_RING_FREE);
    }
    vm_rig_populate(region, 0, 1);
    g_assert_false(mm_ring_poll(vm->fault));
    mm_ring_resume(vm->fault);
    g_assert_cmpint(vm_rig_state(region, 0), ==, MM_PAGE_RESIDENT);
    for (i = 0; i < MM_RING_SLOTS; i++) {
        g_assert_cmpuint(slot(i)->state, ==,
                         i % 2 ? MM_RING_DONE : i % 4 ? 77 : MM_RING_FREE);
    }
}

/* Without a kick the ring is not even looked at. */
static void test_not_kicked(void)
{
    vm_rig_populate(region, 0, 1);
    post(0, 0, 0, 1, MM_RING_POSTED);
    vm->fault->kicked = false;
    g_assert_false(mm_ring_poll(vm->fault));
    g_assert_cmpuint(slot(0)->state, ==, MM_RING_POSTED);
    vm->fault->kicked = true;
    poll_all();
    g_assert_cmpuint(slot(0)->state, ==, MM_RING_DONE);
    g_assert_false(vm->fault->kicked);
    assert_discarded(0, 1);
}

static void test_every_slot(void)
{
    int i;

    vm_rig_populate(region, 0, MM_RING_SLOTS);
    for (i = 0; i < MM_RING_SLOTS; i++) {
        post(i, 0, i, 1, MM_RING_POSTED);
    }
    g_assert_cmpuint(poll_all(), ==, MM_RING_SLOTS);
    for (i = 0; i < MM_RING_SLOTS; i++) {
        g_assert_cmpuint(slot(i)->state, ==, MM_RING_DONE);
    }
    assert_discarded(0, MM_RING_SLOTS);
}

/* One page in every state that a discard can meet, but DROPPING. */
static void test_every_state(void)
{
    vm_rig_populate(region, 1, 20);
    vm_rig_swap_out(vm, region, 2, MM_PAGE_CANDIDATE);
    vm_rig_swap_out(vm, region, 3, MM_PAGE_WRITEBACK);
    vm_rig_swap_out(vm, region, 4, MM_PAGE_SWAPPED);
    vm_rig_move(region, 5, MM_PAGE_MAPPING);
    mm_region_punch(region, 5, 1);
    vm_rig_move(region, 5, MM_PAGE_LOST);
    /* all one value: no place to free */
    mm_region_punch(region, 6, 1);
    vm_rig_move(region, 6, MM_PAGE_CANDIDATE);
    vm_rig_move(region, 6, MM_PAGE_WRITEBACK);
    mm_map_move(&region->map, 6, mm_map_get(&region->map, 6),
                mm_entry_at(MM_PAGE_DROPPING, MM_TIER_FILL, 0x1234));
    vm_rig_move(region, 6, MM_PAGE_SWAPPED);
    g_assert_cmpuint(vm_rig_used(vm), ==, 1);
    post(0, 0, 0, 10, MM_RING_POSTED);
    poll_all();
    g_assert_cmpuint(slot(0)->state, ==, MM_RING_DONE);
    assert_discarded(0, 10);
    g_assert_cmpuint(vm_rig_used(vm), ==, 0);
    /* and not one more */
    g_assert_cmpint(vm_rig_state(region, 10), ==, MM_PAGE_RESIDENT);
    g_assert_true(vm_rig_present(region, 10));
}

/* As after a hardware error: it may be there, and must not stay. */
static void test_lost_page(void)
{
    vm_rig_populate(region, 0, 2);
    vm_rig_move(region, 0, MM_PAGE_MAPPING);
    vm_rig_move(region, 0, MM_PAGE_LOST);
    post(0, 0, 0, 1, MM_RING_POSTED);
    poll_all();
    assert_discarded(0, 1);
    g_assert_true(vm_rig_present(region, 1));
}

/* The reclaim thread punches it first; the ring waits, and goes on. */
static void test_dropping_page_blocks(void)
{
    vm_rig_populate(region, 0, 8);
    vm_rig_swap_out(vm, region, 5, MM_PAGE_DROPPING);
    post(0, 0, 0, 8, MM_RING_POSTED);
    g_assert_false(mm_ring_poll(vm->fault));
    g_assert_cmpuint(slot(0)->state, ==, MM_RING_TAKEN);
    assert_discarded(0, 5);
    g_assert_cmpint(vm_rig_state(region, 5), ==, MM_PAGE_DROPPING);
    g_assert_true(vm_rig_present(region, 5));
    g_assert_true(vm_rig_present(region, 7));
    g_assert_false(mm_ring_poll(vm->fault));
    mm_region_punch(region, 5, 1);
    vm_rig_move(region, 5, MM_PAGE_SWAPPED);
    poll_all();
    g_assert_cmpuint(slot(0)->state, ==, MM_RING_DONE);
    assert_discarded(0, 8);
}

static void reap_loads(void)
{
    struct pollfd pfd = { .fd = vm->fault->wake_fd, .events = POLLIN };

    g_assert_cmpint(poll(&pfd, 1, 20000), ==, 1);
    mm_unwake(vm->fault->wake_fd);
    mm_load_reap(vm->fault);
}

/* A page on its way in: the read goes on, its content is not placed. */
static void test_load_is_cancelled(void)
{
    int i;

    vm_rig_populate(region, 0, 8);
    for (i = 0; i < 8; i++) {
        vm_rig_swap_out(vm, region, i, MM_PAGE_SWAPPED);
    }
    g_assert_cmpuint(mm_load_start(vm->fault, region, 0, 8), ==, 8);
    mm_load_flush(vm->fault);
    post(0, 0, 2, 3, MM_RING_POSTED);
    poll_all();
    g_assert_cmpuint(slot(0)->state, ==, MM_RING_DONE);
    /* the places are still being read */
    g_assert_cmpuint(vm_rig_used(vm), ==, 8);
    for (i = 2; i < 5; i++) {
        g_assert_cmpint(vm_rig_state(region, i), ==, MM_PAGE_NEVER);
    }
    /* content of the new owner, which must stay */
    vm_rig_populate(region, 3, 1);
    while (!QLIST_EMPTY(&vm->fault->busy_loads)) {
        reap_loads();
    }
    g_assert_cmpint(vm_rig_state(region, 3), ==, MM_PAGE_RESIDENT);
    g_assert_true(vm_rig_present(region, 3));
    /* there is no guest to fill: the others are where they were */
    for (i = 0; i < 8; i++) {
        g_assert_cmpint(vm_rig_state(region, i), ==,
                        i == 3 ? MM_PAGE_RESIDENT :
                        i >= 2 && i < 5 ? MM_PAGE_NEVER : MM_PAGE_SWAPPED);
    }
    g_assert_cmpuint(vm_rig_used(vm), ==, 5);
    vm_rig_check(vm);
}

/* Long ranges go in slices, so that faults come in between. */
static void test_slices(void)
{
    vm_rig_populate(region, 0, NR_PAGES);
    post(0, 0, 0, NR_PAGES, MM_RING_POSTED);
    g_assert_true(mm_ring_poll(vm->fault));
    g_assert_cmpuint(slot(0)->state, ==, MM_RING_TAKEN);
    assert_discarded(0, SLICE);
    g_assert_cmpint(vm_rig_state(region, SLICE), ==, MM_PAGE_RESIDENT);
    g_assert_true(mm_ring_poll(vm->fault));
    g_assert_true(mm_ring_poll(vm->fault));
    g_assert_cmpuint(slot(0)->state, ==, MM_RING_TAKEN);
    g_assert_true(mm_ring_poll(vm->fault));
    g_assert_cmpuint(slot(0)->state, ==, MM_RING_DONE);
    assert_discarded(0, NR_PAGES);
}

/* What makes no sense is acknowledged, and touches nothing. */
static void test_nonsense(void)
{
    static const MmRange ranges[] = {
        { .region = 1, .nr_pages = 1 },
        { .region = MM_MAX_REGIONS, .nr_pages = 1 },
        { .region = UINT32_MAX, .nr_pages = 1 },
        { .nr_pages = 0 },
        { .first_page = NR_PAGES, .nr_pages = 1 },
        { .first_page = NR_PAGES - 1, .nr_pages = 2 },
        { .first_page = UINT64_MAX, .nr_pages = 2 },
        { .first_page = UINT64_MAX / 4096, .nr_pages = UINT32_MAX },
        { .nr_pages = NR_PAGES + 1 },
        { .nr_pages = UINT32_MAX },
    };
    int i;

    vm_rig_populate(region, 0, NR_PAGES);
    for (i = 0; i < ARRAY_SIZE(ranges); i++) {
        post(i, ranges[i].region, ranges[i].first_page, ranges[i].nr_pages,
             MM_RING_POSTED);
    }
    poll_all();
    for (i = 0; i < ARRAY_SIZE(ranges); i++) {
        g_assert_cmpuint(slot(i)->state, ==, MM_RING_DONE);
    }
    for (i = 0; i < NR_PAGES; i++) {
        g_assert_cmpint(vm_rig_state(region, i), ==, MM_PAGE_RESIDENT);
        g_assert_true(vm_rig_present(region, i));
    }
    vm_rig_check(vm);
}

/* QEMU gave up on it before it was taken: it is never executed. */
static void test_given_up(void)
{
    vm_rig_populate(region, 0, 2);
    post(0, 0, 0, 1, MM_RING_POSTED);
    qatomic_set(&slot(0)->state, MM_RING_FREE);
    post(1, 0, 1, 1, MM_RING_POSTED);
    poll_all();
    g_assert_cmpint(vm_rig_state(region, 0), ==, MM_PAGE_RESIDENT);
    g_assert_cmpint(vm_rig_state(region, 1), ==, MM_PAGE_NEVER);
    g_assert_cmpuint(slot(0)->state, ==, MM_RING_FREE);
}

/* Given up, against the rules, while it was carried out: no DONE for it. */
static void test_given_up_while_taken(void)
{
    vm_rig_populate(region, 0, NR_PAGES);
    post(0, 0, 0, 2 * SLICE, MM_RING_POSTED);
    g_assert_true(mm_ring_poll(vm->fault));
    qatomic_set(&slot(0)->state, MM_RING_FREE);
    poll_all();
    g_assert_cmpuint(slot(0)->state, ==, MM_RING_FREE);
    /* the range was copied when it was taken */
    post(0, 0, 0, SLICE, MM_RING_POSTED);
    g_assert_true(mm_ring_poll(vm->fault));
    g_assert_cmpuint(slot(0)->state, ==, MM_RING_DONE);
}

static void test_range_is_copied(void)
{
    vm_rig_populate(region, 0, NR_PAGES);
    post(0, 0, 0, 2 * SLICE, MM_RING_POSTED);
    g_assert_true(mm_ring_poll(vm->fault));
    slot(0)->range = (MmRange) { .nr_pages = UINT32_MAX };
    poll_all();
    assert_discarded(0, 2 * SLICE);
    g_assert_cmpint(vm_rig_state(region, 2 * SLICE), ==, MM_PAGE_RESIDENT);
}

/* A new pager executes what is POSTED and what a former one has TAKEN. */
static void test_resume(void)
{
    vm_rig_populate(region, 0, NR_PAGES);
    post(3, 0, 0, 3 * SLICE, MM_RING_TAKEN);
    post(200, 0, 3 * SLICE, 10, MM_RING_POSTED);
    post(201, 0, 3 * SLICE + 10, 10, MM_RING_DONE);
    /* in service, TAKEN is another pager's; there is none at resume */
    g_assert_true(mm_ring_poll(vm->fault));
    g_assert_cmpuint(slot(3)->state, ==, MM_RING_TAKEN);
    g_assert_cmpuint(slot(200)->state, ==, MM_RING_DONE);
    post(200, 0, 3 * SLICE, 10, MM_RING_POSTED);
    mm_ring_resume(vm->fault);
    /* in slices, as ever: faults must not wait for all of it */
    g_assert_true(mm_ring_poll(vm->fault));
    g_assert_cmpuint(slot(3)->state, ==, MM_RING_TAKEN);
    g_assert_cmpuint(slot(200)->state, ==, MM_RING_POSTED);
    poll_all();
    g_assert_cmpuint(slot(3)->state, ==, MM_RING_DONE);
    g_assert_cmpuint(slot(200)->state, ==, MM_RING_DONE);
    g_assert_cmpuint(slot(201)->state, ==, MM_RING_DONE);
    assert_discarded(0, 3 * SLICE + 10);
    g_assert_cmpint(vm_rig_state(region, 3 * SLICE + 10), ==,
                    MM_PAGE_RESIDENT);
}

/* Before the attach scan has come by: reconciled first, then discarded. */
static void test_unreconciled(void)
{
    vm_rig_populate(region, 0, 2);
    vm_rig_swap_out(vm, region, 0, MM_PAGE_SWAPPED);
    /* as the next pager sees it: its place claimed, nothing counted */
    clear_bit(0, region->reconciled);
    region->map.count[MM_CLASS_NEVER] -= 510;
    region->map.count[MM_CLASS_SWAPPED] = 0;
    post(0, 0, 0, 2, MM_RING_POSTED);
    poll_all();
    g_assert_true(mm_region_reconciled(region, 0));
    assert_discarded(0, 2);
}

static const struct {
    const char *name;
    void (*fn)(void);
} tests[] = {
    { "nothing-posted", test_nothing_posted },
    { "not-kicked", test_not_kicked },
    { "every-slot", test_every_slot },
    { "in-turn", test_in_turn },
    { "every-state", test_every_state },
    { "lost-page", test_lost_page },
    { "dropping-blocks", test_dropping_page_blocks },
    { "load-is-cancelled", test_load_is_cancelled },
    { "slices", test_slices },
    { "nonsense", test_nonsense },
    { "given-up", test_given_up },
    { "given-up-while-taken", test_given_up_while_taken },
    { "range-is-copied", test_range_is_copied },
    { "resume", test_resume },
    { "unreconciled", test_unreconciled },
};

static void run(const void *opaque)
{
    void (*const *fn)(void) = opaque;

    set_up();
    (*fn)();
    tear_down();
}

int main(int argc, char **argv)
{
    int i;

    g_test_init(&argc, &argv, NULL);
    vm = vm_rig_new(g_get_tmp_dir(), 0);
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strdup_printf("/mm/discard/%s",
                                                tests[i].name);

        g_test_add_data_func(path, &tests[i].fn, run);
    }
    return g_test_run();
}
