/*
 * Managed memory unit tests: what several of them need
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MM_UNIT_H
#define MM_UNIT_H

#include <dirent.h>
#include <sys/resource.h>

/** expect_death: the rest of this test's subprocess aborts; leave no core. */
static inline void expect_death(void)
{
    const struct rlimit none = { 0, 0 };

    setrlimit(RLIMIT_CORE, &none);
}

/**
 * assert_dies: the test @path, a subprocess test, ends in an assertion
 *
 * @path: as given to g_test_add_func(), contains "/subprocess/"
 * @message: glob pattern of what it says
 */
static inline void assert_dies(const char *path, const char *message)
{
    g_test_trap_subprocess(path, 0, 0);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr(message);
}

/** count_fds: descriptors that are open in this process. */
static inline unsigned count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    unsigned nr = 0;

    g_assert(dir);
    while (readdir(dir)) {
        nr++;
    }
    closedir(dir);
    return nr;
}

#endif
