/*
 * Unit tests: resident limit and watermarks
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Not the numbers, but what they have to be good for: fills stay within the
 * limit, a fill that waits has reclaim at work, reclaim that stops has made
 * room, a guest whose memory cannot be evicted gets a bounded reserve, and one
 * whose devices hold all of it gets on all the same, though slowly.
 */
#include "qemu/osdep.h"
#include "memory-manager/pager/limit.h"

/* 64 MiB in pages: what the watermarks may take away from any limit. */
#define SLACK_MAX 16384

static void for_all_limits(void (*check)(uint64_t pages))
{
    uint64_t pages;
    int shift;

    for (pages = MM_LIMIT_MIN_PAGES; pages < 40000; pages++) {
        check(pages);
    }
    for (shift = 16; shift < 64; shift++) {
        check((1ULL << shift) - 1);
        check(1ULL << shift);
        check((1ULL << shift) + 1);
    }
    check(UINT64_MAX - 1);
}

static void check_order(uint64_t pages)
{
    MmLimit l = {};

    mm_limit_set(&l, pages);
    g_assert_cmpuint(l.limit, ==, pages);
    g_assert_cmpuint(l.low, <, l.high);
    g_assert_cmpuint(l.high, <, l.limit);
    g_assert_cmpuint(l.reserve, >, 0);
    /* reclaim that has started does something before it stops */
    g_assert_false(mm_limit_above_high(&l, l.high));
    g_assert_true(mm_limit_above_low(&l, l.high));
    g_assert_false(mm_limit_above_low(&l, l.low));
    /* never most of a limit, and little of a large one */
    g_assert_cmpuint(l.low, >=, pages / 2);
    g_assert_cmpuint(l.reserve, <=, pages / 4);
    g_assert_cmpuint(l.limit - l.low, <=, 2 * SLACK_MAX);
    g_assert_cmpuint(l.reserve, <=, SLACK_MAX);
}

static void test_order(void)
{
    for_all_limits(check_order);
}

/* Around every mark of the limit, and far away from all. */
static void for_all_residents(const MmLimit *l,
                              void (*check)(const MmLimit *l, uint64_t res))
{
    const uint64_t mark[] = { 0, l->low, l->high, l->limit,
                              l->limit + l->reserve, UINT64_MAX };
    uint64_t d;
    int i;

    /* wrapped around, a resident size is as good as any other */
    for (i = 0; i < ARRAY_SIZE(mark); i++) {
        for (d = 0; d <= 3; d++) {
            check(l, mark[i] + d);
            check(l, mark[i] - d);
        }
    }
}

static void check_room(const MmLimit *l, uint64_t resident)
{
    static const uint64_t wants[] = { 1, 2, 7, 64, 1 << 20, UINT64_MAX };
    int i;

    for (i = 0; i < ARRAY_SIZE(wants); i++) {
        uint64_t room = mm_limit_room(l, resident, wants[i]);

        g_assert_cmpuint(room, <=, wants[i]);
        if (resident < l->limit) {
            g_assert_cmpuint(room, >, 0);
            g_assert_cmpuint(room, ==, MIN(wants[i], l->limit - resident));
        } else if (l->stuck && resident - l->limit < l->reserve) {
            /* one page at a time: the next one looks again */
            g_assert_cmpuint(room, ==, 1);
        } else {
            g_assert_cmpuint(room, ==, 0);
        }
    }
    /* whoever waits has reclaim at work, and it goes on until there is room */
    if (!mm_limit_room(l, resident, 1)) {
        g_assert_true(mm_limit_above_high(l, resident));
        g_assert_true(mm_limit_above_low(l, resident));
    }
    if (mm_limit_above_high(l, resident)) {
        g_assert_true(mm_limit_above_low(l, resident));
    }
    if (!mm_limit_above_low(l, resident)) {
        g_assert_cmpuint(mm_limit_room(l, resident, 1), ==, 1);
    }
}

static void check_rooms(uint64_t pages)
{
    MmLimit l = {};

    mm_limit_set(&l, pages);
    for_all_residents(&l, check_room);
    l.stuck = true;
    for_all_residents(&l, check_room);
}

static void test_room(void)
{
    for_all_limits(check_rooms);
}

static void check_unit(const MmLimit *l, uint64_t resident)
{
    uint64_t room = mm_limit_room(l, resident, l->unit);

    if (resident > UINT32_MAX) {
        return;
    }
    /* all of it or nothing, and then reclaim is at work */
    g_assert_true(room == 0 || room == l->unit);
    g_assert_true(resident + room <= l->limit + l->reserve || !room);
    g_assert_true(room || l->stuck || mm_limit_above_high(l, resident));
    if (resident + l->unit <= l->limit) {
        g_assert_cmpuint(room, ==, l->unit);
    }
    if (!room) {
        g_assert_cmpuint(mm_limit_room(l, resident, 1), ==, 0);
    }
}

/* Pages that come in many at a time. */
static void test_unit(void)
{
    const uint64_t unit = 512;
    uint64_t pages;

    for (pages = MM_LIMIT_UNITS * unit; pages < 64 * unit; pages += 77) {
        MmLimit l = { .unit = unit };
        uint64_t resident;

        mm_limit_set(&l, pages);
        g_assert_cmpuint(l.limit - l.high, >=, unit);
        g_assert_cmpuint(l.high - l.low, >=, unit);
        g_assert_cmpuint(l.reserve, >=, unit);
        for (resident = 0; resident < pages + 3 * unit; resident += 13) {
            l.stuck = false;
            check_unit(&l, resident);
            l.stuck = true;
            check_unit(&l, resident);
        }
        for_all_residents(&l, check_unit);
    }
}

static void test_none(void)
{
    MmLimit l = {};
    bool stuck;

    for (stuck = false; ; stuck = true) {
        mm_limit_set(&l, UINT64_MAX);
        l.stuck = stuck;
        g_assert_cmpuint(mm_limit_room(&l, 0, 1), ==, 1);
        g_assert_cmpuint(mm_limit_room(&l, 1ULL << 52, 64), ==, 64);
        g_assert_false(mm_limit_above_high(&l, 1ULL << 52));
        g_assert_false(mm_limit_above_low(&l, 1ULL << 52));
        if (stuck) {
            break;
        }
    }
}

/* Smaller than a guest can live with: whoever asks, nothing overflows. */
static void test_tiny(void)
{
    uint64_t pages, resident;

    for (pages = 0; pages < MM_LIMIT_MIN_PAGES; pages++) {
        MmLimit l = { .stuck = true };

        mm_limit_set(&l, pages);
        g_assert_cmpuint(l.low, <=, l.high);
        g_assert_cmpuint(l.high, <=, l.limit);
        for (resident = 0; resident < 200; resident++) {
            uint64_t room = mm_limit_room(&l, resident, 64);

            g_assert_true(room == 0 ||
                          resident + room <= l.limit + l.reserve);
        }
    }
}

/* Fills as the fault thread makes them, reclaim between the watermarks. */
static void run_fills(bool can_evict)
{
    uint64_t resident = 0, peak = 0;
    MmLimit l = {};
    bool active = false;
    int i;

    mm_limit_set(&l, g_test_rand_int_range(MM_LIMIT_MIN_PAGES, 9000));
    l.stuck = !can_evict;
    for (i = 0; i < 20000; i++) {
        uint64_t want = g_test_rand_int_range(1, 65);

        resident += mm_limit_room(&l, resident, want);
        peak = MAX(peak, resident);
        active = active ? mm_limit_above_low(&l, resident)
                        : mm_limit_above_high(&l, resident);
        if (active && can_evict) {
            resident -= g_test_rand_int_range(0, MIN(resident, 65));
        }
    }
    if (can_evict) {
        g_assert_cmpuint(peak, <=, l.limit);
        g_assert_cmpuint(peak, >, l.high);
    } else {
        g_assert_cmpuint(peak, ==, l.limit + l.reserve);
    }
}

static void test_fills(void)
{
    int i;

    for (i = 0; i < 50; i++) {
        run_fills(true);
        run_fills(false);
    }
}

static void test_lowered_below_resident(void)
{
    MmLimit l = {};

    mm_limit_set(&l, 10000);
    mm_limit_set(&l, 100);
    g_assert_cmpuint(mm_limit_room(&l, 9000, 1), ==, 0);
    g_assert_true(mm_limit_above_high(&l, 9000));
    /* the reserve is no way round a limit that is far below */
    l.stuck = true;
    g_assert_cmpuint(mm_limit_room(&l, 9000, 1), ==, 0);
}

/* How far over its limit a guest is after @seconds with everything held. */
static uint64_t creep(MmLimit *l, uint64_t seconds)
{
    uint64_t resident = l->limit + l->reserve;
    uint64_t ns = 0;

    while (ns < seconds * 1000000000ULL) {
        uint64_t pause = mm_limit_pause_ns(l, resident);

        g_assert_cmpuint(pause, >, 0);
        g_assert_cmpuint(pause, <, UINT64_MAX);
        ns += pause;
        resident++;
    }
    return resident - l->limit;
}

/*
 * A device that holds all gets what it needs in the end, and whoever lets it
 * hang for ever does not get far beyond the limit.
 */
static void check_creep(uint64_t pages)
{
    MmLimit l = { .stuck = true, .held = true };

    mm_limit_set(&l, pages);
    g_assert_cmpuint(creep(&l, 1), <=, 2 * l.reserve + 2);
    g_assert_cmpuint(creep(&l, 1), >=, 2 * l.reserve - 2);
    g_assert_cmpuint(creep(&l, 3600), <=, 15 * l.reserve);
    g_assert_cmpuint(creep(&l, 86400), <=, 19 * l.reserve);
}

static void test_creep(void)
{
    static const uint64_t limits[] = { MM_LIMIT_MIN_PAGES, 1000, 16384,
                                       1 << 18, 1 << 26 };
    int i;

    for (i = 0; i < ARRAY_SIZE(limits); i++) {
        check_creep(limits[i]);
    }
}

/* What the tiers do not take has no way beyond the reserve. */
static void test_no_creep(void)
{
    MmLimit l = {};

    mm_limit_set(&l, 1000);
    g_assert_cmpuint(mm_limit_pause_ns(&l, l.limit + l.reserve), ==,
                     UINT64_MAX);
    l.stuck = true;
    g_assert_cmpuint(mm_limit_pause_ns(&l, l.limit + l.reserve), ==,
                     UINT64_MAX);
    l.held = true;
    g_assert_cmpuint(mm_limit_pause_ns(&l, l.limit + l.reserve), <,
                     UINT64_MAX);
    l.stuck = false;
    g_assert_cmpuint(mm_limit_pause_ns(&l, l.limit + l.reserve), ==,
                     UINT64_MAX);
    /* a limit of nothing, and none at all */
    l.stuck = true;
    mm_limit_set(&l, 0);
    g_assert_cmpuint(mm_limit_pause_ns(&l, 5), <, UINT64_MAX);
    mm_limit_set(&l, UINT64_MAX);
    g_assert_cmpuint(mm_limit_pause_ns(&l, 5), ==, UINT64_MAX);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/mm/limit/order", test_order);
    g_test_add_func("/mm/limit/room", test_room);
    g_test_add_func("/mm/limit/none", test_none);
    g_test_add_func("/mm/limit/unit", test_unit);
    g_test_add_func("/mm/limit/tiny", test_tiny);
    g_test_add_func("/mm/limit/fills", test_fills);
    g_test_add_func("/mm/limit/lowered", test_lowered_below_resident);
    g_test_add_func("/mm/limit/creep", test_creep);
    g_test_add_func("/mm/limit/no-creep", test_no_creep);
    return g_test_run();
}
