/*
 * Unit tests: whether the host's processors are all wanted
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include "memory-manager/pager/fault/crowd.h"

#define CPUS 4
#define MS 1000000ULL
/* Looks: more than enough for the average to follow. */
#define LONG 1000

static int loadavg_fd;
static uint64_t now_ns = MS;

static void loadavg_is(const char *text)
{
    g_assert_cmpint(ftruncate(loadavg_fd, 0), ==, 0);
    g_assert_cmpint(pwrite(loadavg_fd, text, strlen(text), 0), ==,
                    strlen(text));
}

static void running_are(unsigned nr)
{
    g_autofree char *text = g_strdup_printf("0.52 12.58 0.59 %u/5971 29\n", nr);

    loadavg_is(text);
}

static void sample(MmCrowd *c, unsigned looks)
{
    while (looks--) {
        now_ns += MS;
        mm_crowd_sample(c, now_ns);
    }
}

/* Too many of @of times @times. */
static void sample_mixed(MmCrowd *c, unsigned times, unsigned of)
{
    unsigned i;

    for (i = 0; i < LONG; i++) {
        running_are(i % of < times ? CPUS + 1 : CPUS);
        sample(c, 1);
    }
}

static MmCrowd crowd_new(void)
{
    MmCrowd c;

    loadavg_fd = memfd_create("loadavg", MFD_CLOEXEC);
    g_assert_cmpint(loadavg_fd, >=, 0);
    mm_crowd_init(&c, loadavg_fd, CPUS);
    return c;
}

static void test_enough(void)
{
    MmCrowd c = crowd_new();

    g_assert_false(mm_crowd_is(&c));
    running_are(CPUS);
    sample(&c, LONG);
    g_assert_false(mm_crowd_is(&c));
    close(loadavg_fd);
}

static void test_too_many(void)
{
    MmCrowd c = crowd_new();

    running_are(CPUS + 1);
    sample(&c, LONG);
    g_assert_true(mm_crowd_is(&c));
    running_are(123456);
    sample(&c, LONG);
    g_assert_true(mm_crowd_is(&c));
    close(loadavg_fd);
}

static void test_follows(void)
{
    MmCrowd c = crowd_new();

    /* one burst is none */
    running_are(CPUS + 1);
    sample(&c, 2);
    g_assert_false(mm_crowd_is(&c));
    sample(&c, LONG);
    running_are(1);
    sample(&c, 2);
    g_assert_true(mm_crowd_is(&c));
    sample(&c, LONG);
    g_assert_false(mm_crowd_is(&c));
    close(loadavg_fd);
}

/* However often it is asked, it looks once a millisecond. */
static void test_seldom(void)
{
    MmCrowd c = crowd_new();
    int i;

    running_are(CPUS + 1);
    for (i = 0; i < 1000 * LONG; i++) {
        mm_crowd_sample(&c, ++now_ns);
    }
    g_assert_false(mm_crowd_is(&c));
    close(loadavg_fd);
}

static void test_kernels_own(void)
{
    int fd = mm_crowd_open_loadavg();
    MmCrowd c;

    g_assert_cmpint(fd, >=, 0);
    /* who looks is running, so there is at least one */
    mm_crowd_init(&c, fd, 0);
    sample(&c, LONG);
    g_assert_true(mm_crowd_is(&c));
    mm_crowd_init(&c, fd, 1000000);
    sample(&c, LONG);
    g_assert_false(mm_crowd_is(&c));
    close(fd);
}

/* Where a file of somebody else's lies over it, in a namespace of our own. */
static int open_covered(const char *cover)
{
    if (unshare(CLONE_NEWNS | (geteuid() ? CLONE_NEWUSER : 0)) ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount(cover, "/proc/loadavg", NULL, MS_BIND, NULL)) {
        return -2;
    }
    return mm_crowd_open_loadavg();
}

static void test_covered(void)
{
    g_autofree char *cover = NULL;
    int fd = g_file_open_tmp("loadavg-XXXXXX", &cover, NULL), status;
    pid_t child;

    g_assert_cmpint(fd, >=, 0);
    child = fork();
    if (child == 0) {
        _exit(open_covered(cover) == -1 ? 0 : 1);
    }
    g_assert_cmpint(waitpid(child, &status, 0), ==, child);
    unlink(cover);
    close(fd);
    g_assert_cmpint(status, ==, 0);
}

static void test_share(void)
{
    MmCrowd c = crowd_new();

    sample_mixed(&c, 1, 5);
    g_assert_false(mm_crowd_is(&c));
    sample_mixed(&c, 1, 2);
    g_assert_true(mm_crowd_is(&c));
    sample_mixed(&c, 1, 5);
    g_assert_false(mm_crowd_is(&c));
    close(loadavg_fd);
}

static void test_unreadable(void)
{
    static const char *const texts[] = {
        "", "\n", "0.52", "0.52 0.58 0.59", "0.52 0.58 0.59 ", "9/9 9/9 9/9 x",
    };
    MmCrowd c = crowd_new(), none;
    char lengthy[4096];
    int i;

    for (i = 0; i < ARRAY_SIZE(texts); i++) {
        loadavg_is(texts[i]);
        sample(&c, LONG);
        g_assert_false(mm_crowd_is(&c));
    }
    memset(lengthy, '9', sizeof(lengthy));
    lengthy[sizeof(lengthy) - 1] = '\0';
    loadavg_is(lengthy);
    sample(&c, LONG);
    g_assert_false(mm_crowd_is(&c));
    close(loadavg_fd);

    mm_crowd_init(&none, -1, CPUS);
    sample(&none, LONG);
    g_assert_false(mm_crowd_is(&none));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/managed-memory/crowd/enough", test_enough);
    g_test_add_func("/managed-memory/crowd/too-many", test_too_many);
    g_test_add_func("/managed-memory/crowd/follows", test_follows);
    g_test_add_func("/managed-memory/crowd/seldom", test_seldom);
    g_test_add_func("/managed-memory/crowd/kernels-own", test_kernels_own);
    g_test_add_func("/managed-memory/crowd/covered", test_covered);
    g_test_add_func("/managed-memory/crowd/share", test_share);
    g_test_add_func("/managed-memory/crowd/unreadable", test_unreadable);
    return g_test_run();
}
