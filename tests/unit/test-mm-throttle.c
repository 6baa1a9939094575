/*
 * Unit tests: I/O limits of a tier
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The clock is the test's.
 */
#include "qemu/osdep.h"
#include "qemu/units.h"
#include "memory-manager/pager/tier/throttle.h"

#define SECOND 1000000000ULL
#define MAX_BYTES (128 * KiB)

static void set_up(MmThrottle *t, MmMsgIOLimits limits)
{
    mm_throttle_init(t);
    mm_throttle_set(t, &limits);
}

static void test_none(void)
{
    MmThrottle t;
    int i;

    set_up(&t, (MmMsgIOLimits) {});
    for (i = 0; i < 1000; i++) {
        g_assert_cmpuint(mm_throttle_take(&t, GiB, 0), ==, 0);
    }
    mm_throttle_destroy(&t);
}

typedef struct Total {
    uint64_t bytes;
    uint64_t operations;
    uint64_t waits;
} Total;

/* Somebody who wants as much as he can get until @end_ns. */
static Total be_greedy(MmThrottle *t, uint64_t *now_ns, uint64_t end_ns)
{
    Total total = {};

    while (*now_ns < end_ns) {
        uint64_t bytes = g_test_rand_int_range(1, MAX_BYTES + 1);
        uint64_t wait = mm_throttle_take(t, bytes, *now_ns);

        if (!wait) {
            total.bytes += bytes;
            total.operations++;
            *now_ns += g_test_rand_int_range(0, 50000);
            continue;
        }
        /* not a moment too early, and not too late */
        g_assert_cmpuint(mm_throttle_wait(t, *now_ns), ==, wait);
        g_assert_cmpuint(mm_throttle_take(t, bytes, *now_ns + (wait - 1) / 2),
                         >, 0);
        *now_ns += wait;
        g_assert_cmpuint(mm_throttle_wait(t, *now_ns), ==, 0);
        total.waits++;
    }
    g_assert_cmpuint(total.waits, >, 0);
    return total;
}

static void test_bytes(void)
{
    const uint64_t rate = 10 * MiB, seconds = 20;
    uint64_t now = 5 * SECOND;
    MmThrottle t;
    Total total;

    set_up(&t, (MmMsgIOLimits) { .bps = rate });
    total = be_greedy(&t, &now, now + seconds * SECOND);
    g_assert_cmpuint(total.bytes, <=, rate * seconds + rate / 10 + MAX_BYTES);
    g_assert_cmpuint(total.bytes, >=, rate * seconds * 99 / 100);
    mm_throttle_destroy(&t);
}

static void test_operations(void)
{
    const uint64_t rate = 500, seconds = 20;
    uint64_t now = 5 * SECOND;
    MmThrottle t;
    Total total;

    set_up(&t, (MmMsgIOLimits) { .iops = rate });
    total = be_greedy(&t, &now, now + seconds * SECOND);
    g_assert_cmpuint(total.operations, <=, rate * seconds + rate / 10 + 1);
    g_assert_cmpuint(total.operations, >=, rate * seconds * 99 / 100);
    mm_throttle_destroy(&t);
}

/* The tighter one counts, whichever that is. */
static void test_both(void)
{
    const uint64_t seconds = 20;
    uint64_t now = 5 * SECOND;
    MmThrottle t;
    Total total;

    set_up(&t, (MmMsgIOLimits) { .bps = 1 * GiB, .iops = 100 });
    total = be_greedy(&t, &now, now + seconds * SECOND);
    g_assert_cmpuint(total.operations, <=, 100 * seconds + 11);
    mm_throttle_set(&t, &(MmMsgIOLimits) { .bps = 1 * MiB, .iops = 10000 });
    total = be_greedy(&t, &now, now + seconds * SECOND);
    g_assert_cmpuint(total.bytes, <=, MiB * seconds + MiB / 10 + MAX_BYTES);
    mm_throttle_destroy(&t);
}

static unsigned at_once(MmThrottle *t, uint64_t bytes, uint64_t now_ns)
{
    unsigned nr = 0;

    while (!mm_throttle_take(t, bytes, now_ns)) {
        nr++;
    }
    return nr;
}

/* After a pause of any length the burst is there once. */
static void test_burst(void)
{
    uint64_t now = SECOND;
    MmThrottle t;

    set_up(&t, (MmMsgIOLimits) { .bps = MiB, .bps_burst = 8 * MiB });
    g_assert_cmpuint(at_once(&t, MiB, now), ==, 9);
    g_assert_cmpuint(at_once(&t, MiB, now), ==, 0);
    now += SECOND;
    g_assert_cmpuint(at_once(&t, MiB, now), ==, 1);
    now += 1000 * SECOND;
    g_assert_cmpuint(at_once(&t, MiB, now), ==, 9);
    mm_throttle_destroy(&t);
}

/* One that is larger than the burst goes, and those after it pay for it. */
static void test_larger_than_burst(void)
{
    uint64_t now = SECOND;
    MmThrottle t;

    set_up(&t, (MmMsgIOLimits) { .bps = MiB, .bps_burst = MiB });
    g_assert_cmpuint(mm_throttle_take(&t, 8 * MiB, now), ==, 0);
    g_assert_cmpuint(mm_throttle_wait(&t, now), ==, 7 * SECOND + 1);
    g_assert_cmpuint(mm_throttle_take(&t, 1, now + 7 * SECOND + 1), ==, 0);
    mm_throttle_destroy(&t);
}

/* A new limit is one from then on; what was done under the old is forgotten. */
static void test_change(void)
{
    uint64_t now = SECOND;
    MmThrottle t;

    set_up(&t, (MmMsgIOLimits) { .iops = 16 });
    g_assert_cmpuint(at_once(&t, 1, now), ==, 2);
    mm_throttle_set(&t, &(MmMsgIOLimits) { .iops = 16, .iops_burst = 32 });
    g_assert_cmpuint(at_once(&t, 1, now), ==, 33);
    mm_throttle_set(&t, &(MmMsgIOLimits) {});
    g_assert_cmpuint(mm_throttle_take(&t, GiB, now), ==, 0);
    mm_throttle_destroy(&t);
}

/* Threads look at their clocks before they have the lock. */
static void test_clock_goes_back(void)
{
    MmThrottle t;

    set_up(&t, (MmMsgIOLimits) { .iops = 16 });
    at_once(&t, 1, 10 * SECOND);
    g_assert_cmpuint(at_once(&t, 1, 9 * SECOND), ==, 0);
    g_assert_cmpuint(at_once(&t, 1, 10 * SECOND), ==, 0);
    g_assert_cmpuint(at_once(&t, 1, 11 * SECOND), ==, 2);
    mm_throttle_destroy(&t);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/mm/throttle/none", test_none);
    g_test_add_func("/mm/throttle/bytes", test_bytes);
    g_test_add_func("/mm/throttle/operations", test_operations);
    g_test_add_func("/mm/throttle/both", test_both);
    g_test_add_func("/mm/throttle/burst", test_burst);
    g_test_add_func("/mm/throttle/larger-than-burst", test_larger_than_burst);
    g_test_add_func("/mm/throttle/change", test_change);
    g_test_add_func("/mm/throttle/clock-goes-back", test_clock_goes_back);
    return g_test_run();
}
