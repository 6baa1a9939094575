/*
 * Unit tests: looking again before going to sleep
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Not the numbers, but what they have to be good for: what comes soon is
 * awaited, what comes seldom costs nothing, and a CPU that others want is
 * theirs.
 */
#include "qemu/osdep.h"
#include "memory-manager/pager/fault/spin.h"

#define US 1000ULL
#define MS (1000 * US)
#define S (1000 * MS)
#define LOOK_NS (2 * US)
/* A fast disk's reads, and what nobody should spin for. */
#define SOON_NS (50 * US)
#define LATE_NS (5 * MS)

/* Wait for what comes in @gap_ns; returns for how much of that it spun. */
static uint64_t wait_for(MmSpin *s, uint64_t *now_ns, uint64_t gap_ns)
{
    uint64_t began_ns = *now_ns, spun_ns = 0;

    while (*now_ns - began_ns < gap_ns && mm_spin_again(s, *now_ns)) {
        *now_ns += LOOK_NS;
        spun_ns += LOOK_NS;
    }
    *now_ns = MAX(*now_ns, began_ns + gap_ns);
    mm_spin_event(s, *now_ns);
    return spun_ns;
}

static MmSpin busy_spin(uint64_t *now_ns)
{
    MmSpin s = {};
    int i;

    *now_ns = S;
    for (i = 0; i < 10; i++) {
        wait_for(&s, now_ns, SOON_NS);
    }
    return s;
}

static void test_soon(void)
{
    uint64_t now_ns;
    MmSpin s = busy_spin(&now_ns);
    int i;

    for (i = 0; i < 100; i++) {
        g_assert_cmpuint(wait_for(&s, &now_ns, SOON_NS), >=, SOON_NS);
    }
}

static void test_late(void)
{
    uint64_t now_ns, spun_ns = 0, began_ns;
    MmSpin s = busy_spin(&now_ns);
    int i;

    began_ns = now_ns;
    for (i = 0; i < 1000; i++) {
        spun_ns += wait_for(&s, &now_ns, LATE_NS);
    }
    g_assert_cmpuint(spun_ns * 1000, <, now_ns - began_ns);
}

/* Half of it comes soon, half late: what is in vain is bounded. */
static void test_mixed(void)
{
    uint64_t now_ns, spun_ns = 0, began_ns;
    MmSpin s = busy_spin(&now_ns);
    int i;

    began_ns = now_ns;
    for (i = 0; i < 1000; i++) {
        wait_for(&s, &now_ns, SOON_NS);
        spun_ns += wait_for(&s, &now_ns, LATE_NS);
    }
    g_assert_cmpuint(spun_ns * 20, <, now_ns - began_ns);
}

/*
 * How long it does not spin after somebody else has had the CPU; @came:
 * something came meanwhile.
 */
static uint64_t put_off(MmSpin *s, uint64_t *now_ns, bool came)
{
    uint64_t began_ns;

    g_assert_true(mm_spin_again(s, *now_ns));
    *now_ns += 3 * MS;
    began_ns = *now_ns;
    if (!came) {
        g_assert_false(mm_spin_again(s, *now_ns));
    }
    mm_spin_event(s, *now_ns);
    while (!wait_for(s, now_ns, SOON_NS)) {
        g_assert_cmpuint(*now_ns - began_ns, <, 10 * S);
    }
    return *now_ns - began_ns;
}

static void check_preempted(bool came)
{
    uint64_t now_ns;
    MmSpin s = busy_spin(&now_ns);
    uint64_t first = put_off(&s, &now_ns, came), last = first;
    int i;

    g_assert_cmpuint(first, >=, MS);
    for (i = 0; i < 10; i++) {
        uint64_t next = put_off(&s, &now_ns, came);

        g_assert_cmpuint(next + MS, >=, last);
        last = next;
    }
    g_assert_cmpuint(last, >, 10 * first);
    /* alone again for long: as in the beginning */
    now_ns += 100 * S;
    for (i = 0; i < 10; i++) {
        wait_for(&s, &now_ns, SOON_NS);
    }
    g_assert_cmpuint(put_off(&s, &now_ns, came), <=, first + MS);
}

static void test_preempted(void)
{
    check_preempted(false);
    check_preempted(true);
}

/* Work of its own that takes long is no reason. */
static void test_work(void)
{
    uint64_t now_ns;
    MmSpin s = busy_spin(&now_ns);
    int i;

    for (i = 0; i < 100; i++) {
        g_assert_true(mm_spin_again(&s, now_ns));
        mm_spin_busy(&s);
        now_ns += 3 * MS;
        g_assert_cmpuint(wait_for(&s, &now_ns, SOON_NS), >=, SOON_NS);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/managed-memory/spin/soon", test_soon);
    g_test_add_func("/managed-memory/spin/late", test_late);
    g_test_add_func("/managed-memory/spin/mixed", test_mixed);
    g_test_add_func("/managed-memory/spin/preempted", test_preempted);
    g_test_add_func("/managed-memory/spin/work", test_work);
    return g_test_run();
}
