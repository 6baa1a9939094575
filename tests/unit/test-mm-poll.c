/*
 * Unit tests: what the fault thread stays awake for
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "memory-manager/pager/fault/poll.h"

#define US 1000ULL
#define MS (1000 * US)
#define S (1000 * MS)
#define LOOK_NS (2 * US)
/* A fast disk's reads, and faults that come as soon. */
#define SOON_NS (50 * US)
#define CPUS 2

static int loadavg_fd = -1;
static uint64_t now_ns = S;

static void running_are(unsigned nr)
{
    g_autofree char *text = g_strdup_printf("0.1 0.2 0.3 %u/99 7\n", nr);

    g_assert_cmpint(pwrite(loadavg_fd, text, strlen(text), 0), ==,
                    strlen(text));
}

static void poll_setup(MmPoll *p)
{
    MmCrowd crowd;

    loadavg_fd = memfd_create("loadavg", MFD_CLOEXEC);
    g_assert_cmpint(loadavg_fd, >=, 0);
    running_are(CPUS);
    mm_crowd_init(&crowd, loadavg_fd, CPUS);
    mm_poll_init(p, crowd);
}

/* Wait for what comes in @gap_ns; returns for how much of that it spun. */
static uint64_t wait_for(MmPoll *p, bool reads, uint64_t gap_ns)
{
    uint64_t began_ns = now_ns, spun_ns = 0;

    while (now_ns - began_ns < gap_ns && mm_poll_again(p, reads, now_ns)) {
        now_ns += LOOK_NS;
        spun_ns += LOOK_NS;
    }
    now_ns = MAX(now_ns, began_ns + gap_ns);
    mm_poll_event(p, now_ns);
    return spun_ns;
}

/* The last one's, when what they could learn has been. */
static uint64_t last_of_many(MmPoll *p, bool reads, uint64_t gap_ns)
{
    uint64_t spun_ns = 0;
    int i;

    for (i = 0; i < 100000; i++) {
        spun_ns = wait_for(p, reads, gap_ns);
    }
    return spun_ns;
}

static void test_to_spare(void)
{
    MmPoll p;

    poll_setup(&p);
    g_assert_cmpuint(last_of_many(&p, true, SOON_NS), >=, SOON_NS);
    g_assert_cmpuint(last_of_many(&p, false, SOON_NS), >=, SOON_NS);
    close(loadavg_fd);
}

static void test_crowded(void)
{
    MmPoll p;

    poll_setup(&p);
    running_are(CPUS + 1);
    g_assert_cmpuint(last_of_many(&p, false, SOON_NS), ==, 0);
    g_assert_cmpuint(last_of_many(&p, true, SOON_NS), >=, SOON_NS);
    /* others have gone, and that is noticed */
    running_are(1);
    g_assert_cmpuint(last_of_many(&p, false, SOON_NS), >=, SOON_NS);
    close(loadavg_fd);
}

/* What comes seldom does not spoil the wait for what comes soon. */
static void test_windows_apart(void)
{
    uint64_t spun_ns = 0, seldom_ns = 0;
    MmPoll p;
    int i;

    poll_setup(&p);
    for (i = 0; i < 1000; i++) {
        spun_ns = wait_for(&p, true, SOON_NS);
        seldom_ns = wait_for(&p, false, 5 * MS);
    }
    g_assert_cmpuint(spun_ns, >=, SOON_NS);
    g_assert_cmpuint(seldom_ns, ==, 0);
    close(loadavg_fd);
}

/* A wait that turns into another one begins anew, and is seen as that. */
static void test_turns(void)
{
    MmPoll p;
    int i;

    poll_setup(&p);
    last_of_many(&p, true, SOON_NS);
    last_of_many(&p, false, SOON_NS);
    for (i = 0; i < 10; i++) {
        g_assert_true(mm_poll_again(&p, true, now_ns));
        now_ns += LOOK_NS;
    }
    /* long, but not one that somebody else has used */
    now_ns += 5 * MS;
    g_assert_true(mm_poll_again(&p, false, now_ns));
    g_assert_true(mm_poll_again(&p, true, now_ns));
    mm_poll_busy(&p);
    now_ns += 5 * MS;
    g_assert_true(mm_poll_again(&p, true, now_ns));
    close(loadavg_fd);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/managed-memory/poll/to-spare", test_to_spare);
    g_test_add_func("/managed-memory/poll/crowded", test_crowded);
    g_test_add_func("/managed-memory/poll/windows-apart", test_windows_apart);
    g_test_add_func("/managed-memory/poll/turns", test_turns);
    return g_test_run();
}
