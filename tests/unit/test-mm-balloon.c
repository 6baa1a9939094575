/*
 * Unit tests: huge pages in the balloon
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A huge page is discarded when all of its parts are in the balloon, and never
 * while one of them is not.
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "backends/managed-memory-internal.h"

#define PART_SIZE 4096
#define UNIT_PARTS (MANAGED_HUGE_PAGE_SIZE / PART_SIZE)
#define NR_UNITS 3
#define NR_PARTS (NR_UNITS * UNIT_PARTS)
/* Never touched: only an address */
#define REGION_HVA ((uint8_t *)0x7f0000000000)

static ManagedRegion region;
static unsigned long *in_balloon;
static unsigned discards[NR_UNITS];

/* What managed-memory-balloon.c needs of the others */
ManagedRegion *managed_region_find(const void *host)
{
    uint64_t offset = (uintptr_t)host - (uintptr_t)region.hva;

    return offset < region.size ? &region : NULL;
}

GPtrArray *managed_regions_snapshot(void)
{
    GPtrArray *array = g_ptr_array_new();

    g_ptr_array_add(array, &region);
    return array;
}

void managed_region_unref(ManagedRegion *unused)
{
}

bool managed_memory_discard_slow(void *host, size_t length)
{
    uint64_t first = ((uint8_t *)host - REGION_HVA) / PART_SIZE;

    g_assert_cmpuint(length, ==, MANAGED_HUGE_PAGE_SIZE);
    g_assert_cmpuint(first % UNIT_PARTS, ==, 0);
    g_assert_cmpuint(find_next_zero_bit(in_balloon, first + UNIT_PARTS, first),
                     ==, first + UNIT_PARTS);
    discards[first / UNIT_PARTS]++;
    return true;
}

static void set_up(uint32_t page_size)
{
    g_free(in_balloon);
    g_free(region.ballooned);
    region = (ManagedRegion) {
        .hva = REGION_HVA, .page_size = page_size,
        .size = NR_UNITS * MANAGED_HUGE_PAGE_SIZE,
    };
    in_balloon = bitmap_new(NR_PARTS);
    memset(discards, 0, sizeof(discards));
}

static void move(unsigned part, bool inflate)
{
    if (inflate) {
        set_bit(part, in_balloon);
    } else {
        clear_bit(part, in_balloon);
    }
    g_assert_true(managed_memory_balloon_slow(REGION_HVA + part * PART_SIZE,
                                              inflate));
}

/* From the last one on: any order will do. */
static void test_all_parts(void)
{
    unsigned i;

    set_up(MANAGED_HUGE_PAGE_SIZE);
    for (i = NR_PARTS; i-- > UNIT_PARTS; ) {
        move(i, true);
    }
    g_assert_cmpuint(discards[0], ==, 0);
    g_assert_cmpuint(discards[1], ==, 1);
    g_assert_cmpuint(discards[2], ==, 1);
    /* told twice, it is in it once */
    move(UNIT_PARTS, true);
    g_assert_cmpuint(discards[1], ==, 1);
    /* taken out, used and put back */
    move(UNIT_PARTS + 7, false);
    move(UNIT_PARTS + 7, true);
    g_assert_cmpuint(discards[1], ==, 2);
}

/* Another kernel has all of its memory, whatever was in the balloon. */
static void test_reset(void)
{
    unsigned i;

    set_up(MANAGED_HUGE_PAGE_SIZE);
    for (i = 1; i < UNIT_PARTS; i++) {
        move(i, true);
    }
    managed_memory_balloon_reset_slow();
    bitmap_clear(in_balloon, 0, NR_PARTS);
    move(0, true);
    g_assert_cmpuint(discards[0], ==, 0);
    /* what was never in it may be taken out */
    managed_memory_balloon_reset_slow();
    move(0, false);
}

static void test_others(void)
{
    set_up(PART_SIZE);
    g_assert_false(managed_memory_balloon_slow(REGION_HVA, true));
    g_assert_false(managed_memory_balloon_slow(REGION_HVA, false));
    set_up(MANAGED_HUGE_PAGE_SIZE);
    g_assert_false(managed_memory_balloon_slow(REGION_HVA + region.size, true));
}

/* Now more goes in, now more comes out; discard() looks at each time. */
static void test_model(void)
{
    unsigned i, expected[NR_UNITS] = {};

    set_up(MANAGED_HUGE_PAGE_SIZE);
    for (i = 0; i < 200000; i++) {
        unsigned part = g_test_rand_int_range(0, NR_PARTS);
        unsigned first = QEMU_ALIGN_DOWN(part, UNIT_PARTS);
        bool more = i / 20000 % 2 == 0;
        bool inflate = g_test_rand_int_range(0, 1000) < (more ? 999 : 300);
        bool was_in = test_bit(part, in_balloon);

        move(part, inflate);
        expected[first / UNIT_PARTS] +=
            inflate && !was_in &&
            find_next_zero_bit(in_balloon, first + UNIT_PARTS, first) ==
            first + UNIT_PARTS;
        g_assert_cmpuint(discards[first / UNIT_PARTS], ==,
                         expected[first / UNIT_PARTS]);
    }
    g_assert_cmpuint(discards[0] + discards[1] + discards[2], >, 3);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/managed-memory/balloon/all-parts", test_all_parts);
    g_test_add_func("/managed-memory/balloon/reset", test_reset);
    g_test_add_func("/managed-memory/balloon/others", test_others);
    g_test_add_func("/managed-memory/balloon/model", test_model);
    return g_test_run();
}
