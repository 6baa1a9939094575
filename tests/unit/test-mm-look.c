/*
 * Unit tests: what QEMU is told of where pages are
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bitops.h"
#include "memory-manager/pager/fault/fault-internal.h"
#include "memory-manager/pager/region.h"
#include "memory-manager/pager/tier/tier.h"
#include "vm-rig.h"

#define NR_PAGES 8192
#define BUFFER 17
/* Nothing that is ever answered */
#define UNTOUCHED 0xee

static MmVM *vm;
static MmRegion *region;

static uint8_t *answer(void)
{
    return vm->ring->buffer[BUFFER];
}

static void post(uint64_t first, uint32_t nr, unsigned buffer)
{
    memset(answer(), UNTOUCHED, sizeof(vm->ring->buffer[0]));
    vm->ring->slots[0] = (MmRingSlot) {
        .kind = MM_RING_LOOK, .buffer = buffer,
        .range = { .region = 0, .first_page = first, .nr_pages = nr },
    };
    qatomic_set(&vm->ring->slots[0].state, MM_RING_POSTED);
    vm->fault->kicked = true;
}

static void look(uint64_t first, uint32_t nr, unsigned buffer)
{
    unsigned rounds = 0;

    post(first, nr, buffer);
    while (mm_ring_poll(vm->fault)) {
        g_assert_cmpuint(++rounds, <, 100);
    }
    g_assert_cmpuint(vm->ring->slots[0].state, ==, MM_RING_DONE);
    vm_rig_check(vm);
}

static bool untouched(unsigned first)
{
    unsigned i;

    for (i = first; i < sizeof(vm->ring->buffer[0]); i++) {
        if (answer()[i] != UNTOUCHED) {
            return false;
        }
    }
    return true;
}

/* Swapped out as words of @value */
static void fill(uint64_t page, uint64_t value)
{
    uint64_t entry;

    vm_rig_populate(region, page, 1);
    vm_rig_swap_out(vm, region, page, MM_PAGE_SWAPPED);
    entry = mm_map_get(&region->map, page);
    mm_map_move(&region->map, page, entry,
                mm_entry_at(entry, MM_TIER_FILL, (uint32_t)value));
    region->map.checksums[page] = value >> 32;
    vm->tiers[0]->ops->free(vm->tiers[0], mm_entry_place(entry), 1);
}

static void test_places(void)
{
    fill(1, 0);
    fill(2, 5);
    fill(3, 5ULL << 32);
    vm_rig_populate(region, 4, 1);
    vm_rig_swap_out(vm, region, 4, MM_PAGE_SWAPPED);
    vm_rig_populate(region, 5, 1);
    vm_rig_populate(region, 7, 1);
    vm_rig_swap_out(vm, region, 7, MM_PAGE_CANDIDATE);
    look(0, 8, BUFFER);
    g_assert_cmpuint(answer()[0], ==, MM_LOOK_NEVER);
    g_assert_cmpuint(answer()[1], ==, MM_LOOK_ZERO);
    g_assert_cmpuint(answer()[2], ==, MM_LOOK_SWAPPED);
    g_assert_cmpuint(answer()[3], ==, MM_LOOK_SWAPPED);
    g_assert_cmpuint(answer()[4], ==, MM_LOOK_SWAPPED);
    g_assert_cmpuint(answer()[5], ==, MM_LOOK_CONTENT);
    g_assert_cmpuint(answer()[6], ==, MM_LOOK_NEVER);
    g_assert_cmpuint(answer()[7], ==, MM_LOOK_IDLE);
    g_assert_true(untouched(8));
    /* nothing has been brought in for it */
    g_assert_false(vm_rig_present(region, 0));
    g_assert_false(vm_rig_present(region, 1));
    g_assert_false(vm_rig_present(region, 4));
}

/* Whoever is on the way has content, wherever it came from. */
static void test_on_the_way(void)
{
    const MmPageState states[] = {
        MM_PAGE_WRITEBACK, MM_PAGE_DROPPING,
    };
    unsigned i;

    vm_rig_populate(region, 0, 5);
    for (i = 0; i < ARRAY_SIZE(states); i++) {
        vm_rig_swap_out(vm, region, i + 1, states[i]);
    }
    vm_rig_move(region, 3, MM_PAGE_MAPPING);
    vm_rig_move(region, 4, MM_PAGE_MAPPING);
    vm_rig_move(region, 4, MM_PAGE_LOST);
    fill(5, 0);
    vm_rig_move(region, 5, MM_PAGE_FILLING);
    vm_rig_move(region, 6, MM_PAGE_FILLING);
    look(0, 8, BUFFER);
    for (i = 0; i < 7; i++) {
        g_assert_cmpuint(answer()[i], ==, MM_LOOK_CONTENT);
    }
    g_assert_cmpuint(answer()[7], ==, MM_LOOK_NEVER);
    vm_rig_move(region, 5, MM_PAGE_SWAPPED);
    vm_rig_move(region, 6, MM_PAGE_NEVER);
    mm_region_punch(region, 2, 1);
    vm_rig_move(region, 2, MM_PAGE_SWAPPED);
}

/* A pager that died had filled it, which the map does not say. */
static void test_present_wins(void)
{
    uint64_t word = 4711;

    g_assert_cmpint(pwrite(region->ram_fd, &word, sizeof(word),
                           2 * MM_PAGE_SIZE), ==, sizeof(word));
    /* as the next pager sees it: what is there is counted, nothing else */
    clear_bit(0, region->reconciled);
    region->map.count[MM_CLASS_NEVER] -= MM_CHUNK_PAGES;
    region->map.count[MM_CLASS_RESIDENT]++;
    vm->total_resident++;
    look(0, 4, BUFFER);
    g_assert_cmpuint(answer()[1], ==, MM_LOOK_NEVER);
    g_assert_cmpuint(answer()[2], ==, MM_LOOK_CONTENT);
    g_assert_cmpuint(answer()[3], ==, MM_LOOK_NEVER);
    g_assert_cmpint(vm_rig_state(region, 2), ==, MM_PAGE_RESIDENT);
}

static void test_nonsense(void)
{
    look(0, MM_RING_LOOK_MAX + 1, BUFFER);
    g_assert_true(untouched(0));
    look(0, 0, BUFFER);
    g_assert_true(untouched(0));
    look(NR_PAGES - 1, 2, BUFFER);
    g_assert_true(untouched(0));
    look(UINT64_MAX, 2, BUFFER);
    g_assert_true(untouched(0));
    look(0, 1, MM_RING_BUFFER_PAGES);
    look(0, 1, 0xffff);
    g_assert_true(untouched(0));
    look(NR_PAGES - MM_RING_LOOK_MAX, MM_RING_LOOK_MAX, BUFFER);
    g_assert_cmpuint(answer()[MM_RING_LOOK_MAX - 1], ==, MM_LOOK_NEVER);
}

/* QEMU writes to its memory without our hearing of it. */
static void test_let_go(void)
{
    bool lets_go = true;

    post(0, 1, BUFFER);
    mm_fault_let_go(vm, &lets_go);
    g_assert_false(mm_ring_poll(vm->fault));
    g_assert_true(untouched(0));
    lets_go = false;
    mm_fault_let_go(vm, &lets_go);
    look(0, 1, BUFFER);
}

static const struct {
    const char *name;
    void (*fn)(void);
} tests[] = {
    { "places", test_places },
    { "on-the-way", test_on_the_way },
    { "present-wins", test_present_wins },
    { "nonsense", test_nonsense },
    { "let-go", test_let_go },
};

static void run(const void *opaque)
{
    void (*const *fn)(void) = opaque;

    memset(vm->ring->slots, 0, sizeof(vm->ring->slots));
    region = vm_rig_add(vm, 0, NR_PAGES);
    (*fn)();
    g_assert_cmpint(vm->fault->ring_slot, ==, -1);
    vm_rig_remove(vm, region);
}

int main(int argc, char **argv)
{
    int i;

    g_test_init(&argc, &argv, NULL);
    vm = vm_rig_new(g_get_tmp_dir(), 0);
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strdup_printf("/mm/look/%s", tests[i].name);

        g_test_add_data_func(path, &tests[i].fn, run);
    }
    return g_test_run();
}
